"""Every message between kernel and page, as types; the TypeScript side is generated from these."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workbench.experiment.fault import Fault
from workbench.experiment.kinds import Experiment, Frozen
from workbench.views.header import AnyView, Grid, Kind
from workbench.views.heatmap import Heatmap
from workbench.views.tokens import TopToken


class ModelInfo(Frozen):
    """A model found in the kernel's namespace."""

    name: str = Field(description="the variable's name")
    cls: str
    parameters: int
    device: str
    tokenizes: bool = Field(description="takes text as a prompt")


class ModuleRow(Frozen):
    """One module, in pre-order; the page folds and searches these."""

    path: str
    name: str
    cls: str
    depth: int
    children: int
    parameters: int


class Shape(Frozen):
    """What goes in and comes out of one module for the present prompt."""

    input: tuple[int, ...] | None
    output: tuple[int, ...] | None
    dtype: str | None
    why: str | None = Field(default=None, description="why unknown, when it is")


class Saved(Frozen):
    """One saved value: what it is, and how it looks."""

    name: str
    path: str
    port: str
    shape: tuple[int, ...] | None
    dtype: str | None
    text: str = Field(description="a one-line summary: statistics of a tensor, repr of anything else")
    view: Heatmap | None


class LogLine(Frozen):
    run: int
    text: str


class RunSummary(Frozen):
    """A run in the history."""

    run: int
    state: Literal["running", "done", "failed", "cancelled"]
    headline: str
    seconds: float


class RunResult(Frozen):
    """All that the Results tab shows of one run."""

    run: int
    state: Literal["running", "done", "failed", "cancelled"]
    headline: str = Field(description="run 7 · 0.21 s · Paris 0.93 → Rome 0.41 · 1 intervention · 2 values saved")
    seconds: float
    experiment: Experiment
    code: str
    tokens: tuple[str, ...]
    before: tuple[TopToken, ...] = Field(description="most probable next tokens of the clean run")
    after: tuple[TopToken, ...] = Field(description="the same tokens' row after the interventions")
    saved: tuple[Saved, ...]
    logs: tuple[LogLine, ...]
    fault: Fault | None


# ---- requests: method name → parameters, result. The page sends {id, method, params}; the kernel answers {id, result}
# ---- or {id, fault}, on the same comm, with binary buffers beside it.


class NoParams(Frozen):
    pass


class ModelParams(Frozen):
    model: str


class PromptParams(Frozen):
    model: str
    prompt: str


class ExperimentParams(Frozen):
    experiment: Experiment


class RunParams(Frozen):
    run: int


class ModelsReply(Frozen):
    kernel: str = Field(description="changes when the kernel restarts")
    models: tuple[ModelInfo, ...]


class TreeReply(Frozen):
    rows: tuple[ModuleRow, ...]


class TokensReply(Frozen):
    tokens: tuple[str, ...]
    ids: tuple[int, ...]


class ShapesReply(Frozen):
    shapes: dict[str, Shape]
    how: str = Field(description="'scanned', or why the shapes are unknown")


class CodeReply(Frozen):
    code: str
    faults: tuple[Fault, ...] = Field(description="what is wrong with which card; any fault disables Run")


class StartedReply(Frozen):
    run: int


class RunsReply(Frozen):
    runs: tuple[RunSummary, ...]


class DoneReply(Frozen):
    pass


# ---- views


class Entry(Frozen):
    """Something to look at: the run as a whole, where `name` is empty, or a tensor of a saved value."""

    name: str
    part: int = Field(default=0, description="which tensor, where the value holds several")
    kind: Kind
    title: str
    kinds: tuple[Kind, ...] = ()
    shape: tuple[int, ...] | None = None


class ViewsReply(Frozen):
    entries: tuple[Entry, ...]


class ViewParams(Frozen):
    run: int
    name: str = Field(default="", description="of a saved value; empty for the run as a whole")
    part: int = 0
    kind: Kind | None = Field(default=None, description="null for what suits it")
    layer: int | None = None
    head: int | None = None
    batch: int = 0
    position: int | None = None
    neurons: tuple[int, ...] = Field(default=(), description="that are shown beside the strongest")
    down: int | None = None
    across: int | None = None
    index: tuple[int, ...] = ()
    merged: Literal["mean", "largest"] = "mean"
    eager: bool = Field(default=False, description="first make the model compute attention so that there are patterns")


class ViewReply(Frozen):
    view: AnyView


class TileParams(Frozen):
    run: int
    name: str
    part: int = 0
    down: int | None
    across: int | None
    index: tuple[int, ...]
    window: tuple[int, int, int, int] = Field(description="rows from, to, columns from, to")
    most: tuple[int, int] = Field(description="cells that are wanted, down and across")
    merged: Literal["mean", "largest"] = "mean"
    limit: float | None = None


class TileReply(Frozen):
    grid: Grid


METHODS: dict[str, tuple[type[Frozen], type[Frozen]]] = {
    "models": (NoParams, ModelsReply),
    "tree": (ModelParams, TreeReply),
    "tokens": (PromptParams, TokensReply),
    "shapes": (PromptParams, ShapesReply),
    "code": (ExperimentParams, CodeReply),
    "run": (ExperimentParams, StartedReply),
    "cancel": (RunParams, DoneReply),
    "result": (RunParams, RunResult),
    "runs": (NoParams, RunsReply),
    # views
    "views": (RunParams, ViewsReply),
    "view": (ViewParams, ViewReply),
    "tile": (TileParams, TileReply),
}


# ---- events: the kernel pushes {events: [...]} on its own comm, at most 20 messages a second.


class ModelsChanged(Frozen):
    type: Literal["models"] = "models"


class RunChanged(Frozen):
    type: Literal["run"] = "run"
    summary: RunSummary


class Progress(Frozen):
    type: Literal["progress"] = "progress"
    run: int
    done: int
    total: int
    text: str


class Logged(Frozen):
    type: Literal["log"] = "log"
    line: LogLine


Event = ModelsChanged | RunChanged | Progress | Logged
