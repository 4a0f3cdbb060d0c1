"""Rows: which part of a batched value belongs to which invoke.

A tensor whose first axis is the whole batch is cut to the invoke's rows, as a view, so that what an invoke writes
lands in the batch. Anything else is given whole to every invoke.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from workbench.engine.values import map_tensors, shape_text


class Rows(NamedTuple):
    """Rows `start` to `stop` of a batch of `total`."""

    start: int
    stop: int
    total: int


def narrow(value: Any, rows: Rows, note: Callable[[Tensor, Tensor], None] | None = None) -> Any:
    """The part of a value that belongs to these rows; `note(part, whole)` is told of each tensor that was cut."""
    if rows.stop - rows.start == rows.total:
        return value

    def cut(tensor: Tensor) -> Tensor:
        if tensor.ndim and tensor.shape[0] == rows.total:
            part = tensor[rows.start : rows.stop]
            if note is not None:
                note(part, tensor)
            return part
        return tensor

    return map_tensors(cut, value)


def write(batch: Any, rows: Rows, new: Any) -> None:
    """Put a replacement for these rows into the batch, in place."""
    old = narrow(batch, rows)
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        if old.shape != new.shape:
            raise ValueError(
                f"an invoke's rows can only be replaced by a value of the same shape: this invoke has "
                f"{tuple(old.shape)}, the replacement has {tuple(new.shape)}"
            )
        old.copy_(new)
    elif isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)) and len(old) == len(new):
        for index, (part, replacement) in enumerate(zip(old, new, strict=True)):
            if replacement is not part:
                write(batch[index], rows, replacement)
    elif isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            if new[name] is not old[name]:
                write(batch[name], rows, new[name])
    elif new is not old:
        raise ValueError(f"an invoke cannot replace {shape_text(old)} of a shared batch by {shape_text(new)}")
