"""The statements of several prompts, where they say the same, as one card for all of them.

And the form that every experiment has once it was written as Python and read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.experiment.code_text import indentation, moved
from workbench.experiment.kinds import (
    Ablate,
    Card,
    Code,
    Experiment,
    Intervention,
    Log,
    Patch,
    Placed,
    Save,
    Set,
    Steer,
    Target,
)
from workbench.experiment.statements import canonical
from workbench.experiment.table import label, steps_of

Key = tuple[type, Any]


def merged(groups: Sequence[Sequence[Intervention]], twins: dict[str, str] | None = None) -> list[Intervention]:
    """One list of cards from one list a prompt. Names end in the prompt's number where the card was one for all.

    `twins` is given, for each card that became one with the first prompt's, that one's id.
    """
    if len(groups) == 1:
        return list(groups[0])
    at = [0] * len(groups)
    found: list[Intervention] = []
    for place, card in enumerate(groups[0]):
        if place < at[0]:
            continue
        shared = _shared(card, groups, at)
        if shared is None:
            found.append(_of_prompt(card, 0))
            at[0] = place + 1
            continue
        for prompt, (group, stop) in enumerate(zip(groups, [place, *shared], strict=True)):
            found += [_of_prompt(each, prompt) for each in group[at[prompt] : stop]]
            at[prompt] = stop + 1
            if twins is not None:
                twins[group[stop].id] = card.id
        found.append(_renamed(card, 0))
    for prompt, group in enumerate(groups):
        found += [_of_prompt(each, prompt) for each in group[at[prompt] :]]
    return found


def _shared(card: Intervention, groups: Sequence[Sequence[Intervention]], at: Sequence[int]) -> list[int] | None:
    """Where the other prompts say the same next."""
    key = _key(card, 0)
    if key is None:
        return None
    places = []
    for prompt in range(1, len(groups)):
        here = [place for place in range(at[prompt], len(groups[prompt])) if _key(groups[prompt][place], prompt) == key]
        if not here:
            return None
        places.append(here[0])
    return places


def _key(card: Intervention, prompt: int) -> Key | None:
    if isinstance(card, Save):
        if not card.name.endswith(f"_{prompt}"):
            return None
        card = _renamed(card, prompt)
    return type(card), card.model_copy(update={"id": ""})


def _renamed(card: Intervention, prompt: int) -> Intervention:
    if isinstance(card, Save):
        return card.model_copy(update={"name": card.name.removesuffix(f"_{prompt}")})
    return card


def _of_prompt(card: Intervention, prompt: int) -> Intervention:
    if isinstance(card, Code):
        return card.model_copy(update={"prompt": prompt})
    return card.model_copy(update={"at": card.at.model_copy(update={"prompt": prompt})})


# ---- the normal form


def normal(experiment: Experiment) -> Experiment:
    """The experiment without what its Python does not say: cards that are off, ids, settings without effect.

    Reading what an experiment is written as gives this.

    Example:
        >>> from workbench.experiment.kinds import Target
        >>> card = Save(id="any", at=Target(path="h", index=":, [0]"), name="x")
        >>> normal(Experiment(model="model", interventions=(card,))).interventions[0].at.positions
        (0,)
    """
    count = len(experiment.prompts)
    groups = [_joined(_cards_of(experiment, prompt, count)) for prompt in range(count)]
    inside = merged(groups)
    before, after = (
        _one([card for card in experiment.enabled if isinstance(card, Code) and card.where == where], where)
        for where in ("before", "after")
    )
    cards = [*before, *inside, *after]
    return experiment.model_copy(
        update={
            "interventions": tuple(card.model_copy(update={"id": f"card {n}"}) for n, card in enumerate(cards, 1)),
            "temperature": experiment.temperature if experiment.generate else 0.0,
        }
    )


def _cards_of(experiment: Experiment, prompt: int, count: int) -> list[Intervention]:
    found: list[Intervention] = []
    for card in experiment.enabled:
        if isinstance(card, Code):
            if card.where == "inside" and card.prompt in (None, prompt) and card.code.strip():
                found.append(card.model_copy(update={"prompt": None}))
        elif card.at.prompt in (None, prompt):
            plain = _plain(card, experiment.generate)
            if isinstance(plain, Save) and card.at.prompt is None and count > 1:
                plain = plain.model_copy(update={"name": f"{plain.name}_{prompt}"})
            found.append(plain)
    return found


def _plain(card: Placed, generate: int) -> Any:
    at = canonical(card.at.model_copy(update={"prompt": None}))
    if isinstance(card, Set) and at.index == "[...]":  # as all of it is set in Python
        at = at.model_copy(update={"index": None})
    update: dict[str, Any] = {"at": at}
    if isinstance(card, Log) and card.text == label(card):
        update["text"] = ""
    if isinstance(card, Ablate):
        update |= {} if card.mode in ("reference", "resample") else {"source": None}
        update |= {} if card.mode == "resample" else {"seed": 0}
    if isinstance(card, Steer) and card.tensor is not None:
        update |= {"toward": None, "away": None}
    if isinstance(card, Patch):
        update |= (
            {"source": None, "source_positions": None} if card.tensor is not None else {"source": card.source or ""}
        )
    plain = card.model_copy(update=update)
    written = steps_of(card, generate)
    without = plain.model_copy(update={"at": at.model_copy(update={"steps": None})})
    if not generate or steps_of(without, generate) == written:
        return without
    steps = "0" if written is None else written
    return plain.model_copy(update={"at": Target.model_validate(at.model_dump() | {"steps": steps})})


def _text(card: Code) -> str:
    comments = [f"# {line}".rstrip() for line in card.note.split("\n")] if card.note else []
    return "\n".join([*comments, moved(card.code, -indentation(card.code))])


def _joined(cards: list[Intervention]) -> list[Intervention]:
    """Neighbouring code as one card."""
    found: list[Intervention] = []
    for card in cards:
        if isinstance(card, Code):
            text = _text(card)
            last = found[-1] if found else None
            if isinstance(last, Code):
                found[-1] = last.model_copy(update={"code": f"{last.code}\n{text}"})
                continue
            card = card.model_copy(update={"code": text, "note": ""})
        found.append(card)
    return found


def _one(cards: Sequence[Card], where: str) -> list[Intervention]:
    texts = [_text(card) for card in cards if isinstance(card, Code) and card.code.strip()]
    return [Code(id="", code="\n\n".join(texts), where=where)] if texts else []  # type: ignore[arg-type]
