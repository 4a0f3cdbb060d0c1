"""The user's own line: found when a node is recorded, read only when a message needs it; warnings stand at it."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import warnings
from types import CodeType, FrameType

import torch

from workbench.errors import Location, NeverReachedWarning

Line = tuple[str | CodeType, int]
"""File name and line number; or, as it is noted, the code and the place in it, from which they are worked out."""

UNKNOWN: Line = ("<unknown>", 0)

_INSIDE = tuple(os.path.dirname(path) + os.sep for path in (os.path.dirname(__file__), torch.__file__))
_known: dict[str, bool] = {}


def _ours(file: str) -> bool:
    found = _known[file] = file.startswith(_INSIDE) or f"{os.sep}einops{os.sep}" in file or file == contextlib.__file__
    return found


def caller(depth: int = 1) -> Line:
    """The innermost frame outside this package, torch and einops: the line that the user wrote."""
    frame: FrameType | None = _getframe(depth + 1)
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if not (_known[file] if file in _known else _ours(file)):
            return code, frame.f_lasti
        frame = frame.f_back
    return UNKNOWN


_getframe = sys._getframe


def warn(words: str, kind: type[Warning] = UserWarning) -> None:
    """Warn at the line that the user wrote, from whatever depth."""
    level, frame = 1, _getframe(0)
    while frame.f_back is not None and (_known.get(file := frame.f_code.co_filename) or _ours(file)):
        level, frame = level + 1, frame.f_back
    warnings.warn(words, kind, stacklevel=level)


def warn_unreached(site: object, what: str, why: str) -> None:
    """Say that something was written for a site that the run did not come to."""
    warn(f"{site} was never reached, so this did nothing: {what}: {why}", NeverReachedWarning)


def position(line: Line) -> tuple[str, int]:
    """File name and line number."""
    code, place = line
    if isinstance(code, str):
        return code, place
    for start, stop, number in code.co_lines():
        if start <= place < stop and number is not None:
            return code.co_filename, number
    return code.co_filename, code.co_firstlineno


def location(line: Line) -> Location:
    """The line as data, for an error."""
    return Location(*position(line), text(line))


def where(line: Line) -> str:
    """The line as a person names it: `cell line 4`, `train.py line 12`."""
    return _where(*position(line))


def _where(file: str, number: int) -> str:
    if not number:  # a graph from elsewhere holds the line's text
        return file
    in_cell = "ipykernel_" in file or file.startswith("<ipython-input")
    return f"cell line {number}" if in_cell else f"{os.path.basename(file)} line {number}"


def text(line: Line) -> str:
    """`cell line 4: x = model.layer1.output[:, 10]`, without the source when it cannot be read."""
    file, number = position(line)
    source = linecache.getline(file, number).strip() if number else ""
    place = _where(file, number)
    return f"{place}: {source}" if source else place
