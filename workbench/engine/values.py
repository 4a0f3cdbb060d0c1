"""Walking the values that modules take and give: tensors inside tuples, dicts, model outputs, dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor


def map_tensors(fn: Callable[[Tensor], Any], value: Any) -> Any:
    """The same container with `fn` of each tensor; other objects (a cache, a number) stay the same objects."""
    if isinstance(value, Tensor):
        return fn(value)
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([map_tensors(fn, item) for item in value])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*[map_tensors(fn, item) for item in value])
    if isinstance(value, dict):
        mapped = {name: map_tensors(fn, item) for name, item in value.items()}
        return mapped if kind is dict else kind(**mapped) if _takes_fields(value) else kind(mapped)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: map_tensors(fn, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value


Where = tuple[Any, ...]
"""Where in a container a value stands: indices, keys and field names from the outside in."""


def map_placed(fn: Callable[[Where, Tensor], Any], value: Any, where: Where = ()) -> Any:
    """As `map_tensors`, with each tensor's place."""
    places = iter([place for place, _ in placed(value, where)])
    return map_tensors(lambda tensor: fn(next(places), tensor), value)


def placed(value: Any, where: Where = ()) -> Iterator[tuple[Where, Tensor]]:
    """Each tensor that `map_tensors` would map, with its place, in the same order."""
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, tuple) or type(value) is list:
        if type(value) in (tuple, list) or hasattr(value, "_fields"):
            for index, item in enumerate(value):
                yield from placed(item, (*where, index))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from placed(item, (*where, name))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.init:
                yield from placed(getattr(value, field.name), (*where, field.name))


def _takes_fields(value: Mapping[str, Any]) -> bool:
    return dataclasses.is_dataclass(value)


def tensors(value: Any) -> Iterator[Tensor]:
    """Each tensor of a value, depth first."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of a value, or None; a `ValueError` where it cannot be told."""
    if isinstance(value, Untold):
        value.refuse()
    return next(tensors(value), None)


def copied(value: Any) -> Any:
    """The value with tensors of its own, so that an edit reaches nothing else that holds them."""
    return map_tensors(torch.clone, value)


class Untold:
    """In the place of a tensor that mixes the invokes; using it says why."""

    def __init__(self, why: str) -> None:
        object.__setattr__(self, "_why", why)

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Say why."""
        raise ValueError(object.__getattribute__(self, "_why"))

    __getattr__ = __setattr__ = __getitem__ = __setitem__ = __len__ = __iter__ = __call__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __matmul__ = __neg__ = refuse

    @classmethod
    def __torch_function__(cls, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> NoReturn:
        next(each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Untold)).refuse()

    def __repr__(self) -> str:
        return f"<no value: {object.__getattribute__(self, '_why')}>"


def shape_text(value: Any) -> str:
    """`shape (1, 10)` of a tensor, the type's name of anything else."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def signature(value: Any) -> Any:
    """What decides a value's shapes: of tensors their shapes, dtypes and devices, of other things what they are."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, (tuple, list)):
        return tuple(signature(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, signature(item)) for name, item in value.items())
    return value if isinstance(value, (int, float, str, bool, type(None))) else id(value)
