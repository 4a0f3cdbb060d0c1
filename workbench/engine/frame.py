"""Frame: one run of one block, interleaved with a forward pass by hooks on the modules it touches and on no others."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.engine.batching import Rows, narrow, write
from workbench.engine.plan import BlockPlan, GradSite, SitePlan, sites_of
from workbench.engine.values import copied, map_tensors
from workbench.errors import OrderError
from workbench.graph.node import Node
from workbench.graph.source import Line, text
from workbench.inside.forwards import original_forward, replaced
from workbench.site import Site

if TYPE_CHECKING:
    from workbench.engine.execution import Execution


class _Missing:
    """No value."""

    __slots__ = ()


MISSING: Any = _Missing()
_keys = itertools.count(-1, -1)
"""Keys of our hooks: negative, where torch counts upwards from zero, so that a stranger can tell them apart."""


class Stopped(BaseException):
    """Ends a forward pass early; never seen by the user."""


class Frame:
    """One run of a block: which of its sites were met, what waits, what is to be put in place of a site's value."""

    def __init__(
        self,
        run: Execution,
        plan: BlockPlan,
        modules: Mapping[str, nn.Module] | None = None,
        rows: Sequence[Rows] | None = None,
    ) -> None:
        self.execution = run
        self.plan = plan
        self.modules = modules or {}
        self.rows = rows
        self.stopped: Line | None = None
        self.swapped: dict[Any, dict[int, tuple[Any, Node]]] = {}  # site → invoke → replacement
        self.skips: dict[str, dict[int, tuple[Any, Node]]] = {}  # path of a module to leave out → invoke → its output
        self._waits = [join.waits for join in plan.joins]
        self._reached = run.reached[plan.id]
        self._busy = False  # a node is running a module itself; its hooks keep quiet
        self._key = next(_keys)
        self._reforwarded: dict[str, dict[tuple[str, str], dict[int, SitePlan]]] = {}
        """Path of a module that runs another forward → (call inside it, port) → call's number → site."""

    # ---- the pass

    def run(self) -> None:
        """Run what needs no site: all of a session's or loop's block."""
        execute = self.execution.execute
        for id in self.plan.first:
            execute(id, self)

    def interleave(self, forward: Callable[[], Any]) -> Any:
        """Run `forward` with the block inside it, and leave nothing behind, whatever happens."""
        installed: list[tuple[nn.Module, bool]] = []
        try:
            self.run()
            if self.stopped is not None:
                raise Stopped
            self._install(installed)
            if not self._reforwarded:
                return forward()
            with ExitStack() as stack:
                for path in self._reforwarded:
                    module = self.modules[path]
                    stack.enter_context(replaced(module, self._forward(path, module)))
                return forward()
        finally:
            for module, before in installed:
                if before:
                    module._forward_pre_hooks.pop(self._key, None)
                    module._forward_pre_hooks_with_kwargs.pop(self._key, None)
                else:
                    module._forward_hooks.pop(self._key, None)
            self.swapped.clear()

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Modules called meanwhile are not part of the pass."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _install(self, installed: list[tuple[nn.Module, bool]]) -> None:
        """Insert hooks directly, ours first: a register call costs three times as much, and hooks that a library
        installed earlier (to record hidden states) must see our edits."""
        by_port: dict[tuple[str, bool], dict[int, SitePlan]] = {}
        for site, here in self.plan.sites.items():
            if site.inside:
                self._reforwarded.setdefault(site.path, {}).setdefault((site.inside, site.port), {})[site.call] = here
                continue
            if here.skipped:
                self._reforwarded.setdefault(site.path, {})
            by_port.setdefault((site.path, site.port == "input"), {})[site.call] = here
        for (path, before), calls in by_port.items():
            module = self.modules[path]
            installed.append((module, before))
            hooks: OrderedDict[int, Any]
            if before:
                module._forward_pre_hooks_with_kwargs[self._key] = True
                hooks = module._forward_pre_hooks  # pyright: ignore[reportAssignmentType]
                hooks[self._key] = self._input_hook(calls)
            else:
                hooks = module._forward_hooks  # pyright: ignore[reportAssignmentType]
                hooks[self._key] = self._output_hook(calls)
            if len(hooks) > 1:
                hooks.move_to_end(self._key, last=False)

    def _output_hook(self, calls: dict[int, SitePlan]) -> Callable[..., Any]:
        thread = get_ident()
        reach = self._reach
        count = 0

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal count
            if self._busy or get_ident() != thread:
                return None
            here = calls.get(count)
            count += 1
            return None if here is None else reach(here, output)

        return hook

    def _input_hook(self, calls: dict[int, SitePlan]) -> Callable[..., Any]:
        thread = get_ident()
        reach = self._reach
        count = 0

        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            nonlocal count
            if self._busy or get_ident() != thread:
                return None
            here = calls.get(count)
            count += 1
            return None if here is None else reach(here, (args, kwargs))

        return hook

    # ---- modules that are opened, or left out

    def _forward(self, path: str, module: nn.Module) -> Callable[..., Any]:
        """What the module runs in this pass in place of its own forward."""
        sites = self._reforwarded[path]
        opened = self._opened(module, sites) if sites else original_forward(module)
        skips = self.skips

        def forward(*args: Any, **kwargs: Any) -> Any:
            if path in skips and not self._busy:
                return self._skipped(path, skips.pop(path))
            return opened(*args, **kwargs)

        return forward

    def _opened(self, module: nn.Module, sites: dict[tuple[str, str], dict[int, SitePlan]]) -> Callable[..., Any]:
        from workbench.inside.instrument import instrumented  # here, since it is seldom needed

        counts = dict.fromkeys(sites, 0)

        def hook(name: str, port: str, value: Any) -> Any:
            calls = sites.get((name, port))
            if calls is None or self._busy:
                return value
            here = calls.get(counts[name, port])
            counts[name, port] += 1
            new = None if here is None else self._reach(here, value)
            return value if new is None else new

        return instrumented(module, {name for name, _ in sites}, hook)

    def _skipped(self, path: str, values: dict[int, tuple[Any, Node]]) -> Any:
        if self.rows is None:
            return values[0][0]
        if len(values) < len(self.rows):
            _, node = next(iter(values.values()))
            error = ValueError(
                f"{path} is left out in some invokes only, and all of them share one pass; skip it in every invoke, or "
                "assign its .output in those where it is to give something else"
            )
            raise self.execution.blame(error, node)
        parts = [values[invoke][0] for invoke in sorted(values)]
        return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]

    # ---- one site

    def _reach(self, here: SitePlan, value: Any) -> Any:
        """A site's value exists: run what waited for it. Returns the replacement, or None to leave it as it is."""
        rows = self.rows
        changed = here.edited
        if changed:
            value = copied(value)
        if here.graded:
            value, changed = map_tensors(_with_gradient, value), True
        env, uses = self.execution.env, self.execution.uses
        for invoke, id in here.reads:
            if uses[id]:
                env[id] = value if rows is None else self._part(value, rows[invoke], here.graded)
        self._arrive(here)
        if here.swapped and here.site in self.swapped:
            return self._replaced(value, self.swapped.pop(here.site))
        return value if changed else None

    def reach_gradient(self, here: SitePlan, grad: Tensor) -> Tensor | None:
        """A gradient exists; returns what is to flow on in its place, or None."""
        if here.edited:
            grad = grad.clone()
        env, uses = self.execution.env, self.execution.uses
        for _, id in here.reads:
            if uses[id]:
                env[id] = grad
        self._arrive(here)
        assert isinstance(here.site, GradSite)
        swapped = self.swapped.pop((here.site.node, here.site.epoch), None)
        if swapped is not None:
            return swapped[0][0]
        return grad if here.edited else None

    def _arrive(self, here: SitePlan) -> None:
        execute = self.execution.execute
        self._reached.add(here.site)
        ready = self._ready(here) if here.joins else here.own
        for id in ready:
            execute(id, self)
        for join, id in here.late:
            if self._waits[join]:
                raise self._too_late(here.site, id)
        if self.stopped is not None:
            raise Stopped

    def _part(self, value: Any, rows: Rows, noted: bool) -> Any:
        if not noted:
            return narrow(value, rows)

        def note(part: Tensor, batch: Tensor) -> None:
            self.execution.parts[id(part)] = part, batch, rows

        return narrow(value, rows, note)

    def _replaced(self, value: Any, swapped: dict[int, tuple[Any, Node]]) -> Any:
        """The value with what the invokes put in its place; what they read of it before stays as it was."""
        if self.rows is None:
            return swapped[0][0]
        batch = copied(value)
        for invoke, (new, node) in swapped.items():
            try:
                write(batch, self.rows[invoke], new)
            except ValueError as error:
                raise self.execution.blame(error, node) from error
        return batch

    def _ready(self, here: SitePlan) -> list[int]:
        waits = self._waits
        ready = [here.own] if here.own else []
        for index in here.joins:
            waits[index] -= 1
            if not waits[index]:
                ready.append(self.plan.joins[index].nodes)
        if len(ready) == 1:
            return ready[0]
        return sorted(id for nodes in ready for id in nodes)

    def _too_late(self, site: Site | GradSite, id: int) -> OrderError:
        plan = self.execution.plan
        missing = [str(other) for other in sites_of(plan, id) if other not in self._reached]
        return too_late(plan.graph.nodes[id], site, " and ".join(missing))


def _with_gradient(tensor: Tensor) -> Tensor:
    """A tensor that gradients reach: itself, or, where the model's parameters are frozen, a leaf in its place."""
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().clone().requires_grad_()


def why_unreached(site: Site) -> str:
    if site.inside:
        return "its module was not called, or did not come to this call, in this forward pass"
    if site.call:
        return f"the module was called fewer than {site.call + 1} times in this forward pass"
    return "its module was not called in this forward pass"


def too_late(node: Node, site: Site | GradSite, missing: str) -> OrderError:
    """The error for setting a site from what is computed after it."""
    line = text(node.line)
    error = OrderError(
        f"{site} cannot be set from {missing}, which is computed after it in the same forward pass "
        f"({line}). Save {missing} in one trace and set {site} in a second one."
    )
    error.line = line
    return error
