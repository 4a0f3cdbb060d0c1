"""What is wrong with an experiment, found before anything is run: each fault on its card, with its cure.

First each kind's own checks, whose words are the best; then the card's statement itself is run on fake values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from workbench.engine.values import first_tensor
from workbench.envoy import Envoy
from workbench.errors import DeferredError, InputError, NotTracingError, PathError
from workbench.experiment.fault import Fault
from workbench.experiment.kinds import Code, Experiment, Intervention, Placed, Save, Target
from workbench.experiment.literals import is_name
from workbench.experiment.namespace import namespace
from workbench.experiment.places import words
from workbench.experiment.scene import TAKES_TENSORS, Scene, scene, takes_text
from workbench.experiment.table import kind_of
from workbench.experiment.to_python import MEASURED, edited_later, statement_of
from workbench.measures import token_ids
from workbench.models.base import NNsight
from workbench.models.naming import Layer, standard
from workbench.store import missing
from workbench.tracing.tracer import ScanContext


def lint(experiment: Experiment, model: NNsight, tensors: Callable[[str], str | None] = missing) -> tuple[Fault, ...]:
    """Every fault of the cards that are switched on, of the prompts, and of what is measured. No error among them
    means that it can be run.

    Args:
        experiment: what is to be run.
        model: the model that its name stands for.
        tensors: why there is no kept tensor of a name, None if there is.
    """
    if experiment.model == "wb":
        message = "the model is named wb, as the workbench is in its code; give it another name"
        return (Fault(message=message),)
    faults: list[Fault] = []
    scenes: list[Scene | None] = []
    for number, prompt in enumerate(experiment.prompts):
        try:
            scenes.append(scene(model, prompt, tensors))
        except InputError as error:
            of = f"prompt {number + 1}: " if len(experiment.prompts) > 1 and takes_text(model) else ""
            if str(error) != TAKES_TENSORS or not number:
                faults.append(Fault(message=f"{of}{error}"))
            scenes.append(None)
    faults += [Fault(message=each) for each in _measure(experiment, model)]
    if experiment.generate and not hasattr(model.module, "generate"):
        faults.append(Fault(message=f"{type(model.module).__name__} generates no tokens; set the new tokens to 0"))
    seen: dict[str, Save] = {}
    for card in experiment.enabled:
        messages = list(_name(card, experiment, seen))
        for level, message in _place(card, model, scenes, experiment, bool(messages)):
            faults.append(Fault(message=message, card=card.id, level=level))  # type: ignore[arg-type]
        faults += [Fault(message=message, card=card.id) for message in messages]
    return tuple(faults)


def _measure(experiment: Experiment, model: NNsight) -> Iterator[str]:
    measure = experiment.measure
    if measure is None or not takes_text(model):
        return
    try:
        token_ids(getattr(model, "tokenizer", None), measure.metric, measure.answers)
    except InputError as error:
        yield str(error)


def _name(card: Intervention, experiment: Experiment, seen: dict[str, Save]) -> Iterator[str]:
    """The name a value is saved under."""
    if not isinstance(card, Save):
        return
    name = card.name
    reserved = {experiment.model: "the model", "wb": "the workbench", "tracer": "the trace", "torch": "PyTorch"}
    if not name:
        yield "this value has no name yet; give it one, such as hidden"
    elif not is_name(name):
        yield f"{name!r} is not a Python name; use letters, digits and _, a letter first, as in {_cured(name)}"
    elif name.startswith("__"):
        yield f"names that begin with two underscores are Python's own; use {_cured(name)}"
    elif name in reserved:
        yield f"{name!r} is the name of {reserved[name]} itself; use another, such as {name}_value"
    elif name.startswith(MEASURED) and experiment.measure is not None:
        yield f"{name!r} is the name of what is measured; use another, such as {name}_value"
    else:
        several = len(experiment.prompts) > 1 and card.at.prompt is None
        names = [f"{name}_{number}" for number in range(len(experiment.prompts))] if several else [name]
        taken = next((each for each in names if each in seen), None)
        if taken is not None:
            number = 2
            while f"{name}_{number}" in seen or f"{name}_{number}_0" in seen:
                number += 1
            yield f"{taken!r} is taken already by “{kind_of(seen[taken]).words(seen[taken])}”; use {name}_{number}"
        else:
            seen.update(dict.fromkeys(names, card))


def _cured(name: str) -> str:
    """The nearest thing to a name that can be one."""
    cured = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).strip("_")
    return cured if is_name(cured) else f"x_{cured}".rstrip("_") if cured else "hidden"


def _place(
    card: Intervention, model: NNsight, scenes: list[Scene | None], experiment: Experiment, named_wrong: bool
) -> Iterator[tuple[str, str]]:
    """Where a card applies, prompt by prompt; the first that is wrong is told."""
    prompt = card.prompt if isinstance(card, Code) else card.at.prompt
    if prompt is not None and prompt >= len(scenes):
        has = f"{len(scenes)} prompts" if len(scenes) > 1 else "one prompt"
        yield "error", f"there is no prompt {prompt + 1}: the run has {has}; choose another, or all"
        return
    if isinstance(card, Code):
        here = next((each for each in scenes if each is not None), None)
        if here is not None:
            yield from (("error", each) for each in kind_of(card).check(card, here, False))
        return
    try:
        envoy = model.find(card.at.path)
    except PathError as error:
        yield "error", f"{error}; choose a module from the tree"
        return
    edited = edited_later(experiment, card)
    for number, here in enumerate(scenes):
        if here is None or prompt not in (None, number):
            continue
        faults = list(_at_prompt(card, model, envoy, here, edited))
        if not faults and not named_wrong:
            faults = list(_validated(card, experiment, model, here))
        if faults:
            of = f"prompt {number + 1}: " if len(scenes) > 1 else ""
            yield from (("error", f"{of}{each}") for each in faults)
            return
    first = (card.at.steps or "").partition(":")[0]
    if experiment.generate and first and int(first) >= experiment.generate:
        last = experiment.generate - 1
        yield "error", f"there is no step {first}: the generation has {last + 1} (0–{last}); choose another"
    if card.at.steps is not None and not experiment.generate:
        yield "warning", f"steps {card.at.steps} mean nothing in a plain pass; generate some tokens, or leave them out"


def _at_prompt(card: Placed, model: NNsight, envoy: Envoy, here: Scene, edited: bool) -> Iterator[str]:
    if here.value(card.at)[0] == "never called":
        yield _never_called(card.at, envoy, here)
        return
    faults = list(_parts(card.at, model)) or list(kind_of(card).check(card, here, edited))
    yield from faults or _positions(card.at, here)


def _never_called(at: Target, envoy: Envoy, here: Scene) -> str:
    kind = type(envoy.module).__name__
    below = here.called_below(envoy)
    cure = f"choose a module inside it, such as {below[0]}" if below else "choose another module"
    return f"{at.path} ({kind}) is not called when this prompt is run, so it has no {at.port}; {cure}"


# ---- tokens, heads, neurons


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
    if tensor is None or at.heads is not None or at.neurons is not None:
        return
    what, shape = words(at, positions=False), tuple(tensor.shape)
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


def _parts(at: Target, model: NNsight) -> Iterator[str]:
    """Heads and neurons against the module, and what goes together."""
    if at.heads is not None and at.neurons is not None:
        yield "a value is of heads or of neurons; choose one of them"
    elif at.index is not None and (at.positions, at.heads, at.neurons) != (None, None, None):
        yield "a slice says it all; take back the tokens, heads and neurons, or the slice"
    elif at.heads is not None or at.neurons is not None:
        yield from _inner(at, model, "heads" if at.heads is not None else "neurons", at.heads or at.neurons or ())


def _inner(at: Target, model: NNsight, what: str, chosen: tuple[int, ...]) -> Iterator[str]:
    if not chosen:
        yield f"no {what.removesuffix('s')} is chosen; choose one, or all"
        return
    try:
        layer, count = layer_of(at, model), 0
        if layer is not None:
            count = layer.attn.n_heads if what == "heads" else _width(layer)
    except (InputError, PathError, AttributeError) as error:
        yield f"{at.path or 'the model'} has no {what}: {error}"
        return
    if layer is None:
        yield f"{at.path or 'the model'} is in no layer, so it has no {what}; choose one in a layer"
        return
    wrong = next((each for each in chosen if not -count <= each < count), None)
    if wrong is not None:
        shown = str(wrong).replace("-", "−")
        yield f"{what.removesuffix('s')} {shown} is out of range: there are {count} {what} (0–{count - 1})"


def layer_of(at: Target, model: NNsight) -> Layer | None:
    """The layer that a target is in, under its standard name."""
    root: Any = model._root
    stack = standard(root, "names").family.layers
    number = at.path.removeprefix(f"{stack}.").partition(".")[0]
    inside = at.path.startswith(f"{stack}.") and number.isdigit()
    return standard(root, "layers")[int(number)] if inside else None


def _width(layer: Layer) -> int:
    module: Any = layer.mlp._at(layer.mlp._family.down, "one set of neurons").module
    transposed = type(module).__name__ == "Conv1D"
    return int(module.weight.shape[0 if transposed else 1])


# ---- on fake values


class _Validation(ScanContext):
    """A trace in which each statement is run on fake values as it is written, and that runs nothing."""

    def __init__(self, model: NNsight, prompt: str) -> None:
        super().__init__(model, (prompt,), {}, {}, scan=True, validate=True)


def _validated(card: Placed, experiment: Experiment, model: NNsight, here: Scene) -> Iterator[str]:
    """What running the card's statement on fake values says."""
    if not here.scan.known:
        return
    text = statement_of(experiment, card)
    names = namespace(experiment, model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _Validation(model, here.prompt) as tracer:
                names["tracer"] = tracer
                exec(compile(text, "card", "exec", dont_inherit=True), names)
    except (DeferredError, NotTracingError):
        return  # known only in the run
    except Exception as error:
        value = first_tensor(here.value(card.at)[1])
        shape = (
            f" ({words(card.at, positions=False)} has shape {tuple(value.shape)})" if isinstance(value, Tensor) else ""
        )
        said = str(error).split("\nWhile ")[0].strip().rstrip(".")
        yield f"{said}{shape}; change what this card is about"


__all__ = ["lint"]
