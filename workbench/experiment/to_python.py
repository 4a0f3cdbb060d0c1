"""Experiment → the Python that it stands for: what the code pane shows, what a cell gets, and what is run."""

from __future__ import annotations

import keyword
import unicodedata
from dataclasses import dataclass

from workbench.envoy import expression
from workbench.errors import InputError
from workbench.experiment.kinds import Card, Experiment, Save
from workbench.experiment.table import Place, kind_of


@dataclass(frozen=True)
class Code:
    """Python text, and the id of the card that each line (counted from 1) came from."""

    text: str
    cards: dict[int, str]


def to_python(experiment: Experiment) -> str:
    """The experiment as a `with` block; cards that are switched off are left out.

    Raises:
        InputError: the model's name is not one that Python can write.

    Example:
        >>> from workbench.experiment.kinds import Ablate, Experiment, Target
        >>> card = Ablate(id="a", at=Target(path="transformer.h.2.mlp", positions=(-1,)))
        >>> print(to_python(Experiment(model="model", prompt="The Eiffel Tower", interventions=(card,))))
        with model.trace("The Eiffel Tower"):
            wb.ablate(model.transformer.h[2].mlp, positions=[-1])
    """
    return write(experiment).text


def write(experiment: Experiment) -> Code:
    """As `to_python`, with the lines' cards."""
    if not is_name(experiment.model):
        raise InputError(f"{experiment.model!r} is not a Python name; give the model a variable of its own")
    cards = [card for card in experiment.interventions if card.enabled]
    lines = [f"with {experiment.model}.trace({quoted(experiment.prompt)}):"]
    by_line: dict[int, str] = {}
    for card in cards:
        by_line[len(lines) + 1] = card.id
        lines.append(f"    {_statement(experiment, card)}")
    if not cards:
        lines.append("    pass")
    return Code("\n".join(lines), by_line)


def _statement(experiment: Experiment, card: Card) -> str:
    if isinstance(card, Save) and not is_name(card.name):  # a fault of its own; the rest is still shown
        return f"pass  # not saved: {card.name!r} is not a Python name"
    place = Place(expression(experiment.model, card.at.path), edited_later(experiment, card))
    return kind_of(card).write(card, place)


def edited_later(experiment: Experiment, card: Card) -> bool:
    """Whether a later card changes, in place, the value that this one reads."""
    cards = [each for each in experiment.interventions if each.enabled]
    here = next((index for index, each in enumerate(cards) if each is card), len(cards))
    return any(
        kind_of(later).changes and (later.at.path, later.at.port) == (card.at.path, card.at.port)
        for later in cards[here + 1 :]
    )


def is_name(text: str) -> bool:
    """Whether text is a Python name and stays what it is: Python itself folds some letters together."""
    return text.isidentifier() and not keyword.iskeyword(text) and unicodedata.normalize("NFKC", text) == text


def quoted(text: str) -> str:
    """Text as a Python literal: in double quotes, unless that would need more escapes."""
    if '"' in text:
        return repr(text)
    return '"' + repr("'" + text)[2:]  # repr keeps to double quotes when there is a single one inside
