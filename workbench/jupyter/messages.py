"""Every message between kernel and page, as types; the TypeScript side is generated from these."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workbench.experiment.comparison import Compared, Comparison
from workbench.experiment.fault import Fault
from workbench.experiment.kinds import Experiment, Frozen
from workbench.views.header import AnyView, Grid, Kind
from workbench.views.tokens import TopToken


class ModelInfo(Frozen):
    """A model found in the kernel's namespace."""

    name: str = Field(description="the variable's name")
    cls: str
    parameters: int
    device: str
    tokenizes: bool = Field(description="takes text as a prompt")
    wrapped: bool = Field(default=True, description="false for a plain module, which `wrap` gives the line of code for")
    layers: int | None = Field(default=None, description="how many layers, where standard names are known")
    heads: int | None = Field(default=None, description="heads of an attention module")
    modules: int = Field(default=0, description="rows of its tree")


class Shapes(Frozen):
    """What goes in and comes out of each module, in the tree's order; each number points into a list, -1 is none."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    dtype: tuple[int, ...]
    why: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...] = Field(description="what `input` and `output` point into")
    dtypes: tuple[str, ...]
    reasons: tuple[str, ...] = Field(description="why unknown, what `why` points into")


class Saved(Frozen):
    """One saved value: what it is, and how it looks."""

    name: str
    path: str
    port: str
    prompt: int | None = Field(default=None, description="of which prompt; null when it belongs to none or all")
    shape: tuple[int, ...] | None
    dtype: str | None
    text: str = Field(description="a one-line summary: statistics of a tensor, repr of anything else")


class LogLine(Frozen):
    run: int
    text: str
    site: str | None = Field(default=None, description="where its value is from, as 'transformer.h.2.mlp.output'")
    card: str | None = Field(default=None, description="id of the card that wrote it")


State = Literal["running", "done", "failed", "cancelled"]
Purpose = Literal["run", "trace", "verify", "rerun"]


class RunSummary(Frozen):
    """A run in the history."""

    run: int
    state: State
    headline: str
    seconds: float
    title: str | None = Field(default=None, description="as a person named it")
    made: str = Field(default="", description="in words, what it changed, or else what it kept")
    at: str = Field(default="", description="when it began, ISO 8601")
    purpose: Purpose = "run"
    held: bool = Field(default=False, description="its tensors are in memory or on disk")


class Generated(Frozen):
    """One step of a generation: the token that came, and the clean run's."""

    step: int
    token: str
    id: int
    probability: float
    clean: TopToken | None = Field(default=None, description="what the clean run wrote in this step")


class PromptResult(Frozen):
    """What became of one prompt of a run. Numbers are of the token that comes after the prompt."""

    prompt: str
    tokens: tuple[str, ...]
    before: tuple[TopToken, ...] = Field(description="most probable next tokens of the clean run")
    after: tuple[TopToken, ...] = Field(description="the same tokens' row after the interventions")
    kl: float | None = Field(default=None, description="KL divergence, after from before, in nats")
    measure_before: float | None = None
    measure_after: float | None = None
    generated: tuple[Generated, ...] = ()


class Receipt(Frozen):
    """What a card did: how often, to how many values, and how much."""

    card: str
    fired: int = Field(description="how many times it was reached")
    changed: int | None = Field(
        default=None, description="values that it changed; null for what changes nothing by kind"
    )
    total: int | None = Field(default=None, description="values of the tensor it works on")
    norm_before: float | None = None
    norm_after: float | None = None
    warning: str | None = Field(default=None, description="it did nothing, and why")
    text: str = Field(description="fired 1×, changed 768 of 7,680 values, norm 41.2 → 38.9")


class SiteUse(Frozen):
    """A site that a run's code was about, whoever wrote the code: what a badge in the tree says."""

    path: str
    port: str
    saved: bool
    changed: bool


