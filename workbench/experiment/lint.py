"""What is wrong with an experiment, found before anything is run: each fault on its card, with its cure."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.envoy import Envoy
from workbench.errors import InputError, PathError
from workbench.experiment.fault import Fault
from workbench.experiment.kinds import Experiment, Intervention, Save, Target
from workbench.experiment.scene import Scene, scene
from workbench.experiment.table import kind_of, target_words
from workbench.experiment.to_python import edited_later, is_name
from workbench.models.base import NNsight


def lint(experiment: Experiment, model: NNsight) -> tuple[Fault, ...]:
    """Every fault of the cards that are switched on, and of the prompt. None of them means that it can be run.

    Args:
        experiment: what is to be run.
        model: the model that its name stands for.
    """
    faults: list[Fault] = []
    here: Scene | None = None
    try:
        here = scene(model, experiment.prompt)
    except InputError as error:
        faults.append(Fault(message=str(error)))
    if experiment.model == "wb":
        faults.append(Fault(message="the model is named wb, as the workbench is in its code; give it another name"))
    seen: dict[str, Save] = {}
    for card in experiment.interventions:
        if card.enabled:
            messages = [*_name(card, experiment, seen), *_place(card, model, here, edited_later(experiment, card))]
            faults += [Fault(message=message, card=card.id) for message in messages]
    return tuple(faults)


def _name(card: Intervention, experiment: Experiment, seen: dict[str, Save]) -> Iterator[str]:
    """The name a value is saved under."""
    if not isinstance(card, Save):
        return
    name = card.name
    if not name:
        yield "this value has no name yet; give it one, such as hidden"
    elif not is_name(name):
        yield f"{name!r} is not a Python name; use letters, digits and _, a letter first, as in {_cured(name)}"
    elif name.startswith("__"):
        yield f"names that begin with two underscores are Python's own; use {_cured(name)}"
    elif name in (experiment.model, "wb"):
        what = "the model" if name == experiment.model else "the workbench"
        yield f"{name!r} is the name of {what} itself; use another, such as {name}_value"
    elif name in seen:
        number = 2
        while f"{name}_{number}" in seen:
            number += 1
        yield f"{name!r} is taken already by “{kind_of(seen[name]).words(seen[name])}”; use {name}_{number}"
    else:
        seen[name] = card


def _cured(name: str) -> str:
    """The nearest thing to a name that can be one."""
    cured = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).strip("_")
    return cured if is_name(cured) else f"x_{cured}".rstrip("_") if cured else "hidden"


def _place(card: Intervention, model: NNsight, here: Scene | None, edited: bool) -> Iterator[str]:
    """Where a card applies."""
    try:
        envoy = model.find(card.at.path)
    except PathError as error:
        yield f"{error}; choose a module from the tree"
        return
    if here is None:
        return
    if here.value(card.at)[0] == "never called":
        yield _never_called(card.at, envoy, here)
        return
    faults = list(kind_of(card).check(card, here, edited))
    yield from faults or _positions(card.at, here)


def _never_called(at: Target, envoy: Envoy, here: Scene) -> str:
    kind = type(envoy.module).__name__
    below = here.called_below(envoy)
    cure = f"choose a module inside it, such as {below[0]}" if below else "choose another module"
    return f"{at.path} ({kind}) is not called when this prompt is run, so it has no {at.port}; {cure}"


def _positions(at: Target, here: Scene) -> Iterator[str]:
    """Positions against the prompt, and against the shape that they index."""
    if at.positions is None:
        return
    count = len(here.tokens)
    if not at.positions:
        yield "no token is chosen; choose one, or all tokens"
    for position in at.positions:
        if not -count <= position < count:
            yield _out_of_range(position, count)
            return
    tensor = here.tensor(at)
    if tensor is None:
        return
    what, shape = target_words(at, positions=False), tuple(tensor.shape)
    if len(shape) < 2:
        yield f"{what} has shape {shape}: there is no axis of positions; choose all tokens"
    elif shape[1] != count:
        yield (
            f"{what} has shape {shape}: its axis 1 does not count the prompt's {count} tokens, so a token cannot be "
            "chosen here; choose all tokens"
        )


def _out_of_range(position: int, count: int) -> str:
    shown = str(position).replace("-", "−")
    has = f"the prompt has {count} tokens (0–{count - 1})" if count > 1 else "the prompt has 1 token (0)"
    if position >= 0:
        return f"token {shown} is out of range: {has}. Use −1 for the last."
    return f"token {shown} is out of range: {has}. Counted from the end it begins at −{count}."
