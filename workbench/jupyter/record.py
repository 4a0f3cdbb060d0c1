"""Record: one run, from the moment it is asked for, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.engine.values import first_tensor
from workbench.errors import InputError
from workbench.experiment.comparison import Comparison
from workbench.experiment.fault import Fault
from workbench.experiment.kinds import Experiment, Save
from workbench.experiment.run import Outcome
from workbench.experiment.to_python import Written
from workbench.jupyter.messages import LogLine, PromptResult, Purpose, Receipt, Saved, SiteUse, State
from workbench.models.base import NNsight
from workbench.site import Site
from workbench.store import Store
from workbench.subscript import indices
from workbench.views.tokens import TopToken


@dataclass(frozen=True)
class SavedTensor:
    """A saved value of a run, with what is known of it.

    `value` is as it was saved (a tensor, or a container of them); `site` is where from, None for a value that code
    made; `prompt` which prompt of the run it is of; `tokens` label the positions that it has; `axes` say of each axis
    what it is ("batch", "position", "head", "feature", "neuron", "vocabulary" or "" where it is not known). `gradient`
    says that it is the gradient there.
    """

    name: str
    value: Any
    site: Site | None
    prompt: int | None
    tokens: tuple[str, ...]
    axes: tuple[str, ...]
    gradient: bool = False


@dataclass
class Record:
    """One run. `outcome` holds tensors and goes when the run is no longer among the last few; what is on disk stays."""

    run: int
    experiment: Experiment
    code: Written
    state: State = "running"
    purpose: Purpose = "run"
    title: str | None = None
    at: str = ""
    behind: int | None = None
    """The run that this one waits for, before it has begun."""
    seconds: float = 0.0
    prompts: tuple[PromptResult, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    outcome: Outcome | None = None
    saved: list[Saved] = field(default_factory=list)
    """Each saved value in words, which stay."""
    logs: list[LogLine] = field(default_factory=list)
    fault: Fault | None = None
    comparison: Comparison | None = None
    quiet: tuple[str, ...] | None = None
    sites: tuple[SiteUse, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    remote: bool = False
    """It is run on the server that CONFIG names."""
    job: str | None = None
    """The job that it is there, while it runs."""
    model: NNsight | None = None
    """While its tensors are held: what it was run on."""
    store: Store | None = None
    tidy: list[Callable[[], None]] = field(default_factory=list)
    """What is to be called in the end, should the run be ended at any moment."""

    @property
    def name(self) -> str:
        return f"run {self.run}"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The first prompt's tokens."""
        return self.prompts[0].tokens if self.prompts else ()

    @property
    def before(self) -> tuple[TopToken, ...]:
        """The first prompt's next tokens in the clean run."""
        return self.prompts[0].before if self.prompts else ()

    @property
    def after(self) -> tuple[TopToken, ...]:
        """The same tokens as the interventions left them."""
        return self.prompts[0].after if self.prompts else ()

    # ---- saved values

    def holds(self, name: str) -> bool:
        """Whether a saved value is still there, in memory or on disk."""
        if self.outcome is not None:
            return name in self.outcome.saved
        return self.store is not None and self.key(name) in self.store.names()

    def key(self, name: str) -> str:
        """The name under which the store knows a value: `run 3/hidden`."""
        return f"{self.name}/{name}"

    def value(self, name: str) -> Any:
        """A saved value, from memory or from disk, where a container of tensors is its first.

        Raises:
            InputError: it was never saved, or is no longer held.
        """
        if self.outcome is not None and name in self.outcome.saved:
            return self.outcome.saved[name]
        names = [each.name for each in self.saved]
        if name not in names:
            raise InputError(f"{self.name} saved no {name!r}; it saved {', '.join(names) or 'nothing'}")
        if not self.holds(name):
            raise InputError(f"{self.name} no longer holds its tensors; run it again to see them")
        assert self.store is not None
        return self.store.tensor(self.key(name))

    def values(self) -> dict[str, Any]:
        """All saved values that are still there."""
        return {each.name: self.value(each.name) for each in self.saved if self.holds(each.name)}

    def saved_tensor(self, name: str) -> SavedTensor:
        """A saved value with its site, token labels and what its axes are.

        Raises:
            InputError: as for `value`.
        """
        value = self.value(name)
        row = next((each for each in self.saved if each.name == name), None)
        card = self.card(name)
        site = None if card is None else Site(card.at.path, card.at.port)
        gradient = row is not None and row.port.endswith(".grad")
        if card is None and row is not None and row.port != "code":
            site = Site(row.path, "input" if row.port.startswith("input") else "output")
        prompt = None if row is None else row.prompt
        tokens = self._labels(card, prompt or 0)
        return SavedTensor(name, value, site, prompt, tokens, self._axes(card, value), gradient)

    def card(self, name: str) -> Save | None:
        """The card that saved a value."""
        found = self.code.names.get(name)
        return None if found is None else found[0]

    def _labels(self, card: Save | None, prompt: int) -> tuple[str, ...]:
        tokens = self.prompts[prompt].tokens if prompt < len(self.prompts) else ()
        if card is None or card.at.positions is None:
            return tokens
        return tuple(tokens[each] for each in card.at.positions if -len(tokens) <= each < len(tokens))

    def _axes(self, card: Save | None, value: Any) -> tuple[str, ...]:
        tensor = first_tensor(value)
        if tensor is None:
            return ()
        blank = ("",) * tensor.ndim
        if card is None:
            return blank
        at = card.at
        if at.heads is not None:
            return ("batch", "position", "head", "feature")
        if at.neurons is not None:
            return ("batch", "position", "neuron")
        if at.port == "input" or self.model is None:
            known = ("batch", "position", "feature") if tensor.ndim == 3 else blank
        else:
            known = _roles(self.model, at.path) or blank
        return _indexed(known, at.index) if at.index is not None else known if len(known) == tensor.ndim else blank


def _roles(model: NNsight, path: str) -> tuple[str, ...]:
    """What the axes of a module's first output tensor are, told from scans at two sizes."""
    try:
        args, kwargs = model._batch([model._prepare([1, 1])])
        known = model._layout(args, kwargs).of(Site(path, "output")).axes
    except Exception:  # a model that cannot be scanned so; nothing is known then
        return ()
    if not known:
        return ()
    axes = known.get((), next(iter(known.values())))
    shape = model.scanned([1, 1]).shape(path) or ()
    vocabulary = getattr(getattr(model.module, "config", None), "vocab_size", None)
    return tuple(
        "batch" if axis == axes.batch
        else "position" if axis in axes.positions
        else "" if axis in axes.mixed
        else "vocabulary" if size == vocabulary
        else "feature"
        for axis, size in enumerate(shape)
    )  # fmt: skip


def _indexed(axes: tuple[str, ...], index: str) -> tuple[str, ...]:
    """What is left of the axes behind an index; nothing is known behind one that is not plain."""
    for each in indices(index):
        parts = each if isinstance(each, tuple) else (each,)
        if any(part is ... or part is None or isinstance(part, str) for part in parts) or len(parts) > len(axes):
            return ()
        kept = [axis for axis, part in zip(axes, parts, strict=False) if not isinstance(part, int)]
        axes = (*kept, *axes[len(parts) :])
    return axes
