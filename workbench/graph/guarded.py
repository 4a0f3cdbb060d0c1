"""Guarded: the operations as a server runs them, which look at their values before they compute.

A graph is planned with the ordinary operations and run with these. What is looked up is looked up by the type of the
value, in the tables of `allowed`; results are bounded before they are made where arithmetic alone can make them large.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from workbench.graph import operations as ops
from workbench.graph.allowed import FUNCTION, attributes, methods, offered
from workbench.graph.limits import Refused
from workbench.graph.node import Node
from workbench.graph.operations import Operation

BITS = 4096
"""How large a whole number may become."""

ITEMS = 1 << 20
"""How many items a list, and how many letters a text may have."""


def guarded(node: Node) -> Node:
    """The node with the operation that a server runs in its place."""
    op = node.op
    if op.name.startswith(FUNCTION):
        found = offered().get(op.name.removeprefix(FUNCTION))
        if found is None:
            known = ", ".join(sorted(offered())) or "none"
            name = op.name.removeprefix(FUNCTION)
            raise Refused(f"this server offers no function {name!r}; it offers {known}", 404)
        return node._replace(op=found)
    found = _guards().get(op.name)
    return node if found is None else node._replace(op=found)


@cache
def _guards() -> dict[str, Operation]:
    own: dict[str, Callable[..., Any]] = {
        "getattr": _get, "setattr": _set, "method": _call_method, "getitem": _getitem, "setitem": _setitem,
        "delitem": _delitem, "bytes": _bytes, "bytearray": _bytearray, "int": _int, "str": _text,
        "list": _container(list), "tuple": _container(tuple), "set": _container(set), "dict": _container(dict),
        # Memory that is given without being written may hold what another job left there.
        "torch.empty": _zeroed(torch.zeros), "torch.empty_like": _zeroed(torch.zeros_like),
        "torch.Tensor.new_empty": _zeroed(torch.Tensor.new_zeros),
    }  # fmt: skip
    counting = {op.name: op for op in map(ops.of, (
        torch.batch_norm, torch.instance_norm, torch.nn.functional.batch_norm, torch.nn.functional.instance_norm,
    ))}  # fmt: skip
    own |= {name: _counted(op.fn) for name, op in counting.items()}
    known = ops.registered() | counting
    made = {name: _like(known.get(name), name, fn) for name, fn in own.items()}
    for name, op in ops.OPERATORS.items():
        made[op.name] = _like(op, op.name, _operator(name, op.fn))
    return made


def _like(op: Operation | None, name: str, fn: Callable[..., Any]) -> Operation:
    if op is None:
        return Operation(name, fn)
    return Operation(op.name, fn, writes=op.writes, views=op.views, symbol=op.symbol)


# ---- attributes and methods


def _table_of(value: Any, tables: Mapping[type, Any]) -> Any:
    for kind in type(value).__mro__:
        if kind in tables:
            return tables[kind]
    refuse = getattr(type(value), "refuse", None)  # stands for a value that there is not, and says why
    if refuse is not None:
        refuse(value)
    return None


def _get(value: Any, name: str) -> Any:
    names = _table_of(value, attributes())
    if names is not None and name in names:
        return getattr(value, name)
    if isinstance(value, Mapping) and name in value and not isinstance(value, type):
        return value[name]
    fields = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and fields and name in fields:
        return value[fields.index(name)]
    if isinstance(value, tuple) and type(value).__module__ == "torch.return_types":
        names = list(getattr(type(value), "__match_args__", ()))
        if name in names:
            return value[names.index(name)]
    raise AttributeError(f"a {type(value).__name__} has no attribute {name!r} that may be read here")


def _set(value: Any, name: str, new: Any) -> None:
    if not isinstance(value, Tensor) or name != "requires_grad":
        raise AttributeError(f"{name!r} of a {type(value).__name__} may not be assigned here")
    value.requires_grad_(bool(new))


def _call_method(value: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    names = _table_of(value, methods())
    if names is None and isinstance(value, Mapping):
        names = methods()[dict]
        names = {each: names[each] for each in ("keys", "values", "items", "get")}
        if name in names:
            return _of_mapping(value, name, *args)
    if names is None or name not in names:
        raise AttributeError(f"a {type(value).__name__} has no method {name!r} that may be called here")
    if isinstance(value, Tensor):
        return _METHODS.get(name, names[name])(value, *args, **kwargs)
    result = getattr(value, name)(*args, **kwargs)  # a name of the table's, which a subclass may do its own way
    if isinstance(value, (list, dict, set)):
        _bounded(value)
    return list(result) if isinstance(value, dict) and name in ("keys", "values", "items") else result


def _of_mapping(value: Mapping[str, Any], name: str, *args: Any) -> Any:
    if name == "get":
        return value.get(*args)
    return list({"keys": value.keys, "values": value.values, "items": value.items}[name]())


def _like_zeros(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return value.new_zeros(*args, **kwargs)


_METHODS: dict[str, Callable[..., Any]] = {"new_empty": _like_zeros}


def _zeroed(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: fn(*args, **{k: v for k, v in kwargs.items() if k != "memory_format"})


def _counted(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A norm in training writes into its running means where no version sees it; here one does."""

    def norm(value: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(value, *args, **kwargs)
        finally:
            for each in (*args, *kwargs.values()):
                if isinstance(each, Tensor) and not each.is_inference():
                    increment_version(each)

    return norm


# ---- items


def _openable(value: Any) -> None:
    if not isinstance(value, (Tensor, Sequence, Mapping)) and not callable(getattr(type(value), "refuse", None)):
        raise TypeError(f"a {type(value).__name__} has no items that may be read here")


def _getitem(value: Any, index: Any) -> Any:
    _openable(value)
    return operator.getitem(value, index)


def _setitem(value: Any, index: Any, new: Any) -> None:
    if not isinstance(value, Tensor) and type(value) not in (list, dict) and not isinstance(value, Mapping):
        raise TypeError(f"the items of a {type(value).__name__} may not be assigned here")
    if isinstance(value, list) and isinstance(index, slice):
        new = list(new)
        _bounded([*new[: ITEMS + 1]])
    value[index] = new  # pyright: ignore[reportIndexIssue]
    if not isinstance(value, Tensor):
        _bounded(value)


def _delitem(value: Any, index: Any) -> None:
    if type(value) not in (list, dict):
        raise TypeError(f"items of a {type(value).__name__} may not be taken away here")
    operator.delitem(value, index)


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, bytes, list, tuple, dict, set, bytearray)) and len(value) > ITEMS:
        raise ValueError(f"a {type(value).__name__} of {len(value)} items is larger than is allowed here ({ITEMS})")
    return value


