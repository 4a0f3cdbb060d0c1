"""Notebook: views as a cell's output, which stays to be looked at without a kernel.

The output carries plain text, a PNG, and our own MIME type, which JupyterLab's extension draws. Their numbers stand
once, in the HTML, as data and not as a program: the extension reads them from there, and so does the one script of the
notebook where it is exported to HTML. That script comes with the first output of a kernel's, never with each.
"""

from __future__ import annotations

import base64
import html
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from workbench.views import png
from workbench.views.header import (
    ArrayView,
    AttentionView,
    GradientView,
    Grid,
    NeuronsView,
    ResidualView,
)
from workbench.views.view import MIME, VERSION, View

SCRIPT = Path(__file__).parent / "static" / "page.js"
"""What draws views in a page that is not JupyterLab; built with the panel."""

_carrier: tuple[Any, Any] | None = None  # the request and the cell whose output has the script


def shown(views: Sequence[View], headline: str = "", widget: str | None = None) -> dict[str, Any]:
    """What a cell shows of these views, by MIME type.

    Args:
        widget: id of the widget that is drawn in their place while its kernel is there.

    Example:
        >>> from workbench.views.array import array
        >>> import torch
        >>> sorted(shown([array(torch.eye(2))]))
        ['application/vnd.workbench.view+json', 'image/png', 'text/html', 'text/plain']
    """
    text = "\n".join([*([headline] if headline else []), *map(repr, views)])
    picture = next((found for view in views if (found := _picture(view)) is not None), None)
    bundle = {
        "text/plain": text,
        MIME: {"version": VERSION, "headline": headline, "views": len(views), "widget": widget},
        "text/html": _html(views, headline, text, picture) + _script(),
    }
    if picture is not None:
        bundle["image/png"] = base64.b64encode(picture).decode()
    return bundle


def data(views: Sequence[View], headline: str = "") -> dict[str, Any]:
    """The views as JSON, with their numbers."""
    return {"version": VERSION, "headline": headline, "views": [view.snapshot() for view in views]}


def _html(views: Sequence[View], headline: str, text: str, picture: bytes | None) -> str:
    inside = f"<pre>{html.escape(text)}</pre>"
    if picture is not None:
        source = base64.b64encode(picture).decode()
        inside += f'<img alt="{html.escape(text, quote=True)}" src="data:image/png;base64,{source}">'
    # "</" would end the script element; in JSON the slash may be escaped.
    numbers = json.dumps(data(views, headline), separators=(",", ":")).replace("</", "<\\/")
    return f'<div class="workbench-view">{inside}<script type="{MIME}">{numbers}</script></div>'


def _script() -> str:
    """The program, for the first output that this kernel shows; for the others, a word to it."""
    global _carrier
    request, cell = _asking()
    program = _program()
    if program and (_carrier is None or request == _carrier[0] or (cell is not None and cell == _carrier[1])):
        first = _carrier is None or request != _carrier[0]
        _carrier = (request, cell)
        if first:
            return f'<script type="module">{program}</script>'
    return "<script>globalThis.workbench?.draw()</script>"


def _asking() -> tuple[Any, Any]:
    """Which request is being answered, and which cell it is of, as far as the page says."""
    if "IPython" not in sys.modules:
        return None, None
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    parent = kernel.get_parent() if kernel is not None else {}
    return parent.get("header", {}).get("msg_id"), parent.get("metadata", {}).get("cellId")


@cache
def _program() -> str:
    return SCRIPT.read_text().replace("</script", "<\\/script") if SCRIPT.exists() else ""


def _picture(view: View) -> bytes | None:
    grid = _grid(view)
    return None if grid is None else png.picture(view.numbers(grid)[0], grid)


def _grid(view: View) -> Grid | None:
    """The picture that says most of a view."""
    match view.header:
        case ArrayView(grid=grid) | NeuronsView(grid=grid):
            return grid
        case AttentionView(pattern=grid):
            return grid
        case ResidualView():
            return view.header.lens or view.header.norms
        case GradientView():
            return view.header.product or view.header.norms
    return None
