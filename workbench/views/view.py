"""View: a header and its bytes as one object, which prints, shows itself in a cell, and gives a table."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.views.header import AnyView, Grid

if TYPE_CHECKING:
    import pandas

MIME = "application/vnd.workbench.view+json"
VERSION = 1

Shown = Callable[["list[View]", str], Mapping[str, Any]]
"""Gives what a cell shows of some views, by MIME type, with a headline above them."""


@dataclass(frozen=True)
class View:
    """Something to look at. `header` says what it is; `buffers` are the numbers its grids point to.

    In a cell it shows itself; `to_dataframe()` gives its numbers as a table, one row a cell of the picture.
    """

    header: AnyView
    buffers: tuple[bytes, ...] = field(repr=False)

    def numbers(self, grid: Grid) -> np.ndarray[Any, Any]:
        """A grid's numbers, `(sheet, row, column)`."""
        found = np.frombuffer(self.buffers[grid.buffer], grid.dtype)
        return found.reshape(grid.sheets, grid.rows.size, grid.columns.size)

    def to_dataframe(self) -> pandas.DataFrame:
        """The view's numbers as a table.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError("to_dataframe() needs pandas: pip install pandas") from error
        from workbench.views.frames import rows

        return pandas.DataFrame(rows(self))

    def snapshot(self) -> dict[str, Any]:
        """The view as JSON that can be kept in a notebook, its bytes as base64."""
        return {
            "header": self.header.model_dump(mode="json"),
            "buffers": [base64.b64encode(part).decode() for part in self.buffers],
        }

    def __repr__(self) -> str:
        header = self.header
        words = [header.title, f"{header.kind} view"]
        return " · ".join([*words, header.note] if header.note else words)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, Any]:
        from workbench.views.notebook import shown

        return shown([self])
