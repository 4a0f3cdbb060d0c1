"""Codecs: how a value is written as JSON with tensors beside it, and read again; what has no codec is refused by type.

JSON's own values stay as they are; everything else is an object with one key that says what it is. Other rooms register
codecs for containers of theirs (a model's output, a cache of keys and values).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.errors import WireError
from workbench.graph.node import Argument, Ref
from workbench.site import Site

Inner = Callable[[Any], Any]
"""Writes, or reads, a value inside another."""

DEPTH = 64
"""How deep a value may be nested."""

TEXT = 1 << 20
"""How long a text may be."""


class Codec(NamedTuple):
    """How values of one kind travel: `takes` says of a type whether it is of the kind."""

    name: str
    takes: Callable[[type], bool]
    write: Callable[[Any, Inner], Any]
    read: Callable[[Any, Inner], Any]


_registered: dict[str, Codec] = {}


def register(codec: Codec) -> Codec:
    """Let containers of one more kind travel."""
    _registered[codec.name] = codec
    return codec


class Writer:
    """Writes values.

    `tensors` holds those met on the way, by the names under which they are written, `room` is how many bytes they may
    have, and `refuse` makes the error for what cannot travel.
    """

    def __init__(self, refuse: Callable[[str], WireError] | None = None, room: int | None = None) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.refuse: Callable[[str], WireError] = refuse or WireError
        self.room = room
        self._names: dict[int, tuple[str, Tensor]] = {}

    def write(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON. Raises `WireError` for one that cannot travel."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if value.bit_length() > 64:
                raise self.refuse(f"a whole number of {value.bit_length()} bits cannot travel; it may have 64")
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if depth > DEPTH:
            raise self.refuse(f"a value nested more than {DEPTH} deep cannot travel")
        if kind is list:
            return [self.write(item, depth + 1) for item in value]
        if isinstance(value, Tensor):
            return self._tensor(value)
        codec = _CODECS.get(kind) or next((each for each in _registered.values() if each.takes(kind)), None)
        if codec is None:
            raise self.refuse(f"a {kind.__name__} cannot travel")
        return {codec.name: codec.write(value, lambda item: self.write(item, depth + 1))}

    def _tensor(self, value: Tensor) -> dict[str, Any]:
        if id(value) in self._names:
            name = self._names[id(value)][0]
        else:
            name = f"t{len(self._names)}"
            self._names[id(value)] = name, value  # kept, so that no other tensor gets its id
            self._take(value.numel() * value.element_size())
            self.tensors[name] = sendable(value, self.refuse)
        written: dict[str, Any] = {"data": name}
        if value.is_complex():
            written = {"complex data": name}
        return {"parameter": written} if isinstance(value, nn.Parameter) else written

    def _take(self, size: int) -> None:
        """Bytes by logical size: what is expanded is written out."""
        if self.room is not None:
            self.room -= size
            if self.room < 0:
                raise TooLarge


class TooLarge(WireError):
    """There is no room for what is written."""


def sendable(value: Tensor, refuse: Callable[[str], WireError] = WireError) -> Tensor:
    """The tensor as it is sent: dense, without its gradient's graph, with memory of its own."""
    if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided or value.is_quantized:
        kind = type(value).__name__ if value.layout is torch.strided else f"tensor of layout {value.layout}"
        raise refuse(f"a {kind} cannot travel; make it a plain tensor (`.to_dense()`, `.dequantize()`)")
    if value.is_meta:
        raise refuse("a tensor without values (on the meta device) cannot travel")
    value = value.detach().resolve_conj().resolve_neg()
    return (torch.view_as_real(value) if value.is_complex() else value).contiguous().cpu()


