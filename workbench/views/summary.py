"""A saved value in one line: a tensor by its statistics, a container by what is in it, anything else by its repr."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LONGEST = 200
MANY = 1 << 20
"""Numbers of which mean and deviation are worked out in their own precision, in one go."""
PART = 1 << 12
"""Numbers whose squares are summed in one go."""
TOO_MANY = 1 << 28
"""Numbers of which no statistics are worked out: it would read them all."""


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
    if value.numel() > TOO_MANY:
        return f"{value.numel():,} numbers"
    if value.is_meta or value.layout is not torch.strided or value.is_quantized:
        return "on the meta device" if value.is_meta else str(value.layout).removeprefix("torch.")
    if value.dtype is torch.bool:
        return f"{int(value.sum())} of {value.numel()} true"
    if value.is_complex():
        return f"mean magnitude {value.abs().double().mean():.3g}"
    if not value.is_floating_point():
        return f"min {int(value.min())} · max {int(value.max())}"
    if value.numel() > MANY and all_finite(value):
        # Twice over all of it at the speed of memory: std_mean takes five times as long.
        numbers = value if value.dtype is torch.float64 else value.float()
        mean = numbers.mean()
        return f"mean {float(mean):.3g} · std {root_mean_square(numbers - mean):.3g} · 0 NaN"
    numbers = value.double() if value.device.type != "mps" else value.float()
    finite = numbers[numbers.isfinite()]
    parts = []
    if finite.numel():
        parts = [f"mean {float(finite.mean()):.3g}", f"std {float(finite.std(correction=0)):.3g}"]
    parts.append(f"{int(numbers.isnan().sum())} NaN")
    infinite = int(numbers.isinf().sum())
    return " · ".join([*parts, f"{infinite} Inf"] if infinite else parts)


def root_mean_square(numbers: Tensor) -> float:
    """Of finite numbers; in parts, since one sum of millions of squares loses digits in float32."""
    flat = numbers.reshape(-1)
    whole = flat.numel() - flat.numel() % PART
    parts = torch.linalg.vector_norm(flat[:whole].view(-1, PART), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:])
    return float((parts.double().square().sum() + rest.double().square()) / flat.numel()) ** 0.5


def all_finite(value: Tensor) -> bool:
    """Whether there is neither NaN nor Inf among real numbers; quick, since both show in the least and the largest."""
    low, high = torch.aminmax(value)
    return bool(low.isfinite() & high.isfinite())


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
