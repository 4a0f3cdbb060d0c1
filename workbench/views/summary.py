"""A saved value in one line: a tensor by its statistics, a container by what is in it, anything else by its repr."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LONGEST = 200


def summary(value: Any) -> str:
    """One line on a value.

    Mean and standard deviation are those of the finite numbers.

    Example:
        >>> import torch
        >>> summary(torch.tensor([[1.0, 3.0]]))
        '(1, 2) float32 · mean 2 · std 1 · 0 NaN'
        >>> summary((torch.zeros(2, 3), None))
        'tuple: (2, 3) float32, None'
    """
    if isinstance(value, Tensor):
        return f"{shape_and_dtype(value)} · {_statistics(value)}"
    return _short(_inside(value))


def shape_and_dtype(value: Tensor) -> str:
    """`(1, 8, 128) float32`."""
    return f"{tuple(value.shape)} {dtype_name(value.dtype)}"


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`."""
    return str(dtype).removeprefix("torch.")


def _statistics(value: Tensor) -> str:
    value = value.detach()
    if not value.numel():
        return "empty"
    if value.is_meta or value.layout is not torch.strided or value.is_quantized:
        return "on the meta device" if value.is_meta else str(value.layout).removeprefix("torch.")
    if value.dtype is torch.bool:
        return f"{int(value.sum())} of {value.numel()} true"
    if value.is_complex():
        return f"mean magnitude {value.abs().double().mean():.3g}"
    if not value.is_floating_point():
        return f"min {int(value.min())} · max {int(value.max())}"
    numbers = value.double() if value.device.type != "mps" else value.float()
    finite = numbers[numbers.isfinite()]
    parts = []
    if finite.numel():
        parts = [f"mean {float(finite.mean()):.3g}", f"std {float(finite.std(correction=0)):.3g}"]
    parts.append(f"{int(numbers.isnan().sum())} NaN")
    infinite = int(numbers.isinf().sum())
    return " · ".join([*parts, f"{infinite} Inf"] if infinite else parts)


def _inside(value: Any) -> str:
    """A container with each of its tensors as shape and dtype."""
    if isinstance(value, Tensor):
        return shape_and_dtype(value)
    if isinstance(value, Mapping):
        return f"{type(value).__name__}: {', '.join(f'{name} {_part(item)}' for name, item in value.items())}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}: {', '.join(map(_part, value))}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _part(value: Any) -> str:
    if isinstance(value, (Tensor, int, float, bool, str, type(None))):
        return _inside(value)
    return f"({_inside(value)})" if isinstance(value, (Mapping, tuple, list)) else type(value).__name__


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
