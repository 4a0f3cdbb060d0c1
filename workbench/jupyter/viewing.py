"""Viewing: the requests for views: what a run has to look at, one view of it, one tile of an array."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from workbench.engine.values import placed
from workbench.errors import InputError, WorkbenchError
from workbench.experiment.kinds import Experiment, Placed
from workbench.experiment.run import run
from workbench.jupyter.look import loaded
from workbench.jupyter.messages import (
    Entry,
    TileParams,
    TileReply,
    ViewParams,
    ViewReply,
    ViewsReply,
)
from workbench.jupyter.record import Record, SavedTensor
from workbench.jupyter.work import changes_anything
from workbench.models.base import NNsight
from workbench.views import observe
from workbench.views.array import tile as tile_of
from workbench.views.grid import Buffers
from workbench.views.header import Kind
from workbench.views.kinds import Facts, facts_of, kinds_of
from workbench.views.observe import ARRAY, Subject, as_kind
from workbench.views.view import View

RUN: tuple[tuple[Kind, str], ...] = (
    ("residual", "Logit lens"),
    ("attention", "Attention"),
    ("logits", "Next token by position"),
    ("mlp", "Neurons"),
    ("gradient", "Gradients"),
)
"""What can be looked at of a run as a whole, read in a pass of its own."""

OPTIONS: dict[Kind, tuple[str, ...]] = {
    "residual": (),
    "attention": ("layer", "head"),
    "logits": (),
    "mlp": ("layer", "neurons", "position"),
    "gradient": (),
    "array": ARRAY,
}
"""What can be chosen in each kind of view."""


def views(record: Record, model: NNsight | None) -> ViewsReply:
    """What there is to look at, the whole run first, then each saved value."""
    facts = _facts(model)
    # A run on a server is not made once more here, where its weights may not be.
    here = model is not None and record.purpose != "verify" and bool(record.prompts) and not record.remote
    whole = [
        Entry(name="", kind=kind, title=title) for kind, title in RUN if here and (facts.width or kind == "logits")
    ]
    saved: list[Entry] = []
    for row in record.saved:
        if row.shape is None or not record.holds(row.name):
            continue
        kept = record.saved_tensor(row.name)
        for part, (where, value) in enumerate(placed(kept.value)):
            kinds = kinds_of(value, kept.site, facts=facts, gradient=kept.gradient)
            saved.append(
                Entry(
                    name=row.name,
                    part=part,
                    kind=kinds[0],
                    title=_title(row.name, where),
                    kinds=kinds,
                    shape=tuple(value.shape),
                    prompt=kept.prompt,
                )
            )
    return ViewsReply(entries=(*whole, *saved))


def view(record: Record, model: NNsight | None, params: ViewParams) -> tuple[ViewReply, list[bytes]]:
    """One view, as the page gets it."""
    found = look(record, model, params)
    return ViewReply(view=found.header), list(found.buffers)


def look(record: Record, model: NNsight | None, params: ViewParams) -> View:
    """One view of a run, or of a value that it saved.

    Raises:
        InputError: the value is no longer held, or cannot be shown so, with the reason.
    """
    found = _value(record, model, params) if params.name else _whole(record, model, params)
    return View(found.header, found.buffers, params.model_dump(mode="json"))


def tile(record: Record, params: TileParams) -> tuple[TileReply, list[bytes]]:
    """A part of a saved array."""
    kept = record.saved_tensor(params.name)
    _, value = _part(kept, params.part)
    return tile_in(value, params, _names(kept, value), kept.tokens)


def tile_in(
    value: Tensor, params: TileParams, names: Sequence[str], tokens: Sequence[str]
) -> tuple[TileReply, list[bytes]]:
    """A part of an array, as the page gets it."""
    buffers = Buffers()
    grid = tile_of(
        value,
        params.down,
        params.across,
        params.index,
        buffers,
        window=params.window,
        most=params.most,
        names=names,
        tokens=tokens,
        merged=params.merged,
        limit=params.limit,
    )
    return TileReply(grid=grid), buffers.parts


def subject(record: Record, model: NNsight, prompt: int = 0) -> Subject:
    """One prompt of a run as something to read from: the same code once more, with one line that reads.

    Of a generation it is the first step, in which the whole prompt is there.
    """
    experiment = first_step(record.experiment)

    def again(keep: Callable[[], None]) -> None:
        def watch(number: int) -> None:
            if number == prompt:
                keep()

        run(experiment, model, name=f"{record.name} once more", watch=watch)

    text = record.experiment.prompts[prompt]
    clean = observe.subject(model, text).run if changes_anything(record.experiment) else None
    return Subject(model, record.prompts[prompt].tokens, again, clean)


def first_step(experiment: Experiment) -> Experiment:
    """The plain pass with which a generation begins: the cards that act in it.

    Example:
        >>> from workbench.experiment.kinds import Ablate, Target
        >>> late = Ablate(id="a", at=Target(path="transformer.h.0", steps="1:"))
        >>> first_step(Experiment(model="model", generate=3, interventions=(late,))).interventions
        ()
    """
    if not experiment.generate:
        return experiment
    cards = []
    for card in experiment.interventions:
        if isinstance(card, Placed) and card.at.steps is not None:
            if card.at.steps.partition(":")[0] not in ("", "0"):
                continue
            card = card.model_copy(update={"at": card.at.model_copy(update={"steps": None})})
        cards.append(card)
    return experiment.model_copy(update={"generate": 0, "interventions": tuple(cards)})


def _whole(record: Record, model: NNsight | None, params: ViewParams) -> View:
    if model is None:
        raise InputError(f"{record.name} was made with {record.experiment.model!r}, which is not in this kernel")
    if not 0 <= params.prompt < len(record.prompts):
        raise InputError(f"prompt {params.prompt} of {record.name}, which has {len(record.prompts)}")
    kind = params.kind or "residual"
    options = {name: getattr(params, name) for name in OPTIONS[kind]}
    found = observe.look(kind, subject(record, model, params.prompt), **options)
    return _with(found, code=written(record.run, params, kind))


def _value(record: Record, model: NNsight | None, params: ViewParams) -> View:
    kept = record.saved_tensor(params.name)
    where, value = _part(kept, params.part)
    kinds = kinds_of(value, kept.site, facts=_facts(model), gradient=kept.gradient)
    kind = params.kind or kinds[0]
    if kind not in kinds:
        raise InputError(f"{params.name} is shown as one of {', '.join(kinds)}, not as {kind}")
    options = {name: getattr(params, name) for name in OPTIONS[kind] if name != "layer"}
    title = _title(params.name, where)
    names = _names(kept, value)
    # What a server ran is looked at without fetching the weights that it was sent there for.
    weights = not record.remote or model is None or loaded(model.module)
    try:
        more: dict[str, Any] = {"names": names} if kind == "array" else {"batch": params.batch}
        if kind == "gradient":
            more["activations"] = _activations(record, kept)
        found = as_kind(kind, value, kept.tokens, model, weights, title=title, **options, **more)
    except WorkbenchError:
        if params.kind is not None:
            raise
        kind = "array"
        found = as_kind(kind, value, kept.tokens, model, title=title, names=names)
    return _with(found, code=written(record.run, params, kind), kinds=kinds)


def written(run: int, params: ViewParams, kind: Kind) -> str:
    """The Python that gives a view.

    Example:
        >>> written(7, ViewParams(run=7, name="hidden", index=(0, 2, 0)), "array")
        "wb.look(7, 'array', of='hidden', index=(0, 2, 0))"
    """
    named = ("part", "batch") if params.name else ("prompt",)
    of = [f"of={params.name!r}"] if params.name else []
    return f"wb.look({', '.join([str(run), repr(kind), *of, *chosen(params, (*named, *OPTIONS[kind]))])})"


def chosen(params: ViewParams, names: Sequence[str]) -> list[str]:
    """What is chosen otherwise than by itself, as arguments."""
    default = ViewParams(run=params.run)
    return [f"{name}={getattr(params, name)!r}" for name in names if getattr(params, name) != getattr(default, name)]


def _with(found: View, **more: Any) -> View:
    return View(found.header.model_copy(update=more), found.buffers)


def _part(kept: SavedTensor, part: int) -> tuple[tuple[Any, ...], Tensor]:
    found = list(placed(kept.value))
    if part >= len(found):
        raise InputError(f"{kept.name} is a {type(kept.value).__name__} with {len(found)} tensors; there is no {part}")
    return found[part]


def _activations(record: Record, gradient: SavedTensor) -> Tensor | None:
    """What stands where a gradient is of, if the run saved that too."""
    for row in record.saved:
        if not row.port.endswith(".grad") and record.holds(row.name):
            other = record.saved_tensor(row.name)
            if other.site == gradient.site and other.site is not None and isinstance(other.value, Tensor):
                return other.value
    return None


def _title(name: str, where: tuple[Any, ...]) -> str:
    return name + "".join(f"[{each!r}]" for each in where)


def _names(kept: SavedTensor, value: Tensor) -> tuple[str, ...]:
    """What the axes are called, where all of them are known."""
    return kept.axes if len(kept.axes) == value.ndim and all(kept.axes) else ()


_known: weakref.WeakKeyDictionary[Any, Facts] = weakref.WeakKeyDictionary()


def _facts(model: NNsight | None) -> Facts:
    if model is None:
        return Facts()
    found = _known.get(model)
    if found is None:
        found = _known[model] = facts_of(model)
    return found
