"""The table of kinds: for each kind of card, the Python it stands for, its words, and what can be wrong with it.

A new kind is a dataclass in `kinds`, a function in `workbench.interventions`, and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from workbench.experiment import checks
from workbench.experiment.kinds import (
    Ablate,
    AddNoise,
    Card,
    Code,
    Log,
    Patch,
    Placed,
    Save,
    Scale,
    Set,
    Steer,
)
from workbench.experiment.literals import number, quoted
from workbench.experiment.places import argument, chosen, value, words
from workbench.experiment.scene import Scene

C = TypeVar("C", bound=Card)


@dataclass(frozen=True)
class Place:
    """Where a card's statement stands: the Python of its module, whether a later card edits the same value, what its
    name ends in (where a save is made for each of several prompts), and whether it is one of several steps."""

    module: str
    edited_later: bool = False
    suffix: str = ""
    listed: bool = False


@dataclass(frozen=True)
class Kind(Generic[C]):
    """A row. `changes`: the card changes what the model computes, in place."""

    write: Callable[[C, Place], str]
    words: Callable[[C], str]
    check: Callable[[C, Scene, bool], Iterator[str]]
    changes: bool = True


def kind_of(card: Card) -> Kind[Any]:
    """A card's row."""
    return TABLE[type(card)]


def steps_of(card: Card, generate: int) -> str | None:
    """In which steps of a generation a card acts: None for step 0 alone, which needs no block of steps.

    Unless the card says so, what changes the model or logs does so in every step, and what keeps a value keeps that of
    the prompt. Positions are the prompt's, so they mean step 0.
    """
    if not generate or not isinstance(card, Placed):
        return None
    at = card.at
    if at.steps is not None:
        return None if at.steps == "0" else at.steps
    return None if isinstance(card, Save) or at.positions is not None or at.index is not None else ":"


def _call(function: str, card: Placed, place: Place, *arguments: str) -> str:
    at = card.at
    return f"wb.{function}({', '.join([argument(at, place.module), *arguments, *chosen(at)])})"


# ---- save, set, log: one line of the language each


def _write_save(card: Save, place: Place) -> str:
    at = card.at
    text = value(at, place.module)
    if place.edited_later and at.positions is None and at.heads is None and at.neurons is None:
        text += ".clone()"  # edits are made in place: without a copy the saved value would change with them
    name = card.name + place.suffix
    return f"{name}.append({text})" if place.listed else f"{name} = {text}.save()"


def _words_save(card: Save) -> str:
    return f"Save {words(card.at)} as {card.name}"


def _write_set(card: Set, place: Place) -> str:
    text = value(card.at, place.module)
    if text == f"{place.module}.{card.at.port}":
        text += "[...]"
    given = f"wb.tensor({quoted(card.value)})" if isinstance(card.value, str) else number(card.value)
    return f"{text} = {given}"


def _words_set(card: Set) -> str:
    return f"Set {words(card.at)} to {card.value if isinstance(card.value, str) else number(card.value)}"


def _write_log(card: Log, place: Place) -> str:
    shown = value(card.at, place.module) + {"norm": ".norm()", "mean": ".mean()"}.get(card.show, "")
    if card.show == "shape":  # it is told at once, unless each step has its own: then it is asked for in the run
        shown = f'wb.apply(getattr, {shown}, "shape")' if place.listed else f"{shown}.shape"
    return f"tracer.log({quoted(card.text or label(card))}, {shown})"


def label(card: Log) -> str:
    """What a log line begins with when nothing else was written."""
    return words(card.at.model_copy(update={"prompt": None, "steps": None})) + (
        "" if card.show == "value" else f" {card.show}"
    )


def _words_log(card: Log) -> str:
    return f"Log {words(card.at)}{'' if card.show == 'value' else f': its {card.show}'}"


# ---- ablate, scale, add_noise, steer, patch: a function each


