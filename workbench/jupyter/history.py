"""History: the runs of the panel and of `%%trace` cells, to be used in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import WorkbenchError
from workbench.experiment.kinds import Experiment
from workbench.jupyter import link
from workbench.jupyter.record import Record
from workbench.jupyter.report import headline
from workbench.views.tokens import TopToken


@dataclass(frozen=True, repr=False)
class PanelRun:
    """One run of the panel. Its repr is the headline that the panel shows.

    `saved` holds the tensors by name, as far as they are in memory or on disk; `before` and `after` are the next
    token's candidates, best first.
    """

    number: int
    headline: str
    experiment: Experiment
    code: str
    saved: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[TopToken, ...] = ()
    after: tuple[TopToken, ...] = ()
    logs: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.headline

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, Any] | None:
        """The headline, and views of what it saved."""
        from workbench.jupyter.widget import views_of
        from workbench.views.notebook import shown

        here = link.current()
        if here is None:
            return None
        try:
            views = views_of(here.bench.runs_made.get(self.number), here.bench)
        except WorkbenchError:  # it is no longer remembered, or cannot be run again
            views = []
        return shown(views, self.headline) if views else {"text/plain": self.headline}


def runs() -> list[PanelRun]:
    """The runs that the panel and `%%trace` cells made in this notebook, the newest last.

    Example:
        >>> import workbench as wb
        >>> wb.runs()  # in a notebook after two runs: [run 1 · 0.06 s · …, run 2 · 0.05 s · …]
        []
    """
    found = link.current()
    return [] if found is None else [shown(record) for record in reversed(found.bench.records())]


def shown(record: Record) -> PanelRun:
    """A run as a cell shows it."""
    saved = record.values()
    return PanelRun(
        record.run, headline(record), record.experiment, record.code.text, saved, record.before, record.after,
        tuple(line.text for line in record.logs),
    )  # fmt: skip
