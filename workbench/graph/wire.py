"""Wire: a graph as JSON, with the tensors that it names beside it, to be kept in a file or sent.

It holds names of operations from a table of allowed ones, never code: what is read from a file can compute on tensors
and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.errors import WireError
from workbench.graph import operations as ops
from workbench.graph.allowed import FUNCTION, check, function, name_in_table, settled, table
from workbench.graph.codecs import Reader, Writer, sendable
from workbench.graph.graph import Block, Graph
from workbench.graph.limits import Limits
from workbench.graph.modes import read as read_mode
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.operations import Operation
from workbench.graph.source import location, text
from workbench.site import Site

MODES = 8
"""Modes that one statement may run under."""

VERSION = 2
READS = (1, 2)
"""Versions that can be read: in 1 a graph was bound to tensors alone."""


def to_wire(
    graph: Graph, bindings: Mapping[str, Any], writer: Writer | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph as plain JSON data, and the tensors it is bound to by name.

    Args:
        graph: what was recorded.
        bindings: what its names stand for: tensors, and containers of them for which there is a codec.
        writer: what else is written beside it; tensors inside containers go there.

    Raises:
        WireError: something that cannot travel, such as a function of the user's; it names the line and the cure.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    writer = writer or Writer()
    data = {
        "version": VERSION,
        "blocks": [list(block) for block in graph.blocks],
        "nodes": [_node(node, bindings, tensors, values, writer) for node in graph.nodes],
        "saved": sorted(graph.saved),
    }
    if values:
        data["values"] = values
    return data, {**tensors, **{f"{_INNER}{name}": tensor for name, tensor in writer.tensors.items()}}


_INNER = "in/"
"""What stands before the names of tensors inside containers."""


def from_wire(
    data: Any, tensors: Mapping[str, Tensor | None], limits: Limits | None = None
) -> tuple[Graph, dict[str, Any]]:
    """The graph and what its names are bound to.

    Raises:
        WireError: data of another version, or with something that is not allowed in it.
    """
    limits = limits or Limits()
    if type(data) is not dict:
        raise WireError("this is no graph of a workbench: it is no object")
    if data.get("version") not in READS or type(data.get("version")) is not int:
        raise WireError(
            f"this graph is of version {data.get('version')!r}, and this workbench reads versions "
            f"{' and '.join(map(str, READS))}; use the workbench that wrote it, or write it anew"
        )
    try:
        blocks = _blocks(data["blocks"])
        if len(data["nodes"]) > limits.nodes:
            raise WireError(f"this graph has {len(data['nodes'])} statements; {limits.nodes} are allowed")
        names: dict[str, None] = {}
        nodes = tuple(_read(id, node, blocks, names) for id, node in enumerate(data["nodes"]))
        _opened(nodes, blocks)
        saved = frozenset(data["saved"])
        if not all(type(id) is int and 0 <= id < len(nodes) for id in saved):
            raise WireError("this graph keeps nodes that it does not have")
        inner = {name.removeprefix(_INNER): each for name, each in tensors.items() if name.startswith(_INNER)}
        reader = Reader(inner)
        values = {name: reader.read(value) for name, value in data.get("values", {}).items()}
        if reader.refs or reader.arguments:
            raise WireError("a value that a graph is bound to refers to the graph")
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"this is no graph of a workbench: {type(error).__name__}: {error}") from error
    missing = [name for name in names if name not in tensors and name not in values]
    if missing:
        raise WireError(f"the tensors {', '.join(missing)[:200]} are missing beside this graph")
    bound = {name: values[name] if name in values else tensors[name] for name in names}
    return Graph(nodes, saved, tuple(names), blocks), bound


# ---- blocks

_KINDS = frozenset({"trace", "generate", "steps", "session", "loop"})
_INSIDE = {
    "trace": ("session", "loop"),
    "generate": ("session", "loop"),
    "steps": ("generate",),
    "loop": ("session", "loop"),
}
_OPENS = {ops.TRACE: ("trace", "generate"), ops.LOOP: ("loop",), ops.STEPS: ("steps",)}


def _blocks(data: list[Any]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for id, each in enumerate(data):
        kind, parent = each
        if kind not in _KINDS:
            raise WireError(f"there is no block of kind {str(kind)[:40]!r}")
        if id == 0:
            if parent is not None or kind in ("steps", "loop"):
                raise WireError("the first block of a graph is a trace, a generation or a session")
        elif type(parent) is not int or not 0 <= parent < id or blocks[parent].kind not in _INSIDE.get(kind, ()):
            raise WireError(f"block {id}, a {kind}, stands in no block in which it could")
        blocks.append(Block(kind, parent))
    if not blocks:
        raise WireError("this graph has no blocks")
    return tuple(blocks)


def _opened(nodes: tuple[Node, ...], blocks: tuple[Block, ...]) -> None:
    """Each block inside another is run by one node of the outer one, after what stands in it."""
    opened: dict[int, int] = {}
    for node in nodes:
        kinds = _OPENS.get(node.op)
        if kinds is not None:
            block = node.args[0]
            if not 0 < block < len(blocks) or blocks[block].kind not in kinds or blocks[block].parent != node.block:
                raise WireError(f"node {node.id} runs a block that it cannot run")
            if block in opened:
                raise WireError(f"block {block} is run twice")
            opened[block] = node.id
        elif node.op is ops.EXIT and (
            node.args[0] >= len(blocks) or blocks[node.args[0]].kind not in ("session", "loop")
        ):
            raise WireError(f"node {node.id} leaves a block that it cannot leave")
    for id in range(1, len(blocks)):
        if id not in opened:
            raise WireError(f"block {id} is never run")
    for node in nodes:
        if node.block and node.id >= opened[node.block]:
            raise WireError(f"node {node.id} stands in a block that was run before it")
        kind = blocks[node.block].kind
        if (node.op is ops.SITE or node.op is ops.SWAP or node.op is ops.SKIP) and kind in ("session", "loop"):
            raise WireError(f"node {node.id} is a site outside any forward pass")
        if node.op is ops.ITEM and kind not in ("loop", "steps"):
            raise WireError(f"node {node.id} is an item outside any loop")
        if node.op is ops.STOP and kind in ("session", "loop"):
            raise WireError(f"node {node.id} stops a pass that there is not")
        for ref in node.refs:
            if not _sees(node.block, nodes[ref].block, blocks) and nodes[ref].op is ops.ITEM:
                raise WireError(f"node {node.id} reads the item of a loop that it does not stand in")
    for id, block in enumerate(blocks):
        if block.kind == "loop" and not any(node.op is ops.ITEM and node.block == id for node in nodes):
            raise WireError(f"block {id} is a loop without an item")


def _sees(block: int | None, other: int, blocks: tuple[Block, ...]) -> bool:
    while block is not None:
        if block == other:
            return True
        block = blocks[block].parent
    return False


# ---- nodes


def _node(
    node: Node, bindings: Mapping[str, Any], tensors: dict[str, Tensor], values: dict[str, Any], writer: Writer
) -> dict[str, Any]:
    name = name_in_table(node.op)
    if name is None:
        raise refusal(node, f"the function {node.op.name} is not torch's, and cannot travel: no code does")
    try:
        check(name, node.args, node.kwargs)
    except WireError as error:
        raise refusal(node, str(error)) from error
    for argument in arguments((node.args, node.kwargs)):
        if argument.name not in tensors and argument.name not in values:
            _bound(argument.name, bindings[argument.name], node, tensors, values, writer)
    plain = Writer(lambda what: refusal(node, what, _AS_VALUES))
    data: dict[str, Any] = {"op": name, "args": [plain.write(arg) for arg in node.args]}
    if node.kwargs:
        data["kwargs"] = {name: plain.write(value) for name, value in node.kwargs.items()}
    for name, value in (("invoke", node.invoke), ("block", node.block)):
        if value:
            data[name] = value
    if node.guard is not None:
        data["guard"] = node.guard
    if node.modes:
        data["modes"] = [list(mode) for mode in node.modes]
    data["line"] = text(node.line)
    return data


def travels(node: Node, bindings: Mapping[str, Any], standing: Callable[[Any], bool] = lambda value: False) -> None:
    """Refuse a node that cannot travel, when it is written rather than when all is sent.

    Args:
        node: what was just recorded.
        bindings: what its names stand for.
        standing: says of a bound value that something else is sent in its place, as a model's name.

    Raises:
        WireError: it names the line and the cure.
    """
    values = {name: value for name, value in bindings.items() if not standing(value)}
    own = {each.name for each in arguments((node.args, node.kwargs))} & values.keys()
    _node(node, values, {}, dict.fromkeys(bindings.keys() - own), Writer())


def _bound(
    name: str, value: Any, node: Node, tensors: dict[str, Tensor], values: dict[str, Any], writer: Writer
) -> None:
    if isinstance(value, Tensor) and not value.is_complex() and not isinstance(value, torch.nn.Parameter):
        tensors[name] = sendable(value, lambda what: refusal(node, what, _AS_VALUES))
        return
    before, writer.refuse = writer.refuse, lambda what: refusal(node, what, _AS_VALUES)
    try:
        values[name] = writer.write(value)
    finally:
        writer.refuse = before


def _read(id: int, data: Mapping[str, Any], blocks: tuple[Block, ...], names: dict[str, None]) -> Node:
    reader = Reader({})
    args = tuple(reader.read(arg) for arg in _list(data["args"]))
    kwargs = {name: reader.read(value) for name, value in data.get("kwargs", {}).items()}
    op = _operation(data["op"], args)
    check(data["op"], args, kwargs)
    args, kwargs = settled(op, args, kwargs)
    refs = reader.refs
    guard = data.get("guard")
    if guard is not None:
        refs.append(guard)
    if any(type(ref) is not int or not 0 <= ref < id for ref in refs):
        raise WireError(f"node {id} reads what comes after it")
    block, invoke = data.get("block", 0), data.get("invoke", 0)
    if type(block) is not int or not 0 <= block < len(blocks):
        raise WireError(f"node {id} stands in a block that there is not")
    if type(invoke) is not int or not 0 <= invoke < 1 << 16:
        raise WireError(f"node {id} belongs to an invoke that there cannot be")
    names.update(dict.fromkeys(reader.arguments))
    line = (str(data.get("line", "a file"))[:500], 0)
    modes = _list(data.get("modes", []))
    try:
        if len(modes) > MODES:
            raise ValueError(f"{len(modes)} of them, and at most {MODES} are let in")
        modes = tuple(map(read_mode, modes))
    except (TypeError, ValueError) as error:
        raise WireError(f"node {id} runs under what is no mode of torch: {error}") from error
    return Node(id, op, args, kwargs, tuple(refs), line, invoke, block, guard, modes)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise WireError("the arguments of a statement are no list")
    return value


def _operation(name: Any, args: tuple[Any, ...]) -> Operation:
    if name == "method":
        if len(args) < 2 or type(args[1]) is not str:
            raise WireError("a method is called by its name")
        check("method", args, {})
        return ops.method(args[1])
    if isinstance(name, str) and name.startswith(FUNCTION):
        return function(name.removeprefix(FUNCTION))
    found = table().get(name) if isinstance(name, str) else None
    if found is None:
        raise WireError(f"{str(name)[:80]!r} is no operation that may stand in a file or a request")
    return found


def refusal(node: Node, what: str, cure: str | None = None) -> WireError:
    """An error that says on which line what cannot travel was written, and what to do."""
    line = location(node.line)
    return WireError(f"{what} ({line.text}). {cure or _AS_OPERATIONS}").at(line)


_AS_OPERATIONS = (
    "Write it with torch functions and operators on traced values; for a server, its operator can offer a function "
    "by name"
)
_AS_VALUES = (
    "What travels are tensors, numbers, texts, and lists, tuples and dicts of them: take out of it what is needed, and "
    "write that here"
)


def arguments(value: Any) -> list[Argument]:
    """Each named value in a node's arguments."""
    if type(value) is Argument:
        return [value]
    if isinstance(value, (tuple, list)) and type(value) is not Site:
        return [each for item in value for each in arguments(item)]
    if isinstance(value, dict):
        return [each for item in value.values() for each in arguments(item)]
    if isinstance(value, slice):
        return arguments((value.start, value.stop, value.step))
    return []


__all__ = ["READS", "VERSION", "Ref", "arguments", "from_wire", "refusal", "to_wire"]
