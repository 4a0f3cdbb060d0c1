"""Bench: the one door between a kernel's namespace and whoever asks; it knows nothing of how the asking travels."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from workbench.errors import InputError
from workbench.experiment.fault import Fault
from workbench.experiment.lint import lint
from workbench.experiment.run import next_logits, run
from workbench.experiment.table import kind_of
from workbench.experiment.to_python import write
from workbench.jupyter import look, report, viewing
from workbench.jupyter.messages import (
    METHODS,
    CodeReply,
    DoneReply,
    Event,
    ExperimentParams,
    Logged,
    LogLine,
    ModelParams,
    ModelsChanged,
    ModelsReply,
    NoParams,
    Progress,
    PromptParams,
    RunChanged,
    RunParams,
    RunResult,
    RunsReply,
    ShapesReply,
    StartedReply,
    TileParams,
    TileReply,
    TokensReply,
    TreeReply,
    ViewParams,
    ViewReply,
    ViewsReply,
)
from workbench.jupyter.runs import Record, Runs
from workbench.models.base import NNsight
from workbench.models.language import LanguageModel
from workbench.models.tokens import pieces
from workbench.views.summary import summary
from workbench.views.tokens import compare

Buffers = list[bytes]


class Faulty(Exception):
    """A request that is refused, in words."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Bench:
    """One method a request, named as in `METHODS`; safe to call from several threads.

    Args:
        namespace: the kernel's variables, as they are now.
        emit: given each event, from whatever thread it happens in.

    Example:
        >>> import workbench as wb
        >>> bench = Bench(lambda: {"model": wb.demo()})
        >>> [model.name for model in bench.models().models]
        ['model']
    """

    def __init__(
        self, namespace: Callable[[], Mapping[str, object]], emit: Callable[[Event], None] = lambda event: None
    ) -> None:
        self.kernel = uuid.uuid4().hex
        self._namespace = namespace
        self._emit = emit
        self._runs = Runs(self._work, self._changed)
        self._known: object = None

    def call(self, method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], Buffers]:
        """Answer a request by name: the result as JSON data, and its buffers."""
        if method not in METHODS:
            raise InputError(f"unknown request {method!r}; one of {', '.join(METHODS)}")
        expected = METHODS[method][0].model_validate(params)
        given = () if isinstance(expected, NoParams) else (expected,)
        answer = getattr(self, method)(*given)
        found, buffers = answer if isinstance(answer, tuple) else (answer, [])
        return found.model_dump(mode="json"), buffers

    # ---- what there is

    def models(self) -> ModelsReply:
        found = look.models_in(self._namespace())
        return ModelsReply(kernel=self.kernel, models=tuple(look.info(name, model) for name, model in found.items()))

    def models_changed(self) -> None:
        """Say so if the models are others than when this was last asked."""
        found = look.models_in(self._namespace())
        known = [(name, id(model), look.loaded(model.module)) for name, model in found.items()]
        if known != self._known:
            self._known = known
            self._emit(ModelsChanged())

    def tree(self, params: ModelParams) -> TreeReply:
        return TreeReply(rows=look.tree(params.model, self._model(params.model)))

    def tokens(self, params: PromptParams) -> TokensReply:
        return look.tokens(self._model(params.model), params.prompt)

    def shapes(self, params: PromptParams) -> ShapesReply:
        return look.shapes(self._model(params.model), params.prompt)

    def _model(self, name: str) -> NNsight:
        value = self._namespace().get(name)
        if not issubclass(type(value), NNsight):
            raise InputError(f"there is no model named {name!r} in this kernel; run the cell that makes it")
        return value  # pyright: ignore[reportReturnType]

    # ---- the experiment

    def code(self, params: ExperimentParams) -> CodeReply:
        experiment = params.experiment
        faults = lint(experiment, self._model(experiment.model))
        return CodeReply(code=write(experiment).text, faults=faults)

    def run(self, params: ExperimentParams) -> StartedReply:
        experiment = params.experiment
        model = self._model(experiment.model)
        for fault in lint(experiment, model):
            raise Faulty(fault)
        return StartedReply(run=self._runs.start(experiment, write(experiment), model).run)

    def cancel(self, params: RunParams) -> DoneReply:
        self._runs.cancel(params.run)
        return DoneReply()

    def result(self, params: RunParams) -> tuple[RunResult, Buffers]:
        return report.result(self._runs.get(params.run))

    def runs(self) -> RunsReply:
        return RunsReply(runs=tuple(map(report.summary, self._runs.all())))

    def records(self) -> list[Record]:
        """The runs that are remembered, the newest first."""
        return self._runs.all()

    # ---- views

    def views(self, params: RunParams) -> ViewsReply:
        record = self._runs.get(params.run)
        return viewing.views(record, self._model(record.experiment.model))

    def view(self, params: ViewParams) -> tuple[ViewReply, Buffers]:
        record = self._runs.get(params.run)
        return viewing.view(record, self._model(record.experiment.model), params)

    def tile(self, params: TileParams) -> tuple[TileReply, Buffers]:
        return viewing.tile(self._runs.get(params.run), params)

    # ---- on the run's thread

    def _work(self, record: Record, model: NNsight) -> None:
        """The clean run, where it would differ; then the experiment's own."""
        assert isinstance(model, LanguageModel)
        experiment = record.experiment
        record.tokens = tuple(model.tokens(experiment.prompt))
        clean = None
        changes = any(kind_of(card).changes for card in experiment.interventions if card.enabled)
        if changes:
            self._progress(record, 0, 2, "clean run")
            clean = next_logits(model.trace(experiment.prompt, trace=False))
            self._progress(record, 1, 2, "run with interventions")

        def log(text: str) -> None:
            record.logs.append(text)
            self._emit(Logged(line=LogLine(run=record.run, text=text)))

        outcome = run(experiment, model, name=record.name, log=log)
        after = outcome.next_logits
        before = clean if changes else after
        if before is not None and after is not None:
            record.before, record.after = compare(before, after, lambda id: pieces(model.tokenizer, [id])[0])
            if not record.after:
                log("the logits at the last token are not numbers (NaN), so there are no probabilities")
        record.saved = [(name, summary(value)) for name, value in outcome.saved.items()]
        record.unset = outcome.unset
        record.outcome = outcome

    def _progress(self, record: Record, done: int, total: int, text: str) -> None:
        self._emit(Progress(run=record.run, done=done, total=total, text=text))

    def _changed(self, record: Record) -> None:
        self._emit(RunChanged(summary=report.summary(record)))
        if record.state != "running":
            self.models_changed()  # the first run loads the weights
