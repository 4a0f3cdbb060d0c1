"""The user's own line: found when a node is recorded, read only when a message needs it."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from functools import cache
from types import FrameType

import torch

Line = tuple[str, int]
"""File name and line number."""

_INSIDE = tuple(os.path.dirname(path) + os.sep for path in (os.path.dirname(__file__), torch.__file__))


@cache
def _ours(file: str) -> bool:
    return file.startswith(_INSIDE) or f"{os.sep}einops{os.sep}" in file or file == contextlib.__file__


def caller(depth: int = 1) -> Line:
    """The innermost frame outside this package, torch and einops: the line that the user wrote."""
    frame: FrameType | None = sys._getframe(depth + 1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not _ours(file):
            return file, frame.f_lineno
        frame = frame.f_back
    return "<unknown>", 0


def where(line: Line) -> str:
    """The line as a person names it: `cell line 4`, `train.py line 12`."""
    file, number = line
    if not number:  # a graph from elsewhere holds the line's text
        return file
    in_cell = "ipykernel_" in file or file.startswith("<ipython-input")
    return f"cell line {number}" if in_cell else f"{os.path.basename(file)} line {number}"


def text(line: Line) -> str:
    """`cell line 4: x = model.layer1.output[:, 10]`, without the source when it cannot be read."""
    source = linecache.getline(*line).strip() if line[1] else ""
    return f"{where(line)}: {source}" if source else where(line)
