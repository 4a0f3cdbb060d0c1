"""Interact: sliders for the numbers of an experiment, which is run again as they move."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any

import ipywidgets

from workbench.errors import InputError
from workbench.experiment.fault import explain
from workbench.experiment.kinds import Code, Experiment
from workbench.experiment.run import Outcome, run
from workbench.jupyter import link
from workbench.jupyter.widget import Widget
from workbench.jupyter.work import changes_anything
from workbench.models.base import NNsight
from workbench.models.tokens import pieces
from workbench.views import notebook
from workbench.views.logits import logits
from workbench.views.tokens import best, compare
from workbench.views.view import View

OF_THE_RUN = ("temperature", "generate", "seed")
"""Numbers that are the experiment's own; others are its cards'."""

WORDS = "sliders; run this cell to move them"
"""What a page without a kernel says where nothing was run."""


@dataclass(frozen=True)
class Number:
    """A number that is moved: its name, and where it stands now."""

    name: str
    value: float
    whole: bool


def numbers_of(experiment: Experiment) -> dict[str, Number]:
    """The numbers of an experiment by name. A name that several cards have moves all of them.

    Example:
        >>> from workbench.experiment.kinds import Scale, Target
        >>> card = Scale(id="a", at=Target(path="transformer.h.0"), factor=1.5)
        >>> numbers_of(Experiment(model="model", interventions=(card,)))["factor"].value
        1.5
    """
    places: list[Any] = [card for card in experiment.enabled if not isinstance(card, Code)]
    found: dict[str, Number] = {}
    for place in [experiment, *places]:
        for name in type(place).model_fields if place is not experiment else OF_THE_RUN:
            value = getattr(place, name)
            if type(value) in (int, float) and name not in found:
                found[name] = Number(name, value, type(value) is int)
    return found


def with_numbers(experiment: Experiment, values: Mapping[str, float]) -> Experiment:
    """The experiment with these numbers, checked anew."""
    cards = tuple(
        card.model_copy(update={name: values[name] for name in type(card).model_fields if name in values})
        for card in experiment.interventions
    )
    of_the_run = {name: value for name, value in values.items() if name in OF_THE_RUN}
    changed = experiment.model_copy(update={"interventions": cards, **of_the_run})
    return Experiment.model_validate(changed.model_dump())


class Interactive(ipywidgets.VBox):
    """Sliders above what the run gives. `outcome` is that of the last run; `headline` says it in a line."""

    def __init__(self, experiment: Experiment, model: NNsight, sliders: Mapping[str, Any]) -> None:
        self.experiment = experiment
        self.outcome: Outcome | None = None
        self.headline = ""
        self.fault: str | None = None
        self.sliders = dict(sliders)
        self._model = model
        self._clean: Outcome | None = None
        self._line = ipywidgets.HTML()
        self._views = Widget(None, notebook.data([]))
        self._shown: list[View] = []
        self._changed = Condition()
        self._asked, self._done = 1, 0
        super().__init__([*self.sliders.values(), self._line, self._views])
        for slider in self.sliders.values():
            slider.observe(self._move, "value")
        Thread(target=copy_context().run, args=(self._loop,), name="workbench sliders", daemon=True).start()

    def wait(self, seconds: float = 30) -> Outcome | None:
        """Return once the run for the sliders as they stand has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._done == self._asked, seconds)
        return self.outcome

    def close(self) -> None:
        """Take it away; nothing is run any more."""
        with self._changed:
            self._asked = -1
            self._changed.notify_all()
        super().close()

    def _repr_mimebundle_(self, **more: Any) -> Any:
        """Beside the widget what stays in a notebook: our extension draws it, and keeps the last run's view there."""
        found = super()._repr_mimebundle_(**more)
        if found is None:
            return None
        lasting = notebook.shown(self._shown, self.headline or WORDS, widget=self.model_id)
        return {**lasting, **found}

    def _move(self, change: Any) -> None:
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def _loop(self) -> None:
        """Only the newest numbers are run: what was passed over while a run went is left out."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._done != self._asked)
                asked = self._asked
            if asked < 0:
                return
            try:
                self._run()
                self.fault = None
            except Exception as error:
                self.fault = explain(error).message
                self._line.value = f"<p role='alert'>{_escaped(self.fault)}</p>"
            with self._changed:
                self._done = asked
                self._changed.notify_all()

    def _run(self) -> None:
        values = {name: slider.value for name, slider in self.sliders.items()}
        experiment = with_numbers(self.experiment, values)
        if self._clean is None and changes_anything(experiment):
            bare = experiment.model_copy(update={"interventions": (), "measure": None})
            self._clean = run(bare, self._model, name="sliders, clean")
        self.outcome = outcome = run(experiment, self._model, name="sliders")
        after = outcome.next_logits[0] if outcome.next_logits else None
        before = None if self._clean is None else self._clean.next_logits[0]
        numbers = ", ".join(f"{name} {value:g}" for name, value in values.items())
        if after is None:
            self.headline = numbers
        else:
            tokenizer = getattr(self._model, "tokenizer", None)

            def decode(id: int) -> str:
                return str(id) if tokenizer is None else pieces(tokenizer, [id])[0]

            tops = [best(row) for row in compare(after if before is None else before, after, decode)]
            words = " → ".join(f"{top.token.strip()} {top.probability:.2f}" for top in tops if top is not None)
            self.headline = f"{numbers} · {words}"
            self._shown = [logits(after, before, decode=decode, title="next token")]
            self._views.kept = notebook.data(self._shown, self.headline)
        self._line.value = "" if after is not None else f"<p>{_escaped(self.headline)}</p>"


def interact(experiment: Experiment, model: NNsight | None = None, **ranges: tuple[float, ...]) -> Interactive:
    """Sliders for an experiment's numbers; see `Experiment.interact`."""
    if not ranges:
        names = ", ".join(numbers_of(experiment)) or "none"
        raise InputError(f"name a number and its range, as factor=(0, 2); the experiment has {names}")
    if model is None:
        here = link.current()
        model = None if here is None else here.variables().get(experiment.model)
        if not issubclass(type(model), NNsight):
            raise InputError(f"there is no model named {experiment.model!r} here; give it: interact(model=…, …)")
    assert model is not None
    return Interactive(experiment, model, {name: _slider(experiment, name, each) for name, each in ranges.items()})


def _slider(experiment: Experiment, name: str, given: tuple[float, ...]) -> Any:
    known = numbers_of(experiment)
    if name not in known:
        raise InputError(f"no card has a number {name!r}; the experiment has {', '.join(known) or 'none'}")
    if len(given) not in (2, 3) or not given[0] < given[1]:
        raise InputError(f"{name}={given!r}: the range is (from, to) or (from, to, step)")
    low, high = given[:2]
    number = known[name]
    value = min(max(number.value, low), high)
    label = name.replace("_", " ")
    if number.whole:
        step = int(given[2]) if len(given) == 3 else 1
        return ipywidgets.IntSlider(int(value), int(low), int(high), step, description=label)
    step = given[2] if len(given) == 3 else (high - low) / 100
    return ipywidgets.FloatSlider(value, min=low, max=high, step=step, description=label, readout_format=".3g")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


__all__ = ["Interactive", "interact", "numbers_of", "with_numbers"]
