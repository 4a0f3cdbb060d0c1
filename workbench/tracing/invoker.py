"""Invoker: one input of a trace, and the block in which sites mean this input's rows."""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from workbench.engine.scan import NOWHERE, Inside, Scan
from workbench.errors import DeferredError, InputError
from workbench.proxy import Proxy
from workbench.recorder import not_recording
from workbench.tracing.creation import Creation

if TYPE_CHECKING:
    from workbench.tracing.tracer import Tracer


class Invoker:
    """One input. `inputs` is what the model will be called on, `(args, kwargs)`, after preparation (tokens, …).

    An input that is itself a traced value, as in a loop, is prepared when the run has it; `inputs` is then None.
    """

    def __init__(self, tracer: Tracer, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._tracer = tracer
        self._given = inputs
        self._options = options
        self._creation = Creation()

    def _open(self) -> None:
        tracer = self._tracer
        if not self._given and not self._options:
            raise InputError("an invoke needs an input: tracer.invoke(input)")
        if self.inputs is None and not _traced((self._given, self._options)):
            with not_recording():
                self.inputs = tracer.model._prepare(*_values(self._given), **self._options)
            self._given = ()
        tracer._recorder.invoke = len(tracer.invokers)
        tracer.invokers.append(self)

    def __enter__(self) -> Self:
        if self._tracer.invoker is not None:
            raise InputError("an invoke is already open; close it before the next one")
        self._open()
        self._tracer.invoker = self
        if self._tracer._scan_now and self.inputs is not None:
            self._scan()
        self._replay()
        self._creation.__enter__()
        return self

    def _replay(self) -> None:
        """Do to this input what the model's edits say."""
        recorder = self._tracer._recorder
        for edit in self._tracer.model._edits:
            with recorder.in_steps(0, None, 1) if self._tracer._kind == "generate" else nullcontext():
                recorder.replay(edit.graph, edit.bindings)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._creation.__exit__(kind, error, trace)
        if self._tracer.invoker is self and not self._tracer._single:
            self._tracer.invoker = None

    def _scan(self, inside: Inside = NOWHERE) -> Scan:
        if self.inputs is None:
            raise DeferredError(
                "shapes are known only in the run here: the input of this trace is itself a traced value"
            )
        model = self._tracer.model
        args, kwargs = model._batch([self.inputs])
        more = {} if self._tracer._kind == "generate" else self._tracer._kwargs
        return model._scan(args, {**kwargs, **more}, inside)

    def _call(self) -> tuple[bool, tuple[Any, ...], dict[str, Any]]:
        """Whether it is prepared already, and its arguments, as a session's graph holds them."""
        if self.inputs is None:
            return False, self._given, self._options
        return True, *self.inputs


def _traced(value: Any) -> bool:
    """Whether a value that exists only in the run is anywhere in an argument."""
    if isinstance(value, Proxy):
        return value._recording()
    if isinstance(value, (tuple, list)):
        return any(map(_traced, value))
    if isinstance(value, dict):
        return any(map(_traced, value.values()))
    return False


def _values(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.value if isinstance(each, Proxy) else each for each in given)
