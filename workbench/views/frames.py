"""Frames: the numbers of a view as rows of a table, one function a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from workbench.views.header import (
    ArrayView,
    AttentionView,
    Axis,
    GradientView,
    Grid,
    LogitsView,
    NeuronsView,
    ResidualView,
)
from workbench.views.view import View

Row = dict[str, Any]


def rows(view: View) -> list[Row] | np.ndarray[Any, Any]:
    """What a table of the view holds: a picture as it stands, anything else a row for each thing."""
    header = view.header
    if isinstance(header, ArrayView):
        return view.numbers(header.grid)[0] if header.grid is not None else []
    return list(OF[type(header)](view, header))


def _residual(view: View, header: ResidualView) -> Iterator[Row]:
    p = None if header.lens is None else view.numbers(header.lens)[0]
    for place, norm in _cells(view, header.norms, "norm"):
        row, column = place.pop("_")
        more: Row = {}
        if p is not None and header.lens is not None:
            more = {"top": header.lens.texts[row * p.shape[1] + column], "p": float(p[row, column])}
        yield {**place, **norm, **more}


def _gradient(view: View, header: GradientView) -> Iterator[Row]:
    product = None if header.product is None else view.numbers(header.product)[0]
    for place, norm in _cells(view, header.norms, "norm"):
        row, column = place.pop("_")
        yield {**place, **norm, **({} if product is None else {"product": float(product[row, column])})}


def _attention(view: View, header: AttentionView) -> Iterator[Row]:
    for score in header.scores:
        yield {**({} if header.layer is None else {"layer": header.layer}), **score.model_dump()}


def _logits(view: View, header: LogitsView) -> Iterator[Row]:
    for at in header.at:
        token = header.tokens[at.position] if at.position < len(header.tokens) else ""
        for each in at.top:
            yield {"position": at.position, "at": token, **each.model_dump(), "kl": at.kl}


def _mlp(view: View, header: NeuronsView) -> Iterator[Row]:
    for place, activation in _cells(view, header.grid, "activation"):
        row, _ = place.pop("_")
        yield {**place, "neuron": header.neurons[row], **activation}


def _cells(view: View, grid: Grid, name: str) -> Iterator[tuple[Row, Row]]:
    numbers = view.numbers(grid)[0]
    for row in range(grid.rows.size):
        for column in range(grid.columns.size):
            place = {**_named(grid.rows, row), **_named(grid.columns, column), "_": (row, column)}
            yield place, {name: float(numbers[row, column])}


def _named(axis: Axis, at: int) -> Row:
    number = axis.start + at * axis.step
    if not axis.labels:
        return {axis.name: number}
    return {axis.name: number, "token": axis.labels[at]} if axis.name == "position" else {axis.name: axis.labels[at]}


OF: dict[type, Callable[[View, Any], Iterator[Row]]] = {
    ResidualView: _residual,
    GradientView: _gradient,
    AttentionView: _attention,
    LogitsView: _logits,
    NeuronsView: _mlp,
}
