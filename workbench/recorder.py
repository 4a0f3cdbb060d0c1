"""Recorder: the open end of a graph, where a trace's statements become nodes while the body runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

from workbench.errors import NotTracingError
from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.operations import Operation
from workbench.graph.source import Line, caller
from workbench.site import Site

if TYPE_CHECKING:
    from workbench.proxy import Proxy

CURRENT: ContextVar[Recorder | None] = ContextVar("workbench.recorder", default=None)
"""The recorder of the innermost open trace, in this thread or task."""

_PLAIN = frozenset(
    {int, float, bool, str, bytes, complex, type(None), type(...), torch.dtype, torch.device, torch.Size, torch.layout}
)


class Recorder:
    """Nodes as they are written, the values they name, and the proxies that wait for a value.

    `reason(id)` and `fake(id)` are given by the tracer: why a node has no value, and what the scan says it will look
    like. Proxies hold the recorder, so after the run it must hold no value and no input.
    """

    __slots__ = (
        "__weakref__", "_argument_ids", "_current", "_parts", "bindings", "fake", "finished", "invoke", "make",
        "nodes", "reason", "root", "saved", "waiting",
    )  # fmt: skip

    def __init__(self, root: object, make: Callable[[Recorder, Ref], Proxy]) -> None:
        self.root = root
        self.make = make
        self.nodes: list[Node] = []
        self.bindings: dict[str, Any] = {}
        self.saved: set[int] = set()
        self.waiting: dict[int, list[weakref.ref[Proxy]]] = {}
        self.invoke = 0
        self.finished = False
        self.reason: Callable[[int], str] = _not_run_yet
        self.fake: Callable[[int], Any] | None = None
        self._current: dict[tuple[Site, int], Proxy] = {}
        self._parts: dict[tuple[int, Operation], Proxy] = {}
        self._argument_ids: dict[int, Argument] = {}

    # ---- recording

    def add(self, op: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, depth: int = 2) -> Proxy:
        """Record one call; proxies among the arguments become references, anything not plain becomes an argument."""
        return self.make(self, Ref(self._append(op, args, kwargs, caller(depth))))

    def _append(self, op: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None, line: Line) -> int:
        refs: list[int] = []
        plain = _PLAIN
        encode = self._encode
        new_args = tuple([arg if type(arg) in plain else encode(arg, refs) for arg in args])
        new_kwargs = {name: encode(value, refs) for name, value in kwargs.items()} if kwargs else {}
        id = len(self.nodes)
        self.nodes.append(Node(id, op, new_args, new_kwargs, tuple(refs), line, self.invoke))
        return id

    def _encode(self, value: Any, refs: list[int]) -> Any:
        kind = type(value)
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

    # ---- sites

    def site(self, site: Site) -> Proxy:
        """The present value of a site: as the model gives it, or as last assigned in this invoke."""
        key = (site, self.invoke)
        proxy = self._current.get(key)
        if proxy is None:
            proxy = self._current[key] = self.make(self, Ref(self._append(ops.SITE, (site,), None, caller(2))))
        return proxy

    def swap(self, site: Site, value: Any) -> None:
        """Replace a site's value for the rest of the forward pass."""
        if self._current.get((site, self.invoke)) is value:
            return  # `m.output += 1` edits in place, then assigns the same value back
        self._append(ops.SWAP, (site, value), None, caller(2))
        if getattr(type(value), "_ref_in", None) is not None:
            self._current[site, self.invoke] = value
        else:
            self._current.pop((site, self.invoke), None)

    def part(self, site: Site, op: Operation) -> Proxy:
        """A named part of a site's present value, such as its first tensor; the same proxy each time it is read."""
        whole = self.site(site)
        key = (whole._node_id(), op)
        proxy = self._parts.get(key)
        if proxy is None:
            proxy = self._parts[key] = self.add(op, (whole,), depth=3)
        return proxy

    def is_part(self, site: Site, op: Operation, value: Any) -> bool:
        """Whether a value is what `part` gives now: `m.input += 1` edits in place, then assigns the same value."""
        whole = self._current.get((site, self.invoke))
        return whole is not None and self._parts.get((whole._node_id(), op)) is value

    # ---- values

    def save(self, id: int, proxy: Proxy) -> None:
        """Keep a node's value after the run, for as long as a proxy of it lives."""
        self.saved.add(id)
        self.waiting.setdefault(id, []).append(weakref.ref(proxy))

    def freeze(self) -> Graph:
        """End recording; the graph no longer grows, and the recorder lets go of what only recording needed."""
        self._forget()
        return Graph(tuple(self.nodes), frozenset(self.saved), tuple(self.bindings))

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
        self.fake = None

    def _forget(self) -> None:
        self._current.clear()
        self._parts.clear()
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
