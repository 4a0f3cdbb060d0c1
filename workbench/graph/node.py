"""Node: one deferred call, frozen, with references where values will be.

An argument of a node is plain data (numbers, strings, slices, dtypes, containers of these), a `Ref` to an earlier
node, or an `Argument`: a name for something the graph does not hold itself (a tensor, a function), bound for each run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from workbench.graph.modes import Modes
from workbench.graph.operations import Operation
from workbench.graph.source import Line


class Ref:
    """The value of another node of the same graph."""

    __slots__ = ("id",)

    def __init__(self, id: int) -> None:
        self.id = id

    def __repr__(self) -> str:
        return f"%{self.id}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.id == self.id

    def __hash__(self) -> int:
        return hash((Ref, self.id))


_REFS = [Ref(id) for id in range(2048)]


def ref_to(id: int) -> Ref:
    """The reference to a node: small ones are made once, since a reference is no more than its number."""
    return _REFS[id] if id < 2048 else Ref(id)


class Argument:
    """Something bound by name for each run."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"${self.name}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Argument) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Argument, self.name))


class Node(NamedTuple):
    """One operation on references and plain data.

    `refs` are the ids it reads, `invoke` the rows it belongs to, `block` the block it stands in, `guard` the id of
    the condition that must hold for it to run, `modes` what it runs under, such as `torch.no_grad()`.
    """

    id: int
    op: Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    refs: tuple[int, ...]
    line: Line
    invoke: int
    block: int = 0
    guard: int | None = None
    modes: Modes = ()

    def __str__(self) -> str:
        return f"%{self.id} = {call_text(self)}"


def call_text(node: Node) -> str:
    """The node's call as short Python-like text."""
    name, args = node.op.name, node.args
    if name == "site":
        return str(args[0])
    if name == "getattr":
        return f"{args[0]!r}.{args[1]}"
    if name == "getitem":
        return f"{args[0]!r}[{index_text(args[1])}]"
    if name == "method":
        return f"{args[0]!r}.{args[1]}({_arguments(args[2:], node.kwargs)})"
    if node.op.symbol and len(args) == 2:
        return f"{args[0]!r} {node.op.symbol} {args[1]!r}"
    return f"{name.removeprefix('operator.')}({_arguments(args, node.kwargs)})"


def index_text(index: Any) -> str:
    """An index as a person writes it: `:, -1` for `(slice(None), -1)`."""
    if isinstance(index, tuple) and index:
        return ", ".join(map(index_text, index))
    if isinstance(index, slice):
        start, stop = ("" if part is None else repr(part) for part in (index.start, index.stop))
        return f"{start}:{stop}" + ("" if index.step is None else f":{index.step!r}")
    return "..." if index is Ellipsis else repr(index)


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    parts = [_short(arg) for arg in args] + [f"{name}={_short(value)}" for name, value in kwargs.items()]
    return ", ".join(parts)


def _short(value: Any) -> str:
    has_slice = isinstance(value, slice) or (isinstance(value, tuple) and any(isinstance(v, slice) for v in value))
    text = f"[{index_text(value)}]" if has_slice else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