class RunResult(Frozen):
    """All that the Results tab shows of one run."""

    run: int
    state: State
    headline: str = Field(description="run 7 · 0.21 s · Paris 0.93 → Rome 0.41 · 1 intervention · 2 values saved")
    seconds: float
    title: str | None = None
    at: str = ""
    purpose: Purpose = "run"
    experiment: Experiment
    code: str
    prompts: tuple[PromptResult, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    sites: tuple[SiteUse, ...] = Field(default=(), description="what the code read, saved and changed")
    saved: tuple[Saved, ...]
    logs: tuple[LogLine, ...]
    fault: Fault | None
    comparison: Comparison | None = Field(default=None, description="of a verification or a rerun")


# ---- requests: method name → parameters, result. The page sends {id, method, params}; the kernel answers {id, result}
# ---- or {id, fault}, on the same comm, with binary buffers beside it.


class NoParams(Frozen):
    pass


class ModelParams(Frozen):
    model: str


class PromptParams(Frozen):
    model: str
    prompt: str


class PromptsParams(Frozen):
    model: str
    prompts: tuple[str, ...]


class ExperimentParams(Frozen):
    experiment: Experiment


class CodeParams(Frozen):
    experiment: Experiment
    form: Literal["with", "cell", "script"] = "with"
    remote: bool = Field(default=False, description="on the server that wb.CONFIG names")


class StartParams(ExperimentParams):
    remote: bool = Field(default=False, description="on the server that wb.CONFIG names")


class ExperimentReply(Frozen):
    experiment: Experiment


class RunParams(Frozen):
    run: int


class TwoRunsParams(Frozen):
    run: int
    other: int


class RenameParams(Frozen):
    run: int
    title: str | None


class LiftParams(Frozen):
    text: str = Field(description="a cell's source")


class KeepParams(Frozen):
    run: int
    name: str = Field(description="of the saved value")
    keep_as: str = Field(description="the name that wb.tensor(...) will know it by")


class PathParams(Frozen):
    path: str = Field(description="a file, below the kernel's folder unless absolute")


class CapsuleParams(Frozen):
    run: int
    path: str | None = Field(default=None, description="null for a name made of the run's title or number")


class RerunParams(Frozen):
    path: str
    model: str | None = Field(default=None, description="the model's name here, where it differs")
    consent: bool = Field(default=False, description="the person has read its code cards and lets them run")


class ModelsReply(Frozen):
    kernel: str = Field(description="changes when the kernel restarts")
    models: tuple[ModelInfo, ...]


class Served(Frozen):
    """A model of the server's."""

    key: str
    loaded: bool
    queued: int = Field(description="jobs that wait for it")


class ServerReply(Frozen):
    """The server that remote runs go to."""

    host: str
    models: tuple[Served, ...]
    hosts: str | None = Field(description="the key under which it hosts the model that was asked for")
    fault: str | None = Field(default=None, description="why nothing can be run there")


class WrapReply(Frozen):
    code: str = Field(description="the line that wraps it, to be inserted as a cell")


class TreeReply(Frozen):
    """All modules, parents first, in columns beside it; a module's path is its parent's, a dot, and its name.

    The first buffer holds four columns of int32, one behind the other: the parent's row (-1 for the model itself), the
    name's place in `words`, the class's place in `classes`, and a key that is equal for modules of the same structure.
    The second holds the numbers of parameters, as float64.
    """

    name: str = Field(description="the model's own")
    rows: int
    words: tuple[str, ...] = Field(description="the last parts that paths have")
    classes: tuple[str, ...] = Field(description="the class names that there are")
    standard: dict[int, str] = Field(description="row → its standard name, such as layers[2].attn")


class Tokens(Frozen):
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    fault: str | None = Field(default=None, description="why it has none")


class TokensReply(Frozen):
    """Each prompt's tokens, and one column for what corresponds: `aligned[prompt][column]` is a position, or null."""

    prompts: tuple[Tokens, ...]
    aligned: tuple[tuple[int | None, ...], ...]


class ShapesReply(Frozen):
    shapes: Shapes | None
    how: str = Field(description="'scanned', or why the shapes are unknown")


class FiredReply(Frozen):
    run: int
    quiet: tuple[str, ...] = Field(description="modules that were not called in it; of a whole branch, its topmost")
    text: str = Field(description="where it is not known, why")


class KindInfo(Frozen):
    """A kind of card: what a form for it is drawn from."""

    kind: str
    title: str = Field(description="of its button: Save, Ablate, Set, …")
    symbol: str = Field(description="its badge in the tree")
    description: str
    changes: bool = Field(description="it changes what the model computes")
    form: dict[str, object] = Field(description="JSON schema of its fields, with how to show each")
    new: dict[str, object] = Field(description="a new card's own fields, but for its id, place and name")


class KindsReply(Frozen):
    kinds: tuple[KindInfo, ...]
    target: dict[str, object] = Field(description="JSON schema of a target")
    measure: dict[str, object] = Field(description="JSON schema of what is measured")


class CodeReply(Frozen):
    code: str
    faults: tuple[Fault, ...] = Field(description="what is wrong with which card; any error disables Run")
    words: dict[str, str] = Field(default={}, description="card id → the card as a sentence")
    lines: dict[int, str] = Field(default={}, description="line of the code, from 1 → id of the card it is from")


class LiftReply(Frozen):
    experiment: Experiment
    text: str = Field(description="what was read, in one line: 3 cards, 1 of them code")


class StartedReply(Frozen):
    run: int


class RunsReply(Frozen):
    runs: tuple[RunSummary, ...]


class Tensor(Frozen):
    """A tensor that has a name, for Set, Steer and Patch."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    origin: str = Field(description="a kept tensor, or a value of a run")


class TensorsReply(Frozen):
    tensors: tuple[Tensor, ...]


class CapsuleReply(Frozen):
    """What is in a capsule."""

    path: str
    bytes: int
    headline: str
    experiment: Experiment
    model: str = Field(description="class, parameters and revision of the model it was made with")
    versions: dict[str, str]
    foreign: tuple[str, ...] = Field(
        default=(), description="code that is not of this history: it runs only with the person's consent"
    )
    differs: tuple[str, ...] = Field(default=(), description="in what this kernel differs from the one it was made in")


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
    prompt: int | None = Field(default=None, description="of which prompt a saved value is; null if of none or all")


class ViewsReply(Frozen):
    entries: tuple[Entry, ...]


class ViewParams(Frozen):
    run: int = Field(description="below zero: what `wb.look` showed that is no run's")
    name: str = Field(default="", description="of a saved value; empty for the run as a whole")
    part: int = 0
    kind: Kind | None = Field(default=None, description="null for what suits it")
    prompt: int = Field(default=0, description="of which prompt, where the run as a whole is looked at")
    layer: int | None = None
    head: int | None = None
    batch: int = 0
    position: int | None = None
    neurons: tuple[int, ...] = Field(default=(), description="that are shown beside the strongest")
    down: int | None = None
    across: int | None = None
    index: tuple[int, ...] = ()
    merged: Literal["mean", "largest"] = "mean"


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
    # what there is
    "models": (NoParams, ModelsReply),
    "wrap": (ModelParams, WrapReply),
    "tree": (ModelParams, TreeReply),
    "tokens": (PromptsParams, TokensReply),
    "shapes": (PromptParams, ShapesReply),
    "fired": (RunParams, FiredReply),
    "kinds": (NoParams, KindsReply),
    "tensors": (NoParams, TensorsReply),
    "server": (ModelParams, ServerReply),
    # the experiment and its code
    "migrate": (ExperimentParams, ExperimentReply),
    "code": (CodeParams, CodeReply),
    "lift": (LiftParams, LiftReply),
    "run": (StartParams, StartedReply),
    "verify": (ExperimentParams, StartedReply),
    "cancel": (RunParams, DoneReply),
    # what was run
    "result": (RunParams, RunResult),
    "runs": (NoParams, RunsReply),
    "compare": (TwoRunsParams, Comparison),
    "rename": (RenameParams, DoneReply),
    "delete": (RunParams, DoneReply),
    "keep": (KeepParams, DoneReply),
    # capsules
    "capsule_save": (CapsuleParams, CapsuleReply),
    "capsule_load": (PathParams, CapsuleReply),
    "capsule_rerun": (RerunParams, StartedReply),
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

__all__ = ["METHODS", "Compared", "Comparison", "Event"]
