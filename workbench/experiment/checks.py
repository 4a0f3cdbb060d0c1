"""What can be wrong with a card of each kind, found on the scan's fake values; each with its cure.

What no check here foresees is found by running the card's statement on fake values; see `lint`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import Tensor

from workbench.experiment.code_text import fault_of
from workbench.experiment.kinds import Ablate, Code, Log, Patch, Placed, Save, Set, Steer
from workbench.experiment.places import words
from workbench.experiment.scene import Scene

__all__ = ["ablate", "change", "code", "log", "patch", "put", "save", "steer"]


def _what(card: Placed) -> str:
    return words(card.at, positions=False)


def _whole(card: Placed) -> bool:
    """Whether a card is about the module's own value, not its heads or neurons."""
    return card.at.heads is None and card.at.neurons is None


def save(card: Save, scene: Scene, edited_later: bool) -> Iterator[str]:
    """A value that is no tensor can be kept, but no part of it chosen, nor can it be edited after."""
    found, value = scene.value(card.at)
    if found != "known" or isinstance(value, Tensor) or not _whole(card):
        return
    what = f"{_what(card)} is a {type(value).__name__}, not a tensor"
    if card.at.port == "input":
        yield f"{card.at.path or 'the model'} is called without a tensor, so it has no input to save; save its output"
    elif card.at.positions is not None:
        yield f"{what}, so it has no positions to choose from; save all tokens, or a module inside it"
    elif card.at.index is not None:
        if isinstance(value, (tuple, list)) and not card.at.index.startswith("[0]"):
            yield f"{what}; its first tensor is [0], so write the slice as [0]{card.at.index}"
    elif edited_later:
        yield f"{what}, and a later card edits it in place; move this save below that card"


def change(card: Placed, scene: Scene, edited_later: bool) -> Iterator[str]:
    """What is changed has a tensor of numbers with a decimal point."""
    found, value = scene.value(card.at)
    if found != "known" or not _whole(card):
        return
    tensor = scene.tensor(card.at)
    if tensor is None:
        yield f"{_what(card)} is a {type(value).__name__} without a tensor; choose a module inside it"
    elif not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        yield f"{_what(card)} holds {kind} numbers, which cannot be changed by a part; choose a module after it"


def ablate(card: Ablate, scene: Scene, edited_later: bool) -> Iterator[str]:
    """A mean is over positions, of numbers that have one."""
    if card.mode == "reference" and not card.source:
        yield "there is no other prompt yet whose mean is taken; write one"
        return
    if card.mode in ("reference", "resample") and card.source is not None:
        yield from _prompt(card.source, scene)
    found, value = scene.value(card.at)
    if found != "known" or not _whole(card):
        return
    tensor = scene.tensor(card.at)
    what = _what(card)
    if tensor is None:
        kind = type(value).__name__
        yield f"{what} is a {kind} without a tensor: there is nothing to ablate; choose a module inside it"
    elif card.mode in ("mean", "reference") and not (tensor.is_floating_point() or tensor.is_complex()):
        kind = str(tensor.dtype).removeprefix("torch.")
        yield f"{what} holds {kind} numbers, which have no mean; ablate it to zero"
    elif card.mode != "zero" and tensor.ndim < 2:
        of = "take a mean over" if card.mode in ("mean", "reference") else "draw from"
        yield f"{what} has shape {tuple(tensor.shape)}: no positions to {of}; ablate it to zero"


def put(card: Set, scene: Scene, edited_later: bool) -> Iterator[str]:
    """What is set is a tensor, by number or by the name of one."""
    if card.value == "":
        yield "there is no value yet; write a number, or the name of a kept tensor"
    elif isinstance(card.value, str):
        yield from _tensor(card.value, scene)
    found, value = scene.value(card.at)
    if found == "known" and _whole(card) and not isinstance(value, Tensor):
        index = card.at.index or ""
        if not (isinstance(value, (tuple, list)) and index.startswith("[0]") and len(index) > 3):
            yield (
                f"{_what(card)} is a {type(value).__name__}, not a tensor; set a slice of its first tensor, such as "
                "[0][:, -1], or choose a module inside it"
            )


def steer(card: Steer, scene: Scene, edited_later: bool) -> Iterator[str]:
    """A direction comes from one or two prompts, or from a tensor."""
    if card.tensor is not None:
        yield from _tensor(card.tensor, scene)
    elif not card.toward and not card.away:
        yield "there is no direction yet; write a prompt of what is wanted and one of its opposite, or name a tensor"
        return
    else:
        for prompt in (card.toward, card.away):
            if prompt is not None:
                yield from _prompt(prompt, scene)
    yield from change(card, scene, edited_later)


def patch(card: Patch, scene: Scene, edited_later: bool) -> Iterator[str]:
    """The other prompt has the positions that are taken from it."""
    if card.tensor is not None:
        yield from _tensor(card.tensor, scene)
        yield from change(card, scene, edited_later)
        return
    if not card.source:
        yield "there is no other prompt yet; write one, or name a tensor of an earlier run"
        return
    faults = list(_prompt(card.source, scene))
    yield from faults
    if not faults:
        here, there = len(scene.tokens), len(scene.tokens_of(card.source))
        yield from _source_positions(card, here, there)
    yield from change(card, scene, edited_later)


def _source_positions(card: Patch, here: int, there: int) -> Iterator[str]:
    chosen = card.source_positions
    if chosen is None:
        taken = card.at.positions
        if taken is None and card.at.index is None and here != there:
            yield (
                f"this prompt has {here} tokens and the other {there}, so their values cannot be exchanged whole; "
                "choose tokens, such as −1 for the last of both"
            )
    else:
        taken = chosen
        if card.at.positions is None or len(card.at.positions) != len(chosen):
            yield (
                f"{len(chosen)} tokens of the other prompt are to go to {len(card.at.positions or ())} of this one; "
                "choose as many"
            )
            return
    for position in taken or ():
        if not -there <= position < there:
            yield f"the other prompt has {there} tokens (0–{there - 1}); token {position} is not one of them"
            return


def log(card: Log, scene: Scene, edited_later: bool) -> Iterator[str]:
    """A norm and a mean are of a tensor of numbers."""
    found, value = scene.value(card.at)
    if found != "known" or not _whole(card) or card.show == "value":
        return
    if not isinstance(value, Tensor):
        if card.at.index is None:
            yield (
                f"{_what(card)} is a {type(value).__name__}, not a tensor, so it has no {card.show}; log its value, or "
                "write the slice [0]"
            )
    elif card.show in ("norm", "mean") and not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        yield f"{_what(card)} holds {kind} numbers, which have no {card.show}; log its value"


def code(card: Code, scene: Scene, edited_later: bool) -> Iterator[str]:
    """It is Python."""
    fault = fault_of(card.code)
    if fault is not None:
        yield fault
    elif not ast.parse(card.code).body and not card.code.strip():
        yield "there is no code yet; write some, or remove this card"


def _prompt(text: str, scene: Scene) -> Iterator[str]:
    if not scene.tokens_of(text):
        yield f"the other prompt {text!r} has no tokens; write at least one"


def _tensor(name: str, scene: Scene) -> Iterator[str]:
    why = scene.missing(name)
    if why is not None:
        yield why
