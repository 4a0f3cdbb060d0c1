"""Experiment → the Python that it stands for: what the code pane shows, what a cell gets, and what is run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from workbench.envoy import expression
from workbench.errors import InputError
from workbench.experiment.code_text import fault_of, indentation, moved
from workbench.experiment.kinds import Card, Code, Experiment, Placed, Save
from workbench.experiment.literals import is_name, number, quoted
from workbench.experiment.places import words
from workbench.experiment.table import Place, kind_of, steps_of

Form = Literal["with", "cell", "script"]

MEASURED = "measured"
"""The name under which the code keeps what the experiment measures."""
ORDINARY = "# code before or after the run has no place in a %%trace cell, so this is an ordinary one"


@dataclass(frozen=True)
class Written:
    """Python text, the id of the card that each line (counted from 1) came from, and what each saved name is:
    name → (card, prompt)."""

    text: str
    cards: dict[int, str]
    names: dict[str, tuple[Save, int | None]] = field(default_factory=dict)


def to_python(experiment: Experiment, form: Form = "with", opening: str | None = None) -> str:
    """The experiment as Python; cards that are switched off are left out.

    Args:
        experiment: what is to be written.
        form: "with" for a block that stands in a notebook, "cell" for a `%%trace` cell, "script" for a file of its own
            with imports, the model and the seeds.
        opening: for a script, the Python that opens the model.

    Raises:
        InputError: the model's name is not one that Python can write.

    Example:
        >>> from workbench.experiment.kinds import Ablate, Experiment, Target
        >>> card = Ablate(id="a", at=Target(path="transformer.h.2.mlp", positions=(-1,)))
        >>> e = Experiment(model="model", prompts=("The Eiffel Tower",), interventions=(card,))
        >>> print(to_python(e))
        with model.trace("The Eiffel Tower"):
            wb.ablate(model.transformer.h[2].mlp, positions=[-1])
        >>> print(to_python(e, "cell"))
        %%trace model "The Eiffel Tower"
        wb.ablate(model.transformer.h[2].mlp, positions=[-1])
    """
    return write(experiment, form, opening).text


def write(experiment: Experiment, form: Form = "with", opening: str | None = None) -> Written:
    """As `to_python`, with the lines' cards."""
    if not is_name(experiment.model):
        raise InputError(f"{experiment.model!r} is not a Python name; give the model a variable of its own")
    writer = _Writer(experiment, commented=form == "script")
    if form == "cell" and not any(isinstance(card, Code) and card.where != "inside" for card in experiment.enabled):
        writer.cell()
    elif form == "script":
        writer.script(opening)
    else:
        if form == "cell":
            writer.line(ORDINARY)
        writer.block()
    return Written("\n".join(writer.lines), writer.cards, writer.names)


