"""One tree of errors. Each message names the place, what was found, and the cure."""

from __future__ import annotations

from typing import Any


class WorkbenchError(Exception):
    """The root of all errors raised on purpose here.

    `line` is the user's own source line when one is to blame, as `cell line 4: x = model.layer1.output`.
    """

    line: str | None = None


class InputError(ValueError, WorkbenchError):
    """An argument cannot be used as given."""


class PathError(AttributeError, LookupError, WorkbenchError):
    """No module has this name."""


class NotTracingError(RuntimeError, WorkbenchError):
    """Something that only means anything inside a trace was used outside one."""


class DeferredError(TypeError, WorkbenchError):
    """A traced value was asked, before the run, for what only the run can tell."""


class NotSetError(ValueError, WorkbenchError):
    """A traced value has no value: not saved, not reached, or not run yet."""


class OrderError(ValueError, WorkbenchError):
    """A site was to be set from something that is computed after it."""


class SourceError(TypeError, WorkbenchError):
    """A forward whose inside was asked for cannot be opened."""


class WireError(ValueError, WorkbenchError):
    """Something cannot be kept in a file or sent, or what was read is not allowed."""


class MissingWeightsWarning(UserWarning):
    """A model was opened with weights that its files do not have: these are random."""


class NeverReachedWarning(UserWarning):
    """An intervention did nothing, since its site was never reached."""


class TrainModeWarning(UserWarning):
    """A model was traced in train mode: its dropout makes each run another."""


class NodeError(WorkbenchError):
    """Mixed into the error a node raised while running, so that it says which node and which line.

    The original type stays: an `IndexError` in the graph is still caught by `except IndexError`.
    """


class Cancelled(BaseException):
    """Raised into a running trace from another thread to end it; no `except Exception` may swallow it."""


_located: dict[type[BaseException], type[BaseException]] = {}


def located(error: Exception, message: str, line: str | None) -> Exception:
    """The same kind of error with a message that says where in the user's program it came from.

    Types that refuse another base or argument list are kept, and get the message as a note.
    """
    kind: Any = type(error)
    if kind not in _located:
        try:
            bases: tuple[type, ...] = (kind, NodeError)
            _located[kind] = type(kind.__name__, bases, {"__module__": kind.__module__, "__str__": _text})
        except TypeError:
            error.add_note(message)
            return error
    new = _located[kind].__new__(_located[kind], message)
    new.args = (message,)
    new.__dict__.update(error.__dict__)
    assert isinstance(new, NodeError)
    new.line = line
    return new


def _text(self: BaseException) -> str:
    return str(self.args[0])
