"""Ranks: a worker that is several processes, each with a part of every model: one to its parent, as a `Child` is.

All of them run the same graph on the same request, and the first one's result counts. They wait for each other in
every divided layer, so where one fails and others do not, those would wait for ever: all are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.server.child import Child
from workbench.server.workers import Lost, Model, OnEvent, Task

TOGETHER = 5.0
"""Seconds within which all processes come to the same end of a job, once the first has."""


def worker(
    limits: Mapping[str, Any] | None = None, functions: str | None = None, errors: Any = None, ranks: int = 1
) -> Child | Ranks:
    """A worker of one process, or of several that share each model."""
    return Child(limits, functions, errors) if ranks == 1 else Ranks(ranks, limits, functions, errors)


class Ranks:
    """Several processes as one worker. The arguments are those of a `Child`.

    Args:
        count: how many.
    """

    def __init__(
        self, count: int, limits: Mapping[str, Any] | None = None, functions: str | None = None, errors: Any = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="workbench-ranks-"))
        meet = str(self._folder / "meet")
        self.children = [Child(limits, functions, errors, (rank, count, meet)) for rank in range(count)]
        self.bytes = 0
        self.models: tuple[Model, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether all processes are there."""
        return all(child.alive for child in self.children)

    @property
    def pid(self) -> int | None:
        """The first one's number."""
        return self.children[0].pid

    @property
    def functions(self) -> list[str]:
        """Names of the operator's functions."""
        return self.children[0].functions

    @property
    def shut(self) -> list[str]:
        """What was taken from all of them."""
        return [words for words in self.children[0].shut if all(words in child.shut for child in self.children)]

    async def start(self) -> None:
        """Start the processes."""
        for child in self.children:
            await child.start()

    async def load(self, models: Sequence[Model], seconds: float = 3600) -> int:
        """Have them open these models, each its part; gives the bytes of all. Raises `Lost` if one cannot."""
        tasks = [asyncio.create_task(child.load(models, seconds)) for child in self.children]
        try:
            self.bytes = sum(await asyncio.gather(*tasks))
        except BaseException:
            await self.kill()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)  # they have met
        self.models = tuple(models)
        return self.bytes

    async def run(self, tasks: Sequence[Task], deadline: float, on_event: OnEvent) -> bool:
        """Run jobs, telling of each once; gives whether all processes are as before. Raises `Lost` when one ends."""
        ends: dict[str, dict[int, dict[str, Any]]] = {task.job: {} for task in tasks}
        told: set[str] = set()

        def tell(job: str) -> None:
            """A job's end: an error, if any process had one, else what the first said."""
            if job not in told:
                told.add(job)
                said = [ends[job][rank] for rank in sorted(ends[job])]
                on_event(job, next((each for each in said if each["event"] == "error"), said[0]))

        def apart(job: str) -> None:
            if len(ends[job]) == len(self.children):
                return
            if any(each["event"] == "error" for each in ends[job].values()):
                tell(job)
            self.end("one of the processes that share the model ended a job, and the others did not")

        def heard(rank: int, job: str, said: dict[str, Any]) -> None:
            if said["event"] in ("done", "error"):
                ends[job][rank] = said
                if len(ends[job]) == 1:
                    asyncio.get_running_loop().call_later(TOGETHER, apart, job)
                if len(ends[job]) == len(self.children):
                    tell(job)
            elif rank == 0:
                on_event(job, said)

        runs = [
            asyncio.create_task(child.run(tasks, deadline, lambda job, said, rank=rank: heard(rank, job, said)))
            for rank, child in enumerate(self.children)
        ]
        try:
            return all(await asyncio.gather(*runs))
        except BaseException as error:
            why = str(error) if isinstance(error, Lost) else None
            self.end(why)
            await asyncio.gather(*runs, return_exceptions=True)
            raise
        finally:
            self.bytes = sum(child.bytes for child in self.children)

    def cancel(self) -> None:
        """End what runs in all of them."""
        for child in self.children:
            child.cancel()

    def end(self, why: str | None = None) -> None:
        """Kill all; whoever waits hears why."""
        for child in self.children:
            child.end(why)

    async def kill(self, why: str | None = None) -> None:
        """Kill all, and wait until they are gone."""
        self.end(why)
        for child in self.children:
            await child.kill(why)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def stop(self) -> None:
        """Let them end by themselves, or kill them."""
        with contextlib.suppress(Lost):
            await asyncio.gather(*(child.stop() for child in self.children))
        shutil.rmtree(self._folder, ignore_errors=True)
