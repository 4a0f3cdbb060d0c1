"""Session: traces that run one after the other and share their values; loops over them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from workbench.engine.execution import Execution
from workbench.engine.plan import plan
from workbench.envoy import Envoy
from workbench.errors import NotTracingError
from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.source import text, warn_unreached
from workbench.proxy import Proxy
from workbench.recorder import CURRENT, Recorder
from workbench.tracing.creation import Creation
from workbench.tracing.elsewhere import Call, Where, checked, elsewhere, keys_of, names_of
from workbench.tracing.optimizers import RecordedOptimizers
from workbench.tracing.progress import Progress
from workbench.tracing.scope import SHOW_LOG, Scope
from workbench.tracing.shapes import Shapes

if TYPE_CHECKING:
    from workbench.models.base import NNsight


class Looping(Scope):
    """What sessions and the loops in them can do."""

    _block: int

    def iter(self, items: Any, return_context: bool = False) -> Iterator:
        """A loop: its body is recorded once, and runs for each item when the session runs.

        Args:
            items: anything that can be iterated, traced or not: a list, a `DataLoader`, a traced tensor.
            return_context: give `(item, loop)` instead of the item, to use `loop.log`, `loop.cond` and `loop.exit`.

        Example:
            >>> import torch, workbench as wb
            >>> model = wb.NNsight(torch.nn.Identity())
            >>> with model.session() as session:
            ...     with session.iter([1, 2]) as item:
            ...         session.log(item * 10)
            10
            20
        """
        return Iterator(self._recorder, items, return_context)

    def exit(self) -> None:
        """Leave the loop, or the session, at once; what was computed before stays."""
        self._open("exit").add(ops.EXIT, (self._block,))


class Session(Looping):
    """Traces that run in the order in which they are written, when the block ends.

    A value of one trace can be used in the next without being saved, also between two models. Tensors, parameters
    and optimizers made inside belong to the session and are made when it runs.

    After the block: `graph` is what was recorded, `logs` the lines that `log` wrote, `job` what a server was asked.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Linear(1, 1))
        >>> with model.session():
        ...     with model.trace(torch.tensor([[1.0]])):
        ...         first = model.output
        ...     with model.trace(torch.tensor([[2.0]])):
        ...         model.output = first
        ...         second = model.output.save()
        >>> torch.equal(second.value, model.module(torch.tensor([[1.0]])))
        True
    """

    def __init__(self, model: NNsight, remote: Where = False, blocking: bool = True) -> None:
        self.model = model
        self.job: Any = None
        self._remote = remote
        self._blocking = blocking
        self.graph: Graph | None = None
        self.logs: list[str] = []
        self._recorder = Recorder(None, Proxy, "session")
        self._block = 0
        self._progress = Progress()
        self._shapes = Shapes(self._recorder)
        self._creation = Creation()
        self._optimizers = RecordedOptimizers()
        self._entered = False

    def __enter__(self) -> Self:
        if CURRENT.get() is not None:
            raise NotTracingError("a trace or session is already open here; a session cannot stand inside another")
        if self._recorder.finished or self._entered:
            raise NotTracingError("this session was used already; call .session() again")
        self._entered = True
        try:
            self._recorder.fake = self._shapes.fake
            CURRENT.set(self._recorder)
            self._creation.__enter__()
            self._optimizers.enter()
            if self._remote:
                self._recorder.check = checked(self._recorder)
        except BaseException:
            self._leave(BaseException)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(kind)
        except BaseException:  # an interrupt: once more, what is closed already stays so
            self._leave(BaseException)
            raise
        try:
            if error is not None:
                reason = f"the session was left by {kind.__name__ if kind else 'an error'} before it could run"
                self._recorder.finish({}, lambda id: reason)
            else:
                self._run(names_of(self._recorder, sys._getframe(1)) if self._remote else {})
        finally:
            if self._blocking or self.job is None:
                self._recorder.release()
            self._shapes.release()

    def _leave(self, kind: type[BaseException] | None) -> None:
        self._creation.close()
        self._optimizers.close()
        CURRENT.set(None)
        if kind is not None and not issubclass(kind, Exception):
            self._recorder.interrupted()

    def _run(self, names: dict[int, str]) -> None:
        self._recorder.check = None
        self.graph = self._recorder.freeze()
        if self._remote:
            plan(self.graph)
            bindings = self._recorder.bindings
            used = [each for each in bindings.values() if isinstance(each, Envoy)]
            call = Call(self._recorder, self.graph, bindings, keys_of(used or [self.model]), self._log, names=names)
            self.job = elsewhere().run(call, self._remote, self._blocking)
            return
        execution = Execution(plan(self.graph), self._recorder.bindings, self._log, self._progress.follow)

        def run() -> Execution:
            execution.run_session()
            return execution

        finish(self._recorder, run)

    def _log(self, line: str) -> None:
        self.logs.append(line)
        self._progress.aside(SHOW_LOG.get(), line)


class Iterator(Looping):
    """A loop, being written."""

    def __init__(self, recorder: Recorder, items: Any, return_context: bool) -> None:
        self._recorder = recorder
        self._items = items
        self._return_context = return_context
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        recorder = self._open("iter")
        if recorder.blocks[recorder.block].kind not in ("session", "loop"):
            raise NotTracingError(
                "a loop stands in a session, around traces, not inside one: "
                "`with model.session() as session: with session.iter(items) as item: with model.trace(...): ...`"
            )
        self._block = self._stack.enter_context(recorder.opened("loop", None))
        item = recorder.add(ops.ITEM, ())
        return (item, self) if self._return_context else item

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is None:
            self._recorder.add(ops.LOOP, (self._block, self._items))
        self._items = None


def finish(recorder: Recorder, run: Callable[[], Execution]) -> None:
    """Run, and hand out what was kept; say what was written and did nothing."""
    try:
        execution = run()
    except BaseException as error:
        reason = f"the run ended in {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        recorder.finish({}, lambda id: reason)
        raise
    recorder.finish(execution.saved, execution.reason)
    execution.release()
    for site, node, why in execution.idle():
        warn_unreached(site, text(node.line), why)
