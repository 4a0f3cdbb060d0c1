"""A run as it is shown: the headline everywhere, the whole of it in the Results tab."""

from __future__ import annotations

from typing import Any

from workbench.engine.values import first_tensor
from workbench.experiment.kinds import Save
from workbench.experiment.table import kind_of
from workbench.jupyter.messages import LogLine, RunResult, RunSummary, Saved
from workbench.jupyter.runs import Record
from workbench.views.heatmap import Heatmap, heatmap
from workbench.views.summary import dtype_name
from workbench.views.tokens import TopToken, best


def summary(record: Record) -> RunSummary:
    """The run as a line of the history."""
    return RunSummary(run=record.run, state=record.state, headline=headline(record), seconds=record.seconds)


def headline(record: Record) -> str:
    """`run 7 · 0.21 s · Paris 0.93 → Rome 0.41 · 1 intervention · 2 values saved`."""
    return " · ".join([record.name, *_parts(record)])


def _parts(record: Record) -> list[str]:
    took = f"{record.seconds:.2f} s"
    if record.state == "running":
        return ["running" if record.behind is None else f"waiting for run {record.behind}"]
    if record.state == "cancelled":
        return [f"cancelled after {took}" if record.seconds else "cancelled before it began"]
    if record.state == "failed":
        return [took, f"failed: {record.fault.message if record.fault else ''}"]
    changes = sum(kind_of(card).changes for card in record.experiment.interventions if card.enabled)
    parts = [
        took,
        _answer(record, bool(changes)),
        "no intervention" if not changes else _count(changes, "intervention"),
    ]
    if record.saved:
        parts.append(f"{_count(len(record.saved), 'value')} saved")
    return [part for part in parts if part]


def _answer(record: Record, changed: bool) -> str:
    before, after = best(record.before), best(record.after)
    if before is None:
        return ""
    if not changed:
        return _token(before)
    return f"{_token(before)} → {_token(after) if after else 'NaN'}"


def _token(top: TopToken) -> str:
    shown = top.token.strip() or top.token.replace(" ", "␣").replace("\n", "⏎") or "(empty)"
    return f"{shown} {top.probability:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def result(record: Record) -> tuple[RunResult, list[bytes]]:
    """All of a run, and the bytes of its pictures in the order of their `buffer` numbers."""
    buffers: list[bytes] = []
    saved = tuple(_saved(record, name, text, buffers) for name, text in (*record.saved, *record.unset.items()))
    found = RunResult(
        run=record.run,
        state=record.state,
        headline=headline(record),
        seconds=record.seconds,
        experiment=record.experiment,
        code=record.code.text,
        tokens=record.tokens,
        before=record.before,
        after=record.after,
        saved=saved,
        logs=tuple(LogLine(run=record.run, text=text) for text in record.logs),
        fault=record.fault,
    )
    return found, buffers


def _saved(record: Record, name: str, text: str, buffers: list[bytes]) -> Saved:
    card = next(card for card in record.experiment.interventions if isinstance(card, Save) and card.name == name)
    value: Any = None
    if record.outcome is not None:
        value = record.outcome.saved.get(name)
    elif name not in record.unset:
        text += " · no longer held; run it again to see it"
    tensor = first_tensor(value)
    picture: Heatmap | None = None
    if tensor is not None:
        labels = record.tokens
        if card.at.positions is not None:
            labels = tuple(labels[position] for position in card.at.positions)
        drawn = heatmap(tensor, labels, buffer=len(buffers))
        if drawn is not None:
            picture, data = drawn
            buffers.append(data)
    return Saved(
        name=name,
        path=card.at.path,
        port=card.at.port,
        shape=None if tensor is None else tuple(tensor.shape),
        dtype=None if tensor is None else dtype_name(tensor.dtype),
        text=text,
        view=picture,
    )
