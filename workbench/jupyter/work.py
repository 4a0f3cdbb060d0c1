"""What is done in a run, on its thread: the clean run where it would differ, the experiment's own, and what to tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from workbench.experiment.cell import Cell
from workbench.experiment.kinds import Experiment
from workbench.experiment.run import Generation, Job, LogLine, Outcome, run, seeded
from workbench.experiment.scene import takes_text
from workbench.experiment.table import kind_of
from workbench.experiment.verify import verify
from workbench.jupyter import messages, report
from workbench.jupyter.environment import environment
from workbench.jupyter.messages import Event, Generated, Logged, Progress, PromptResult
from workbench.jupyter.record import Record
from workbench.measures import divergence, measured, token_ids
from workbench.models.base import NNsight
from workbench.models.language import LanguageModel
from workbench.models.tokens import pieces
from workbench.views.tokens import TopToken, compare

OFTEN = 0.1
"""Seconds between two words on how far a pass is."""

NOT_NUMBERS = "the logits at the last token are not numbers (NaN), so there are no probabilities"

Emit = Callable[[Event], None]


class Work:
    """Computes records. `emit` is told how far each is, and each log line."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    # ---- the panel's runs

    def run(self, record: Record, model: NNsight) -> None:
        """The experiment itself, with receipts."""
        assert isinstance(model, LanguageModel)
        experiment = record.experiment
        record.prompts = self.prompts(experiment, model)
        changes = changes_anything(experiment)
        clean = self.clean(record, model) if changes else None
        outcome = run(
            experiment,
            model,
            name=record.name,
            log=self.log(record),
            receipts=True,
            step=self.steps(record, int(changes), 1 + int(changes), "run with interventions" if changes else "run"),
            tidy=record.tidy,
        )
        self.take_in(record, model, outcome, clean)

    def cell(self, cell: Cell, record: Record, model: NNsight) -> None:
        """A cell's own block; a clean run after it where it changes something and can be run again."""
        __tracebackhide__ = True
        texts = cell.takes_texts and takes_text(model)
        record.prompts = self.prompts(record.experiment, model) if texts else ()
        show = self.log(record)

        def log(line: LogLine) -> None:
            print(line.text)
            show(line)

        job = Job(
            record.experiment,
            model,
            cell.cards,
            name=cell.file,
            log=log,
            receipts=True,
            step=self.steps(record, 0, 1, "run"),
            tidy=record.tidy,
            remote=cell.header.remote,
        )
        with seeded(cell.header.seed):
            job.execute(cell.block(), cell.variables, cell.given())
        outcome = job.outcome(cell.names(), cell.values())
        cell.close()
        changes = any(use.changed for use in outcome.uses.values())
        clean = self.clean(record, model) if changes and texts and not cell.header.remote else None
        self.take_in(record, model, outcome, clean, known=clean is not None or not changes)

    def verify(self, record: Record, model: NNsight) -> None:
        """The experiment, and its text in a namespace of its own."""
        self._progress(record, 0, 1, "verifying")
        record.comparison = verify(record.experiment, model, tidy=record.tidy)
        record.outcome = Outcome()

    def prompts(self, experiment: Experiment, model: Any) -> tuple[PromptResult, ...]:
        """Each prompt with its tokens."""
        return tuple(
            PromptResult(prompt=each, tokens=tuple(model.tokens(each)), before=(), after=())
            for each in experiment.prompts
        )

    def clean(self, record: Record, model: NNsight) -> Outcome:
        """The same prompts without any intervention."""
        self._progress(record, 0, 2, "clean run")
        bare = record.experiment.model_copy(update={"interventions": (), "measure": None})
        outcome = run(bare, model, name=f"{record.name} clean", step=self.steps(record, 0, 2, "clean run"))
        self._progress(record, 1, 2, "run with interventions")
        return outcome

    def take_in(
        self, record: Record, model: NNsight, outcome: Outcome, clean: Outcome | None, known: bool = True
    ) -> None:
        """What a run gave, as it is told; `known` is whether the clean run is, which without changes is this one."""
        given = clean if known else Outcome()
        record.prompts = tuple(
            self._prompt(record, model, number, each, outcome, given) for number, each in enumerate(record.prompts)
        )
        record.receipts = report.receipts(outcome.tallies)
        record.saved = report.saved(outcome, len(record.prompts))
        record.sites = report.sites(outcome.uses)
        record.quiet = None if outcome.quiet is None else topmost(outcome.quiet)
        record.environment = environment(record.experiment, model)
        record.outcome = outcome

    def _prompt(
        self,
        record: Record,
        model: Any,
        number: int,
        prompt: PromptResult,
        outcome: Outcome,
        clean: Outcome | None,
    ) -> PromptResult:
        after = _at(outcome.next_logits, number)
        before = after if clean is None else _at(clean.next_logits, number)
        update: dict[str, Any] = {}
        if after is not None:
            rows = compare(after if before is None else before, after, lambda id: pieces(model.tokenizer, [id])[0])
            update["before"], update["after"] = () if before is None else rows[0], rows[1]
            if not rows[1]:
                self.log(record)(LogLine(NOT_NUMBERS))
            update |= self._numbers(record.experiment, model, before, after, numbers=bool(rows[1]))
        generated = _at(outcome.generated, number)
        if generated is not None:
            other = None if clean is None else _at(clean.generated, number)
            update["generated"] = _generated(model, generated, other)
        return prompt.model_copy(update=update)

    def _numbers(
        self, experiment: Experiment, model: Any, before: Tensor | None, after: Tensor, numbers: bool
    ) -> dict[str, float | None]:
        measure = experiment.measure
        found: dict[str, float | None] = {"kl": None if before is None or not numbers else divergence(before, after)}
        if measure is not None:
            ids = token_ids(model.tokenizer, measure.metric, measure.answers)
            if before is not None:
                found["measure_before"] = measured(before, before, measure.metric, ids)
            if numbers and (before is not None or measure.metric != "kl"):
                found["measure_after"] = measured(after, before, measure.metric, ids)
        return found

    # ---- what is told meanwhile

    def log(self, record: Record) -> Callable[[LogLine], None]:
        """Takes each log line as it is written."""

        def show(line: LogLine) -> None:
            told = messages.LogLine(run=record.run, text=line.text, site=line.site, card=line.card)
            record.logs.append(told)
            self._emit(Logged(line=told))

        return show

    def steps(self, record: Record, passes: int, of: int, text: str) -> Callable[[int, int], None]:
        """Takes how far a pass is, and tells of it now and then."""
        told = time.monotonic()

        def step(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told > OFTEN and total:
                told = now
                what = f"{text} · token {done} of {total}" if record.experiment.generate else text
                self._progress(record, passes * total + min(done, total), of * total, what)

        return step

    def _progress(self, record: Record, done: int, total: int, text: str) -> None:
        self._emit(Progress(run=record.run, done=done, total=total, text=text))


def changes_anything(experiment: Experiment) -> bool:
    """Whether a clean run would be another."""
    return any(kind_of(card).changes for card in experiment.enabled)


def topmost(paths: set[str]) -> tuple[str, ...]:
    """Of each branch the topmost path."""
    return tuple(sorted(path for path in paths if not path or path.rpartition(".")[0] not in paths or "." not in path))


def _at(values: list[Any], number: int) -> Any:
    return values[number] if number < len(values) else None


def _generated(model: Any, found: Generation, clean: Generation | None) -> tuple[Generated, ...]:
    words = pieces(model.tokenizer, found.ids)
    others = [] if clean is None else pieces(model.tokenizer, clean.ids)

    def other(step: int) -> TopToken | None:
        if clean is None or step >= len(clean.ids):
            return None
        return TopToken(
            token=others[step], id=clean.ids[step], probability=_at(clean.probabilities, step) or 0.0, rank=1
        )

    return tuple(
        Generated(
            step=step,
            token=words[step],
            id=id,
            probability=_at(found.probabilities, step) or 0.0,
            clean=other(step),
        )
        for step, id in enumerate(found.ids)
    )


__all__ = ["Work", "changes_anything", "topmost"]
