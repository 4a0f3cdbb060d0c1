"""Recorder: the open end of a graph, where a trace's statements become nodes while the body runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import torch

from workbench.errors import NotTracingError
from workbench.graph import operations as ops
from workbench.graph.graph import Block, Graph
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.operations import Operation
from workbench.graph.source import Line, caller
from workbench.site import Port, Site

if TYPE_CHECKING:
    from workbench.proxy import Proxy

CURRENT: ContextVar[Recorder | None] = ContextVar("workbench.recorder", default=None)
"""The recorder of the innermost open trace, in this thread or task."""

_PLAIN = frozenset(
    {int, float, bool, str, bytes, complex, type(None), type(...), torch.dtype, torch.device, torch.Size, torch.layout}
)


_NO_KWARGS: dict[str, Any] = {}


class Recorder:
    """Nodes as they are written, the values they name, and the proxies that wait for a value.

    `reason(id)`, `fake(id)`, `check(id)` and `aside(input)` are given by the tracer: why a node has no value, what the
    scan says it will look like, what to do with each node as it is written, and another input of the same pass. Proxies
    hold the recorder, so after the run it must hold no value and no input.
    """

    __slots__ = (
        "__weakref__", "_argument_ids", "_calls", "_current", "_parts", "aside", "backwards", "bindings", "block",
        "blocks", "check", "fake", "finished", "guard", "invoke", "make", "nodes", "reason", "root", "saved", "step",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        root: object,
        make: Callable[[Recorder, Ref], Proxy],
        kind: Literal["trace", "generate", "session"] = "trace",
    ) -> None:
        self.root = root
        self.make = make
        self.nodes: list[Node] = []
        self.blocks: list[Block] = [Block(kind)]
        self.bindings: dict[str, Any] = {}
        self.saved: set[int] = set()
        self.waiting: dict[int, list[weakref.ref[Proxy]]] = {}
        self.block = 0
        self.step = 0
        self.invoke = 0
        self.guard: int | None = None
        self.backwards = 0
        self.finished = False
        self.reason: Callable[[int], str] = _not_run_yet
        self.fake: Callable[[int], Any] | None = None
        self.check: Callable[[int], None] | None = None
        self.aside: Callable[[Any], AbstractContextManager[None]] | None = None
        self._current: dict[Any, Proxy] = {}  # (block, invoke, site or gradient) → its present value
        self._parts: dict[tuple[int, Operation], Proxy] = {}
        self._calls: dict[tuple[int, int, str], int] = {}
        self._argument_ids: dict[int, Argument] = {}

    # ---- recording

    def add(self, op: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, depth: int = 2) -> Proxy:
        """Record one call; proxies among the arguments become references, anything not plain becomes an argument."""
        return self.make(self, Ref(self._append(op, args, kwargs, caller(depth))))

    def always(self, op: Operation, args: tuple[Any, ...], depth: int = 2) -> Proxy:
        """As `add`, for a reading that is made whether or not an open condition holds: it may be read again later."""
        guard, self.guard = self.guard, None
        try:
            return self.add(op, args, None, depth + 1)
        finally:
            self.guard = guard

    def _append(self, op: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None, line: Line) -> int:
        refs: list[int] = []
        plain = _PLAIN
        encode = self._encode
        new_args = tuple([arg if type(arg) in plain else encode(arg, refs) for arg in args])
        new_kwargs = {name: encode(value, refs) for name, value in kwargs.items()} if kwargs else _NO_KWARGS
        guard = self.guard
        if guard is not None:
            refs.append(guard)
        id = len(self.nodes)
        self.nodes.append(Node(id, op, new_args, new_kwargs, tuple(refs), line, self.invoke, self.block, guard))
        if self.check is not None:
            self.check(id)
        return id

    def _encode(self, value: Any, refs: list[int]) -> Any:
        kind = type(value)
        if kind is self.make and value._recorder is self:  # a Proxy of this recorder, which most arguments are
            ref = value._ref
            refs.append(ref.id)
            return ref
        if kind in _PLAIN or kind is Site:
            return value
        ref = getattr(kind, "_ref_in", None)  # a Proxy
        if ref is not None:
            found = ref(value, self)
            if type(found) is Ref:
                refs.append(found.id)
                return found
            return self._encode(found, refs)
        if kind is tuple or kind is list:
            return kind([self._encode(item, refs) for item in value])
        if kind is slice:
            parts = (value.start, value.stop, value.step)
            return slice(*[part if type(part) in _PLAIN else self._encode(part, refs) for part in parts])
        if kind is dict:
            return {name: self._encode(item, refs) for name, item in value.items()}
        return self.bind(value)

    def bind(self, value: Any) -> Argument:
        """Name something that the graph does not hold itself; the same object gets the same name."""
        argument = self._argument_ids.get(id(value))
        if argument is None:
            argument = self._argument_ids[id(value)] = Argument(f"{type(value).__name__.lower()}_{len(self.bindings)}")
            self.bindings[argument.name] = value
        return argument

    # ---- blocks and conditions

    @contextmanager
    def opened(self, kind: Literal["trace", "generate", "loop"], root: object) -> Iterator[int]:
        """A block inside the present one; what is recorded meanwhile stands in it."""
        before = self.block, self.invoke, self.guard, self.root
        self.blocks.append(Block(kind, self.block))
        self.block, self.invoke, self.guard, self.root = len(self.blocks) - 1, 0, None, root
        try:
            yield self.block
        finally:
            self.block, self.invoke, self.guard, self.root = before

    @contextmanager
    def in_steps(self, start: int, stop: int | None, stride: int) -> Iterator[Proxy]:
        """A block that is run in these steps of the generation that is open; gives the step's number."""
        if self.blocks[self.block].kind != "generate":
            inside = "a block of steps already" if self.blocks[self.block].kind == "steps" else "no generation"
            raise NotTracingError(
                f"this is {inside}; steps are chosen in `with model.generate(...) as tracer:`, once: "
                "`with tracer.iter[1:3]: ...`"
            )
        before = self.block, self.guard
        self.blocks.append(Block("steps", self.block))
        self.block, self.guard = len(self.blocks) - 1, None
        block = self.block
        try:
            yield self.add(ops.ITEM, ())
        finally:
            self.block, self.guard = before
        self._append(ops.STEPS, (block, start, stop, stride), None, caller(2))

    @contextmanager
    def at_step(self, step: int) -> Iterator[None]:
        """What is recorded meanwhile is of a later step."""
        before, self.step = self.step, self.step + step
        try:
            yield
        finally:
            self.step = before

    @contextmanager
    def guarded(self, condition: Any) -> Iterator[None]:
        """What is recorded meanwhile runs only if the condition holds."""
        outer = self.guard
        args = (condition,) if outer is None else (condition, self.make(self, Ref(outer)))
        self.guard = self.always(ops.GUARD, args)._node_id()
        try:
            yield
        finally:
            self.guard = outer

    # ---- sites

    def site(self, path: str, port: Port, inside: str = "") -> Proxy:
        """The present value of a site: as the model gives it, or as last assigned in this invoke."""
        return self._at(self.place(path, port, inside))

    def _at(self, site: Site) -> Proxy:
        key = (self.block, self.invoke, site)
        proxy = self._current.get(key)
        if proxy is None:  # written out, since it is what traces do most
            id = len(self.nodes)
            self.nodes.append(Node(id, ops.SITE, (site,), _NO_KWARGS, (), caller(3), self.invoke, self.block, None))
            if self.check is not None:
                self.check(id)
            proxy = self._current[key] = self.make(self, Ref(id))
        return proxy

    def place(self, path: str, port: Port, inside: str = "") -> Site:
        """A module's site, at the call that `next` has moved to."""
        count = 0
        if self._calls:
            count = self._calls.get((self.block, self.invoke, f"{path}/{inside}" if inside else path), 0)
        if self.blocks[self.block].kind == "generate":
            return Site(path, port, 0, inside, count + self.step)
        return Site(path, port, count, inside)

    def next_call(self, path: str, by: int) -> None:
        """From here on, a module's sites are those of a later call, or of a later step of a generation."""
        if self.blocks[self.block].kind == "steps":
            raise NotTracingError(".next() inside a block of steps says nothing: the block is run in each of its steps")
        key = (self.block, self.invoke, path)
        self._calls[key] = self._calls.get(key, 0) + by

    def skip(self, path: str, value: Any) -> None:
        """Leave a module out: it gives this value without being run."""
        self._append(ops.SKIP, (self.place(path, "input"), value), None, caller(2))

    def swap(self, path: str, port: Port, value: Any, inside: str = "") -> None:
        """Replace a site's value for the rest of the forward pass."""
        site = self.place(path, port, inside)
        self._replace((self.block, self.invoke, site), ops.SWAP, (site,), value)

    def _replace(self, key: Any, op: Operation, at: tuple[Any, ...], value: Any) -> None:
        old = self._current.get(key)
        if old is value and old is not None:
            return  # `m.output += 1` edits in place, then assigns the same value back
        if getattr(type(value), "_ref_in", None) is None:
            value = self.add(ops.CONSTANT, (value,), depth=4)
        if self.guard is None:
            self._append(op, (*at, value), None, caller(3))
            self._current[key] = value
            return
        if old is None:
            old = self.always(ops.SITE if op is ops.SWAP else ops.GRAD, at, depth=4)
        self._append(op, (*at, value), None, caller(3))
        self._current[key] = self.always(ops.EITHER, (value, old), depth=4)

    def part(self, path: str, port: Port, op: Operation, inside: str = "") -> Proxy:
        """A named part of a site's present value, such as its first tensor; the same proxy each time it is read."""
        whole = self.site(path, port, inside)
        key = (whole._node_id(), op)
        proxy = self._parts.get(key)
        if proxy is None:
            proxy = self._parts[key] = self.always(op, (whole,))
        return proxy

    def is_part(self, path: str, port: Port, op: Operation, value: Any, inside: str = "") -> bool:
        """Whether a value is what `part` gives now: `m.input += 1` edits in place, then assigns the same value."""
        whole = self._current.get((self.block, self.invoke, self.place(path, port, inside)))
        return whole is not None and self._parts.get((whole._node_id(), op)) is value

    # ---- gradients

    def grad(self, proxy: Proxy) -> Proxy:
        """A value's gradient, of the next backward call that is written, else of the last one before."""
        key = (proxy._node_id(), self.backwards)
        found = self._current.get(key)
        if found is None:
            found = self._current[key] = self.always(ops.GRAD, (proxy, self.backwards))
        return found

    def swap_grad(self, proxy: Proxy, value: Any) -> None:
        """Replace a value's gradient: what comes before it in the model gets the new one."""
        self._replace((proxy._node_id(), self.backwards), ops.SWAP_GRAD, (proxy, self.backwards), value)

    def backward(self, proxy: Proxy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record `proxy.backward(...)`."""
        self._append(ops.BACKWARD, (proxy, self.backwards, *args), kwargs, caller(2))
        self.backwards += 1

    # ---- edits

    def replay(self, graph: Graph, bindings: dict[str, Any]) -> None:
        """Write down again, for the present invoke, what a kept graph of one pass says."""
        made: dict[int, Any] = {}

        def known(value: Any) -> Any:
            kind = type(value)
            if kind is Ref:
                return made[value.id]
            if kind is Argument:
                return bindings[value.name]
            if kind is tuple or kind is list:
                return kind([known(item) for item in value])
            if kind is slice:
                return slice(known(value.start), known(value.stop), known(value.step))
            if kind is dict:
                return {name: known(item) for name, item in value.items()}
            return value

        for node in graph.nodes:
            self.guard = None if node.guard is None else made[node.guard]._node_id()
            args, kwargs = known(node.args), known(node.kwargs)
            if node.op is ops.SITE:
                made[node.id] = self._at(args[0])
            elif node.op is ops.SWAP:
                self._replace((self.block, self.invoke, args[0]), ops.SWAP, args[:1], args[1])
            elif node.op is ops.GRAD:
                made[node.id] = self.grad(args[0])
            elif node.op is ops.SWAP_GRAD:
                self.swap_grad(args[0], args[2])
            else:
                made[node.id] = self.make(self, Ref(self._append(node.op, args, kwargs, node.line)))
        self.guard = None

    # ---- values

    def save(self, id: int, proxy: Proxy) -> None:
        """Keep a node's value after the run, for as long as a proxy of it lives."""
        self.saved.add(id)
        self.waiting.setdefault(id, []).append(weakref.ref(proxy))

    def freeze(self) -> Graph:
        """End recording; the graph no longer grows, and the recorder lets go of what only recording needed."""
        self._forget()
        return Graph(tuple(self.nodes), frozenset(self.saved), tuple(self.bindings), tuple(self.blocks))

    def finish(self, values: dict[int, Any], reason: Callable[[int], str]) -> None:
        """Hand each kept value to the proxies that wait for it; afterwards the recorder holds no value."""
        self.finished = True
        self.reason = reason
        for id, waiting in self.waiting.items():
            if id in values:
                for reference in waiting:
                    proxy = reference()
                    if proxy is not None:
                        proxy._set_value(values[id])
        self.release()

    def release(self) -> None:
        """Let go of inputs, constants and waiting proxies."""
        self.finished = True
        self.waiting.clear()
        self.bindings = {}
        self._forget()
        self.fake = self.check = self.aside = None

    def _forget(self) -> None:
        self._current.clear()
        self._parts.clear()
        self._calls.clear()
        self._argument_ids.clear()


@contextmanager
def not_recording() -> Iterator[None]:
    """Inside, torch code runs as if no trace were open: for scans, tokenizers and the run itself."""
    token = CURRENT.set(None)
    try:
        yield
    finally:
        CURRENT.reset(token)


def require(what: str) -> Recorder:
    """The open recorder, or an error that says what needs one."""
    recorder = CURRENT.get()
    if recorder is None:
        raise NotTracingError(f"{what} only means something inside a trace: write `with model.trace(...):` around it")
    return recorder


def _not_run_yet(id: int) -> str:
    return "the trace has not run yet; it runs when its `with` block ends"
