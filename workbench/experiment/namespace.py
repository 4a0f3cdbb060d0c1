"""The names that an experiment's code sees: its model under its own name, and `wb`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from workbench.experiment.kinds import Experiment
from workbench.models.base import NNsight


def namespace(experiment: Experiment, model: NNsight) -> dict[str, Any]:
    """What the code is run in: nothing else is there, so that it is whole as it stands.

    Example:
        >>> import workbench as wb
        >>> sorted(namespace(Experiment(model="net"), wb.demo()))
        ['net', 'wb']
    """
    return {experiment.model: model, "wb": import_module("workbench")}  # the public names stand above this floor
