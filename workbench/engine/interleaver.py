"""Interleaver: runs a planned graph inside a forward pass, by hooks on the modules it touches and on no others."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import Any

import torch
from torch import nn

from workbench.engine.batching import Rows, narrow, write
from workbench.engine.plan import Plan, SitePlan, sites_of, write_target
from workbench.engine.values import copied, shape_text
from workbench.errors import OrderError, located
from workbench.graph import operations as ops
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.source import Line, text, where
from workbench.site import Site

_MISSING = object()
_keys = itertools.count(-1, -1)
"""Keys of our hooks: negative, where torch counts upwards from zero, so that a stranger can tell them apart."""


class Stopped(BaseException):
    """Ends a forward pass early; never seen by the user."""


class Run:
    """One execution of a plan: all run state lives here, none in the graph, the plan or the model.

    `modules` maps paths to modules, `bindings` the graph's argument names to their values, `rows` gives each invoke
    its part of the batch (None for a single invoke). After `execute`, `saved` holds the kept values by node.
    """

    def __init__(
        self,
        plan: Plan,
        modules: Mapping[str, nn.Module],
        bindings: Mapping[str, Any],
        rows: Sequence[Rows] | None = None,
        log: Callable[[str], None] = print,
    ) -> None:
        self.plan = plan
        self.modules = modules
        self.bindings = bindings
        self.rows = rows
        self.log = log
        self.saved: dict[int, Any] = {}
        self.stopped: Line | None = None
        self._key = next(_keys)
        self._nodes = plan.graph.nodes
        self._env: list[Any] = [_MISSING] * len(self._nodes)
        self._uses = plan.uses.copy()
        self._waits = [join.waits for join in plan.joins]
        self._reached: set[Site] = set()
        self._swapped: dict[int, tuple[Any, Node]] = {}  # invoke → replacement of the site being reached
        self._busy = False  # a node is running a module itself; its hooks keep quiet

    # ---- the pass

    def execute(self, forward: Callable[[], Any]) -> Any:
        """Run `forward` with the graph inside it, and leave nothing behind, whatever happens."""
        installed: list[tuple[nn.Module, bool]] = []
        result = None
        try:
            for id in self.plan.first:
                self._execute(id)
            self._install(installed)
            result = forward()
        except Stopped:
            pass
        finally:
            for module, before in installed:
                if before:
                    module._forward_pre_hooks.pop(self._key, None)
                    module._forward_pre_hooks_with_kwargs.pop(self._key, None)
                else:
                    module._forward_hooks.pop(self._key, None)
            env, self._env = self._env, []
            self._swapped.clear()
        for id in self.plan.graph.saved:
            if env[id] is not _MISSING:
                self.saved[id] = env[id]
        return result

    def release(self) -> None:
        """Let go of all values; the run still knows why a value is missing."""
        self.saved = {}
        self.bindings = {}
        self.modules = {}
        self._swapped.clear()

    def _install(self, installed: list[tuple[nn.Module, bool]]) -> None:
        """Insert hooks directly, ours first: a register call costs three times as much, and hooks that a library
        installed earlier (to record hidden states) must see our edits."""
        by_port: dict[tuple[str, bool], dict[int, SitePlan]] = {}
        for site, here in self.plan.sites.items():
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

    # ---- one site

    def _reach(self, here: SitePlan, value: Any) -> Any:
        """A site's value exists: run what waited for it. Returns the replacement, or None to leave it as it is."""
        rows = self.rows
        if here.edited:
            value = copied(value)
        env, uses = self._env, self._uses
        for invoke, id in here.reads:
            if uses[id]:
                env[id] = value if rows is None else narrow(value, rows[invoke])
        self._reached.add(here.site)
        ready = here.own
        if here.joins:
            ready = self._arrived(here)
        for id in ready:
            self._execute(id)
        for join, id in here.late:
            if self._waits[join]:
                raise self._too_late(here.site, id)
        if self.stopped is not None:
            raise Stopped
        if self._swapped:
            return self._replaced(value)
        return value if here.edited else None

    def _replaced(self, value: Any) -> Any:
        """The value with what the invokes put in its place; what they read of it before stays as it was."""
        swapped, self._swapped = self._swapped, {}
        if self.rows is None:
            return swapped[0][0]
        batch = copied(value)
        for invoke, (new, node) in swapped.items():
            try:
                write(batch, self.rows[invoke], new)
            except ValueError as error:
                raise self._blame(error, node) from error
        return batch

    def _arrived(self, here: SitePlan) -> list[int]:
        waits = self._waits
        ready = [here.own] if here.own else []
        for index in here.joins:
            waits[index] -= 1
            if not waits[index]:
                ready.append(self.plan.joins[index].nodes)
        if len(ready) == 1:
            return ready[0]
        return sorted(id for nodes in ready for id in nodes)

    def _too_late(self, site: Site, id: int) -> OrderError:
        missing = [str(other) for other in sites_of(self.plan, id) if other not in self._reached]
        return too_late(self._nodes[id], site, " and ".join(missing))

    # ---- one node

    def _execute(self, id: int) -> None:
        node = self._nodes[id]
        op = node.op
        env = self._env
        try:
            args = [
                env[arg.id] if type(arg) is Ref else arg if type(arg) in _LEAVES else self._resolve(arg)
                for arg in node.args
            ]
            if node.kwargs:
                kwargs = {name: self._resolve(value) for name, value in node.kwargs.items()}
                value = self._special(node, args, kwargs) if op in _SPECIAL else op.fn(*args, **kwargs)
            else:
                value = self._special(node, args, {}) if op in _SPECIAL else op.fn(*args)
        except Exception as error:
            raise self._blame(error, node) from error
        uses = self._uses
        if uses[id]:
            env[id] = value
        for ref in node.refs:
            uses[ref] -= 1
            if not uses[ref]:
                env[ref] = _MISSING

    def _special(self, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        op = node.op
        if op is ops.SWAP:
            self._swapped[node.invoke] = args[1], node
        elif op is ops.STOP:
            self.stopped = node.line
        elif op is ops.LOG:
            self.log(" ".join(map(str, args)))
        else:
            path, *rest = args
            self._busy = True
            try:
                return self.modules[path](*rest, **kwargs)
            finally:
                self._busy = False
        return None

    def _resolve(self, value: Any) -> Any:
        kind = type(value)
        if kind is Ref:
            return self._env[value.id]
        if kind is Argument:
            return self.bindings[value.name]
        if kind is tuple or kind is list:
            return kind([self._resolve(item) for item in value])
        if kind is slice:
            return slice(self._resolve(value.start), self._resolve(value.stop), self._resolve(value.step))
        if kind is dict:
            return {name: self._resolve(item) for name, item in value.items()}
        return value

    # ---- words

    def _blame(self, error: Exception, node: Node) -> Exception:
        line = text(node.line)
        sizes = []
        for ref in node.refs:
            value, source = self._env[ref], self._nodes[ref]
            if value is not _MISSING:
                name = str(source.args[0]) if source.op is ops.SITE else f"%{ref}"
                sizes.append(f"{name} {'has' if isinstance(value, torch.Tensor) else 'is'} {shape_text(value)}")
        known = f" — {', '.join(sizes)}" if sizes else ""
        return located(error, f"{error}\nWhile running {node} — {line}{known}", line)

    def reason(self, id: int) -> str:
        """Why a kept node has no value."""
        missing = [site for site in sites_of(self.plan, id) if site not in self._reached]
        if not missing:
            return "it was not reached"
        if self.stopped is not None:
            return f"{missing[0]} was never reached: the run was stopped by .stop() on {where(self.stopped)}"
        return f"{missing[0]} was never reached: {why_unreached(missing[0])}"

    def idle(self) -> list[tuple[Site, Node]]:
        """Writes that did nothing since their site was never reached."""
        found = []
        for node in self._nodes:
            if node.op is ops.SWAP:
                site = node.args[0]
            else:
                target = write_target(node)
                if target is None or self._nodes[target].op is not ops.SITE:
                    continue
                site = self._nodes[target].args[0]
            if site not in self._reached:
                found.append((site, node))
        return found


def why_unreached(site: Site) -> str:
    if site.call:
        return f"the module was called fewer than {site.call + 1} times in this forward pass"
    return "its module was not called in this forward pass"


def too_late(node: Node, site: Site, missing: str) -> OrderError:
    """The error for setting a site from what is computed after it."""
    line = text(node.line)
    error = OrderError(
        f"{site} cannot be set from {missing}, which is computed after it in the same forward pass "
        f"({line}). Save {missing} in one trace and set {site} in a second one."
    )
    error.line = line
    return error


_LEAVES = frozenset({int, float, bool, str, type(None), Site, torch.dtype, torch.device})
_SPECIAL = frozenset({ops.SWAP, ops.STOP, ops.LOG, ops.MODULE})
