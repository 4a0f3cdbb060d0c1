"""Graph: a recorded program as frozen data, ready to be run any number of times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from workbench.graph.node import Node
from workbench.graph.source import where


class Block(NamedTuple):
    """Nodes that run together: one forward pass, the body of a loop, or what a session does in a row."""

    kind: Literal["trace", "session", "loop"]
    parent: int | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in the order they were written, which of them are kept, and the blocks they stand in, outermost first.

    It holds no values: tensors and functions are `Argument` names in the nodes, bound for each run, so one graph can
    be run again and again, by two threads, on two machines. `_plan` is where the engine keeps what it worked out.
    """

    nodes: tuple[Node, ...]
    saved: frozenset[int]
    arguments: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = (Block("trace"),)
    _plan: list[Any] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        lines = []
        for node in self.nodes:
            mark = "  .save()" if node.id in self.saved else ""
            lines.append(f"{str(node) + mark:<60}  # {where(node.line)}")
        return "\n".join(lines)
