"""Execution: one run of a graph. All run state lives here, none in the graph, the plan or the model."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workbench.engine.axes import Layout
from workbench.engine.batching import Cut, Rows
from workbench.engine.divided import Divided, Parallel
from workbench.engine.frame import MISSING, Frame, Stopped
from workbench.engine.gradients import backward
from workbench.engine.interleaver import Interleaver
from workbench.engine.offloaded import weight_of
from workbench.engine.plan import GradSite, Plan, sites_of
from workbench.engine.values import copied, shape_text
from workbench.errors import NodeError, located
from workbench.graph import operations as ops
from workbench.graph.modes import entered
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.source import UNKNOWN, Line, location, where
from workbench.site import Site


@dataclass(slots=True)
class Passing:
    """A forward pass that is about to be made.

    `forward` makes it, `modules` maps paths to modules, `rows` gives each invoke its part of the batch (None for a
    single invoke) and `layout` says which axes these rows lie along, `trained` gives the parameters that a user
    attached to the model. In a generation the model is called for each new token: `ended` says of an invoke's rows
    whether all have come to their end, `finish` takes what came of it, and `stepping` is the module that each step
    calls once. `around` is entered for a pass that looks inside forwards, with the names of the calls it looks at.
    `divided` puts values together that lie in several processes.
    """

    forward: Callable[[], Any]
    modules: Mapping[str, nn.Module]
    rows: Sequence[Rows] | None = None
    trained: Callable[[], list[Tensor]] | None = None
    layout: Layout | None = None
    finish: Callable[[Any], Any] | None = None
    ended: Callable[[Rows], bool] | None = None
    stepping: str = ""
    around: Callable[[set[str]], AbstractContextManager[None]] | None = None
    divided: Divided | None = None


class Model(Protocol):
    """What an execution asks of a model."""

    def _prepare(self, *inputs: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]: ...

    def _passing(self, prepared: list[Any], kwargs: dict[str, Any], generate: bool) -> Passing: ...

    def _live(self) -> Mapping[str, nn.Module]: ...

    def _parallel(self) -> Parallel | None: ...


class LogText(str):
    """A line that was logged, with the line of code that did it and the sites whose values are in it."""

    at: Line
    sites: tuple[Site, ...]


class Exit(BaseException):
    """Leaves a loop or a session; never seen by the user."""

    def __init__(self, block: int, line: Line) -> None:
        self.block = block
        self.line = line


class Execution:
    """One run of a planned graph. Afterwards `saved` holds the kept values by node."""

    def __init__(
        self,
        plan: Plan,
        bindings: Mapping[str, Any],
        log: Callable[[str], None] = print,
        follow: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> None:
        self.plan = plan
        self.bindings = bindings
        self.log = log
        self.follow = follow
        self.saved: dict[int, Any] = {}
        self.env: list[Any] = [MISSING] * len(plan.graph.nodes)
        self.uses = plan.uses.copy()
        self.reached: list[set[Site | GradSite]] = [set() for _ in plan.blocks]
        self.stopped: dict[int, Line] = {}
        self.exited: Exit | None = None
        self.parameters: list[weakref.ref[Tensor]] = []
        self.trained: list[Tensor] = []
        self.parts: dict[int, tuple[Tensor, Tensor, Cut]] = {}  # id of an invoke's part → part, batch, cut
        self.steps: dict[int, int] = {}  # generation's block → steps it made
        self.ended: dict[tuple[int, int], int] = {}  # generation's block, invoke → after how many steps it ended
        self._nodes = plan.graph.nodes
        self._careful = plan.careful
        self._marked = plan.copies | plan.leaves
        self._drops = plan.drops

    # ---- the whole

    def run_pass(self, passing: Passing) -> Any:
        """Run a graph that is one forward pass."""
        return self._whole(self._pass, 0, passing)

    def run_session(self) -> None:
        """Run a graph that is a session: its blocks one after the other."""
        self._whole(Frame(self, self.plan.blocks[0]).run)

    def _whole(self, run: Callable[..., Any], *args: Any) -> Any:
        before = torch.is_grad_enabled()
        try:
            torch._C._set_grad_enabled(self.plan.grad)
            return run(*args)
        except Exit as exit:
            self.exited = exit
        finally:
            torch._C._set_grad_enabled(before)
            env, self.env = self.env, []
            self._keep(env)
            self.trained = []
            self.parts = {}

    def _keep(self, env: list[Any]) -> None:
        for id in self.plan.graph.saved:
            if env[id] is not MISSING:
                self.saved[id] = env[id]

    def release(self) -> None:
        """Let go of all values; the run still knows why a value is missing."""
        self.saved = {}
        self.bindings = {}
        self.log, self.follow = print, iter  # not the tracer's own, which holds the run

    # ---- blocks

    def _pass(self, block: int, passing: Passing) -> Any:
        around = Interleaver(self, self.plan.blocks[block], passing)
        if passing.trained is not None and self.plan.grad:
            self.trained += passing.trained()
        try:
            return around.run()
        except Stopped:
            self.stopped[block] = around.stopped or UNKNOWN
            return None
        finally:
            if passing.finish is not None:
                self.steps[block] = around.made
            around.close()

    def begin(self, block: int) -> None:
        """A block that is run again begins without the values of the time before; kept ones are put aside."""
        env, uses, planned = self.env, self.uses, self.plan.uses
        saved = self.plan.graph.saved
        for id in self.plan.blocks[block].members:
            if env[id] is not MISSING:
                if id in saved:
                    self.saved[id] = env[id]
                env[id] = MISSING
            uses[id] = planned[id]

    def _trace(self, block: int, model: Model, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.begin(block)
        generate = self.plan.blocks[block].kind == "generate"
        prepared = [(args, options) if ready else model._prepare(*args, **options) for ready, args, options in inputs]
        self._pass(block, model._passing(prepared, kwargs, generate))

    def _loop(self, block: int, items: Iterable[Any]) -> None:
        plan = self.plan.blocks[block]
        item_node = next(id for id in plan.members if self._nodes[id].op is ops.ITEM)
        parts = self.parts
        for item in self.follow(items):
            self.begin(block)
            self.parts = dict(parts)
            self.env[item_node] = item
            try:
                Frame(self, plan).run()
            except Exit as exit:
                if exit.block != block:
                    raise
                self.exited = exit
                return

    # ---- one node

    def execute_all(self, ids: Sequence[int], frame: Frame) -> None:
        """Run nodes, in this order. The plainest, a call on values that are there, are run here and not by `execute`,
        which says what this does; a trace of many operations spends its time here."""
        if self._careful or self._marked:
            for id in ids:
                self.execute(id, frame)
            return
        nodes, env, uses, drops = self._nodes, self.env, self.uses, self._drops
        for id in ids:
            _, op, args, kwargs, _, _, _, _, _, modes = nodes[id]
            if kwargs or modes:
                self.execute(id, frame)
                continue
            try:
                values = []
                for arg in args:
                    kind = type(arg)
                    values.append(env[arg.id] if kind is Ref else arg if kind in _LEAVES else self._resolve(arg))
                special = _SPECIAL.get(op)
                value = op.fn(*values) if special is None else special(self, frame, nodes[id], values, {})
            except NodeError:
                raise  # of a node inside a block, which has said so
            except Exception as error:
                raise self.blame(error, nodes[id]) from error
            if uses[id]:
                env[id] = value
            for ref in drops[id]:
                uses[ref] -= 1
                if not uses[ref]:
                    env[ref] = MISSING

    def execute(self, id: int, frame: Frame) -> None:
        """Run one node and drop what it was the last to read."""
        node = self._nodes[id]
        op = node.op
        env = self.env
        if self._careful and self._skipped(node):
            self._drop(id)
            return
        try:
            args = [self._resolve(arg) for arg in node.args]
            kwargs = {name: self._resolve(value) for name, value in node.kwargs.items()}
            with entered(node.modes) if node.modes else _NOTHING:
                special = _SPECIAL.get(op)
                value = op.fn(*args, **kwargs) if special is None else special(self, frame, node, args, kwargs)
        except NodeError:
            raise
        except Exception as error:
            raise self.blame(error, node) from error
        if self._marked and id in self._marked:
            if id in self.plan.copies:
                value = copied(value)
            if id in self.plan.leaves:
                _require_grad(value)
        if self.uses[id]:
            env[id] = value
        self._drop(id)

    def _drop(self, id: int) -> None:
        for ref in self.plan.drops[id]:
            self.uses[ref] -= 1
            if not self.uses[ref]:
                self.env[ref] = MISSING

    def _skipped(self, node: Node) -> bool:
        """Whether a node has no value, since its condition is false or it reads what has none."""
        env, op = self.env, node.op
        if node.guard is not None and env[node.guard] is not True:
            return True
        if op is ops.EITHER:
            return all(env[arg.id] is MISSING for arg in node.args if type(arg) is Ref)
        if op is ops.GUARD:
            value = node.args[0]
            return type(value) is Ref and env[value.id] is MISSING
        return any(env[ref] is MISSING for ref in node.refs)

    def _resolve(self, value: Any) -> Any:
        kind = type(value)
        if kind is Ref:
            return self.env[value.id]
        if kind is Argument:
            return self.bindings[value.name]
        if kind is tuple or kind is list:
            return kind([self._resolve(item) for item in value])
        if kind is slice:
            return slice(self._resolve(value.start), self._resolve(value.stop), self._resolve(value.step))
        if kind is dict:
            return {name: self._resolve(item) for name, item in value.items()}
        return value

    # ---- what the run itself does

    def _do_swap(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        frame.swapped.setdefault(args[0], {})[node.invoke] = args[1], node

    def _do_skip(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        assert frame.around is not None
        frame.around.skips.setdefault(args[0].path, {})[node.invoke] = args[1], node

    def _do_swap_grad(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        frame.swapped.setdefault((node.args[0].id, node.args[1]), {})[0] = args[2], node

    def _do_stop(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        frame.stopped = node.line

    def _do_log(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        line = LogText(" ".join(map(str, args)))
        line.at, line.sites = node.line, tuple(each for each in sites_of(self.plan, node.id) if isinstance(each, Site))
        self.log(line)

    def _do_module(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        root, path, *rest = args
        around = frame.around
        module = (frame.modules if root is None else root._live())[path]
        if around is None:
            return _call(None if root is None else root._parallel(), path, module, rest, kwargs)
        before, around.busy = around.busy, True  # as `frame.unseen()`, at less cost
        try:
            if around.divided is None:
                return module(*rest, **kwargs)
            return around.divided.parallel.call(path, module, rest, kwargs)
        finally:
            around.busy = before

    def _do_hooked(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        root, path, *rest = args
        module = (frame.modules if root is None else root._live())[path]
        around = frame.around
        if around is None:
            return _call(None if root is None else root._parallel(), path, module, rest, kwargs)
        with around.within(node.invoke):
            return _call(None if around.divided is None else around.divided.parallel, path, module, rest, kwargs)

    def _do_weight(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        root, path, name = args
        return weight_of((frame.modules if root is None else root._live())[path], name)

    def _do_parameter(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        made = node.op.fn(*args)
        self.parameters.append(weakref.ref(made))
        return made

    def _do_backward(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        loss, _, *rest = args
        with frame.unseen():
            backward(self, frame, node, loss, rest, kwargs)

    def _do_guard(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> bool:
        return bool(args[0]) and (len(args) == 1 or args[1] is True)

    def _do_either(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return args[1] if args[0] is MISSING else args[0]

    def _do_trace(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        self._trace(*args)

    def _do_loop(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        self._loop(*args)

    def _do_steps(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        assert frame.around is not None
        block, start, stop, stride = args
        frame.around.open_steps(node, block, range(start, EVER if stop is None else stop, stride))

    def _do_exit(self, frame: Frame, node: Node, args: list[Any], kwargs: dict[str, Any]) -> None:
        raise Exit(args[0], node.line)

    # ---- words

    def blame(self, error: Exception, node: Node) -> Exception:
        """The same error, saying which node raised it, on which line, and what it was given."""
        line = location(node.line)
        sizes = []
        for ref in node.refs:
            value, source = self.env[ref] if self.env else MISSING, self._nodes[ref]
            if value is not MISSING and ref != node.guard:
                name = str(source.args[0]) if source.op is ops.SITE else f"%{ref}"
                sizes.append(f"{name} {'has' if isinstance(value, Tensor) else 'is'} {shape_text(value)}")
        known = f" — {', '.join(sizes)}" if sizes else ""
        if "workbench.proxy.Proxy" in str(error):
            known += ". A traced value stands inside another object: make that object outside the session"
        return located(error, f"{error}\nWhile running {node} — {line.text}{known}", line)

    def reason(self, id: int) -> str:
        """Why a kept node has no value."""
        node = self._nodes[id]
        block = self.plan.home[id]
        missing = [site for site in sites_of(self.plan, id) if site not in self.reached[block]]
        if missing:
            site = missing[0]
            if isinstance(site, GradSite):
                line = where(self._nodes[site.backward].line)
                return f"backward on {line} gave it no gradient: the loss does not depend on it"
            if block in self.stopped:
                return f"{site} was never reached: the run was stopped by .stop() on {where(self.stopped[block])}"
            return f"{site} was never reached: {self.why_unreached(site, block)}"
        ended = self.ended.get((self._generation(block), node.invoke))
        if ended is not None:
            return f"the text of its prompt had ended after {_steps(ended)}"
        seen = {id}
        stack = [id]
        while stack:  # what it was made of: the first that has a reason of its own
            each = self._nodes[stack.pop()]
            if each.guard is not None:
                guard = self._nodes[each.guard]
                return f"it was skipped: the condition on {where(guard.line)} was not true"
            for ref in each.refs:
                if ref not in seen:
                    seen.add(ref)
                    home = self.plan.home[ref]
                    if any(site not in self.reached[home] for site in sites_of(self.plan, ref)):
                        return self.reason(ref)
                    stack.append(ref)
        if self.exited is not None:
            return f"it was not reached: .exit() on {where(self.exited.line)} came first"
        if node.block and self.plan.blocks[block].kind == "loop":
            return "its loop had no items"
        return "it was not reached"

    def why_unreached(self, site: Site, block: int) -> str:
        """Why a site was not met."""
        made = self.steps.get(self._generation(block))
        if made is not None and (site.step >= made or self.plan.blocks[block].kind == "steps"):
            return f"generation ended after {_steps(made)}"
        if site.inside:
            return "its module was not called, or did not come to this call, in this forward pass"
        if site.call:
            return f"the module was called fewer than {site.call + 1} times in this forward pass"
        return "its module was not called in this forward pass"

    def _generation(self, block: int) -> int:
        """The block itself, or, of a block of steps, the generation around it."""
        plan = self.plan.blocks[block]
        return plan.parent or 0 if plan.kind == "steps" else block

    def idle(self) -> list[tuple[Site, Node, str]]:
        """Writes that did nothing since their site was never reached, and why it was not."""
        return [
            (site, node, self.why_unreached(site, block))
            for block, site, node in ((block, site, self._nodes[id]) for block, site, id in self.plan.edits)
            if site not in self.reached[block] and block not in self.stopped and node.guard is None
        ]


def _call(parallel: Parallel | None, path: str, module: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return module(*args, **kwargs) if parallel is None else parallel.call(path, module, args, kwargs)


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _require_grad(value: Any) -> None:
    made_here = isinstance(value, Tensor) and value.is_leaf and not isinstance(value, nn.Parameter)
    if made_here and value.is_floating_point():
        value.requires_grad_()


EVER = 1 << 31
"""More steps than any generation makes."""

_NOTHING = nullcontext()
_LEAVES = frozenset({int, float, bool, str, type(None), Site, torch.dtype, torch.device})
_SPECIAL: dict[ops.Operation, Callable[..., Any]] = {
    ops.SWAP: Execution._do_swap,
    ops.SWAP_GRAD: Execution._do_swap_grad,
    ops.SKIP: Execution._do_skip,
    ops.STOP: Execution._do_stop,
    ops.LOG: Execution._do_log,
    ops.MODULE: Execution._do_module,
    ops.HOOKED: Execution._do_hooked,
    ops.WEIGHT: Execution._do_weight,
    ops.PARAMETER: Execution._do_parameter,
    ops.BACKWARD: Execution._do_backward,
    ops.GUARD: Execution._do_guard,
    ops.EITHER: Execution._do_either,
    ops.TRACE: Execution._do_trace,
    ops.LOOP: Execution._do_loop,
    ops.STEPS: Execution._do_steps,
    ops.EXIT: Execution._do_exit,
}