class Reader:
    """Reads values; `refs` gathers the nodes that they name, `arguments` the names that are bound for each run."""

    def __init__(self, tensors: Mapping[str, Tensor | None], depth: int = DEPTH) -> None:
        self.tensors = tensors
        self.refs: list[int] = []
        self.arguments: list[str] = []
        self._depth = depth

    def read(self, value: Any, depth: int = 0) -> Any:
        """A value from JSON. Raises `WireError` for what is none."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            if value.bit_length() > 64:
                raise WireError(f"a whole number of {value.bit_length()} bits stands here; it may have 64")
            return value
        if kind is float:
            if not math.isfinite(value):
                raise WireError("a number that is not finite stands here")
            return value
        if kind is str:
            if len(value) > TEXT:
                raise WireError(f"a text of {len(value)} letters stands here; it may have {TEXT}")
            return value
        if depth > self._depth:
            raise WireError(f"a value is nested more than {self._depth} deep")
        if kind is list:
            return [self.read(item, depth + 1) for item in value]
        if kind is not dict or len(value) != 1:
            raise WireError("a value is no object with one key that says what it is")
        ((name, inner),) = value.items()
        codec = _BY_NAME.get(name) or _registered.get(name)
        if codec is None:
            raise WireError(f"there is no value of kind {_shown(name)}")
        if name == "ref":
            if type(inner) is not int:
                raise WireError("a reference is no whole number")
            self.refs.append(inner)
            return Ref(inner)
        if name == "tensor":
            if type(inner) is not str:
                raise WireError("the name of a tensor is no text")
            self.arguments.append(inner)
            return Argument(inner)
        if name in ("data", "complex data"):
            return self._tensor(inner, name == "complex data")
        try:
            return codec.read(inner, lambda item: self.read(item, depth + 1))
        except WireError:
            raise
        except (TypeError, ValueError, KeyError, RuntimeError, OverflowError, AttributeError) as error:
            raise WireError(f"this is no {name}: {error}") from error

    def _tensor(self, name: Any, is_complex: bool) -> Any:
        if not isinstance(name, str) or name not in self.tensors:
            raise WireError(f"the tensor {_shown(name)} is missing")
        tensor = self.tensors[name]
        if tensor is None:
            return None  # only its place is looked at
        if not is_complex:
            return tensor
        if not tensor.is_floating_point() or tensor.ndim == 0 or tensor.shape[-1] != 2:
            raise WireError(f"the tensor {_shown(name)} holds no complex numbers")
        return torch.view_as_complex(tensor)


def _shown(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 60 else text[:57] + "…"


# ---- what travels from the start

_DTYPES = {str(each): each for each in vars(torch).values() if isinstance(each, torch.dtype)}
_LAYOUTS = {str(torch.strided): torch.strided}
_FORMATS = {
    str(each): each
    for each in (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)
}
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def _whole(value: Sequence[Any], inner: Inner) -> list[Any]:
    return [inner(item) for item in value]


def _items(value: Any) -> list[Any]:
    if type(value) is not list:
        raise WireError("a container holds no list")
    return value


def _dict(pairs: Any, inner: Inner) -> dict[Any, Any]:
    return {inner(key): inner(item) for key, item in map(_items, _items(pairs))}


def _site(parts: Any, inner: Inner) -> Site:
    path, port, call, inside, step = _items(parts)
    counts = (call, step)
    if not (isinstance(path, str) and port in ("input", "output") and isinstance(inside, str)):
        raise WireError("a site names a module's path, and its input or output")
    if not all(type(each) is int and -1 <= each < 1 << 31 for each in counts):
        raise WireError("a site's call and step are counts")
    return Site(path, port, call, inside, step)


def _parameter(inner: Any, read: Inner) -> Any:
    tensor = read(inner)
    return None if tensor is None else nn.Parameter(tensor, requires_grad=tensor.is_floating_point())


def _sizes(value: Any) -> torch.Size:
    if not all(type(each) is int and each >= 0 for each in _items(value)):
        raise WireError("a size is a list of counts")
    return torch.Size(value)


def _by_reader(value: Any, inner: Inner) -> Any:
    raise AssertionError("a reader reads this itself")


def _only(kind: type) -> Callable[[type], bool]:
    return lambda each: each is kind


def _codec(name: str, kind: type, write: Callable[[Any, Inner], Any], read: Callable[[Any, Inner], Any]) -> Codec:
    return Codec(name, _only(kind), write, read)


_KINDS: dict[type, Codec] = {
    kind: _codec(name, kind, write, read)
    for name, kind, write, read in (
        ("ref", Ref, lambda ref, inner: ref.id, _by_reader),
        ("tensor", Argument, lambda argument, inner: argument.name, _by_reader),
        ("tuple", tuple, _whole, lambda items, inner: tuple(_whole(_items(items), inner))),
        ("set", set, lambda each, inner: _whole(list(each), inner), lambda items, inner: set(_whole(items, inner))),
        ("dict", dict, lambda value, inner: [[inner(key), inner(item)] for key, item in value.items()], _dict),
        (
            "slice",
            slice,
            lambda each, inner: _whole((each.start, each.stop, each.step), inner),
            lambda parts, inner: slice(*_whole(_items(parts), inner)),
        ),
        ("site", Site, lambda site, inner: list(site), _site),
        ("ellipsis", type(...), lambda each, inner: True, lambda each, inner: ...),
        ("dtype", torch.dtype, lambda each, inner: str(each), lambda name, inner: _DTYPES[name]),
        ("layout", torch.layout, lambda each, inner: str(each), lambda name, inner: _LAYOUTS[name]),
        ("format", torch.memory_format, lambda each, inner: str(each), lambda name, inner: _FORMATS[name]),
        ("device", torch.device, lambda each, inner: str(each), lambda name, inner: torch.device(str(name)[:20])),
        ("size", torch.Size, lambda each, inner: list(each), lambda sizes, inner: _sizes(sizes)),
        (
            "complex",
            complex,
            lambda each, inner: [inner(each.real), inner(each.imag)],
            lambda parts, inner: complex(*_whole(parts, inner)),
        ),
        ("bytes", bytes, lambda each, inner: each.hex(), lambda text, inner: bytes.fromhex(text)),
        ("range", range, lambda each, inner: [each.start, each.stop, each.step], lambda parts, inner: range(*parts)),
    )
}  # fmt: skip
_CODECS: Mapping[type, Codec] = _KINDS
_BY_NAME: dict[str, Codec] = {
    **{codec.name: codec for codec in _KINDS.values()},
    "float": Codec("float", _only(float), lambda value, inner: str(value), lambda text, inner: _FLOATS[text]),
    "data": Codec("data", _only(Tensor), _by_reader, _by_reader),
    "complex data": Codec("complex data", _only(Tensor), _by_reader, _by_reader),
    "parameter": Codec("parameter", _only(nn.Parameter), _by_reader, _parameter),
}
