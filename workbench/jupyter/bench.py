"""Bench: the one door between a kernel's namespace and whoever asks; it knows nothing of how the asking travels."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from torch import Tensor as TorchTensor

from workbench.errors import InputError
from workbench.experiment.cell import Cell
from workbench.experiment.comparison import Comparison
from workbench.experiment.fault import Fault
from workbench.experiment.from_python import from_python
from workbench.experiment.kinds import Code, Experiment
from workbench.experiment.lint import lint
from workbench.experiment.table import kind_of
from workbench.experiment.to_python import Written, write
from workbench.jupyter import away, capsule, compare, forms, look, looks, report, viewing
from workbench.jupyter.archive import Archive
from workbench.jupyter.messages import (
    METHODS,
    CapsuleParams,
    CapsuleReply,
    CodeParams,
    CodeReply,
    DoneReply,
    Event,
    ExperimentParams,
    ExperimentReply,
    FiredReply,
    KeepParams,
    KindsReply,
    LiftParams,
    LiftReply,
    ModelParams,
    ModelsChanged,
    ModelsReply,
    NoParams,
    PathParams,
    PromptParams,
    PromptsParams,
    RenameParams,
    RerunParams,
    RunChanged,
    RunParams,
    RunResult,
    RunsReply,
    ServerReply,
    ShapesReply,
    StartedReply,
    StartParams,
    TensorsReply,
    TileParams,
    TileReply,
    TokensReply,
    TreeReply,
    TwoRunsParams,
    ViewParams,
    ViewReply,
    ViewsReply,
    WrapReply,
)
from workbench.jupyter.record import Record
from workbench.jupyter.runs import Runs
from workbench.jupyter.tree import tree
from workbench.jupyter.work import Work
from workbench.models.base import NNsight
from workbench.store import store

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
        self._given = emit
        self._listening: list[Callable[[Event], None]] = []
        self.work = Work(self._emit)
        self.runs_made = Runs(self._changed, lambda: Archive(store()), self._keep)
        self._known: object = None

    def listen(self, hear: Callable[[Event], None]) -> Callable[[], None]:
        """Give each event also to `hear`; what comes back ends it."""
        self._listening.append(hear)
        return lambda: self._listening.remove(hear) if hear in self._listening else None

    def _emit(self, event: Event) -> None:
        self._given(event)
        for hear in list(self._listening):
            hear(event)

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
        """Wrapped models first, then plain modules that can be wrapped."""
        namespace = self._namespace()
        wrapped = (look.info(name, model) for name, model in look.models_in(namespace).items())
        plain = (look.plain(name, module) for name, module in look.modules_in(namespace).items())
        return ModelsReply(kernel=self.kernel, models=(*wrapped, *plain))

    def wrap(self, params: ModelParams) -> WrapReply:
        return look.wrap(params.model, self._namespace())

    def kinds(self) -> KindsReply:
        return forms.kinds()

    def models_changed(self) -> None:
        """Say so if the models are others than when this was last asked."""
        namespace = self._namespace()
        known: list[object] = [
            (name, id(model), look.loaded(model.module)) for name, model in look.models_in(namespace).items()
        ]
        known += [(name, id(module)) for name, module in look.modules_in(namespace).items()]
        if known != self._known:
            self._known = known
            self._emit(ModelsChanged())

    def tree(self, params: ModelParams) -> tuple[TreeReply, Buffers]:
        return tree(params.model, self._model(params.model))

    def tokens(self, params: PromptsParams) -> TokensReply:
        return look.tokens(self._model(params.model), params.prompts)

    def shapes(self, params: PromptParams) -> ShapesReply:
        return look.shapes(self._model(params.model), params.prompt)

    def server(self, params: ModelParams) -> ServerReply:
        return away.server(self._model(params.model))

    def _model(self, name: str) -> NNsight:
        value = self._namespace().get(name)
        if not issubclass(type(value), NNsight):
            raise InputError(f"there is no model named {name!r} in this kernel; run the cell that makes it")
        return value  # pyright: ignore[reportReturnType]

    # ---- the experiment

    def code(self, params: CodeParams) -> CodeReply:
        experiment = params.experiment
        model = self._model(experiment.model)
        written = write(experiment, params.form, opening=_opening(model), remote=params.remote)
        return CodeReply(
            code=written.text,
            faults=(*lint(experiment, model), *capsule.foreign(experiment)),
            words={card.id: kind_of(card).words(card) for card in experiment.interventions},
            lines=written.cards,
        )

    def migrate(self, params: ExperimentParams) -> ExperimentReply:
        """An experiment that was kept in an earlier form, in today's: reading it has brought it there."""
        return ExperimentReply(experiment=params.experiment)

    def lift(self, params: LiftParams) -> LiftReply:
        found = from_python(params.text, self._namespace())
        codes = sum(isinstance(card, Code) for card in found.interventions)
        cards = len(found.interventions)
        text = f"{cards} card{'' if cards == 1 else 's'}" + (f", {codes} of them code" if codes else "")
        return LiftReply(experiment=found, text=text)

    def run(self, params: ExperimentParams) -> StartedReply:
        remote = isinstance(params, StartParams) and params.remote
        return self._start(params.experiment, self.work.run, "run", remote)

    def verify(self, params: ExperimentParams) -> StartedReply:
        return self._start(params.experiment, self.work.verify, "verify")

    def _start(self, experiment: Experiment, work: Any, purpose: Any, remote: bool = False) -> StartedReply:
        model = self._model(experiment.model)
        for fault in (*lint(experiment, model), *capsule.foreign(experiment)):
            if fault.level == "error":
                raise Faulty(fault)
        written = write(experiment, remote=remote)
        return StartedReply(run=self.runs_made.start(experiment, written, model, work, purpose, remote).run)

    def cancel(self, params: RunParams) -> DoneReply:
        record = self.runs_made.get(params.run)
        if record.job is not None:  # its thread waits for the server: what wakes it is that the job ends there
            Thread(target=away.cancel, args=(record.job,), daemon=True).start()
        self.runs_made.cancel(params.run)
        return DoneReply()

    # ---- what was run

    def result(self, params: RunParams) -> RunResult:
        return report.result(self.runs_made.get(params.run))

    def runs(self) -> RunsReply:
        return RunsReply(runs=tuple(map(report.summary, self.runs_made.all())))

    def records(self) -> list[Record]:
        """The runs that are remembered, the newest first."""
        return self.runs_made.all()

    def fired(self, params: RunParams) -> FiredReply:
        record = self.runs_made.get(params.run)
        if record.quiet is None:
            return FiredReply(
                run=record.run, quiet=(), text=f"of {record.name} it is not known which modules were called"
            )
        count = len(record.quiet)
        text = f"{count} module{'' if count == 1 else 's'} not called in {record.name}"
        return FiredReply(run=record.run, quiet=record.quiet, text=text)

    # ---- views

    def views(self, params: RunParams) -> ViewsReply:
        record = self.runs_made.get(params.run)
        return viewing.views(record, self.model_of(record))

    def view(self, params: ViewParams) -> tuple[ViewReply, Buffers]:
        if params.run < 0:
            return looks.view(params)
        record = self.runs_made.get(params.run)
        return viewing.view(record, self.model_of(record), params)

    def tile(self, params: TileParams) -> tuple[TileReply, Buffers]:
        if params.run < 0:
            return looks.tile(params)
        return viewing.tile(self.runs_made.get(params.run), params)

    def model_of(self, record: Record) -> NNsight | None:
        """What a run was made with, or what has its name now; None where there is nothing of that name."""
        if record.model is not None:
            return record.model
        found = self._namespace().get(record.experiment.model)
        return found if issubclass(type(found), NNsight) else None  # pyright: ignore[reportReturnType]

    def compare(self, params: TwoRunsParams) -> Comparison:
        return compare.two(*(self.runs_made.get(each) for each in (params.run, params.other)))

    def rename(self, params: RenameParams) -> DoneReply:
        record = self.runs_made.rename(params.run, params.title)
        if record.state != "running":
            self.runs_made.archive.write(record, report.result(record), tensors=False)
        return DoneReply()

    def delete(self, params: RunParams) -> DoneReply:
        self.runs_made.delete(params.run)
        return DoneReply()

    def keep(self, params: KeepParams) -> DoneReply:
        value = self.runs_made.get(params.run).value(params.name)
        if not isinstance(value, TorchTensor):
            raise InputError(f"{params.name} is a {type(value).__name__}, not a tensor; save a part of it that is one")
        if not params.keep_as.strip():
            raise InputError("a tensor is kept under a name; write one")
        store().keep(params.keep_as.strip(), value)
        return DoneReply()

    def tensors(self) -> TensorsReply:
        return report.tensors(store())

    # ---- capsules

    def capsule_save(self, params: CapsuleParams) -> CapsuleReply:
        record = self.runs_made.get(params.run)
        name = re.sub(r"\W+", "-", record.title or record.name).strip("-") or record.name
        path = Path(params.path or f"{name}.capsule")
        data = capsule.write(record, path)
        capsule.Consents(store()).made_here(data)
        return self._about(path)

    def capsule_load(self, params: PathParams) -> CapsuleReply:
        return self._about(Path(params.path))

    def _about(self, path: Path) -> CapsuleReply:
        return capsule.about(path, look.models_in(self._namespace()))

    def capsule_rerun(self, params: RerunParams) -> StartedReply:
        found = capsule.agreed(Path(params.path), params.consent)
        experiment = capsule.unpacked(found, store())
        if params.model is not None:
            experiment = experiment.model_copy(update={"model": params.model})

        def work(record: Record, model: NNsight) -> None:
            self.work.run(record, model)
            record.comparison = capsule.against(found, record)

        return self._start(experiment, work, "rerun")

    # ---- cells that trace

    def trace(self, cell: Cell) -> Record:
        """A `%%trace` cell's run, on its own thread; raises what goes wrong in it."""
        __tracebackhide__ = True
        written = Written(cell.text, cell.cards, cell.names())
        work = partial(self.work.cell, cell)
        return self.runs_made.here(cell.experiment, written, cell.model, work, cell.header.name)

    def _keep(self, record: Record) -> None:
        self.runs_made.archive.write(record, report.result(record))

    def _changed(self, record: Record) -> None:
        self._emit(RunChanged(summary=report.summary(record)))
        if record.state != "running":
            self.models_changed()  # the first run loads the weights


def _opening(model: NNsight) -> str | None:
    """The Python that opens a model, for a script."""
    name = str(getattr(getattr(model.module, "config", None), "_name_or_path", "") or "")
    if "demo" in name and name.rpartition("/")[2] in ("gpt2", "llama"):
        return f'wb.demo("{name.rpartition("/")[2]}")'
    return f"wb.LanguageModel({name!r})" if name else None
