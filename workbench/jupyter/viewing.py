"""Viewing: the requests for views: what a run has to look at, one view of it, one tile of an array."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor

from workbench.engine.values import placed
from workbench.errors import InputError, WorkbenchError
from workbench.experiment.kinds import Save
from workbench.experiment.run import run
from workbench.jupyter.messages import (
    Entry,
    TileParams,
    TileReply,
    ViewParams,
    ViewReply,
    ViewsReply,
)
from workbench.jupyter.runs import Record
from workbench.site import Site
from workbench.views import observe
from workbench.views.array import tile as tile_of
from workbench.views.grid import Buffers
from workbench.views.header import Kind
from workbench.views.kinds import Facts, facts_of, kinds_of
from workbench.views.observe import ARRAY, Subject, as_kind, look
from workbench.views.view import View

RUN: tuple[tuple[Kind, str], ...] = (
    ("residual", "Logit lens"),
    ("attention", "Attention"),
    ("logits", "Next token by position"),
    ("mlp", "Neurons"),
    ("gradient", "Gradients"),
)
"""What can be looked at of a run as a whole, read in a pass of its own."""

NOT_SAID: tuple[Any, ...] = (None, 0, (), "mean")
"""Values of options that a call need not name."""


def views(record: Record, model: Any) -> ViewsReply:
    """What there is to look at, the whole run first, then each saved value."""
    facts = _facts(model)
    whole = [Entry(name="", kind=kind, title=title) for kind, title in RUN if facts.width or kind == "logits"]
    saved = []
    for name in record.outcome.saved if record.outcome is not None else ():
        for part, (where, value) in enumerate(_tensors(record, name)):
            site = _site(record, name)
            kinds = kinds_of(value, site, facts=facts)
            title = name + "".join(f"[{each!r}]" for each in where)
            entry = Entry(name=name, part=part, kind=kinds[0], title=title, kinds=kinds, shape=tuple(value.shape))
            saved.append(entry)
    return ViewsReply(entries=(*whole, *saved))


def view(record: Record, model: Any, params: ViewParams) -> tuple[ViewReply, list[bytes]]:
    """One view of a run, or of a value that it saved.

    Raises:
        InputError: the value is no longer held, or cannot be shown so, with the reason.
    """
    if params.eager and not params.name:
        model.module.set_attn_implementation("eager")
    found = _whole(record, model, params) if not params.name else _value(record, model, params)
    return ViewReply(view=found.header), list(found.buffers)


def tile(record: Record, params: TileParams) -> tuple[TileReply, list[bytes]]:
    """A part of a saved array."""
    buffers = Buffers()
    where = _tensors(record, params.name)
    grid = tile_of(
        where[params.part][1],
        params.down,
        params.across,
        params.index,
        buffers,
        window=params.window,
        most=params.most,
        tokens=tokens_of(record),
        merged=params.merged,
        limit=params.limit,
    )
    return TileReply(grid=grid), buffers.parts


def tokens_of(record: Record) -> tuple[str, ...]:
    """The tokens of the run's prompt."""
    return record.tokens


def subject(record: Record, model: Any) -> Subject:
    """The run as something to read from: the same code once more, with one line at its end that reads."""

    def again(keep: Callable[[], None]) -> None:
        run(record.experiment, model, name=f"{record.name} once more", watch=keep)

    changed = any(not isinstance(card, Save) and card.enabled for card in record.experiment.interventions)
    clean = observe.subject(model, record.experiment.prompt).run if changed else None
    return Subject(model, tokens_of(record), again, clean)


def _whole(record: Record, model: Any, params: ViewParams) -> View:
    kind = params.kind or "residual"
    options: dict[str, Any] = {}
    if kind in ("attention", "mlp"):
        options["layer"] = params.layer
    if kind == "attention":
        options["head"] = params.head
    if kind == "mlp":
        options |= {"also": params.neurons, "at": params.position}
    code = f"run = wb.runs()[-1]\nrun.look({', '.join([repr(kind), *(f'{k}={v!r}' for k, v in options.items() if v)])})"
    return _with(look(kind, subject(record, model), **options), code=code)


def _value(record: Record, model: Any, params: ViewParams) -> View:
    where, value = _tensors(record, params.name)[params.part]
    site = _site(record, params.name)
    facts = _facts(model)
    kinds = kinds_of(value, site, facts=facts)
    kind = params.kind or kinds[0]
    if kind not in kinds:
        raise InputError(f"{params.name} is shown as one of {', '.join(kinds)}, not as {kind}")
    options = {name: getattr(params, name) for name in ARRAY} if kind == "array" else {}
    if kind == "attention":
        options["head"] = params.head
    if kind == "mlp":
        options |= {"also": params.neurons, "at": params.position}
    if not options.get("index", True):
        del options["index"]
    if kind != "array":
        options["batch"] = params.batch
    title = params.name + "".join(f"[{each!r}]" for each in where)
    try:
        found = as_kind(kind, value, _labels(record, params.name), model, title=title, **options)
    except WorkbenchError:
        if params.kind is not None:
            raise
        found, kind = as_kind("array", value, tokens_of(record), model, title=title), "array"
    chosen = "".join(f", {name}={each!r}" for name, each in options.items() if each not in NOT_SAID)
    code = f'wb.look(wb.runs()[-1].saved["{params.name}"]{"".join(f"[{each!r}]" for each in where)}, "{kind}"{chosen})'
    return _with(found, code=code, kinds=kinds)


def _with(found: View, **more: Any) -> View:
    return View(found.header.model_copy(update=more), found.buffers)


def _tensors(record: Record, name: str) -> list[tuple[tuple[Any, ...], Tensor]]:
    if record.outcome is None:
        raise InputError(f"{record.name} no longer holds its tensors; run it again to see them")
    if name not in record.outcome.saved:
        raise InputError(f"{record.name} saved no {name!r}; it saved {', '.join(record.outcome.saved) or 'nothing'}")
    found = list(placed(record.outcome.saved[name]))
    if not found:
        raise InputError(f"{name} is a {type(record.outcome.saved[name]).__name__} without a tensor")
    return found


def _card(record: Record, name: str) -> Save | None:
    return next(
        (card for card in record.experiment.interventions if isinstance(card, Save) and card.name == name), None
    )


def _site(record: Record, name: str) -> Site | None:
    card = _card(record, name)
    return None if card is None else Site(card.at.path, card.at.port)


def _labels(record: Record, name: str) -> tuple[str, ...]:
    """The tokens of the positions that were saved."""
    card, tokens = _card(record, name), tokens_of(record)
    at = None if card is None else card.at.positions
    return tokens if at is None else tuple(tokens[each] for each in at if -len(tokens) <= each < len(tokens))


_known: weakref.WeakKeyDictionary[Any, Facts] = weakref.WeakKeyDictionary()


def _facts(model: Any) -> Facts:
    found = _known.get(model)
    if found is None:
        found = _known[model] = facts_of(model)
    return found
