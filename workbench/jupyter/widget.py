"""Widget: the workbench, or views, in a cell of whatever shows anywidgets; the program comes over once for a page.

What a notebook keeps of a widget is its state; the program is no part of it, so that it does not stand there once for
each widget: a few lines of JavaScript ask for it, and all widgets of a page share it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from workbench.jupyter import link, report, viewing
from workbench.jupyter.bench import Bench
from workbench.jupyter.events import Pusher
from workbench.jupyter.record import Record
from workbench.models.base import NNsight
from workbench.views import notebook
from workbench.views.view import View

PROGRAM = Path(notebook.__file__).parent / "static" / "widget.js"
ASKS = Path(__file__).parent / "widget.js"
WORDS = "the workbench; run this cell to use it"
"""What a page without a kernel says where nothing was run."""
VIEWS_OF_A_RUN = 6
"""Saved values of a run that are shown in a cell; the others are named in its headline."""


class Widget(anywidget.AnyWidget):
    """The page's end is `labextension/src/widget`; it asks and is told as the panel is.

    Args:
        bench: what answers.
        kept: views that are shown; None for the whole workbench.
        chosen: name of the model that the workbench begins with.
    """

    _esm = ASKS
    kept = traitlets.Any(None).tag(sync=True)
    chosen = traitlets.Unicode("").tag(sync=True)

    def __init__(self, bench: Bench | None, kept: Mapping[str, Any] | None = None, chosen: str = "") -> None:
        super().__init__(kept=kept, chosen=chosen)
        self._bench = bench
        self._views: list[View] = []
        self._pusher: Pusher | None = None
        self._leave: Callable[[], None] = lambda: None
        self.on_msg(self._asked)

    def _asked(self, _: Any, message: Any, buffers: Any) -> None:
        if message.get("wants") == "program":
            self.send({"program": _program()})
            return
        if self._bench is None:
            self._bench = Bench(dict)  # for what is no run's
        if self._pusher is None:
            self._pusher = Pusher(self.send, copy_context())
            self._leave = self._bench.listen(lambda event: self._tell(event))
        reply, answers = link.answer(self._bench, message)
        self.send(reply, buffers=answers)

    def _tell(self, event: Any) -> None:
        if self._pusher is not None:
            self._pusher.push(event.model_dump(mode="json"))

    def _repr_mimebundle_(self, **more: Any) -> Any:
        """Beside the widget what stays in a notebook: our extension draws it, and keeps the last views there."""
        found = super()._repr_mimebundle_(**more)
        if found is None:
            return None
        data, metadata = found
        if self.kept is None:
            return {**notebook.shown([], WORDS, widget=self.model_id), **data}, metadata
        lasting = notebook.shown(self._views, self.kept["headline"])
        return ({**data, **lasting} if _runs_widgets_alone() else lasting), metadata

    def close(self) -> None:
        """Take it away."""
        self._leave()
        if self._pusher is not None:
            self._pusher.close()
        super().close()


@cache
def _program() -> str:
    return PROGRAM.read_text()


def show(what: Any) -> Any:
    """The workbench in this cell: of a model; or the views of a run.

    Args:
        what: a model, a run of `wb.runs()` or its number, a view, or several views.

    Raises:
        InputError: it is none of these.

    Example:
        >>> import workbench as wb
        >>> type(show(wb.demo())).__name__
        'Widget'
    """
    from workbench.errors import InputError
    from workbench.jupyter.history import PanelRun

    if issubclass(type(what), NNsight):
        return _workbench(what)
    if isinstance(what, (int, PanelRun)):
        record = _link().bench.runs_made.get(what if isinstance(what, int) else what.number)
        return of_views(views_of(record, _link().bench), headline=report.headline(record))
    views = [what] if isinstance(what, View) else what
    if isinstance(views, Sequence) and views and all(isinstance(each, View) for each in views):
        return of_views(list(views))
    raise InputError(f"a {type(what).__name__} cannot be shown: give a model, a run, or views")


def of_views(views: list[View], headline: str = "") -> Widget:
    """Views as a widget."""
    here = link.current()
    widget = Widget(None if here is None else here.bench, notebook.data(views, headline))
    widget._views = views
    return widget


def _runs_widgets_alone() -> bool:
    """Whether the page is one that has no extension of ours, and each output for itself: Colab, VS Code."""
    return "google.colab" in sys.modules or any(name.startswith("VSCODE_") for name in os.environ)


def views_of(record: Record, bench: Bench) -> list[View]:
    """What a run has to look at in a cell: its saved values; the logit lens where there is none."""
    from workbench.jupyter.messages import ViewParams

    model = bench.model_of(record)
    entries = viewing.views(record, model).entries
    saved = [each for each in entries if each.name][:VIEWS_OF_A_RUN]
    chosen = [*saved, *(each for each in entries if not each.name and each.kind in ("residual", "attention"))]
    return [
        viewing.look(record, model, ViewParams(run=record.run, name=each.name, part=each.part, kind=each.kind))
        for each in chosen
    ]


def _workbench(model: NNsight) -> Widget:
    """Of the kernel's bench, if it knows the model by a name; else of one for this model alone."""
    here = link.current()
    if here is not None:
        for name, value in dict(here.variables()).items():
            if value is model and not name.startswith("_"):
                return Widget(here.bench, chosen=name)
    return Widget(Bench(lambda: {"model": model}), chosen="model")


def _link() -> link.Link:
    from workbench.errors import InputError

    here = link.current()
    if here is None:
        raise InputError("runs are of a notebook's kernel; here there is none")
    return here
