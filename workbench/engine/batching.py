"""Rows: which part of a batched value belongs to which invoke.

An invoke sees its own rows and its own positions, where it can as a view, so that what it writes lands in the batch.
A value without a batch axis is the same for all invokes: it is given to each, and none may change it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from workbench.engine.axes import Axes, Known
from workbench.engine.values import Untold, Where, map_placed, shape_text


class Rows(NamedTuple):
    """Rows `start` to `stop` of a batch of `total`, `length` positions of `width`; the others are padding.

    Padding follows a prompt, or, with `left`, goes before it, as where generation goes on at the end. `length` and
    `width` are 0 where inputs have no positions; `answer` of `answers` are the positions of a decoder that answers
    the prompt, padded behind.
    """

    start: int
    stop: int
    total: int
    length: int = 0
    width: int = 0
    left: bool = False
    answer: int = 0
    answers: int = 0

    @property
    def padded(self) -> bool:
        return self.length != self.width or self.answer != self.answers


class Cut:
    """How one tensor of the batch is cut to an invoke's part."""

    __slots__ = ("axes", "rows")

    def __init__(self, rows: Rows, axes: Axes) -> None:
        self.rows = rows
        self.axes = axes

    @property
    def shared(self) -> bool:
        """Whether all invokes have the same."""
        return self.axes.batch is None

    @property
    def apart(self) -> bool:
        """Whether a part is no view of the batch."""
        return self.axes.merged and self.rows.padded

    def take(self, tensor: Tensor) -> Tensor:
        """The invoke's part: a view, but where padding lies between the positions of a merged axis."""
        batch, rows = self.axes.batch, self.rows
        if not self.axes.merged:
            if rows.padded:
                return tensor[self._index(tensor.shape)]
            if batch is None:
                return tensor
            times = self.axes.times
            return tensor.narrow(batch, rows.start * times, (rows.stop - rows.start) * times)
        assert batch is not None
        apart = tensor.unflatten(batch, (self.rows.total * self.axes.times, -1))
        return apart[self._index(apart.shape)].flatten(batch, batch + 1)

    def put(self, tensor: Tensor, part: Tensor) -> None:
        """Write a part of the same shape into the batch."""
        if self.axes.merged:
            assert self.axes.batch is not None
            tensor = tensor.unflatten(self.axes.batch, (self.rows.total * self.axes.times, -1))
            index = self._index(tensor.shape)
            part = part.view(tensor[index].shape)
        else:
            index = self._index(tensor.shape)
        tensor[index] = part

    def _index(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        rows, axes = self.rows, self.axes
        index = [slice(None)] * len(shape)
        if axes.batch is not None:
            index[axes.batch] = slice(rows.start * axes.times, rows.stop * axes.times)
        if rows.padded:
            behind = 1 if axes.merged else 0
            batch = len(shape) if axes.batch is None else axes.batch
            own = [axis + (behind if axis > batch else 0) for axis in axes.positions]
            for axis in [*own, batch + 1] if axes.merged else own:
                index[axis] = self._positions(shape[axis])
            for axis in axes.answers:
                index[axis + (behind if axis > batch else 0)] = slice(rows.answer)
        return tuple(index)

    def _positions(self, size: int) -> slice:
        rows = self.rows
        if not rows.left:
            return slice(rows.length)
        # A later step of generation has one new position, or, where it looks back, all of them so far.
        return slice(rows.width - rows.length, None) if size >= rows.width else slice(None)


Note = Callable[[Tensor, Tensor, Cut], None]


def narrow(value: Any, rows: Rows, known: Known, note: Note | None = None) -> Any:
    """The part of a value that belongs to these rows; `note(part, whole, cut)` is told of each tensor.

    A tensor whose axes are not known is cut along its first axis if that is of the batch's size. One of which it cannot
    be told what belongs to whom becomes `Untold`.
    """

    def cut(where: Where, tensor: Tensor) -> Any:
        try:
            one = Cut(rows, _checked(tensor, rows, known.axes.get(where), known.times))
        except ValueError as why:
            return Untold(str(why))
        part = one.take(tensor)
        if known.trim is not None:
            part = known.trim(part, rows)
        if note is not None:
            note(part, tensor, one)
        return part

    return map_placed(cut, value)


def _checked(tensor: Tensor, rows: Rows, axes: Axes | None, times: int) -> Axes:
    shape = tuple(tensor.shape)
    if axes is None:
        if not shape or shape[0] != rows.total * times:
            return Axes(None)
        if rows.padded:
            raise ValueError(
                f"the prompts of this pass have different lengths, and which axes of this value (shape {shape}) are "
                "positions is not known; trace this prompt alone"
            )
        return Axes(0, times=times)
    if axes.mixed and (axes.batch is None or rows.padded):
        raise ValueError(
            f"this value has the rows of all invokes mixed in axis {axes.mixed[0]} of its shape {shape}, so none is "
            "this invoke's alone; trace this prompt alone"
        )
    if axes.batch is not None and not _fits(shape, rows, axes):
        raise ValueError(
            f"this value has shape {shape}, and axis {axes.batch} should hold the {rows.total * axes.times} rows of "
            "the batch; trace this prompt alone"
        )
    return axes


def _fits(shape: tuple[int, ...], rows: Rows, axes: Axes) -> bool:
    assert axes.batch is not None
    size = shape[axes.batch] if len(shape) > axes.batch else -1
    rows_here = rows.total * axes.times
    return size % rows_here == 0 if axes.merged else size == rows_here


def write(batch: Any, rows: Rows, known: Known, new: Any) -> None:
    """Put a replacement for these rows into the batch, in place.

    Raises:
        ValueError: it does not fit, or all invokes share what it is to replace.
    """
    cuts: dict[int, tuple[Tensor, Cut]] = {}
    old = narrow(batch, rows, known, lambda part, whole, cut: cuts.__setitem__(id(part), (whole, cut)))
    _write(old, new, cuts)


def _write(old: Any, new: Any, cuts: dict[int, tuple[Tensor, Cut]]) -> None:
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        whole, cut = cuts[id(old)]
        if old.shape != new.shape:
            raise ValueError(
                f"an invoke's rows can only be replaced by a value of the same shape: this invoke has "
                f"{tuple(old.shape)}, the replacement has {tuple(new.shape)}"
            )
        if cut.shared:
            raise ValueError(shared(whole))
        cut.put(whole, new)
    elif isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)) and len(old) == len(new):
        for part, replacement in zip(old, new, strict=True):
            if replacement is not part:
                _write(part, replacement, cuts)
    elif isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            if new[name] is not old[name]:
                _write(old[name], new[name], cuts)
    elif new is not old and new != old:
        raise ValueError(f"an invoke cannot replace {shape_text(old)} of a shared batch by {shape_text(new)}")


def shared(tensor: Tensor) -> str:
    """Why a value cannot be changed by one invoke."""
    return (
        f"all invokes of this pass share this value (shape {tuple(tensor.shape)} has no axis for the batch), so an "
        "edit of one would change the others; trace this prompt alone"
    )
