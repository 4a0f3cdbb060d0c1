"""Remote: the same trace, run where the weights are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.remote.client import function, list_jobs, models
    from workbench.remote.config import CONFIG
    from workbench.remote.jobs import Job, job

__all__ = ["CONFIG", "Job", "function", "job", "list_jobs", "models"]

_PLACES = {
    "CONFIG": "workbench.remote.config",
    "Job": "workbench.remote.jobs",
    "job": "workbench.remote.jobs",
    "function": "workbench.remote.client",
    "list_jobs": "workbench.remote.client",
    "models": "workbench.remote.client",
}


def __getattr__(name: str) -> Any:
    """What needs an HTTP client is loaded when it is first used."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"workbench.remote has no {name!r}")
