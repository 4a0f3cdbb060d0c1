"""Png: a grid as a small picture, for readers of a notebook that know nothing else."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from workbench.views.header import Grid

BELOW, MIDDLE, ABOVE = (33, 102, 172), (255, 255, 255), (224, 112, 20)
"""Blue below zero, white, orange above: told apart by colour-blind eyes too. The page draws the same."""
MISSING = (128, 128, 128)
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
    """Each number's colour, `(row, column, 3)` of bytes; grey where there is no number."""
    with np.errstate(invalid="ignore"):
        part = np.clip(np.nan_to_num(np.abs(numbers) / (grid.limit or 1.0), nan=0.0), 0, 1)[..., None]
    end = np.where((numbers < 0)[..., None] | (grid.scale == "sequential"), BELOW, ABOVE)
    painted = np.asarray(MIDDLE) + (end - np.asarray(MIDDLE)) * part
    return np.where(np.isnan(numbers)[..., None], MISSING, painted).astype(np.uint8)


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
