"""The table of kinds: for each kind of card, the Python it stands for, its words, and what can be wrong with it.

A new kind is a dataclass in `kinds`, a function in `workbench.interventions`, and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from workbench.experiment.kinds import Ablate, Card, Save, Target
from workbench.experiment.scene import Scene

C = TypeVar("C", bound=Card)


@dataclass(frozen=True)
class Place:
    """Where a card's statement stands: the Python of its module, and whether a later card edits the same value."""

    module: str
    edited_later: bool


@dataclass(frozen=True)
class Kind(Generic[C]):
    """A row. `changes`: the card changes what the model computes, in place."""

    write: Callable[[C, Place], str]
    words: Callable[[C], str]
    check: Callable[[C, Scene, bool], Iterator[str]]
    changes: bool


def kind_of(card: Card) -> Kind[Any]:
    """A card's row."""
    return TABLE[type(card)]


# ---- save


def _write_save(card: Save, place: Place) -> str:
    value = f"{place.module}.{card.at.port}"
    if card.at.positions is not None:
        value += f"[:, {list(card.at.positions)}]"
    elif place.edited_later:
        value += ".clone()"  # edits are made in place: without a copy the saved value would change with them
    return f"{card.name} = {value}.save()"


def _words_save(card: Save) -> str:
    return f"Save {target_words(card.at)} as {card.name}"


def _check_save(card: Save, scene: Scene, edited_later: bool) -> Iterator[str]:
    found, value = scene.value(card.at)
    if found != "known" or isinstance(value, Tensor):
        return
    what = f"{target_words(card.at, positions=False)} is a {type(value).__name__}, not a tensor"
    if card.at.port == "input":
        yield f"{card.at.path or 'the model'} is called without a tensor, so it has no input to save; save its output"
    elif card.at.positions is not None:
        yield f"{what}, so it has no positions to choose from; save all tokens, or a module inside it"
    elif edited_later:
        yield f"{what}, and a later card edits it in place; move this save below that card"


# ---- ablate


def _write_ablate(card: Ablate, place: Place) -> str:
    at = place.module if card.at.port == "output" else f"{place.module}.input"
    arguments = [at]
    if card.at.positions is not None:
        arguments.append(f"positions={list(card.at.positions)}")
    if card.mode != "zero":
        arguments.append(f'mode="{card.mode}"')
    return f"wb.ablate({', '.join(arguments)})"


def _words_ablate(card: Ablate) -> str:
    return f"Ablate {target_words(card.at)} to {'zero' if card.mode == 'zero' else 'its mean over positions'}"


def _check_ablate(card: Ablate, scene: Scene, edited_later: bool) -> Iterator[str]:
    found, value = scene.value(card.at)
    if found != "known":
        return
    tensor = scene.tensor(card.at)
    what = target_words(card.at, positions=False)
    if tensor is None:
        kind = type(value).__name__
        yield f"{what} is a {kind} without a tensor: there is nothing to ablate; choose a module inside it"
    elif card.mode == "mean" and not (tensor.is_floating_point() or tensor.is_complex()):
        kind = str(tensor.dtype).removeprefix("torch.")
        yield f"{what} holds {kind} numbers, which have no mean; ablate it to zero"
    elif card.mode == "mean" and tensor.ndim < 2:
        yield f"{what} has shape {tuple(tensor.shape)}: no positions to take a mean over; ablate it to zero"


# ----


def target_words(at: Target, positions: bool = True) -> str:
    """`transformer.h.2.mlp output · tokens 0, 3`."""
    where = f"{at.path or 'the model'} {at.port}"
    if not positions or at.positions is None:
        return where
    return f"{where} · token{'s' if len(at.positions) != 1 else ''} {', '.join(map(str, at.positions))}"


TABLE: dict[type[Card], Kind[Any]] = {
    Save: Kind[Save](_write_save, _words_save, _check_save, changes=False),
    Ablate: Kind[Ablate](_write_ablate, _words_ablate, _check_ablate, changes=True),
}