class _Writer:
    """Lines, as they are written."""

    def __init__(self, experiment: Experiment, commented: bool) -> None:
        self.experiment = experiment
        self.commented = commented
        self.lines: list[str] = []
        self.cards: dict[int, str] = {}
        self.names: dict[str, tuple[Save, int | None]] = {}
        self.several = len(experiment.prompts) > 1
        self.invoked = self.several

    def line(self, text: str, depth: int = 0, card: Card | None = None) -> None:
        for each in text.split("\n"):
            self.lines.append(" " * 4 * depth + each if each else "")
            if card is not None:
                self.cards[len(self.lines)] = card.id

    # ---- the three forms

    def block(self) -> None:
        experiment = self.experiment
        self.around("before")
        if experiment.seed is not None and not experiment.generate:
            self.line("import torch\n\ntorch.manual_seed(" + str(experiment.seed) + ")\n")
        self.line(f"with {self._opened()}:")
        before = len(self.lines)
        self.prompts(1)
        if len(self.lines) == before:
            self.line("pass", 1)
        self.around("after")

    def cell(self) -> None:
        experiment = self.experiment
        self.invoked |= not experiment.prompts[0].isprintable()  # the line of a cell is one line
        header = ["%%trace", experiment.model]
        if not self.invoked:
            prompt = experiment.prompts[0]
            header.append(shlex.quote(prompt) if any(each in prompt for each in '"\\') else f'"{prompt}"')
        header += ["--generate", str(experiment.generate)] if experiment.generate else []
        header += ["--temperature", number(experiment.temperature)] if _samples(experiment) else []
        header += ["--seed", str(experiment.seed)] if experiment.seed is not None else []
        self.line(" ".join(header))
        self.prompts(0)
        if len(self.lines) == 1:
            self.line("pass")

    def script(self, opening: str | None) -> None:
        experiment = self.experiment
        self.line(f'"""{_summary(experiment)}"""\n')
        self.line("import torch\n" if experiment.seed is not None and not experiment.generate else "")
        self.line("import workbench as wb\n")
        name = experiment.model
        self.line(f"{name} = {opening or 'wb.demo()  # the model that this was made with'}\n")
        mark = len(self.lines)
        self.block()
        if self.lines[mark : mark + 2] == ["import torch", ""]:  # it stands at the top of a script
            self._drop(mark, 2)
        if self.lines[2] == "":
            self._drop(2, 1)
        saved = [*self.names, *self._measures()]
        if saved:
            self.line("")
        for each in saved:
            self.line(f"print({quoted(each + ':')}, {each})")

    def _drop(self, start: int, count: int) -> None:
        del self.lines[start : start + count]
        self.cards = {line - count if line > start else line: card for line, card in self.cards.items()}

    # ---- the parts

    def around(self, where: Literal["before", "after"]) -> None:
        """Code outside of the block."""
        cards = [card for card in self.experiment.enabled if isinstance(card, Code) and card.where == where]
        for card in cards:
            if where == "after":
                self.line("")
            self.code(card, 0)
            if where == "before":
                self.line("")

    def prompts(self, depth: int) -> None:
        """The cards, for each prompt."""
        if not self.invoked:
            self.body(0, "", depth)
            return
        for number_of, prompt in enumerate(self.experiment.prompts):
            self.line(f"with tracer.invoke({quoted(prompt)}):", depth)
            before = len(self.lines)
            self.body(number_of, f"_{number_of}" if self.several else "", depth + 1)
            if len(self.lines) == before:
                self.line("pass", depth + 1)

    def body(self, prompt: int, suffix: str, depth: int) -> None:
        """One prompt's statements; neighbours of the same steps stand in one block."""
        experiment = self.experiment
        cards = [card for card in experiment.enabled if _concerns(card, prompt)]
        for steps, group in groupby(cards, lambda card: steps_of(card, experiment.generate)):
            members = list(group)
            listed = steps is not None and not steps.isdigit()
            if steps is not None:
                for card in members:
                    if isinstance(card, Save) and listed and is_name(card.name):
                        self.line(f"{card.name}{self._suffix(card, suffix)} = wb.list().save()", depth, card)
                self.line(f"with {'tracer.all()' if steps == ':' else f'tracer.iter[{steps}]'}:", depth)
            for card in members:
                self.statement(card, prompt, suffix, depth + (steps is not None), listed)
        if experiment.measure is not None:
            answers = [repr(each) if isinstance(each, int) else quoted(each) for each in experiment.measure.answers]
            given = f", [{', '.join(answers)}]" if answers else ""
            self.line(f"{MEASURED}{suffix} = wb.measure({quoted(experiment.measure.metric)}{given}).save()", depth)

    def statement(self, card: Card, prompt: int, suffix: str, depth: int, listed: bool) -> None:
        if isinstance(card, Code):
            self.code(card, depth)
            return
        assert isinstance(card, Placed)
        for each in _comments(card.note):
            self.line(each, depth, card)
        if self.commented and not card.note:
            self.line(f"# {kind_of(card).words(card)}", depth, card)
        suffix = self._suffix(card, suffix)
        if isinstance(card, Save):
            if not is_name(card.name):  # a fault of its own; the rest is still shown
                self.line(f"pass  # not saved: {card.name!r} is not a Python name", depth, card)
                return
            self.names[card.name + suffix] = card, prompt
        place = Place(
            expression(self.experiment.model, card.at.path), edited_later(self.experiment, card), suffix, listed
        )
        self.line(kind_of(card).write(card, place), depth, card)

    def code(self, card: Code, depth: int) -> None:
        code = moved(card.code, -indentation(card.code))
        fault = fault_of(code)
        for each in _comments(card.note):
            self.line(each, depth, card)
        if fault is not None:
            self.line(f"pass  # {fault}", depth, card)
        elif code.strip():
            text = moved(code, 4 * depth)
            self.line(text if _does_something(code) else f"{text}\n{' ' * 4 * depth}pass", 0, card)

    def _suffix(self, card: Card, suffix: str) -> str:
        return suffix if isinstance(card, Placed) and card.at.prompt is None else ""

    def _opened(self) -> str:
        experiment = self.experiment
        named = " as tracer" if self._names_tracer() else ""
        given = [] if self.invoked else [quoted(experiment.prompts[0])]
        if not experiment.generate:
            return f"{experiment.model}.trace({', '.join(given)}){named}"
        given.append(f"max_new_tokens={experiment.generate}")
        if _samples(experiment):
            given.append(f"do_sample=True, temperature={number(experiment.temperature)}")
        if experiment.seed is not None:
            given.append(f"seed={experiment.seed}")
        return f"{experiment.model}.generate({', '.join(given)}){named}"

    def _names_tracer(self) -> bool:
        cards = self.experiment.enabled
        return self.several or any(
            card.kind in ("log", "code") or steps_of(card, self.experiment.generate) is not None for card in cards
        )

    def _measures(self) -> Iterator[str]:
        if self.experiment.measure is not None:
            count = len(self.experiment.prompts)
            yield from ([MEASURED] if count == 1 else [f"{MEASURED}_{each}" for each in range(count)])


