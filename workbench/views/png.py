"""Png: a grid as a small picture, for readers of a notebook that know nothing else."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from workbench.views.header import Grid

BELOW, MIDDLE, ABOVE = (33, 102, 172), (255, 255, 255), (224, 112, 20)
"""Blue below zero, white, orange above: told apart by colour-blind eyes too. The page draws the same."""
UNDER, OVER = (13, 47, 105), (140, 58, 0)
"""Beyond the ends of the scale."""
INFINITE, MISSING, LATER = (0, 0, 0), (150, 150, 150), (236, 238, 241)
"""No number; and what a causal pattern does not have."""
WIDE = 640
HIGH = 480


def picture(numbers: np.ndarray[Any, Any], grid: Grid) -> bytes:
    """A PNG of one sheet `(row, column)`, each cell some pixels large.

    Example:
        >>> from workbench.views.array import array
        >>> import torch
        >>> view = array(torch.eye(3))
        >>> picture(view.numbers(view.header.grid)[0], view.header.grid)[1:4]
        b'PNG'
    """
    size = max(1, min(WIDE // numbers.shape[1], HIGH // numbers.shape[0], 24))
    return encode(colours(numbers, grid).repeat(size, 0).repeat(size, 1))


def colours(numbers: np.ndarray[Any, Any], grid: Grid) -> np.ndarray[Any, Any]:
    """Each number's colour, `(row, column, 3)` of bytes, with the marks that the page has."""
    limit = grid.limit or 1.0
    size = np.abs(np.where(np.isfinite(numbers), numbers, 0))
    below = (numbers < 0) | (grid.scale == "sequential")
    end = np.where(below[..., None], BELOW, ABOVE)
    painted = np.asarray(MIDDLE) + (end - np.asarray(MIDDLE)) * np.clip(size / limit, 0, 1)[..., None]
    later = np.zeros(numbers.shape, bool)
    if grid.causal and grid.rows.length == grid.columns.length:
        later = ~np.tri(*numbers.shape, dtype=bool)
    for where, colour in (
        (size > limit * (1 + 1e-6), np.where(below[..., None], UNDER, OVER)),
        (np.isinf(numbers), INFINITE),
        (np.isnan(numbers), MISSING),
        (later, LATER),
    ):
        painted = np.where(where[..., None], colour, painted)
    return painted.astype(np.uint8)


def encode(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG of `(row, column, 3)` bytes."""
    high, wide, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
