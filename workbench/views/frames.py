"""Frames: the numbers of a view as rows of a table, one function a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from workbench.errors import InputError
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
Table = list[Row] | dict[str, Any] | np.ndarray[Any, Any]


def rows(view: View, of: str = "picture") -> Table:
    """What a table of the view holds: a picture as it stands, anything else a row for each thing.

    Raises:
        InputError: scores of what has none.
    """
    header = view.header
    if of == "scores" and isinstance(header, AttentionView):
        return list(_scores(header))
    if of != "picture":
        raise InputError(f"a table of {of!r}: every view has 'picture', attention 'scores' too")
    if isinstance(header, ArrayView):
        return view.numbers(header.grid)[0] if header.grid is not None else []
    if isinstance(header, AttentionView):
        return _attention(view, header)
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


def _attention(view: View, header: AttentionView) -> Table:
    """A row for each pair of tokens of each head that is here; what comes later than the query is left out."""
    grid = header.pattern
    numbers = view.numbers(grid)  # (head, query, key)
    there = np.ones(numbers.shape, bool)
    if grid.causal and grid.rows.length == grid.columns.length:
        there &= np.tri(*numbers.shape[1:], dtype=bool)
    sheet, query, key = np.nonzero(there)
    table = {} if header.layer is None else {"layer": np.full(len(sheet), header.layer)}
    table["head"] = np.asarray(header.heads)[sheet]
    for name, axis, at in (("query", grid.rows, query), ("key", grid.columns, key)):
        table[name] = axis.start + at * axis.step
        if axis.labels:
            table[f"{name}_token"] = np.asarray(axis.labels, object)[at]
    return {**table, "attention": numbers[there]}


def _scores(header: AttentionView) -> Iterator[Row]:
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
    LogitsView: _logits,
    NeuronsView: _mlp,
}
