"""Invoker: one input of a trace, and the block in which sites mean this input's rows."""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from workbench.engine.scan import NOWHERE, Inside, Scan
from workbench.errors import DeferredError, InputError
from workbench.graph.modes import as_outside
from workbench.proxy import Proxy
from workbench.recorder import CURRENT
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
        if self.inputs is None and not (_traced(self._given) or (self._options and _traced(self._options))):
            token = CURRENT.set(None)
            try:
                self.inputs = tracer.model._prepare(*_values(self._given), **self._options)
            finally:
                CURRENT.reset(token)
            self._given = ()
        recorder = tracer._recorder
        recorder.invoke = len(tracer.invokers)
        if self.inputs is not None:
            recorder.given[recorder.block, recorder.invoke] = self.inputs
        tracer.invokers.append(self)

    def __enter__(self) -> Self:
        if self._tracer.invoker is not None:
            raise InputError("an invoke is already open; close it before the next one")
        try:
            self._open()
            self._tracer.invoker = self
            if self._tracer._scan_now and self.inputs is not None:
                self._scan()
            self._replay()
            self._creation.__enter__()
            self._tracer._recorder.notice_grad()
        except BaseException:
            self._creation.close()
            self._tracer.invoker = None
            raise
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
        self._creation.close()
        if self._tracer.invoker is self and not self._tracer._single:
            self._tracer.invoker = None

    def _close(self) -> None:
        """The trace is over; without this, it and its invokes would wait for the garbage collector."""
        del self._tracer

    def _scan(self, inside: Inside = NOWHERE, step: int = 0) -> Scan:
        if self.inputs is None:
            raise DeferredError(
                "shapes are known only in the run here: the input of this trace is itself a traced value"
            )
        tracer, model = self._tracer, self._tracer.model
        if tracer._kind == "generate":
            with as_outside(tracer._outside):
                return model._scan_step(self.inputs, tracer._kwargs, step, inside)
        args, kwargs = model._batch([self.inputs])
        with as_outside(tracer._outside):
            return model._scan(args, {**kwargs, **tracer._kwargs}, inside)

    def _call(self) -> tuple[bool, tuple[Any, ...], dict[str, Any]]:
        """Whether it is prepared already, and its arguments, as a session's graph holds them."""
        if self.inputs is None:
            return False, self._given, self._options
        return True, *self.inputs


def _traced(value: Any) -> bool:
    """Whether a value that exists only in the run is anywhere in an argument."""
    kind = type(value)
    if issubclass(kind, Proxy):
        return value._recording()
    if issubclass(kind, (tuple, list)):
        return any([_traced(each) for each in value])
    if issubclass(kind, dict):
        return any([_traced(each) for each in value.values()])
    return False


def _values(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.value if isinstance(each, Proxy) else each for each in given)
