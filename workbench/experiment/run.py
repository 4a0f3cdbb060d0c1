"""Running an experiment: the Python that it stands for, and nothing else, is traced over the model."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_pre_hooks, register_module_forward_pre_hook

from workbench.engine.execution import LogText
from workbench.errors import NotSetError
from workbench.experiment.code_text import assigned, fault_of
from workbench.experiment.kinds import Code, Experiment, Placed, Save
from workbench.experiment.namespace import namespace
from workbench.experiment.receipts import AFTER, BEFORE, BEGIN, END, Receipts, Tally, instrumented, unchecked
from workbench.experiment.to_python import MEASURED, Written, write
from workbench.experiment.uses import Use, used, whole
from workbench.graph.operations import Operation
from workbench.graph.source import position
from workbench.measures import NEXT_LOGITS
from workbench.models.base import NNsight
from workbench.proxy import Proxy, values_of
from workbench.recorder import require
from workbench.site import Port, Site
from workbench.tracing.tracer import SHOW_LOG


@dataclass(frozen=True)
class LogLine:
    """A line that was logged, the site whose value is in it, and the card that wrote it."""

    text: str
    site: str | None = None
    card: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where a saved value is from: a card; of one that code saved the site, and whether it is the gradient there."""

    card: Save | None
    prompt: int | None
    site: Site | None = None
    gradient: bool = False


@dataclass
class Generation:
    """What a generation wrote for one prompt: token ids, and each one's probability when it was chosen."""

    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    """What a run gave.

    `saved` are the values by name, `unset` why others have none, `origins` which card and prompt they are of.
    `next_logits` are, for each prompt, those of the token after it, `(vocabulary,)`, as the interventions left them,
    where the model gives any; `measured` the experiment's number for each. `quiet` are the modules that were not
    called, `tallies` what each card did; None where that was not asked for. `uses` are the sites that
    the code was about.
    """

    saved: dict[str, Any] = field(default_factory=dict)
    unset: dict[str, str] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)
    next_logits: list[Tensor | None] = field(default_factory=list)
    measured: list[float | None] = field(default_factory=list)
    generated: list[Generation] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    quiet: set[str] | None = None
    uses: dict[tuple[str, Port], Use] = field(default_factory=dict)


NOTHING: Mapping[str, Any] = MappingProxyType({})
Step = Callable[[int, int], None]
"""Told how far a run is: modules, or steps of a generation, that are done, and how many there are."""


