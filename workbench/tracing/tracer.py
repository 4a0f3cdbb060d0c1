"""Tracer: the `with model.trace(...)` block, recorded while its body runs, run with the model once it is left."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from workbench.engine.fakes import evaluate, late_writes
from workbench.engine.interleaver import Run, too_late, why_unreached
from workbench.engine.plan import Plan, plan
from workbench.engine.scan import Scan
from workbench.envoy import module_paths
from workbench.errors import InputError, NeverReachedWarning, NotTracingError, located
from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.node import Ref
from workbench.graph.source import Line, caller, text
from workbench.proxy import Proxy
from workbench.recorder import CURRENT, Recorder, not_recording
from workbench.tracing.invoker import Invoker

if TYPE_CHECKING:
    from workbench.models.base import NNsight


SHOW_LOG: ContextVar[Callable[[str], None]] = ContextVar("workbench.show_log", default=print)
"""What shows a log line as it is written: `print`, unless a panel that shows its own runs' lines has taken over."""


class Tracer:
    """One forward pass, being written.

    After the block: `graph` is what was recorded (print it), `logs` the lines that `log` wrote.
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
    ) -> None:
        self.model = model
        self.invoker: Invoker | None = None
        self.invokers: list[Invoker] = []
        self.logs: list[str] = []
        self.graph: Graph | None = None
        self._inputs = inputs
        self._kwargs = kwargs
        self._invoker_args = invoker_args
        self._scan_now = scan or validate
        self._validate = validate
        self._recorder = Recorder(model, Proxy)
        self._token: Token[Recorder | None] | None = None
        self._line: Line = ("<unknown>", 0)

    # ---- the block

    def __enter__(self) -> Self:
        if CURRENT.get() is not None:
            raise NotTracingError("a trace is already open here; open the next one after it, or use tracer.invoke(...)")
        if self._recorder.finished or self._token is not None:
            raise NotTracingError("this trace was used already; call .trace(...) again")
        self._line = caller()
        self._recorder.fake = self._fake
        self._token = CURRENT.set(self._recorder)
        if self._inputs:
            try:
                Invoker(self, self._inputs, self._invoker_args).__enter__()
            except BaseException:
                CURRENT.reset(self._token)
                self._recorder.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        if self.invoker is not None:
            self.invoker.__exit__(kind, error, trace)
        CURRENT.reset(self._token)
        try:
            if error is not None:
                reason = f"the trace was left by {kind.__name__ if kind else 'an error'} before it could run"
                self._recorder.finish({}, lambda id: reason)
            else:
                self._finish()
        finally:
            self._recorder.release()
            self._inputs = ()
            self._kwargs = {}
            for invoker in self.invokers:
                invoker._release()

    def _finish(self) -> None:
        if not self.invokers:
            raise InputError(
                f"this trace was given no input ({text(self._line)}); "
                "write model.trace(input), or `with tracer.invoke(input):` inside it"
            )
        self.graph = self._recorder.freeze()
        self._run(plan(self.graph))

    def _run(self, plan: Plan) -> None:
        model = self.model
        module = model._ready()
        prepared = [invoker.inputs for invoker in self.invokers]
        args, kwargs = model._batch(prepared)
        if any(here.late for here in plan.sites.values()):
            self._refuse_late_writes(plan)
        run = Run(plan, module_paths(model), self._recorder.bindings, model._rows(prepared), self._log)
        try:
            with torch.no_grad():
                run.execute(lambda: model._forward(module, *args, **{**kwargs, **self._kwargs}))
        except BaseException as error:
            reason = f"the run ended in {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self._recorder.finish({}, lambda id: reason)
            raise
        self._recorder.finish(run.saved, run.reason)
        run.release()
        if run.stopped is None:
            for site, node in run.idle():
                warnings.warn(
                    f"{site} was never reached, so this did nothing: {text(node.line)}: {why_unreached(site)}",
                    NeverReachedWarning,
                    stacklevel=4,
                )

    def _refuse_late_writes(self, plan: Plan) -> None:
        scan = self._scanned()
        found = late_writes(scan, plan)
        if found:
            node, site, after = found[0]
            error = too_late(node, site, " and ".join(map(str, after)))
            self._recorder.finish({}, lambda id: f"the trace was refused: {error}")
            raise error

    # ---- inside the block

    def invoke(self, *inputs: Any, **options: Any) -> Invoker:
        """One input of several that share this forward pass; sites inside its block are its own rows only.

        Args:
            inputs: as for `model.trace`.
            options: for preparing the input, such as `max_length`.
        """
        if self._inputs:
            raise InputError(
                "this trace was given an input already; for several, write `with model.trace() as tracer:` and "
                "give each one by tracer.invoke(...)"
            )
        return Invoker(self, inputs, options)

    def log(self, *values: Any) -> None:
        """Print values, traced or not, at the moment of the run when all of them exist."""
        self._recorder.add(ops.LOG, values)

    def stop(self) -> None:
        """End the run at once: nothing of the model is computed. To stop at a site, use `site.stop()`."""
        self._recorder.add(ops.STOP, ())

    def _log(self, line: str) -> None:
        self.logs.append(line)
        SHOW_LOG.get()(line)

    # ---- shapes

    def _scanned(self) -> Scan:
        """A scan of the first invoke: sites come in the same order for all of them."""
        return self.invokers[0]._scan()

    def _fake(self, id: int) -> Any:
        """A node's fake value; an error of the node itself is raised as it will be in the run."""
        recorder = self._recorder
        node = recorder.nodes[id]
        invoker = self.invokers[node.invoke] if self.invokers else None
        if invoker is None:
            raise InputError("shapes are known only inside an invoke: give this trace an input")
        scan = invoker._scan()
        if not scan.known:
            raise NotTracingError(f"shapes are {scan.how}")
        try:
            with not_recording():
                return evaluate(scan, recorder.nodes, id, recorder.bindings, invoker._fakes)
        except Exception as error:
            raise located(
                error, f"{error}\nWhile working out the shape of {node} — {text(node.line)}", text(node.line)
            ) from error


class ScanContext(Tracer):
    """`with model.scan(x):` — shapes can be asked for, nothing real is run."""

    def _finish(self) -> None:
        self.graph = self._recorder.freeze()
        self._recorder.finish({}, lambda id: "this was a scan, which runs nothing: use model.trace(...)")


__all__ = ["Ref", "ScanContext", "Tracer"]
