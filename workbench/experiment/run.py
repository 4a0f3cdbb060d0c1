"""Running an experiment: the Python that it stands for, and nothing else, is traced over the model."""

from __future__ import annotations

import importlib
import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from workbench.errors import NotSetError
from workbench.experiment.kinds import Experiment, Save
from workbench.experiment.to_python import write
from workbench.graph.operations import Operation, register
from workbench.models.base import NNsight
from workbench.recorder import require
from workbench.tracing.tracer import SHOW_LOG


@dataclass
class Outcome:
    """What a run gave: saved values by name, why others have none, log lines, and the next token's logits
    `(vocabulary,)` as the interventions left them, where the model gives any."""

    saved: dict[str, Any] = field(default_factory=dict)
    unset: dict[str, str] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    next_logits: Tensor | None = None


def run(
    experiment: Experiment,
    model: NNsight,
    *,
    name: str = "experiment",
    log: Callable[[str], None] | None = None,
    watch: Callable[[], None] | None = None,
) -> Outcome:
    """Trace the experiment's code, in a namespace that has only the model (under its name) and `wb`.

    Args:
        experiment: one without faults; see `lint`.
        model: what the experiment's model name stands for.
        name: what errors call the code: "run 7 line 2: wb.ablate(…)".
        log: called with each log line as it is written.
        watch: called once inside the trace, after the last card: what it saves is as the interventions left it.

    Raises:
        whatever the code raises, with the generated line in `.line`.

    Example:
        >>> import workbench as wb
        >>> from workbench.experiment.kinds import Experiment, Save, Target
        >>> card = Save(id="a", at=Target(path="transformer.h.2"), name="hidden")
        >>> e = Experiment(model="model", prompt="The Eiffel Tower", interventions=(card,))
        >>> run(e, wb.demo()).saved["hidden"].shape
        torch.Size([1, 3, 128])
    """
    outcome = Outcome()
    kept: list[Any] = []

    def keep_next_logits() -> None:
        if watch is not None:
            watch()
        kept.append(require("the run's end").add(_NEXT_LOGITS, (model.output,)).save())

    # One line more than is shown, at the end of the same block: it reads what the interventions made of the output.
    text = f"{write(experiment).text}\n    __keep_next_logits__()"
    namespace = {
        experiment.model: model,
        "wb": importlib.import_module("workbench"),
        "__keep_next_logits__": keep_next_logits,
    }

    def show(line: str) -> None:
        outcome.logs.append(line)
        if log is not None:
            log(line)

    token = SHOW_LOG.set(show)
    try:
        exec(_compiled(text, name), namespace)
    finally:
        SHOW_LOG.reset(token)
    for card in experiment.interventions:
        if isinstance(card, Save) and card.enabled:
            try:
                outcome.saved[card.name] = namespace[card.name].value
            except NotSetError as error:
                outcome.unset[card.name] = str(error)
    outcome.next_logits = kept[0].value
    return outcome


def next_logits(output: Any) -> Tensor | None:
    """The logits `(vocabulary,)` of the token after a prompt, from what a causal language model returned.

    None for what has no `logits` of shape `(batch, position, vocabulary)`.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else None
    return logits[0, -1].clone() if isinstance(logits, Tensor) and logits.ndim == 3 else None


_NEXT_LOGITS = register(Operation("next_logits", next_logits))


def _compiled(text: str, name: str) -> Any:
    """The code, with its source where tracebacks and our own messages look for it."""
    lines = text.splitlines(keepends=True)
    linecache.cache[name] = (len(text), None, lines, name)
    return compile(text, name, "exec", dont_inherit=True)
