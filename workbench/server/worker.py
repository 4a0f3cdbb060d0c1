"""Worker: the process that runs jobs, spoken to by pipes only: `python -m workbench.server.worker`.

The messages stand in `workbench.server.workers`. Whatever a job does, it is told of as an event; after each job the
worker proves that it is as before, and says so with `idle`.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.errors import Cancelled, WorkbenchError
from workbench.graph.limits import Limits, Refused, size_text
from workbench.server.workers import Task

_IDLE = 5.0
"""Seconds without work after which the contents of all weights are looked at."""

_PIPE = 1 << 16


class Late(TimeoutError, WorkbenchError):
    """A job took longer than it may."""


class Worker:
    """What the process knows: its models, and how they were when they were loaded.

    Args:
        say: sends one message to the parent.
    """

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say
        self._models: dict[str, Any] = {}
        self._limits = Limits()
        self._proof: Any = None
        self._fitting: set[bytes] = set()
        self._unlooked = False
        self._independent: dict[Any, bool] = {}
        self._running = False
        self._agree: Callable[[Any], None] = lambda models: None
        self._leads = True  # of several processes that share the models, the first one's results count

    # ---- messages

    def load(
        self,
        models: list[Mapping[str, Any]],
        limits: Mapping[str, Any],
        functions: str | None = None,
        rank: tuple[int, int, str] | None = None,
    ) -> None:
        """Open the models, or this process's part of them, then shut what jobs do not need."""
        from workbench.graph.allowed import offered
        from workbench.server import share
        from workbench.server.guard import parameters_of
        from workbench.server.proof import Proof
        from workbench.server.sandbox import KEPT, shut

        self._limits = Limits.read(limits)
        if functions:
            runpy.run_path(functions)
        divided: dict[str, Any] = {}
        if rank is not None:
            share.join(rank)
            divided, self._agree, self._leads = share.shares(rank[1]), share.agree, rank[0] == 0
        for each in models:
            self._models[each["key"]] = opened(each["key"], {**(each.get("options") or {}), **divided})
        for model in self._models.values():
            _warm(model)
        size = parameters_of(self._models.values())
        if rank is not None:
            from workbench.server.share import connections

            KEPT.update(connections())
        taken = shut(self._limits.memory, self._limits.result + (64 << 20))
        self._proof = Proof([model._module for model in self._models.values()])
        self._say({"event": "loaded", "bytes": size, "shut": taken, "functions": sorted(offered())})

    def run(self, jobs: list[Mapping[str, str]], deadline: float) -> None:
        """Run jobs: those that can share a forward pass together, the others one after the other. The first after
        which the worker is not as before is the last; of the jobs behind it nothing is said."""
        tasks = [Task(each["job"], Path(each["request"]), Path(each["result"])) for each in jobs]
        clean, alone = True, tasks
        if len(tasks) > 1:
            clean, alone = self._shared(tasks, deadline)
        for task in alone:
            clean = clean and self._job(task, deadline)
        self._say({"event": "idle", "clean": clean, "bytes": self._proof.bytes})

    def _shared(self, tasks: list[Task], deadline: float) -> tuple[bool, list[Task]]:
        """Run jobs by one pass. Gives whether nothing was left behind, and the jobs that are still to be run.

        Nothing is told of a job before all is well, so that one which fails spoils no other: each then runs by itself.
        """
        from workbench.graph.package import unpack
        from workbench.server.sandbox import may_write
        from workbench.server.together import Apart, kin, run_together

        for task in tasks:
            self._say({"event": "running", "job": task.job})
        try:
            with self._timed(deadline):
                asked = [unpack(task.request.read_bytes(), self._limits) for task in tasks]
                if kin(asked[0]) is None or len(set(map(kin, asked))) > 1:
                    raise Apart("their inputs cannot be joined")
                came = run_together(asked, self._models, self._limits, self._fitting, self._independent)
                done = [
                    (self._packed(part, out) if self._leads else b"", lines)
                    for part, (out, lines) in zip(asked, came, strict=True)
                ]
        except Cancelled as error:
            for task in tasks:
                self._say({"event": "error", "job": task.job, **told(error)})
            return not self._found("several jobs", False), []
        except Exception as error:
            print(f"{len(tasks)} jobs run apart: {type(error).__name__}: {error}"[:500], file=sys.stderr, flush=True)
            return not self._found("several jobs", False), tasks
        if self._found("several jobs", False):
            return False, []
        for task, (data, lines) in zip(tasks, done, strict=True):
            if self._leads:
                may_write(task.result)
                task.result.write_bytes(data)
            for line in lines:
                self._say({"event": "log", "job": task.job, "line": line})
            self._say({"event": "done", "job": task.job})
        return True, []

    def _job(self, task: Task, deadline: float) -> bool:
        """One job; gives whether nothing was left behind."""
        from workbench.server.sandbox import may_write

        job = task.job
        self._say({"event": "running", "job": job})
        doubtful = True
        ending: dict[str, Any]
        may_write(task.result)
        try:
            with self._timed(deadline):
                doubtful = self._compute(job, task.request, task.result)
            ending = {"event": "done", "job": job}
        except (Exception, Cancelled) as error:
            ending = {"event": "error", "job": job, **told(error, self._limits.memory)}
        self._say(ending)  # the next job waits for the proof, and nobody else
        return not self._found(f"job {job}", doubtful)

    @contextmanager
    def _timed(self, deadline: float) -> Iterator[None]:
        """Runs what is inside as a job: in its time, with random numbers of its own, to be cancelled."""
        with self._proof.job(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signal.setitimer(signal.ITIMER_REAL, deadline)
            self._running = True
            try:
                self._agree(self._models.values())
                yield
            finally:
                self._running = False
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _found(self, after: str, contents: bool) -> list[str]:
        """What is not as it was."""
        found = self._proof.differences(contents=contents)
        self._unlooked = True
        if found:
            print(f"after {after}: {'; '.join(found)}", file=sys.stderr, flush=True)
        return found

    def _compute(self, job: str, request: Path, result: Path) -> bool:
        from workbench.graph.package import unpack
        from workbench.server.execute import execute

        asked = unpack(request.read_bytes(), self._limits)

        def log(line: str) -> None:
            self._say({"event": "log", "job": job, "line": line})

        outcome, checked = execute(asked, self._models, self._limits, log, self._fitting)
        if self._leads:
            result.write_bytes(self._packed(asked, outcome))
        return checked.doubtful

    def _packed(self, asked: Any, outcome: Any) -> bytes:
        from workbench.graph.package import pack_outcome
        from workbench.graph.source import where

        nodes = asked.graph.nodes
        return pack_outcome(
            outcome, self._limits.result, lambda id: f"({where(nodes[id].line)})", compress=asked.compressed
        )

    def idle(self) -> None:
        """Nothing was asked for a while: look at the contents of all weights."""
        if self._unlooked and self._proof is not None:
            self._unlooked = False
            found = self._proof.differences(contents=True)
            if found:
                print(f"while idle: {'; '.join(found)}", file=sys.stderr, flush=True)
                sys.exit(3)

    # ---- signals

    def cancelled(self, number: int, frame: Any) -> None:
        """SIGUSR1: what runs is to end."""
        if self._running:
            self._running = False
            raise Cancelled("the job was cancelled")

    def late(self, number: int, frame: Any) -> None:
        """SIGALRM: what runs has had its time."""
        if self._running:
            self._running = False
            raise Late("the run took longer than is allowed here")


def told(error: BaseException, memory: int = 0) -> dict[str, Any]:
    """An error as an event tells it."""
    line = getattr(error, "line", None)
    message = str(error) or type(error).__name__
    status = error.status if isinstance(error, Refused) else 422
    if isinstance(error, MemoryError) or any(words in message for words in _NO_MEMORY):
        message, status = f"memory ran out: a job may have {size_text(memory)} here\n{message}", 413
    return {
        "kind": type(error).__name__,
        "message": message if len(message) <= 20_000 else message[:20_000] + "…",
        "line": line if isinstance(line, str) else None,
        "status": status,
    }


_NO_MEMORY = ("can't allocate memory", "std::bad_alloc", "out of memory", "not enough memory")


def opened(key: str, options: Mapping[str, Any]) -> Any:
    """A model by its key; with `open="file.py:function"` among the options, what the operator's function gives."""
    from workbench.models.base import NNsight
    from workbench.models.language import LanguageModel

    options = dict(options)
    source = options.pop("open", None)
    if source is not None:
        path, _, name = str(source).rpartition(":")
        made = runpy.run_path(path)[name](**options)
        return made if isinstance(made, NNsight) else NNsight(made)
    return LanguageModel(options.pop("source", key), dispatch=True, **options)


def _warm(model: Any) -> None:
    """What the first run would do once and leave: hooks by which transformers notes hidden states, fake tensors."""
    import torch

    from workbench.models.containers import open_containers

    open_containers()
    if hasattr(model._module, "config") and getattr(model, "tokenizer", None) is not None:
        ids = torch.ones((1, 2), dtype=torch.long)
        args, kwargs = model._prepare(ids)
        model._scan(args, kwargs)
        with torch.no_grad():
            for more in ({}, {"output_hidden_states": True, "output_attentions": True}):
                try:
                    model._forward(model._module, *args, **kwargs, **more)
                except Exception:  # a kind of model that does not take these
                    continue


def main() -> None:
    """Serve the pipe until it closes."""
    from workbench.server.sandbox import KEPT, die_with_parent

    die_with_parent()
    heard, told_to = os.dup(0), os.dup(1)
    KEPT.update((heard, told_to))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what a library prints is no message

    def say(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(told_to, data) :]

    sys.dont_write_bytecode = True
    worker = Worker(say)
    signal.signal(signal.SIGUSR1, worker.cancelled)
    signal.signal(signal.SIGALRM, worker.late)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    waiting = b""
    while True:
        line, mark, waiting = waiting.partition(b"\n")
        if mark:
            _obey(worker, say, json.loads(line))
            continue
        if not select.select([heard], [], [], _IDLE)[0]:
            waiting = line
            worker.idle()
            continue
        more = os.read(heard, _PIPE)
        if not more:
            return
        waiting = line + more


def _obey(worker: Worker, say: Callable[[dict[str, Any]], None], message: dict[str, Any]) -> None:
    what = message.pop("do")
    if what == "load":
        try:
            worker.load(**message)
        except Exception as error:
            say({"event": "unloadable", "why": f"{type(error).__name__}: {error}"})
    elif what == "run":
        worker.run(**message)


if __name__ == "__main__":
    main()
