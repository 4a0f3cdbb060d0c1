"""Interleaver: a forward pass with a block inside it, by hooks on the modules that it touches and on no others.

In generation the root is called again and again: each call is a step. Sites name the step they are met in, and a block
of steps is run anew, in a frame of its own, in each of its steps.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.engine.axes import Known
from workbench.engine.batching import Cut, narrow, shared, write
from workbench.engine.frame import Frame, Stopped, Swapped
from workbench.engine.plan import END, BlockPlan, Calls, SitePlan
from workbench.engine.values import copied, map_tensors
from workbench.errors import OrderError
from workbench.graph import operations as ops
from workbench.graph.node import Node
from workbench.graph.source import Line, location
from workbench.inside.forwards import original_forward, place, take_away
from workbench.site import Port, Site

if TYPE_CHECKING:
    from workbench.engine.execution import Execution, Passing

_keys = itertools.count(-1, -1)
"""Keys of our hooks: negative, where torch counts upwards from zero, so that a stranger can tell them apart."""

Met = list[tuple[Frame, SitePlan]]


class Steps(NamedTuple):
    """A block of steps that has begun to wait for its steps."""

    node: Node
    block: int
    span: range


class Interleaver:
    """One pass; `run` makes it."""

    def __init__(self, run: Execution, block: BlockPlan, passing: Passing) -> None:
        self.execution = run
        self.modules = passing.modules
        self.rows = passing.rows
        self.step = 0
        self.made = 0
        self.main = Frame(run, block, self)
        self.skips: dict[str, Swapped] = {}  # by path of a module to leave out
        self.divided = passing.divided
        self._forward = passing.forward
        self._layout = passing.layout
        self._around = passing.around
        self._finish = passing.finish
        self._ended = passing.ended
        self._over: set[int] = set()  # invokes whose text has ended; what is computed for them is padding
        self._stepped = passing.finish is not None
        self._stepping = passing.stepping
        self._blocks = [block, *[run.plan.blocks[id] for id in block.steps]]
        self._open: list[Steps] = []
        self._frames: dict[int, Frame] = {}  # block → its frame in this step
        self.busy = False  # a node is running a module itself; its hooks keep quiet
        self._within: int | None = None  # the invoke that is calling a module, whose values are its own alone
        self._key = next(_keys)
        self._passed: set[tuple[str, Port, str]] = set()
        self._opens = any(each.inside for each in self._blocks)

    # ---- the pass

    def run(self) -> Any:
        """Make the pass, and leave nothing behind, whatever happens."""
        installed: list[tuple[nn.Module, bool]] = []
        try:
            if self.divided is not None:
                self.divided.parallel.agree()
            self.main.run()
            if self.main.stopped is not None:
                raise Stopped
            self._install(installed)
            result = self._with_replacements() if self._opens else self._forward()
            if self._finish is not None:
                self.step = 0
                self._over.clear()
                self._frames.clear()
                result = self._finish(result)
            self._end()
            return result
        finally:
            try:
                self._remove(installed)
            except BaseException:  # an interrupt: once more, since none is to be left
                self._remove(installed)
                raise
            self.main.swapped.clear()
            self._frames.clear()

    def _with_replacements(self) -> Any:
        with nullcontext() if self._around is None else self._around(self._calls_within()):
            placed: list[tuple[nn.Module, Callable[..., Any]]] = []
            try:
                for path in dict.fromkeys(path for block in self._blocks for path in block.inside):
                    module = self.modules[path]
                    placed.append((module, self._replacement(path, module)))
                    place(*placed[-1])
                return self._forward()
            finally:
                try:
                    self._take_away(placed)
                except BaseException:  # as for hooks
                    self._take_away(placed)
                    raise

    def _calls_within(self) -> set[str]:
        return {name for block in self._blocks for each in block.inside.values() for name, _ in each}

    def _take_away(self, placed: list[tuple[nn.Module, Callable[..., Any]]]) -> None:
        for module, forward in reversed(placed):
            take_away(module, forward)

    def close(self) -> None:
        """Let go of what holds this pass, which is over."""
        self.main.around = None

    @property
    def stopped(self) -> Line | None:
        """Where the pass was stopped."""
        return next((each.stopped for each in (self.main, *self._frames.values()) if each.stopped), None)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Modules called meanwhile are not part of the pass."""
        before, self.busy = self.busy, True
        try:
            yield
        finally:
            self.busy = before

    @contextmanager
    def within(self, invoke: int) -> Iterator[None]:
        """Modules called meanwhile are called by one invoke, on its own rows."""
        before, self._within = self._within, invoke
        try:
            yield
        finally:
            self._within = before

    # ---- hooks

    def _install(self, installed: list[tuple[nn.Module, bool]]) -> None:
        """Insert hooks directly, ours first: a register call costs three times as much, and hooks that a library
        installed earlier (to record hidden states) must see our edits."""
        hooks: dict[tuple[str, bool], dict[int, Calls]] = {}
        for block in self._blocks:
            for at, calls in block.hooks.items():
                hooks.setdefault(at, {})[block.id] = calls
        if self._stepped:
            hooks.setdefault((self._stepping, True), {})
        for (path, before), calls in hooks.items():
            module = self.modules[path]
            installed.append((module, before))
            table: OrderedDict[int, Any]
            if before:
                module._forward_pre_hooks_with_kwargs[self._key] = True
                table = module._forward_pre_hooks  # pyright: ignore[reportAssignmentType]
                table[self._key] = self._input_hook(path, calls)
            else:
                table = module._forward_hooks  # pyright: ignore[reportAssignmentType]
                table[self._key] = self._output_hook(path, calls)
            if len(table) > 1:
                table.move_to_end(self._key, last=False)

    def _remove(self, installed: list[tuple[nn.Module, bool]]) -> None:
        for module, before in installed:
            if before:
                module._forward_pre_hooks.pop(self._key, None)
                module._forward_pre_hooks_with_kwargs.pop(self._key, None)
            else:
                module._forward_hooks.pop(self._key, None)

    def _output_hook(self, path: str, calls: dict[int, Calls]) -> Callable[..., Any]:
        thread = get_ident()
        met = self._counted(calls, (path, "output", ""))

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            return None if self.busy or get_ident() != thread else met(output)

        return hook

    def _input_hook(self, path: str, calls: dict[int, Calls]) -> Callable[..., Any]:
        thread = get_ident()
        met = self._counted(calls, (path, "input", ""))
        begins = self._stepped and path == self._stepping

        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if self.busy or get_ident() != thread:
                return None
            if begins:
                self._next_step()
            return met((args, kwargs))

        return hook

    def _counted(self, calls: dict[int, Calls], place: tuple[str, Port, str]) -> Callable[[Any], Any]:
        """What is done with each value that comes to a place, in the order in which they come."""
        if self._stepped:
            return self._counted_in_steps(calls, place)
        main, count = self.main, 0
        reach = self._reach if self.divided is None else self._reach_divided
        sites = calls[main.plan.id]

        def met(value: Any) -> Any:
            nonlocal count
            here = sites.get((0, count))
            count += 1
            return None if here is None else reach(main, here, value)

        return met

    def _counted_in_steps(self, calls: dict[int, Calls], place: tuple[str, Port, str]) -> Callable[[Any], Any]:
        step = count = 0

        def met(value: Any) -> Any:
            nonlocal step, count
            if step != self.step:
                step, count = self.step, 0
            self._passed.add(place)
            found: Met = []
            here = calls.get(self.main.plan.id, {}).get((step, count))
            if here is not None:
                found.append((self.main, here))
            for block, frame in self._frames.items():
                here = calls.get(block, {}).get((0, count))
                if here is not None:
                    found.append((frame, here))
            count += 1
            if not found:
                return None
            return self._reach_all(found, value) if self.divided is None else self._reach_all_divided(found, value)

        return met

    # ---- modules that are opened, or left out

    def _replacement(self, path: str, module: nn.Module) -> Callable[..., Any]:
        """What the module runs in this pass in place of its own forward."""
        places: dict[tuple[str, Port], dict[int, Calls]] = {}
        for block in self._blocks:
            for at, calls in block.inside.get(path, {}).items():
                places.setdefault(at, {})[block.id] = calls
        opened = self._opened(path, module, places) if places else original_forward(module)
        skips = self.skips

        def forward(*args: Any, **kwargs: Any) -> Any:
            if path in skips and not self.busy:
                given = self._skipped(path, skips.pop(path))
                return given if self.divided is None else self.divided.parallel.given(path, given)
            return opened(*args, **kwargs)

        return forward

    def _opened(self, path: str, module: nn.Module, places: dict[tuple[str, Port], dict[int, Calls]]) -> Any:
        from workbench.inside.instrument import instrumented  # here, since it is seldom needed

        met = {(name, port): self._counted(calls, (path, port, name)) for (name, port), calls in places.items()}

        def hook(name: str, port: str, value: Any) -> Any:
            place = met.get((name, port))
            new = None if place is None or self.busy else place(value)
            return value if new is None else new

        return instrumented(module, {name for name, _ in places}, hook)

    def _skipped(self, path: str, values: Swapped) -> Any:
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

    def _reach(self, frame: Frame, here: SitePlan, value: Any) -> Any:
        """A site's value exists: run what waited for it. Returns the replacement, or None to leave it as it is."""
        changed = here.edited
        if changed:
            value = copied(value)
        if here.graded:
            value, changed = map_tensors(_with_gradient, value), True
        run = self.execution
        env, uses, noted = run.env, run.uses, None
        if self.rows is None:
            for _, id in here.reads:
                if uses[id]:
                    env[id] = value
        else:
            noted = []
            for invoke, id in here.reads:
                if uses[id] and invoke not in self._over:
                    env[id] = self._part(value, here, invoke, noted)
        ready = frame.arrive(here)
        if ready:
            run.execute_all(ready, frame)
        if here.late or frame.stopped is not None:
            frame.leave(here)
        if noted and here.edited:
            self._settle(noted, frame, here)
        if here.swapped and here.site in frame.swapped:
            return self._replaced(value, here, frame.swapped.pop(here.site))
        return value if changed else None

    def _reach_divided(self, frame: Frame, here: SitePlan, value: Any) -> Any:
        """As `_reach`, of a value of which this process has a part only."""
        return self._reach_all_divided([(frame, here)], value)

    def _reach_all_divided(self, met: Met, value: Any) -> Any:
        assert self.divided is not None
        site = met[0][1].site
        assert isinstance(site, Site)
        new = self._reach_all(met, self.divided.join(site, value))
        return None if new is None else self.divided.take(site, new)

    def _reach_all(self, met: Met, value: Any) -> Any:
        """As `_reach`, for several blocks: what they do is done in written order, and each sees what came before."""
        if len(met) == 1:
            return self._reach(*met[0], value)
        run = self.execution
        changed = any(here.edited for _, here in met)
        if changed:
            value = copied(value)
        moments: list[tuple[int, Frame, SitePlan, int | None]] = []
        for frame, here in met:
            moments += [(id, frame, here, invoke) for invoke, id in here.reads]
            moments += [(id, frame, here, None) for id in frame.arrive(here)]
        noted: list[_Noted] = []
        for id, frame, here, invoke in sorted(moments, key=lambda moment: moment[0]):
            if invoke is None:
                run.execute(id, frame)
            else:
                new = self._put(met, value)
                value, changed = (value, changed) if new is None else (new, True)
                if run.uses[id] and invoke not in self._over:
                    run.env[id] = self._part(value, here, invoke, noted)
        for frame, here in met:
            frame.leave(here)
            if here.edited:
                self._settle(noted, frame, here)
        new = self._put(met, value)
        return new if new is not None else value if changed else None

    def _put(self, met: Met, value: Any) -> Any:
        """The value with what has been put in its place until now, or None."""
        new = None
        for frame, here in met:
            if here.site in frame.swapped:
                new = value = self._replaced(value, here, frame.swapped.pop(here.site))
        return new

    # ---- rows

    def _part(self, value: Any, here: SitePlan, invoke: int, noted: list[_Noted]) -> Any:
        if self.rows is None or invoke == self._within:
            return value

        def note(part: Tensor, batch: Tensor, cut: Cut) -> None:
            noted.append(_Noted(part, batch, cut, batch._version))
            if here.graded:
                self.execution.parts[id(part)] = part, batch, cut

        return narrow(value, self.rows[invoke], self._known(here), note)

    def _known(self, here: SitePlan) -> Known:
        if self._layout is None:
            return Known({})
        assert isinstance(here.site, Site)
        return self._layout.of(here.site._replace(step=0))

    def _settle(self, noted: list[_Noted], frame: Frame, here: SitePlan) -> None:
        """Bring into the batch what an invoke wrote into a part that is no view; refuse a change of what all share."""
        for part, batch, cut, version in noted:
            if cut.shared and batch._version != version:
                plan = self.execution.plan
                id = next(id for block, site, id in plan.edits if block == frame.plan.id and site == here.site)
                raise self.execution.blame(ValueError(shared(batch)), plan.graph.nodes[id])
            if cut.apart and part._version:
                cut.put(batch, part)

    def _replaced(self, value: Any, here: SitePlan, swapped: Swapped) -> Any:
        """The value with what the invokes put in its place; what they read of it before stays as it was."""
        if self.rows is None or self._within is not None:
            return next(iter(swapped.values()))[0]
        batch = copied(value)
        for invoke, (new, node) in swapped.items():
            try:
                write(batch, self.rows[invoke], self._known(here), new)
            except ValueError as error:
                raise self.execution.blame(error, node) from error
        return batch

    # ---- steps

    def open_steps(self, node: Node, block: int, span: range) -> None:
        """A block of steps has what it needs from outside: from here on it is run in each of its steps."""
        steps = Steps(node, block, span)
        self._open.append(steps)
        if self.step in span:
            for site in self.execution.plan.blocks[block].sites:
                if (site.path, site.port, site.inside) in self._passed:
                    raise _missed(steps, site, self.step)
            self._begin(steps)

    def _next_step(self) -> None:
        self.made += 1
        if self.made == 1:
            return
        self.step += 1
        if self._ended is not None:
            for invoke, rows in enumerate(self.rows or ()):
                if invoke not in self._over and self._ended(rows):
                    self._over.add(invoke)
                    self.execution.ended[self.main.plan.id, invoke] = self.step
        self._passed.clear()
        self._frames.clear()
        for steps in self._open:
            if self.step in steps.span:
                self._begin(steps)

    def _begin(self, steps: Steps) -> None:
        run = self.execution
        run.begin(steps.block)
        frame = self._frames[steps.block] = Frame(run, run.plan.blocks[steps.block], self)
        for id in frame.plan.members:
            if run.plan.graph.nodes[id].op is ops.ITEM:
                run.env[id] = self.step
        frame.run()
        if frame.stopped is not None:
            raise Stopped

    def _end(self) -> None:
        """The pass is over: what reads the whole of a block of steps can be run now."""
        here = self.main.plan.sites.get(END)
        if here is not None:
            for id in self.main.arrive(here):
                self.execution.execute(id, self.main)


class _Noted(NamedTuple):
    """An invoke's part of a tensor, and the batch's version when it was cut."""

    part: Tensor
    batch: Tensor
    cut: Cut
    version: int


def _with_gradient(tensor: Tensor) -> Tensor:
    """A tensor that gradients reach: itself, or, where the model's parameters are frozen, a leaf in its place."""
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().clone().requires_grad_()


def _missed(steps: Steps, site: Site, step: int) -> OrderError:
    line = location(steps.node.line)
    return OrderError(
        f"step {step} of this block cannot begin: {site} comes before a value that the block uses ({line.text}). "
        f"Begin with a later step, iter[{step + 1}:]"
    ).at(line)
