"""Grid: a table of numbers made small enough to send and to draw, with what its colours need to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.views.header import Axis, Grid
from workbench.views.summary import all_finite, root_mean_square

MOST = (512, 1024)
"""Rows and columns of the largest picture; more are merged."""
EXACT = 1 << 20
"""Numbers from which the standard deviation is worked out; of more, evenly spaced ones."""
SIGMAS = 3.0


@dataclass
class Buffers:
    """The bytes that go beside a header, in the order of their numbers."""

    parts: list[bytes] = field(default_factory=list)

    def add(self, numbers: Tensor, dtype: Literal["float32", "float16"] = "float32") -> int:
        """Keep a tensor's numbers; gives the buffer's number."""
        kind = torch.float32 if dtype == "float32" else torch.float16
        self.parts.append(numbers.detach().to("cpu", kind).contiguous().numpy().tobytes())
        return len(self.parts) - 1


@dataclass(frozen=True)
class Side:
    """One side of a table before it is made small: what its numbers are called."""

    name: str
    labels: Sequence[str] = ()
    start: int = 0
    length: int | None = None


def draw(
    table: Tensor,
    rows: Side,
    columns: Side,
    buffers: Buffers,
    *,
    scale: Literal["diverging", "sequential"] = "diverging",
    most: tuple[int, int] = MOST,
    merged: Literal["mean", "largest"] = "mean",
    limit: float | None = None,
    **more: Any,
) -> Grid:
    """A table as a picture.

    Colours end at three standard deviations about zero, or at the largest number where that is less. NaN and Inf are
    counted in the table itself, not in the merged picture, in which a cell that holds one shows it.

    Args:
        table: `(row, column)`, or `(sheet, row, column)`, real, of any dtype.
        rows: what runs down; `columns`, what runs to the right.
        buffers: where the bytes are put.
        most: rows and columns that may be drawn; more are merged.
        merged: by their mean, or by the one that is largest in size, with its sign.
        limit: where the colours end, if that is known.
        more: other fields of the `Grid`.

    Example:
        >>> import torch
        >>> kept = Buffers()
        >>> grid = draw(torch.tensor([[1.0, -3.0]]), Side("position"), Side("feature"), kept, limit=2.0)
        >>> grid.clipped, grid.rows.size, grid.columns.size, len(kept.parts[0])
        (1, 1, 2, 8)
    """
    sheets = table if table.ndim == 3 else table[None]  # (sheet, row, column)
    picture, down, across = _small(sheets, most, merged)
    found = spread(sheets) if limit is None else limit
    finite = picture.isfinite()
    size = torch.where(finite, picture.abs(), 0)
    nan, infinite = (0, 0) if finite.all() else (int(sheets.isnan().sum()), int(sheets.isinf().sum()))
    return Grid(
        rows=_axis(rows, sheets.shape[1], picture.shape[1], down),
        columns=_axis(columns, sheets.shape[2], picture.shape[2], across),
        sheets=sheets.shape[0],
        buffer=buffers.add(picture),
        scale=scale,
        limit=found,
        clipped=int((size > found).sum()),
        nan=nan,
        infinite=infinite,
        merged=merged,
        **more,
    )


def spread(numbers: Tensor) -> float:
    """Where colours end: three standard deviations about zero, or the largest number; 1 where all are zero.

    Example:
        >>> import torch
        >>> spread(torch.tensor([3.0, -4.0, float("nan")]))
        4.0
    """
    sample = numbers.detach()
    if numbers.numel() > EXACT:
        for axis in range(numbers.ndim):  # evenly spaced, an odd number apart, so that columns take their turns
            share = -(-sample.numel() // EXACT)
            step = min(share, max(1, sample.shape[axis] // 64)) | 1
            sample = sample[(slice(None),) * axis + (slice(None, None, step),)]
    size = sample.float()
    if not all_finite(size):
        size = size[size.isfinite()]
    largest = max(map(abs, map(float, torch.aminmax(size)))) if size.numel() else 0.0
    if not largest:
        return 1.0
    # Scaled where squares of very large or very small numbers are no numbers any more.
    scale = 1.0 if 1e-12 < largest < 1e12 else largest
    deviation = scale * root_mean_square(size if scale == 1.0 else size / scale)
    return min(SIGMAS * deviation, largest)


def _axis(side: Side, length: int, size: int, step: int) -> Axis:
    labels = tuple(side.labels)
    if labels and step > 1:
        labels = tuple(_span(labels[at : at + step]) for at in range(0, length, step))
    whole = side.length if side.length is not None else side.start + length
    return Axis(name=side.name, size=size, start=side.start, step=step, length=whole, labels=labels)


def _span(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} …{labels[-1]}"


def _small(sheets: Tensor, most: tuple[int, int], merged: str) -> tuple[Tensor, int, int]:
    """At most so many rows and columns, each cell standing for `step` numbers a side (the last for what is left)."""
    down, across = (-(-length // limit) for length, limit in zip(sheets.shape[1:], most, strict=True))
    # Columns first: what lies side by side in memory is merged first, so little is read twice.
    for axis, step in ((2, across), (1, down)):
        sheets = _merge(sheets, axis, step, merged)
    return sheets.float(), down, across


def _merge(sheets: Tensor, axis: int, step: int, how: str) -> Tensor:
    if step == 1:
        return sheets
    length = sheets.shape[axis]
    whole = length - length % step
    parts = [_each(sheets.narrow(axis, 0, whole).unflatten(axis, (-1, step)), axis + 1, how)]
    if whole < length:
        parts.append(_each(sheets.narrow(axis, whole, length - whole), axis, how).unsqueeze(axis))
    return torch.cat(parts, axis)


def _each(numbers: Tensor, axis: int, how: str) -> Tensor:
    if how == "mean":
        return numbers.mean(axis, dtype=torch.float32)
    low, high = numbers.amin(axis).float(), numbers.amax(axis).float()
    return torch.where(-low > high, low, high)
