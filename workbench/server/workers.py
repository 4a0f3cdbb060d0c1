"""Workers: what the API process asks of those that run jobs, whether they are child processes or Ray actors.

A worker hosts one or several models. It is told what to do, and tells what happens, in messages: one JSON object a
line. An embedded worker is the child process `python -m workbench.server.worker`, which reads them from its standard
input and writes them to the standard output it was started with; requests and results lie in files.

    to the worker                                         from the worker
    {"do": "load", "models": [MODEL…], "limits": {…}}  →  {"event": "loaded", "bytes": 1234}
                                                       |  {"event": "unloadable", "why": "…"}
    {"do": "run", "jobs": [{"job": id, "request": path, "result": path}, …], "deadline": seconds from now}
                                                       →  for each job {"event": "running", "job": id}, then any
                                                          number of {"event": "log", "job": id, "line": "…"}, and
                                                          one of
                                                            {"event": "done", "job": id}    (the result's file is there)
                                                            {"event": "error", "job": id, "kind": "IndexError",
                                                             "message": "…", "line": "cell line 4: …", "status": 422}
                                                          and after the last job
                                                          {"event": "idle", "clean": true, "bytes": 1234}

A signal SIGUSR1 cancels what runs (each job ends in an error of kind Cancelled). `"clean": false` says that the proof
that nothing was left behind failed: the API process replaces the worker. A worker that ends, or is silent past the
deadline, is killed and replaced. End of input ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Model:
    """A model to be hosted: the key by which clients ask for it, and how it is opened."""

    key: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One job as a worker gets it: where its request lies, and where its result is to be written."""

    job: str
    request: Path
    result: Path


OnEvent = Callable[[str, dict[str, Any]], None]
"""Told of `running`, `log`, `done` and `error`: the job's id, and the message."""


class Workers(Protocol):
    """Those that run jobs. All methods are called in the API process's event loop."""

    async def start(self, models: Sequence[Model], changed: Callable[[], None]) -> None:
        """Begin to host these models, opening each once; `changed` is called when one more is ready.

        Raises:
            Lost: a model that cannot be opened.
        """
        ...

    def can_host(self, keys: frozenset[str]) -> str | None:
        """Why these models can never be in one worker, in words; None if they can."""
        ...

    def free(self, keys: frozenset[str]) -> bool:
        """Whether jobs for these models would be begun now, swapping models if need be."""
        ...

    async def submit(self, keys: frozenset[str], tasks: Sequence[Task], deadline: float, on_event: OnEvent) -> None:
        """Run jobs, which ends when each has been told of as `done` or `error`; raises `Lost` when the worker died."""
        ...

    def cancel(self, job: str) -> None:
        """End a job that runs."""
        ...

    def kill(self, key: str) -> None:
        """Kill the worker that hosts a model; it is replaced when it is next needed."""
        ...

    def loaded(self) -> list[dict[str, Any]]:
        """For the status page: each worker's models, bytes, and what it does."""
        ...

    async def stop(self) -> None:
        """End all workers."""
        ...


class Lost(Exception):
    """The worker died, was killed at its deadline, or could not be started; the message says which, in words."""


class Unreachable(Lost):
    """There has been nobody to run it, for as long as there is patience; the message says why, in words."""