# ---- operators


def _operator(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    short = name.removeprefix("i") if name not in ("invert",) else name
    bound = _BOUNDS.get(short, _BOUNDS.get(name))

    def checked(*values: Any) -> Any:
        if not any(isinstance(value, Tensor) for value in values):
            for value in values:
                _known(value)
            if bound is not None:
                bound(*values)
            return _numbered(_bounded(fn(*values)))
        return fn(*values)

    return checked


_COMPUTED = (bool, int, float, complex, str, bytes, list, tuple, dict, set, type(None), torch.dtype, torch.device)


def _known(value: Any) -> None:
    if not isinstance(value, _COMPUTED) and not callable(getattr(type(value), "refuse", None)):
        raise TypeError(f"a {type(value).__name__} is not computed with here")


def _numbered(value: Any) -> Any:
    if type(value) is int and value.bit_length() > BITS:
        raise OverflowError(f"a whole number of more than {BITS} bits is larger than is allowed here")
    return value


def _sizes(first: Any, second: Any) -> tuple[int, int] | None:
    if isinstance(first, int) and isinstance(second, int):
        return int(first).bit_length(), int(second).bit_length()
    return None


def _pow(base: Any, power: Any) -> None:
    bits = _sizes(base, power)
    if bits is not None and (bits[1] > 16 or bits[0] * abs(int(power)) > BITS) and abs(int(base)) > 1:
        raise OverflowError(f"{_short(base)} ** {_short(power)} is larger than is allowed here ({BITS} bits)")


def _shift(value: Any, by: Any) -> None:
    bits = _sizes(value, by)
    if bits is not None and (bits[1] > 16 or bits[0] + int(by) > BITS):
        raise OverflowError(f"a shift by {_short(by)} bits gives a number larger than is allowed here ({BITS} bits)")


def _times(first: Any, second: Any) -> None:
    for value, count in ((first, second), (second, first)):
        if isinstance(value, (str, bytes, list, tuple)) and isinstance(count, int) and len(value) * count > ITEMS:
            raise ValueError(f"a {type(value).__name__} of {len(value)} items, {_short(count)} times, is too large")


def _mod(value: Any, by: Any) -> None:
    if isinstance(value, (str, bytes)):
        raise TypeError("% is for numbers and tensors here; a text is not formatted in a trace")


def _plus(first: Any, second: Any) -> None:
    texts = isinstance(first, (str, bytes, list, tuple)) and hasattr(second, "__len__")
    if texts and len(first) + len(second) > ITEMS:
        raise ValueError(f"a {type(first).__name__} of more than {ITEMS} items is larger than is allowed here")


_BOUNDS: dict[str, Callable[..., None]] = {
    "pow": _pow, "lshift": _shift, "mul": _times, "mod": _mod, "add": _plus,
}  # fmt: skip


def _short(value: Any) -> str:
    return str(value) if int(value).bit_length() <= 128 else f"a number of {int(value).bit_length()} bits"


# ---- Python's own types


def _bytes(value: Any = b"", *args: Any) -> bytes:
    return bytes(_made_of(value))


def _bytearray(value: Any = b"", *args: Any) -> bytearray:
    return bytearray(_made_of(value))


def _made_of(value: Any) -> Any:
    if isinstance(value, int) and not 0 <= value <= ITEMS:
        raise ValueError(f"{_short(value)} bytes are more than is allowed here ({ITEMS})")
    if not isinstance(value, (int, bytes, bytearray, list, tuple)):
        raise TypeError(f"bytes are not made of a {type(value).__name__} here")
    return value


def _int(value: Any = 0, base: Any = None) -> int:
    if isinstance(value, (str, bytes)) and len(value) > 1000:
        raise ValueError("a text of more than 1000 letters is no number here")
    return _numbered(int(value) if base is None else int(value, base))


def _text(value: Any = "") -> str:
    return _bounded(str(_bounded(value)))


def _container(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(value: Any = (), **named: Any) -> Any:
        if isinstance(value, Tensor):
            if value.ndim and value.shape[0] > ITEMS:
                raise ValueError(f"a tensor of {value.shape[0]} rows is too long for a {kind.__name__} here")
        elif not isinstance(value, (list, tuple, dict, set, str, bytes, range, Mapping)):
            raise TypeError(f"a {kind.__name__} is not made of a {type(value).__name__} here")
        elif len(value) > ITEMS:
            _bounded(list(value) if len(value) <= 2 * ITEMS else ["?"] * (ITEMS + 1))
        return kind(value, **named) if named else kind(value)

    return make