def names_of(experiment: Experiment) -> dict[str, tuple[Save, int | None]]:
    """The names under which an experiment's code keeps values: name → (card, prompt)."""
    count = len(experiment.prompts)
    return {
        card.name + (f"_{prompt}" if count > 1 and card.at.prompt is None else ""): (card, prompt)
        for prompt in range(count)
        for card in experiment.enabled
        if isinstance(card, Save) and _concerns(card, prompt) and is_name(card.name)
    }


def statement_of(experiment: Experiment, card: Placed) -> str:
    """One card's statement, as it stands in step 0 of its prompt."""
    return kind_of(card).write(card, Place(expression(experiment.model, card.at.path), edited_later(experiment, card)))


def _concerns(card: Card, prompt: int) -> bool:
    """Whether a card is among a prompt's statements."""
    if isinstance(card, Code):
        return card.where == "inside" and card.prompt in (None, prompt)
    return isinstance(card, Placed) and card.at.prompt in (None, prompt)


def _comments(note: str) -> list[str]:
    return [f"# {line}".rstrip() for line in note.split("\n")] if note else []


def _does_something(code: str) -> bool:
    return any(line.strip() and not line.strip().startswith("#") for line in code.split("\n"))


def _samples(experiment: Experiment) -> bool:
    return bool(experiment.generate and experiment.temperature)


def _summary(experiment: Experiment) -> str:
    prompts = " and ".join(f"“{each}”" for each in experiment.prompts)
    changed = [kind_of(card).words(card) for card in experiment.enabled if kind_of(card).changes]
    text = f"{'; '.join(changed) or 'A clean run'}: {prompts}."
    return text.replace("\\", "\\\\").replace('"""', "'''").replace("\n", " ")


def edited_later(experiment: Experiment, card: Card) -> bool:
    """Whether a later card changes, in place, the value that this one reads."""
    cards = experiment.enabled
    here = next((index for index, each in enumerate(cards) if each is card), len(cards))
    return isinstance(card, Placed) and any(
        isinstance(later, Placed) and kind_of(later).changes and _shares(later, card) for later in cards[here + 1 :]
    )


def _shares(later: Placed, card: Placed) -> bool:
    """Whether two cards are about the same value: heads and neurons are parts of what their projection reads."""
    inner = later.at.heads is not None or later.at.neurons is not None
    if inner:
        return card.at.port == "input" or (later.at.path == card.at.path and words(later.at) == words(card.at))
    return (later.at.path, later.at.port) == (card.at.path, card.at.port)


__all__ = ["Form", "Written", "edited_later", "is_name", "quoted", "to_python", "write"]
