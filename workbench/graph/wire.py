"""Wire: a graph as JSON, with the tensors that it names beside it, to be kept in a file or sent.

It holds names of operations from a list of allowed ones, never code: what is read from a file can compute on tensors
and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from workbench.errors import WireError
from workbench.graph import operations as ops
from workbench.graph.graph import Block, Graph
from workbench.graph.modes import read as read_mode
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.operations import Operation
from workbench.graph.source import text
from workbench.site import Site

VERSION = 1


def to_wire(graph: Graph, bindings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph as plain JSON data, and the tensors it is bound to by name.

    Raises:
        WireError: something that cannot travel, such as a function of the user's; it names the line and the cure.
    """
    tensors: dict[str, Tensor] = {}
    for node in graph.nodes:
        for argument in _arguments((node.args, node.kwargs)):
            if argument.name not in tensors:
                tensors[argument.name] = _bound(bindings[argument.name], node)
    data = {
        "version": VERSION,
        "blocks": [list(block) for block in graph.blocks],
        "nodes": [_node(node) for node in graph.nodes],
        "saved": sorted(graph.saved),
    }
    return data, tensors


def from_wire(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Graph, dict[str, Any]]:
    """The graph and what its names are bound to.

    Raises:
        WireError: data of another version, or with something that is not allowed in it.
    """
    if data.get("version") != VERSION:
        raise WireError(
            f"this graph is of version {data.get('version')!r}, and this workbench reads version {VERSION}; "
            "use the workbench that wrote it, or write it anew"
        )
    try:
        blocks = tuple(Block(*block) for block in data["blocks"])
        nodes = tuple(_read(id, node, len(blocks)) for id, node in enumerate(data["nodes"]))
        saved = frozenset(data["saved"])
        if not saved <= set(range(len(nodes))):
            raise WireError("this graph keeps nodes that it does not have")
    except (KeyError, TypeError, IndexError) as error:
        raise WireError(f"this is no graph of a workbench: {type(error).__name__}: {error}") from error
    names = tuple(dict.fromkeys(each.name for node in nodes for each in _arguments((node.args, node.kwargs))))
    missing = [name for name in names if name not in tensors]
    if missing:
        raise WireError(f"the tensors {', '.join(missing)} are missing beside this graph")
    return Graph(nodes, saved, names, blocks), {name: tensors[name] for name in names}


# ---- operations


@cache
def allowed() -> dict[str, Operation]:
    """The operations that may stand in a file, by name."""
    from torch.overrides import get_overridable_functions

    found = dict(ops.registered())
    for functions in get_overridable_functions().values():
        for fn in functions:
            name = ops.name_of(fn)
            if name.rpartition(".")[2] not in _DENIED:
                found.setdefault(name, ops.of(fn))
    for name in ops.FACTORIES:
        fn = getattr(torch, name)
        found.setdefault(ops.name_of(fn), ops.of(fn))
    return found


def _operation(name: str, args: Any) -> Operation:
    if name == "method":
        return ops.method(args[1])
    found = allowed().get(name)
    if found is None:
        raise WireError(f"{name!r} is no operation that may stand in a file")
    return found


def _attribute(op: Operation, args: Any) -> None:
    """Attributes are named in clear. Private ones are never touched, nor those that lead out of tensors: to memory, to
    files (an array writes itself to one), to functions of Python's."""
    if op.name in _NAMING and (not isinstance(args[1], str) or args[1].startswith("_") or args[1] in _DENIED):
        raise WireError(f"the attribute {args[1]!r} may not be used by what comes from a file")


_NAMING = frozenset({"method", "getattr", "setattr"})
_DENIED = frozenset(
    """apply_ data_ptr dump format format_map map2_ map_ module_load numpy register_hook
    register_post_accumulate_grad_hook set_ share_memory_ storage tofile untyped_storage""".split()
)


# ---- nodes


def _node(node: Node) -> dict[str, Any]:
    op = node.op
    if op.name != "method":
        known = allowed().get(op.name)
        if known is None or known.fn is not op.fn:
            raise _error(node, f"the function {op.name} is not torch's, and cannot travel: a file holds no code")
    _attribute(op, node.args)
    data: dict[str, Any] = {"op": op.name, "args": [_encode(arg, node) for arg in node.args]}
    if node.kwargs:
        data["kwargs"] = {name: _encode(value, node) for name, value in node.kwargs.items()}
    for name, value in (("invoke", node.invoke), ("block", node.block)):
        if value:
            data[name] = value
    if node.guard is not None:
        data["guard"] = node.guard
    if node.modes:
        data["modes"] = [list(mode) for mode in node.modes]
    data["line"] = text(node.line)
    return data