def run(
    experiment: Experiment,
    model: NNsight,
    *,
    name: str = "experiment",
    log: Callable[[LogLine], None] | None = None,
    receipts: bool = False,
    step: Step | None = None,
    tidy: list[Callable[[], None]] | None = None,
    watch: Callable[[int], None] | None = None,
    remote: bool = False,
) -> Outcome:
    """Trace the experiment's code, in a namespace that has only the model (under its name) and `wb`.

    Args:
        experiment: one without faults; see `lint`.
        model: what the experiment's model name stands for.
        name: what errors call the code: "run 7 line 2: wb.ablate(…)".
        log: called with each log line as it is written.
        receipts: see what each card does, and which modules are called, which copies what the cards change.
        step: told how far it is.
        tidy: is given what is to be called in the end, should the run be ended from outside at any moment.
        watch: called once inside the trace for each prompt, with its number, after the last card: what it saves is
            as the interventions left it.
        remote: on the server that CONFIG names; then it is not seen which modules are called.

    Raises:
        whatever the code raises, with the generated line in `.line`.

    Example:
        >>> import workbench as wb
        >>> from workbench.experiment.kinds import Experiment, Save, Target
        >>> card = Save(id="a", at=Target(path="transformer.h.2"), name="hidden")
        >>> e = Experiment(model="model", prompts=("The Eiffel Tower",), interventions=(card,))
        >>> run(e, wb.demo()).saved["hidden"].shape
        torch.Size([1, 3, 128])
    """
    written = write(experiment, remote=remote)
    names = namespace(experiment, model)
    job = Job(experiment, model, written.cards, name, log, receipts, step, tidy, watch, remote)
    lines = written.text.splitlines(keepends=True)
    linecache.cache[name] = (len(written.text), None, lines, name)  # so that errors can show the line
    with seeded(experiment.seed):
        job.execute(ast.parse(written.text), names)
    return job.outcome(written.names, _values(experiment, names, written))


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """What is drawn at random inside is the seed's; outside all is as it was."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Job:
    """One execution of an experiment's text, which may be a person's own cell.

    Args:
        cards: line → id of the card whose statement begins there.
        remote: it runs on a server: only what can travel is recorded beside it.
        as for `run`, the others.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: NNsight,
        cards: Mapping[int, str],
        name: str,
        log: Callable[[LogLine], None] | None = None,
        receipts: bool = False,
        step: Step | None = None,
        tidy: list[Callable[[], None]] | None = None,
        watch: Callable[[int], None] | None = None,
        remote: bool = False,
    ) -> None:
        placed = {card.id: card for card in experiment.enabled if isinstance(card, Placed)}
        self.experiment = experiment
        self.model = model
        self.name = name
        self.cards = {line: id for line, id in cards.items() if id in placed}
        self.all_cards = dict(cards)
        self.kept = Outcome()
        self._log = log
        self._step = step
        self._tidy = [] if tidy is None else tidy
        self._watch = watch
        self._remote = remote
        self._read = 0
        self._receipts = Receipts(placed, model) if receipts else None
        self._logits: dict[int, Proxy] = {}
        self._tokens: dict[int, Proxy] = {}
        self._steps: dict[int, _Steps] = {}

    def execute(
        self, tree: ast.Module, namespace: dict[str, Any], given: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Run a module in a namespace, in which the names that it assigns are then; those that are `given` go again."""
        own = {BEGIN: lambda: None, END: self._end, **given}
        if self._receipts is not None:
            own |= {BEGIN: self._receipts.begin, BEFORE: self._receipts.before, AFTER: self._receipts.after}
        tree = instrumented(tree, self.cards if self._receipts is not None else {}, self._opens)
        namespace.update(own)
        token = SHOW_LOG.set(self._show)
        try:
            with self._watched():
                exec(compile(tree, self.name, "exec", dont_inherit=True), namespace)
        finally:
            SHOW_LOG.reset(token)
            for each in own:
                namespace.pop(each, None)

    def _opens(self, node: ast.With) -> bool:
        call = node.items[0].context_expr
        return (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in ("trace", "generate")
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id == self.experiment.model
        )

    # ---- what is recorded at the end of each prompt's block

    def _end(self) -> None:
        """It reads what the interventions made of the output."""
        __tracebackhide__ = True
        model, recorder, prompt = self.model, require("the run's end"), len(self._logits)
        used(recorder, self._read, self.kept.uses)
        if self._watch is not None:
            self._watch(prompt)
        with unchecked(recorder):
            self._logits[prompt] = recorder.add(NEXT_LOGITS, (model._root.output,)).save()
            if recorder.blocks[recorder.block].kind == "generate":
                if not self._remote:
                    steps = self._steps[prompt] = _Steps(self._step if not prompt else None, self.experiment.generate)
                    with recorder.in_steps(0, None, 1):
                        recorder.add(_STEP, (steps, model._root.inputs, model._root.output))
                self._tokens[prompt] = model._generated().save()
        self._read = len(recorder.nodes)

    # ---- while it runs

    def _show(self, line: str) -> None:
        site = card = None
        if isinstance(line, LogText):
            file, number = position(line.at)
            card = self.all_cards.get(number) if file == self.name else None
            site = str(line.sites[-1]) if line.sites else self._site_of(card)
        found = LogLine(str(line), site, card)
        self.kept.logs.append(found)
        if self._log is not None:
            self._log(found)

    def _site_of(self, card: str | None) -> str | None:
        """The place that a card is about: a shape is known without the site's being read."""
        at = next((each.at for each in self.experiment.enabled if each.id == card and isinstance(each, Placed)), None)
        return None if at is None else str(Site(at.path, at.port))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Which modules are called, by this thread."""
        if self._receipts is None or self._remote:
            yield
            return
        modules = dict(self.model._live())
        watch = _Called({id(each) for each in modules.values()}, self._step if not self.experiment.generate else None)
        self._tidy.append(watch.leave)  # before it is there, since a run can be ended at any moment
        register_module_forward_pre_hook(watch)  # one hook for all, and none on the modules themselves
        try:
            yield
        finally:
            watch.leave()
        apart = self.model._root.__dict__["_apart"]
        called = {path for path, module in modules.items() if id(module) in watch.called}
        # A list of layers is never called itself: it is quiet only if all that is in it is.
        reached = {above for path in called for above in _upwards(path)}
        self.kept.quiet = set(modules) - called - reached - set(apart)

    # ---- after

    def outcome(self, names: Mapping[str, tuple[Save, int | None]], values: Mapping[str, Any]) -> Outcome:
        """What the run gave.

        Args:
            names: saved name → the card that says so, and the prompt.
            values: traced values by name; those that no card saved are code's own.
        """
        kept, several = self.kept, len(self.experiment.prompts) > 1
        for name, (card, prompt) in names.items():
            kept.origins[name] = Origin(card, prompt if several else None)
            self._keep(name, values.get(name))
        for name, value in values.items():
            if name not in names and not name.startswith(MEASURED) and _saved(value):
                kept.origins[name] = Origin(None, None, *_where(value))
                self._keep(name, value)
        for prompt in range(len(self._logits)):
            kept.next_logits.append(_value(self._logits[prompt]))
            number = _value(values.get(f"{MEASURED}_{prompt}" if several else MEASURED))
            kept.measured.append(float(number) if self.experiment.measure is not None and number is not None else None)
            if prompt in self._tokens:
                tokens = _value(self._tokens[prompt])
                kept.generated.append(Generation() if tokens is None else self._written(prompt, tokens))
        if self._receipts is not None:
            kept.tallies = self._receipts.close()
        return kept

    def _written(self, prompt: int, tokens: Tensor) -> Generation:
        if prompt in self._steps:
            return self._steps[prompt].closed(tokens)
        width = max(len(self.model.tokens(each)) for each in self.experiment.prompts)
        return Generation(tokens[0, width:].tolist())

    def _keep(self, name: str, proxy: Any) -> None:
        try:
            self.kept.saved[name] = values_of(proxy)
        except NotSetError as error:
            self.kept.unset[name] = str(error)


class _Called:
    """Which of these modules are called, by the thread that this was made in."""

    def __init__(self, modules: set[int], step: Step | None) -> None:
        self.called: set[int] = set()
        self._modules = modules
        self._thread = get_ident()
        self._step = step

    def __call__(self, module: nn.Module, args: Any) -> None:
        if get_ident() == self._thread and id(module) in self._modules:
            self.called.add(id(module))
            if self._step is not None:
                self._step(len(self.called), len(self._modules))

    def leave(self) -> None:
        """See no more."""
        for key, hook in list(_global_forward_pre_hooks.items()):
            if hook is self:
                _global_forward_pre_hooks.pop(key, None)


class _Steps:
    """A generation as it goes: each step's token is known only in the next one."""

    def __init__(self, step: Step | None, total: int) -> None:
        self._probabilities: list[float] = []
        self._last: Tensor | None = None
        self._made = 0
        self._step = step
        self._total = total

    def take(self, inputs: tuple[Any, Mapping[str, Any]], output: Any) -> None:
        """One step's input, which ends in the token before it, and its output."""
        args, kwargs = inputs
        ids = kwargs.get("input_ids", args[0] if args else None)
        if self._last is not None and isinstance(ids, Tensor):
            self._probabilities.append(float(self._last[int(ids[0, -1])]))
        logits = output.get("logits") if isinstance(output, Mapping) else None
        self._last = None if logits is None else logits[0, -1].detach().double().softmax(-1).cpu()
        self._made += 1
        if self._step is not None:
            self._step(self._made, self._total)

    def closed(self, tokens: Tensor) -> Generation:
        """What was written, from all tokens `(1, position)`."""
        ids = tokens[0, -self._made :].tolist() if self._made else []
        if self._last is not None and ids:
            self._probabilities.append(float(self._last[ids[-1]]))
        return Generation(ids, self._probabilities[: len(ids)])


def _take(steps: _Steps, inputs: Any, output: Any) -> None:
    steps.take(inputs, output)


_STEP = Operation("step", _take)


def _values(experiment: Experiment, namespace: Mapping[str, Any], written: Written) -> dict[str, Any]:
    """The traced values that cards saved, what is measured, and what the code of cards gave names to, in that order."""
    found = {name: namespace.get(name) for name in written.names}
    found |= {name: value for name, value in namespace.items() if name.startswith(MEASURED)}
    for card in experiment.enabled:
        if isinstance(card, Code) and fault_of(card.code) is None:
            for name in assigned(ast.parse(card.code)):
                if _saved(namespace.get(name)):
                    found[name] = namespace[name]
    return found


def _where(value: Any) -> tuple[Site | None, bool]:
    """Which site a value is, if it is one, and whether it is the gradient there."""
    found = None
    if issubclass(type(value), Proxy):
        found = whole(value._recorder.nodes[value._node_id()], value._recorder)
    return found or (None, False)


def _saved(value: Any) -> bool:
    """Whether it is a traced value that was saved, or holds nothing but such."""
    if type(value) in (tuple, list):
        return bool(value) and all(map(_saved, value))
    return issubclass(type(value), Proxy) and value._node_id() in value._recorder.saved


def _upwards(path: str) -> Iterator[str]:
    """The paths above a path."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _value(proxy: Any) -> Any:
    if not issubclass(type(proxy), Proxy):
        return proxy
    try:
        return proxy.value
    except NotSetError:
        return None
