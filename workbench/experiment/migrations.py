"""Migrations: an experiment that was saved by an earlier version, as this one writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Data = dict[str, Any]


def _from_1(data: Data) -> Data:
    """One prompt became several; what 2 knows beside it has its defaults."""
    kept = {name: value for name, value in data.items() if name != "prompt"}
    return {**kept, "version": 2, "prompts": [data.get("prompt", "")]}


STEPS: dict[int, Callable[[Data], Data]] = {1: _from_1}
"""What leads from each version to the next."""


def migrated(data: Mapping[str, Any]) -> Data:
    """A saved experiment in the present form; one that is in it already stays as it is.

    Example:
        >>> migrated({"version": 1, "model": "model", "prompt": "The cat"})
        {'version': 2, 'model': 'model', 'prompts': ['The cat']}
    """
    found = dict(data)
    while (step := STEPS.get(found.get("version", 0))) is not None:
        found = step(found)
    return found
