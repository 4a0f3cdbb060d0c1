"""Verify: the exported text, run in a namespace of its own with the same model, gives what the experiment gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.experiment.comparison import Comparison, compared, summed_up
from workbench.experiment.kinds import Code, Experiment
from workbench.experiment.namespace import namespace
from workbench.experiment.run import Outcome, run, seeded
from workbench.experiment.to_python import to_python
from workbench.models.base import NNsight
from workbench.proxy import Proxy
from workbench.tracing.tracer import SHOW_LOG

TOLERANCE = 1e-5
"""How far two runs may be apart where a run is not the same twice, times one plus the larger number."""


def verify(experiment: Experiment, model: NNsight, tidy: list[Callable[[], None]] | None = None) -> Comparison:
    """Run the experiment, then its text alone, and compare every saved value.

    Args:
        experiment: one without faults.
        model: what its model name stands for.
        tidy: as for `run`.

    Example:
        >>> import workbench as wb
        >>> from workbench.experiment.kinds import Save, Target
        >>> card = Save(id="a", at=Target(path="transformer.h.2"), name="hidden")
        >>> verify(Experiment(model="model", prompts=("The Eiffel Tower",), interventions=(card,)), wb.demo()).text
        '1 value equal, bit by bit'
    """
    outcome = run(experiment, model, name="verified", tidy=tidy)
    again = fresh(experiment, model, outcome)
    values, tolerance = compared(outcome.saved, again), 0.0
    if not all(each.equal for each in values) and not repeatable(experiment, model):
        tolerance = TOLERANCE
        values = compared(outcome.saved, again, tolerance)
    equal = all(each.equal for each in values)
    return Comparison(
        equal=equal, exact=not tolerance, tolerance=tolerance, text=summed_up(values, tolerance), values=values
    )


def fresh(experiment: Experiment, model: NNsight, outcome: Outcome) -> dict[str, Any]:
    """What the text gives, by name, in a namespace that has only the model and the workbench."""
    names = {"__name__": "__verify__", **namespace(experiment, model)}
    text = to_python(experiment)
    token = SHOW_LOG.set(lambda line: None)
    try:
        with seeded(experiment.seed):
            exec(compile(text, "the exported text", "exec", dont_inherit=True), names)
    finally:
        SHOW_LOG.reset(token)
    found = {name: names[name] for name in outcome.saved if name in names}
    return {name: value.value if issubclass(type(value), Proxy) else value for name, value in found.items()}


def repeatable(experiment: Experiment, model: NNsight) -> bool:
    """Whether two runs of it are the same, bit by bit: on the CPU, with nothing left to chance."""
    chance = experiment.seed is None and (
        bool(experiment.generate and experiment.temperature) or any(isinstance(c, Code) for c in experiment.enabled)
    )
    return not chance and all(device.type in ("cpu", "meta") for device in model.devices)
