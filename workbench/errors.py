"""One tree of errors. Each message names the place, what was found, and the cure."""

from __future__ import annotations

from typing import Any, NamedTuple, Self


class Location(NamedTuple):
    """A line of the user's own, as data: its file (of a cell, the name that the kernel gave it), its number from 1, and
    as a person reads it, `cell line 4: x = model.layer1.output`. `number` is 0 where only the text is known."""

    file: str
    number: int
    text: str


class WorkbenchError(Exception):
    """The root of all errors raised on purpose here.

    When a line of the user's is to blame, `line` is its text, as `cell line 4: x = model.layer1.output`, and `location`
    the same as data.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Linear(2, 3))
        >>> try:
        ...     with model.trace(torch.ones(1, 2)):
        ...         model.output[:, 3] = 0
        ... except IndexError as error:
        ...     error.location.number, error.line.split(": ")[1]
        (3, 'model.output[:, 3] = 0')
    """

    line: str | None = None
    location: Location | None = None

    def at(self, location: Location) -> Self:
        """The same error, saying which line is to blame."""
        self.line, self.location = location.text, location
        return self


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


class ModeError(RuntimeError, WorkbenchError):
    """A mode of PyTorch's was entered inside a trace that cannot be recorded."""


class SourceError(TypeError, WorkbenchError):
    """A forward whose inside was asked for cannot be opened."""


class WireError(ValueError, WorkbenchError):
    """Something cannot be kept in a file or sent, or what was read is not allowed."""


class RemoteError(RuntimeError, WorkbenchError):
    """A server refused a job, lost it, or does not answer. `status` is the HTTP status, if there was an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


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


def located(error: Exception, message: str, line: Location | str | None) -> Exception:
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
    return new.at(line) if isinstance(line, Location) else new.at(Location("", 0, line)) if line else new


def _text(self: BaseException) -> str:
    return str(self.args[0])
