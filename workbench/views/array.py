"""Array: any tensor at all: two of its axes as a picture, the others at an index each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from workbench.errors import InputError
from workbench.views.grid import MOST, Buffers, Side, draw, spread
from workbench.views.header import ArrayView, Grid
from workbench.views.summary import dtype_name, shape_and_dtype, summary
from workbench.views.view import View

LARGE = 1 << 26
"""Numbers above which the line of statistics is left out: it would read them all."""

Window = tuple[int, int, int, int]
"""Rows from, to, columns from, to."""


def array(
    value: Tensor,
    *,
    tokens: Sequence[str] = (),
    names: Sequence[str] = (),
    down: int | None = None,
    across: int | None = None,
    index: Sequence[int] = (),
    merged: Literal["mean", "largest"] = "mean",
    title: str = "",
    code: str = "",
) -> View:
    """A tensor of any shape and dtype.

    Args:
        value: complex numbers are shown by their magnitude.
        tokens: names for the positions along an axis called `position`.
        names: a name for each axis; guessed from the shape where left out.
        down, across: the axes of the picture; the last two where left out.
        index: where the other axes stand; 0 where left out.
        merged: how neighbours are merged when there are too many to draw.

    Example:
        >>> import torch
        >>> view = array(torch.arange(24.0).reshape(2, 3, 4), index=(1, 0, 0))
        >>> view.header.grid.rows.size, view.header.grid.columns.size, view.to_dataframe().iloc[0, 0]
        (3, 4, np.float32(12.0))
    """
    value = value.detach()
    named = tuple(names) or axis_names(tuple(value.shape), tokens)
    free = [axis for axis in range(value.ndim) if axis not in (down, across)]
    across = across if across is not None else (free.pop() if free else None)
    down = down if down is not None else (free.pop() if free else None)
    index = tuple(index) or (0,) * value.ndim
    buffers = Buffers()
    grid = None
    if drawable(value):
        grid = tile(value, down, across, index, buffers, names=named, tokens=tokens, merged=merged)
    header = ArrayView(
        title=title or "array",
        tokens=tuple(tokens),
        code=code,
        note="" if grid is not None else "there are no numbers to draw",
        bytes=value.numel() * value.element_size() if value.layout is torch.strided else 0,
        shape=tuple(value.shape),
        names=named,
        dtype=dtype_name(value.dtype),
        text=summary(value) if value.numel() <= LARGE else shape_and_dtype(value),
        down=down,
        across=across,
        index=index,
        grid=grid,
    )
    return View(header, tuple(buffers.parts))


def tile(
    value: Tensor,
    down: int | None,
    across: int | None,
    index: Sequence[int],
    buffers: Buffers,
    *,
    window: Window | None = None,
    most: tuple[int, int] = MOST,
    names: Sequence[str] = (),
    tokens: Sequence[str] = (),
    merged: Literal["mean", "largest"] = "mean",
    limit: float | None = None,
) -> Grid:
    """A part of a tensor as a picture: only the numbers in the window are read.

    Args:
        down, across: the axes that are shown.
        index: for each axis the index where it stands; that of the two shown does not matter.
        window: rows from, to, columns from, to; all where left out.
        most: rows and columns that may be drawn; more are merged.
        limit: where the colours end, so that all tiles of a picture have the same.

    Raises:
        InputError: an axis or an index that is not there.

    Example:
        >>> import torch
        >>> grid = tile(torch.arange(12.0).reshape(3, 4), 0, 1, (0, 0), Buffers(), window=(1, 3, 2, 4))
        >>> grid.rows.start, grid.rows.size, grid.columns.start, grid.columns.size
        (1, 2, 2, 2)
    """
    table = _plane(value, down, across, index)
    top, bottom, left, right = window or (0, table.shape[0], 0, table.shape[1])
    if not (0 <= top < bottom <= table.shape[0] and 0 <= left < right <= table.shape[1]):
        raise InputError(f"rows {top}:{bottom}, columns {left}:{right} are not in a picture of {tuple(table.shape)}")
    named = tuple(names) or axis_names(tuple(value.shape), tokens)
    part = table[top:bottom, left:right]
    sides = (
        _side(named, down, tokens, top, bottom, table.shape[0]),
        _side(named, across, tokens, left, right, table.shape[1]),
    )
    found = limit if limit is not None else spread(table)
    return draw(part, *sides, buffers, most=most, merged=merged, limit=found)


def drawable(value: Tensor) -> bool:
    """Whether there are numbers: not in an empty, sparse or quantized tensor, nor in one without data."""
    return bool(value.numel()) and value.layout is torch.strided and not value.is_quantized and not value.is_meta


def axis_names(shape: Sequence[int], tokens: Sequence[str] = ()) -> tuple[str, ...]:
    """What the axes of an activation are called, as far as their lengths tell.

    Example:
        >>> axis_names((1, 2, 5), ["a", "b"]), axis_names((1, 4, 2, 2), ["a", "b"]), axis_names((7,))
        (('batch', 'position', 'feature'), ('batch', 'head', 'query', 'key'), ('feature',))
    """
    length = len(tokens)
    match tuple(shape):
        case (_, _, query, key) if length and query == key == length:
            return "batch", "head", "query", "key"
        case (_, position, _, _) if position == length:
            return "batch", "position", "head", "feature"
        case (_, position, _) if not length or position == length:
            return "batch", "position", "feature"
        case (position, _) if position == length:
            return "position", "feature"
        case (_,):
            return ("feature",)
    return tuple("position" if each == length else f"axis {number}" for number, each in enumerate(shape))


def _plane(value: Tensor, down: int | None, across: int | None, index: Sequence[int]) -> Tensor:
    """The two axes that are shown, `(row, column)`, as a view of the tensor."""
    shown = [axis for axis in (down, across) if axis is not None]
    if len(set(shown)) != len(shown) or any(not 0 <= axis < value.ndim for axis in shown):
        raise InputError(f"axes {down} and {across} of a tensor with {value.ndim} axes; choose two different ones")
    if len(index) != value.ndim:
        raise InputError(f"an index for each of the {value.ndim} axes is needed; {len(index)} were given")
    for axis, (at, length) in enumerate(zip(index, value.shape, strict=True)):
        if axis not in shown and not 0 <= at < length:
            raise InputError(f"index {at} of axis {axis}, which has {length}")
    table = value.detach()[tuple(slice(None) if axis in shown else at for axis, at in enumerate(index))]
    if down is not None and across is not None and down > across:
        table = table.T
    if table.is_complex():
        table = table.abs()
    if table.dtype is torch.bool:
        table = table.to(torch.uint8)
    return table.reshape(1, -1) if table.ndim < 2 else table


def _side(names: Sequence[str], axis: int | None, tokens: Sequence[str], start: int, end: int, length: int) -> Side:
    if axis is None:
        return Side("", start=start, length=length)
    name = names[axis]
    labels = tuple(tokens[start:end]) if name in ("position", "query", "key") and len(tokens) == length else ()
    return Side(name, labels, start, length)
