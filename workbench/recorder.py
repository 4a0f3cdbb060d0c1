"""Recorder: the open end of a graph, where a trace's statements become nodes while the body runs."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import torch

from workbench.errors import NotTracingError
from workbench.graph import operations as ops
from workbench.graph.graph import Block, Graph
from workbench.graph.modes import (
    MODELESS,
    Modes,
    any_autocast,
    around_attention,
    around_backward,
    changed,
    dispatch_modes,
    state,
)
from workbench.graph.node import _REFS, Argument, Node, Ref, ref_to
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

# What also depends on how attention is computed, or gradients are checked.
_OTHERS = frozenset(
    {
        ops.TRACE, ops.MODULE, ops.HOOKED, ops.CALL, ops.BACKWARD,
        ops.of(torch.nn.functional.scaled_dot_product_attention),
    }
)  # fmt: skip
_any_autocast = any_autocast
_is_inference = torch.is_inference_mode_enabled
_new = object.__new__
_tuple: Any = tuple.__new__
_MANY = len(_REFS)


class Pending:
    """The memory of a proxy: its recorder, its node, and the value once there is one."""

    __slots__ = ("__weakref__", "_recorder", "_ref", "_value")


_set_recorder = Pending._recorder.__set__
_set_ref = Pending._ref.__set__


class Recorder:
    """Nodes as they are written, the values they name, and the proxies that wait for a value.

    `reason(id)`, `fake(id)`, `check(id)` and `aside(input)` are given by the tracer: why a node has no value, what the
    scan says it will look like, what to do with each node as it is written, and another input of the same pass. Proxies
    hold the recorder, so after the run it must hold no value and no input.
    """

    __slots__ = (
        "__weakref__", "_argument_ids", "_calls", "_current", "_parts", "_plain", "aside", "asked_grad", "backwards",
        "bindings", "block", "blocks", "check", "fake", "finished", "given", "guard", "invoke", "make", "nodes",
        "outside", "reason", "root", "saved", "spans", "step", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        root: object,
        make: type[Proxy],
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
        self.asked_grad: bool | None = None  # what `torch.no_grad()` and the like say in the body
        self.outside = outside = state()
        self._plain = not (outside.autocast or outside.inference)
        self.reason: Callable[[int], str] = _not_run_yet
        self.spans: dict[int, tuple[int, int | None, int]] = {}  # block of steps → which
        self.given: dict[tuple[int, int], Any] = {}  # (block, invoke) → its prepared input, where it is known
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
        id = self._append(op, args, kwargs, caller(depth))
        made = _new(self.make)  # as `_proxy`, written out, since each operation makes one
        _set_recorder(made, self)
        _set_ref(made, _REFS[id] if id < _MANY else ref_to(id))
        return made

    def always(self, op: Operation, args: tuple[Any, ...], depth: int = 2) -> Proxy:
        """As `add`, for a reading that is made whether or not an open condition holds: it may be read again later."""
        guard, self.guard = self.guard, None
        try:
            return self.add(op, args, None, depth + 1)
        finally:
            self.guard = guard

    def _proxy(self, id: int) -> Proxy:
        made = _new(self.make)
        _set_recorder(made, self)
        _set_ref(made, ref_to(id))
        return made

    def _append(
        self,
        op: Operation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        line: Line,
        modes: Modes | None = None,
    ) -> int:
        refs: list[int] = []
        encoded: list[Any] = []
        make, plain = self.make, _PLAIN
        for arg in args:
            kind = type(arg)
            if kind is make and arg._recorder is self:  # a Proxy of this recorder, which most arguments are
                arg = arg._ref
                refs.append(arg.id)
            elif kind not in plain and not (kind is slice and _is_plain(arg)):
                arg = self._encode(arg, refs)
            encoded.append(arg)
        named = {name: self._encode(value, refs) for name, value in kwargs.items()} if kwargs else _NO_KWARGS
        guard = self.guard
        if guard is not None:
            refs.append(guard)
        if modes is None:
            if (
                self._plain
                and self.asked_grad is None
                and op not in _OTHERS
                and not (_any_autocast() or _is_inference())
            ):
                modes = ()
            else:
                modes = () if op in MODELESS else self._modes(op)
        nodes = self.nodes
        id = len(nodes)
        nodes.append(
            _tuple(
                Node, (id, op, tuple(encoded), named, tuple(refs), line, self.invoke, self.block, guard, modes)
            )
        )  # fmt: skip
        if self.check is not None:
            self.check(id)
        return id

    def _modes(self, op: Operation) -> Modes:
        """What an operation that is written now is to run under."""
        modes: Modes = ()
        if not self._plain or self.asked_grad is not None or _any_autocast() or _is_inference():
            modes = changed(self.outside, self.asked_grad)
        if op in _OTHERS:
            self._refuse_modes()
            if op is ops.BACKWARD or op is ops.TRACE:
                modes += around_backward()
            if op is not ops.BACKWARD:
                modes += around_attention()
        return modes

    def notice_grad(self) -> None:
        """`torch.no_grad()` may have been entered where it was not seen, between two invokes."""
        on = torch.is_grad_enabled()
        if on is not self.outside.grad and self.asked_grad is None:
            self.asked_grad = on

    def interrupted(self) -> None:
        """An interrupt came, perhaps while `torch.no_grad()` was being entered, which then puts nothing back."""
        torch._C._set_grad_enabled(self.outside.grad)

    def _refuse_modes(self) -> None:
        """A mode that would see nothing of what is written in it is refused: asked where a trace touches the model."""
        if dispatch_modes() != self.outside.dispatch:
            changed(self.outside, None)

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
            items = []
            for item in value:
                inner = type(item)
                if inner not in _PLAIN and not (inner is slice and _is_plain(item)):
                    item = self._encode(item, refs)
                items.append(item)
            return tuple(items) if kind is tuple else items
        if kind is slice:
            if _is_plain(value):
                return value
            return slice(*[self._encode(part, refs) for part in (value.start, value.stop, value.step)])
        if kind is dict:
            return {name: self._encode(item, refs) for name, item in value.items()}
        if hasattr(kind, "__dataclass_fields__") and kind is not type:
            return self._encode_fields(value, refs)
        return self.bind(value)

    def _encode_fields(self, value: Any, refs: list[int]) -> Any:
        """A dataclass (a model's output is one) that holds traced values is put together in the run."""
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
        if not any(getattr(type(each), "_ref_in", None) is not None for each in fields.values()):
            return self.bind(value)
        kind = type(value)
        made = self.add(Operation(kind.__name__, kind, shared=False), (), fields)
        refs.append(made._ref.id)
        return made._ref

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
        self.spans[block] = start, stop, stride
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
        args = (condition,) if outer is None else (condition, self._proxy(outer))
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
            self._refuse_modes()
            node = (id, ops.SITE, (site,), _NO_KWARGS, (), caller(3), self.invoke, self.block, None, ())
            self.nodes.append(_tuple(Node, node))
            if self.check is not None:
                self.check(id)
            proxy = self._current[key] = self._proxy(id)
        return proxy

    def place(self, path: str, port: Port, inside: str = "") -> Site:
        """A module's site, at the call that `next` has moved to."""
        count = 0
        if self._calls:
            count = self._calls.get((self.block, self.invoke, f"{path}/{inside}" if inside else path), 0)
        if self.blocks[self.block].kind == "generate":
            return Site(path, port, 0, inside, count + self.step)
        return _tuple(Site, (path, port, count, inside, 0))

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
                made[node.id] = self._proxy(self._append(node.op, args, kwargs, node.line, node.modes))
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

    def pend(self, reason: Callable[[int], str]) -> None:
        """The run goes on elsewhere: nothing more is recorded, and the proxies wait until `finish`."""
        self.finished = True
        self.reason = reason
        self.bindings = {}
        self._forget()
        self.fake = self.check = None

    def release(self) -> None:
        """Let go of inputs, constants and waiting proxies."""
        self.finished = True
        self.waiting.clear()
        self.bindings = {}
        self._forget()
        self.fake = self.check = self.aside = None

    def prompt(self) -> Any:
        """What the open invoke's model will be called on, `(args, kwargs)`; None where only the run knows."""
        block = self.block
        if self.blocks[block].kind == "steps":
            block = self.blocks[block].parent or 0
        return self.given.get((block, self.invoke))

    def _forget(self) -> None:
        self.given.clear()
        self._current.clear()
        self._parts.clear()
        self._calls.clear()
        self._argument_ids.clear()


def _is_plain(value: slice) -> bool:
    return type(value.start) in _PLAIN and type(value.stop) in _PLAIN and type(value.step) in _PLAIN


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
