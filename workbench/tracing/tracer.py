"""Tracer: the `with model.trace(...)` block, recorded while its body runs, run with the model once it is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from workbench.engine.execution import Execution
from workbench.engine.fakes import late_writes
from workbench.engine.frame import too_late
from workbench.engine.plan import Plan, plan
from workbench.engine.scan import NOWHERE, Inside, Scan
from workbench.envoy import Envoy
from workbench.errors import InputError, NotTracingError
from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.modes import state
from workbench.graph.source import UNKNOWN, Line, caller, text, warn
from workbench.proxy import Proxy, settled
from workbench.recorder import CURRENT, Recorder
from workbench.tracing.cache import KEEP, Cache
from workbench.tracing.elsewhere import Call, Where, checked, elsewhere, keys_of, names_of
from workbench.tracing.invoker import Invoker
from workbench.tracing.scope import SHOW_LOG, Scope
from workbench.tracing.session import finish
from workbench.tracing.shapes import Shapes
from workbench.tracing.split import run_split
from workbench.tracing.steps import Steps, StepsOf

if TYPE_CHECKING:
    from workbench.models.base import NNsight


class Tracer(Scope):
    """One forward pass, being written.

    After the block: `graph` is what was recorded (print it), `logs` the lines that `log` wrote, `job` what a server
    was asked to do. Inside a session the pass is a part of the session's graph, and runs with it.
    """

    def __init__(
        self,
        model: NNsight,
        inputs: tuple[Any, ...],
        kwargs: dict[str, Any],
        invoker_args: dict[str, Any],
        *,
        scan: bool,
        validate: bool,
        batch_size: int | None = None,
        kind: Literal["trace", "generate"] = "trace",
        remote: Where = False,
        blocking: bool = True,
    ) -> None:
        self.model = model
        self.invoker: Invoker | None = None
        self.invokers: list[Invoker] = []
        self.logs: list[str] = []
        self.graph: Graph | None = None
        self.job: Any = None
        self._remote = remote
        self._blocking = blocking
        self._inputs = inputs
        self._single = bool(inputs)
        self._kwargs = kwargs
        self._invoker_args = invoker_args
        self._batch_size = batch_size
        self._scan_now = scan or validate
        self._validate = validate
        self._kind: Literal["trace", "generate"] = kind
        self._recorder = Recorder(model, Proxy, kind)
        self._shapes = Shapes(self._recorder)
        self._block = 0
        self._outer_aside: Any = None
        self._outer_check: Callable[[int], None] | None = None
        self._session = False
        self._entered = False
        self._around: AbstractContextManager[int] | None = None  # the session's block
        self._line: Line = UNKNOWN
        self._asides: dict[Any, int] = {}

    # ---- the block

    def __enter__(self) -> Self:
        if self._entered:
            raise NotTracingError("this trace was used already; call .trace(...) again")
        self._entered = True
        self._line = caller()
        try:
            self._enter()
        except BaseException:
            self._abandon()
            raise
        return self

    def _enter(self) -> None:
        around = CURRENT.get()
        if around is not None:
            self._enter_session(around)
        else:
            CURRENT.set(self._recorder)
            self._recorder.fake = self._shapes.fake
        self._outside = self._recorder.outside if around is None else state()
        self._outer_aside, self._recorder.aside = self._recorder.aside, self._aside
        self._outer_check = self._recorder.check  # a session's, which goes on behind this pass
        self._shapes.register(self._block, self._scan_of)
        if self._kwargs:
            self._kwargs = {name: settled(value) for name, value in self._kwargs.items()}
        if not self._inputs and any(isinstance(value, Tensor) for value in self._kwargs.values()):
            named = {name: value for name, value in self._kwargs.items() if isinstance(value, Tensor)}
            self._kwargs = {name: value for name, value in self._kwargs.items() if name not in named}
            self._invoker_args = {**named, **self._invoker_args}
            self._single = True
        if self._single:
            Invoker(self, self._inputs, self._invoker_args).__enter__()
        if self._validate:
            self._recorder.check = _both(self._outer_check, self._shapes.check)
        if self._remote and not self._session:
            self._recorder.check = checked(self._recorder, self._recorder.check)

    def _enter_session(self, around: Recorder) -> None:
        if around.blocks[around.block].kind not in ("session", "loop") or around.fake is None:
            raise NotTracingError("a trace is already open here; open the next one after it, or use tracer.invoke(...)")
        self._session = True
        self._recorder = around
        self._shapes = around.fake.__self__  # type: ignore[attr-defined]  # the session's
        opened = around.opened(self._kind, self.model)
        self._block = opened.__enter__()
        self._around = opened

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.invoker is not None:
                self.invoker.__exit__(kind, error, trace)
            self._leave(None if error is None else kind, keep=error is None)
        except BaseException:
            self._abandon()
            raise
        try:
            if error is None:
                self._finish(sys._getframe(1) if self._remote else None)
        finally:
            if not self._session and (self._blocking or self.job is None):
                self._recorder.release()
                self._shapes.release()
                for invoker in self.invokers:
                    invoker._close()
            self._inputs = ()
            self._kwargs = {}

    def _leave(self, kind: type[BaseException] | None = None, keep: bool = False) -> None:
        """Close what was opened; without `keep` the trace will not run."""
        self._recorder.check = self._outer_check
        self._recorder.aside = self._outer_aside
        if self._around is not None:
            self._around.__exit__(None, None, None)
        if not self._session:
            if kind is not None and not issubclass(kind, Exception):
                self._recorder.interrupted()
            CURRENT.set(None)
            if not keep:
                reason = f"the trace was left by {kind.__name__ if kind else 'an error'} before it could run"
                self._recorder.finish({}, lambda id: reason)

    def _abandon(self) -> None:
        """An error or an interrupt came while this was being opened or closed: whatever is open is to be closed."""
        if self.invoker is not None:
            self.invoker._creation.close()
        if self._session or CURRENT.get() is self._recorder:
            self._leave(sys.exc_info()[0])

    def _finish(self, frame: FrameType | None) -> None:
        if self._batch_size is not None and (self._batch_size < 1 or self._session or not self._single):
            raise InputError(
                f"batch_size= splits the prompts of one {self._kind}, model.{self._kind}(prompts, batch_size=8), at "
                f"least one at a time; it goes with no session and no tracer.invoke ({text(self._line)})"
            )
        if not self.invokers:
            raise InputError(
                f"this trace was given no input ({text(self._line)}); "
                "write model.trace(input), or `with tracer.invoke(input):` inside it"
            )
        if self._session:
            calls = tuple(invoker._call() for invoker in self.invokers)
            self._recorder.add(ops.TRACE, (self._block, self.model, calls, self._kwargs))
            return
        self.graph = self._recorder.freeze()
        planned = plan(self.graph)
        if self._remote:
            self._send(planned, names_of(self._recorder, frame))
        else:
            self._run(planned)

    def _send(self, plan: Plan, names: dict[int, str]) -> None:
        """Have a server run it."""
        if self._batch_size is not None:
            raise InputError(
                f"batch_size= splits a pass that runs here; leave it out with remote= ({text(self._line)})"
            )
        if any(here.late for here in plan.blocks[0].sites.values()):
            self._refuse_late_writes(plan)
        bindings = self._recorder.bindings
        models = [self.model, *(each for each in bindings.values() if isinstance(each, Envoy))]
        prepared = [invoker.inputs for invoker in self.invokers if invoker.inputs is not None]
        call = Call(self._recorder, plan.graph, bindings, keys_of(models), self._log, prepared, self._kwargs, names)
        self.job = elsewhere().run(call, self._remote, self._blocking)

    def _run(self, plan: Plan) -> None:
        prepared = [invoker.inputs for invoker in self.invokers if invoker.inputs is not None]
        if plan.blocks[0].late:
            self._refuse_late_writes(plan)
        bindings = self._recorder.bindings

        def execute(inputs: list[Any]) -> Execution:
            passing = self.model._passing(inputs, self._kwargs, self._kind == "generate")
            execution = Execution(plan, bindings, self._log)
            execution.run_pass(passing)
            return execution

        size = self._batch_size
        if size is None:
            finish(self._recorder, lambda: execute(prepared))
            return
        whole, recorder = prepared[0], self._recorder
        finish(
            recorder, lambda: run_split(self.model, recorder, whole, self._kwargs, size, lambda part: execute([part]))
        )

    def _refuse_late_writes(self, plan: Plan) -> None:
        found = late_writes(self._scan_of(0), plan, plan.blocks[0])
        if found:
            node, site, after = found[0]
            error = too_late(node, site, " and ".join(map(str, after)))
            self._recorder.finish({}, lambda id: f"the trace was refused: {error}")
            raise error

    # ---- inside the block

    @property
    def result(self) -> Any:
        """What the whole model returns, or the whole generation, as a traced value."""
        return self.model._root.output if self._kind == "trace" else self.model._generated()

    @property
    def iter(self) -> StepsOf:
        """Steps of a generation: `with tracer.iter[1:3]:` is recorded once, and run in steps 1 and 2.

        Step 0 reads the whole prompt, each later step the token before it. What is appended to a list made outside
        the block (`workbench.list()`) is all there after the block; what is saved inside is of the last step.
        """
        self._open("iter")
        return StepsOf(self._recorder)

    def all(self) -> Steps:
        """A block that is run in every step of a generation: `with tracer.all():`."""
        return self.iter[:]

    def invoke(self, *inputs: Any, **options: Any) -> Invoker:
        """One input of several that share this forward pass; sites inside its block are its own rows only.

        Args:
            inputs: as for `model.trace`.
            options: for preparing the input, such as `max_length`.
        """
        if self._single:
            raise InputError(
                "this trace was given an input already; for several, write `with model.trace() as tracer:` and "
                "give each one by tracer.invoke(...)"
            )
        return Invoker(self, inputs, options)

    @contextmanager
    def _aside(self, given: Any) -> Iterator[None]:
        """What is recorded meanwhile is of another input, which joins the same pass as an invoke of its own.

        The same input, given again, is the same invoke. None stands for the open invoke's own input, once more and
        without what was done to it.
        """
        if self._batch_size is not None:
            raise InputError(
                "batch_size= splits the prompts of one trace; another prompt's values need one pass: leave it out"
            )
        recorder = self._open("another prompt")
        key = ("again", recorder.invoke) if given is None else given
        before = recorder.invoke, recorder.block, recorder.guard
        number = self._asides.get(key)
        if number is None:
            invoker = Invoker(self, (given,), {})
            if given is None:
                invoker.inputs = self.invokers[recorder.invoke].inputs
            recorder.block, recorder.guard = self._block, None
            try:
                number = self._asides[key] = len(self.invokers)
                invoker._open()
                invoker._replay()
            except BaseException:
                self._asides.pop(key)
                raise
            finally:
                recorder.invoke, recorder.block, recorder.guard = before
        recorder.invoke = number
        try:
            yield
        finally:
            recorder.invoke = before[0]

    def cache(
        self,
        modules: Iterable[Envoy | str] | None = None,
        *,
        inputs: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        detach: bool = True,
    ) -> Cache:
        """Keep what many modules give, as it leaves each of them, edits included up to this line.

        Args:
            modules: Envoys or paths; None for all modules of the model.
            inputs: keep `(args, kwargs)` of each call too.
            device: move kept tensors there, as "cpu".
            dtype: convert kept floating-point tensors, as `torch.float16`.
            detach: keep no gradients' graph.
        """
        recorder = self._open("cache")
        root = self.model._root
        chosen = root.walk() if modules is None else (root.find(m) if isinstance(m, str) else m for m in modules)
        cache = Cache()
        for envoy in chosen:
            path = envoy.path
            settings = (device, dtype, detach)
            cache._outputs[path] = recorder.add(KEEP, (recorder.site(path, "output"), *settings)).save()
            if inputs:
                cache._inputs[path] = recorder.add(KEEP, (recorder.site(path, "input"), *settings)).save()
        return cache

    def stop(self) -> None:
        """End the run at once: nothing of the model is computed. To stop at a site, use `site.stop()`."""
        self._open("stop").add(ops.STOP, ())

    def _log(self, line: str) -> None:
        self.logs.append(line)
        SHOW_LOG.get()(line)

    # ---- shapes

    def _scan_of(self, invoke: int, inside: Inside = NOWHERE, step: int = 0) -> Scan:
        if not self.invokers:
            raise InputError("shapes are known only inside an invoke: give this trace an input")
        scan = self.invokers[min(invoke, len(self.invokers) - 1)]._scan(inside, step)
        if self._validate and not scan.known:
            warn(f"nothing can be validated: shapes are {scan.how}")
            self._validate = False
        return scan


class ScanContext(Tracer):
    """`with model.scan(x):` — shapes can be asked for, nothing real is run."""

    def _finish(self, frame: FrameType | None) -> None:
        self.graph = self._recorder.freeze()
        self._recorder.finish({}, lambda id: "this was a scan, which runs nothing: use model.trace(...)")


def _both(first: Callable[[int], None] | None, second: Callable[[int], None]) -> Callable[[int], None]:
    if first is None:
        return second

    def check(id: int) -> None:
        first(id)
        second(id)

    return check


__all__ = ["SHOW_LOG", "ScanContext", "Tracer"]