def _read(id: int, data: Mapping[str, Any], blocks: int) -> Node:
    refs: list[int] = []
    args = tuple(_decode(arg, refs) for arg in data["args"])
    kwargs = {name: _decode(value, refs) for name, value in data.get("kwargs", {}).items()}
    op = _operation(data["op"], args)
    _attribute(op, args)
    guard = data.get("guard")
    if guard is not None:
        refs.append(guard)
    if any(not isinstance(ref, int) or not 0 <= ref < id for ref in refs):
        raise WireError(f"node {id} reads what comes after it")
    block = data.get("block", 0)
    if not 0 <= block < blocks:
        raise WireError(f"node {id} stands in a block that there is not")
    line = (str(data.get("line", "a file")), 0)
    try:
        modes = tuple(map(read_mode, data.get("modes", ())))
    except (TypeError, ValueError) as error:
        raise WireError(f"node {id} runs under what is no mode of torch: {error}") from error
    return Node(id, op, args, kwargs, tuple(refs), line, data.get("invoke", 0), block, guard, modes)


def _error(node: Node, what: str) -> WireError:
    line = text(node.line)
    error = WireError(f"{what} ({line}). Write it with torch functions and operators on traced values")
    error.line = line
    return error


def _bound(value: Any, node: Node) -> Tensor:
    if isinstance(value, Tensor) and type(value) in (Tensor, torch.nn.Parameter) and not value.is_sparse:
        return value.detach().contiguous()
    raise _error(node, f"a {type(value).__name__} cannot travel")


# ---- values

_DTYPES = {str(each): each for each in vars(torch).values() if isinstance(each, torch.dtype)}
_LAYOUTS = {str(each): each for each in vars(torch).values() if isinstance(each, torch.layout)}


def _encode(value: Any, node: Node) -> Any:
    """A value as JSON: what JSON has stays as it is, the rest is an object with one key that says what it is."""
    if value is None or isinstance(value, (bool, str)):
        return value
    kind = type(value)
    if kind is int:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is list:
        return [_encode(item, node) for item in value]
    for name, (type_, write, _) in _KINDS.items():
        if kind is type_:
            return {name: write(value, lambda item: _encode(item, node))}
    raise _error(node, f"a {kind.__name__} cannot travel")


def _decode(value: Any, refs: list[int]) -> Any:
    if isinstance(value, list):
        return [_decode(item, refs) for item in value]
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    if name == "float":
        return float(inner)
    made = _KINDS[name][2](inner, lambda item: _decode(item, refs))
    if type(made) is Ref:
        refs.append(made.id)
    return made


def _whole(value: Any, inner: Callable[[Any], Any]) -> list[Any]:
    return [inner(item) for item in value]


def _pairs(value: Mapping[Any, Any], inner: Callable[[Any], Any]) -> list[Any]:
    return [[inner(key), inner(item)] for key, item in value.items()]


Write = Callable[[Any, Callable[[Any], Any]], Any]

_KINDS: dict[str, tuple[type, Write, Write]] = {
    "ref": (Ref, lambda ref, inner: ref.id, lambda id, inner: Ref(id)),
    "tensor": (Argument, lambda argument, inner: argument.name, lambda name, inner: Argument(name)),
    "tuple": (tuple, _whole, lambda items, inner: tuple(_whole(items, inner))),
    "dict": (dict, _pairs, lambda pairs, inner: {inner(key): inner(item) for key, item in pairs}),
    "slice": (
        slice,
        lambda each, inner: _whole((each.start, each.stop, each.step), inner),
        lambda parts, inner: slice(*_whole(parts, inner)),
    ),
    "site": (Site, lambda site, inner: list(site), lambda parts, inner: Site(*parts)),
    "ellipsis": (type(...), lambda each, inner: True, lambda each, inner: ...),
    "dtype": (torch.dtype, lambda each, inner: str(each), lambda name, inner: _DTYPES[name]),
    "layout": (torch.layout, lambda each, inner: str(each), lambda name, inner: _LAYOUTS[name]),
    "device": (torch.device, lambda each, inner: str(each), lambda name, inner: torch.device(name)),
    "size": (torch.Size, lambda each, inner: list(each), lambda sizes, inner: torch.Size(sizes)),
    "complex": (complex, lambda each, inner: [each.real, each.imag], lambda parts, inner: complex(*parts)),
}


def _arguments(value: Any) -> list[Argument]:
    """Each named value in a node's arguments."""
    if type(value) is Argument:
        return [value]
    if isinstance(value, (tuple, list)) and type(value) is not Site:
        return [each for item in value for each in _arguments(item)]
    if isinstance(value, dict):
        return [each for item in value.values() for each in _arguments(item)]
    if isinstance(value, slice):
        return _arguments((value.start, value.stop, value.step))
    return []