def _write_ablate(card: Ablate, place: Place) -> str:
    arguments = [] if card.mode == "zero" else [f'mode="{card.mode}"']
    if card.source is not None and card.mode in ("reference", "resample"):
        arguments.append(f"source={quoted(card.source)}")
    if card.mode == "resample" and card.seed:
        arguments.append(f"seed={card.seed}")
    at = card.at
    return f"wb.ablate({', '.join([argument(at, place.module), *chosen(at), *arguments])})"


def _words_ablate(card: Ablate) -> str:
    what = {
        "zero": "zero",
        "mean": "its mean over positions",
        "reference": f"its mean over “{card.source or '…'}”",
        "resample": f"values drawn from {'its own positions' if card.source is None else f'“{card.source}”'}",
    }[card.mode]
    return f"Ablate {words(card.at)} to {what}"


def _write_scale(card: Scale, place: Place) -> str:
    return _call("scale", card, place, number(card.factor))


def _words_scale(card: Scale) -> str:
    return f"Scale {words(card.at)} by {number(card.factor)}"


def _write_noise(card: AddNoise, place: Place) -> str:
    return _call("add_noise", card, place, f"std={number(card.std)}", f"seed={card.seed}")


def _words_noise(card: AddNoise) -> str:
    return f"Add noise of {number(card.std)} to {words(card.at)}"


def _write_steer(card: Steer, place: Place) -> str:
    if card.tensor is not None:
        arguments = [f"wb.tensor({quoted(card.tensor)})"]
    else:
        sides = (("toward", card.toward), ("away", card.away))
        arguments = [f"{name}={quoted(prompt)}" for name, prompt in sides if prompt is not None]
    return _call("steer", card, place, *arguments, f"factor={number(card.factor)}")


def _words_steer(card: Steer) -> str:
    if card.tensor is not None:
        toward = f"the tensor {card.tensor}"
    else:
        toward = "“" + (card.toward or "…") + "”" + ("" if card.away is None else f" and away from “{card.away}”")
    return f"Steer {words(card.at)} toward {toward}, × {number(card.factor)}"


def _write_patch(card: Patch, place: Place) -> str:
    if card.tensor is not None:
        return _call("patch", card, place, f"source=wb.tensor({quoted(card.tensor)})")
    there = [] if card.source_positions is None else [f"source_positions={list(card.source_positions)}"]
    at = card.at
    arguments = [argument(at, place.module), f"source={quoted(card.source or '')}", *chosen(at), *there]
    return f"wb.patch({', '.join(arguments)})"


def _words_patch(card: Patch) -> str:
    source = f"the tensor {card.tensor}" if card.tensor is not None else f"“{card.source or '…'}”"
    there = "" if card.source_positions is None else f" · tokens {', '.join(map(str, card.source_positions))}"
    return f"Patch {words(card.at)} from {source}{there}"


# ---- code


def _write_code(card: Code, place: Place) -> str:
    return card.code


def _words_code(card: Code) -> str:
    first = next((line.strip() for line in card.code.split("\n") if line.strip()), "nothing yet")
    return f"Code {card.where} the run: {first}" if card.where != "inside" else f"Code: {first}"


TABLE: dict[type[Card], Kind[Any]] = {
    Save: Kind[Save](_write_save, _words_save, checks.save, changes=False),
    Ablate: Kind[Ablate](_write_ablate, _words_ablate, checks.ablate),
    Set: Kind[Set](_write_set, _words_set, checks.put),
    Scale: Kind[Scale](_write_scale, _words_scale, checks.change),
    AddNoise: Kind[AddNoise](_write_noise, _words_noise, checks.change),
    Steer: Kind[Steer](_write_steer, _words_steer, checks.steer),
    Patch: Kind[Patch](_write_patch, _words_patch, checks.patch),
    Log: Kind[Log](_write_log, _words_log, checks.log, changes=False),
    Code: Kind[Code](_write_code, _words_code, checks.code, changes=True),
}
