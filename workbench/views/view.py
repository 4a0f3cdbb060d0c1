"""View: a header and its bytes as one object, which prints, shows itself in a cell, and gives a table."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.errors import InputError
from workbench.views.header import AnyView, Grid, LogitsView

if TYPE_CHECKING:
    import pandas

MIME = "application/vnd.workbench.view+json"
VERSION = 1


@dataclass(frozen=True)
class View:
    """Something to look at. `header` says what it is; `buffers` are the numbers its grids point to; `params` are of the
    request that gives it again, for a view of a run.

    In a cell it shows itself; `to_dataframe()` gives its numbers as a table, one row a cell of the picture.
    """

    header: AnyView
    buffers: tuple[bytes, ...] = field(repr=False)
    params: Mapping[str, Any] | None = field(default=None, repr=False)

    def numbers(self, grid: Grid) -> np.ndarray[Any, Any]:
        """A grid's numbers, `(sheet, row, column)`."""
        found = np.frombuffer(self.buffers[grid.buffer], grid.dtype)
        return found.reshape(grid.sheets, grid.rows.size, grid.columns.size)

    def to_dataframe(self, of: Literal["picture", "scores"] = "picture") -> pandas.DataFrame:
        """The view's numbers as a table.

        Args:
            of: the picture; of attention also its scores, a row for each head.

        Raises:
            InputError: pandas is not installed; there are no scores.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError("to_dataframe() needs pandas: pip install pandas") from error
        from workbench.views.frames import rows

        return pandas.DataFrame(rows(self, of))

    def snapshot(self) -> dict[str, Any]:
        """The view as JSON that can be kept in a notebook, its bytes as base64."""
        return {
            "header": self.header.model_dump(mode="json"),
            "buffers": [base64.b64encode(part).decode() for part in self.buffers],
            "params": self.params,
        }

    def __repr__(self) -> str:
        header = self.header
        words = [header.title, f"{header.kind} view"]
        if isinstance(header, LogitsView) and header.at:
            best = sorted(header.at[-1].top, key=lambda each: -each.after)[:3]
            words.append(", ".join(f"{each.token!r} {each.after:.3f}" for each in best))
        return " · ".join([*words, header.note] if header.note else words)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, Any]:
        from workbench.views.notebook import shown

        return shown([self])

    def _display_(self) -> Any:
        """What marimo shows: a widget, since it runs no program that stands in HTML."""
        from workbench.jupyter.widget import of_views

        return of_views([self])
