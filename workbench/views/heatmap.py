"""A tensor as a picture: rows of positions, columns of features, small enough to send and to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from workbench.experiment.kinds import Frozen

MOST = 1024
"""Rows or columns of the largest picture; more are merged."""


class Heatmap(Frozen):
    """A float32 picture, row-major in the reply's buffer number `buffer`. NaN and Inf stay NaN and Inf in it."""

    kind: Literal["heatmap"] = "heatmap"
    rows: int
    columns: int
    row_labels: tuple[str, ...] = Field(description="token labels, or row numbers as text")
    limit: float = Field(description="colours run from -limit to +limit; what lies outside is clipped")
    clipped: int = Field(description="finite numbers of the picture that lie outside the limit")
    nan: int = Field(default=0, description="numbers of the picture that are NaN")
    infinite: int = Field(default=0, description="numbers of the picture that are plus or minus infinity")
    stride: int = Field(default=1, description="features merged into one column, by mean; 1 means none")
    row_stride: int = Field(default=1, description="rows merged into one, by mean; 1 means none")
    buffer: int


def heatmap(value: Tensor, labels: Sequence[str] = (), buffer: int = 0) -> tuple[Heatmap, bytes] | None:
    """A picture of a tensor, and its float32 bytes, row-major.

    The last axis becomes the columns, all others the rows. More than 1024 of either are merged by mean. Colours end at
    three standard deviations about zero, or at the largest number where that is less.

    Args:
        value: `(batch, position, feature)`, or any other number of axes, of any dtype; complex numbers by magnitude.
        labels: a token for each position; used when the rows are these positions.
        buffer: the number under which the bytes are sent.

    Returns:
        None when there is nothing to draw: an empty, sparse or quantized tensor, or one without data.

    Example:
        >>> import torch
        >>> header, data = heatmap(torch.ones(1, 2, 3), ["a", "b"])
        >>> header.rows, header.columns, header.row_labels, len(data)
        (2, 3, ('a', 'b'), 24)
    """
    if not value.numel() or value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return None
    table = _table(value.detach())
    names = _row_names(tuple(value.shape), labels)
    table, stride = _merged(table, axis=1)
    table, row_stride = _merged(table, axis=0)
    if row_stride > 1:
        names = [_span(names[start : start + row_stride]) for start in range(0, len(names), row_stride)]
    finite = table.isfinite()
    size = torch.where(finite, table.abs(), 0)
    limit = _limit(size, int(finite.sum()))
    header = Heatmap(
        rows=table.shape[0],
        columns=table.shape[1],
        row_labels=tuple(names),
        limit=limit,
        clipped=int((size > limit).sum()),
        nan=int(table.isnan().sum()),
        infinite=int(table.isinf().sum()),
        stride=stride,
        row_stride=row_stride,
        buffer=buffer,
    )
    return header, table.cpu().contiguous().numpy().tobytes()


def _table(value: Tensor) -> Tensor:
    """The tensor as float32 `(row, column)`."""
    if value.is_complex():
        value = value.abs()
    columns = value.shape[-1] if value.ndim else 1
    return value.reshape(-1, columns).to(torch.float32)


def _row_names(shape: tuple[int, ...], labels: Sequence[str]) -> list[str]:
    """What each row is: its token where the last axis but one counts positions, its indices elsewhere."""
    axes = shape[:-1]
    while len(axes) > 1 and axes[0] == 1:
        axes = axes[1:]
    if not axes:
        return [""]
    last = list(labels) if axes[-1] == len(labels) else [str(index) for index in range(axes[-1])]
    names = last
    for length in reversed(axes[:-1]):  # (head, position) → "0 The", "0 cat", "1 The", …
        names = [f"{index}{' ' if not name.startswith(' ') else ''}{name}" for index in range(length) for name in names]
    return names


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} …{names[-1]}"


def _merged(table: Tensor, axis: int) -> tuple[Tensor, int]:
    """At most `MOST` along an axis, each the mean of `stride` neighbours (the last of what is left)."""
    length = table.shape[axis]
    stride = -(-length // MOST)
    if stride == 1:
        return table, 1
    whole = length - length % stride
    parts = [table.narrow(axis, 0, whole).unflatten(axis, (-1, stride)).mean(axis + 1)]
    if whole < length:
        parts.append(table.narrow(axis, whole, length - whole).mean(axis, keepdim=True))
    return torch.cat(parts, axis), stride


def _limit(size: Tensor, finite: int) -> float:
    """Where the colours end; 1 for a picture of nothing but zeros, so that zero has its own colour."""
    largest = float(size.max())
    if not largest:
        return 1.0
    # Scaled by the largest, so that squares of very large or very small numbers are still numbers.
    deviation = largest * float(((size / largest).double().square().sum() / finite).sqrt())
    return min(3 * deviation, largest)
