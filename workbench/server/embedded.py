"""Embedded: workers that are child processes of the API process, one for each set of models, within a budget."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.server.child import Child
from workbench.server.ranks import Ranks, worker
from workbench.server.workers import Lost, Model, OnEvent, Task

LOG = logging.getLogger("workbench.server")


class Seat:
    """A worker's place: the models it hosts, its process, and whether it is taken."""

    def __init__(self, keys: frozenset[str], child: Child | Ranks, bytes: int, used: int) -> None:
        self.keys = keys
        self.child = child
        self.bytes = bytes
        self.used = used
        self.busy = False
        self.jobs: tuple[str, ...] = ()
        self.done = 0


class Embedded:
    """Child processes on this machine.

    Args:
        memory: bytes that all hosted models may have together; None for no limit.
        limits: what a job may use, as plain data, handed to each worker.
        functions: a file of the operator's with functions that traces may name.
        errors: the file that takes the workers' standard error.
        ranks: how many processes share each model.
    """

    def __init__(
        self,
        memory: int | None = None,
        limits: Mapping[str, Any] | None = None,
        functions: str | None = None,
        errors: Path | None = None,
        ranks: int = 1,
    ) -> None:
        self._ranks = ranks
        self._memory = memory
        self._limits = limits or {}
        self._functions = functions
        self._errors = None if errors is None else errors.open("ab")
        self._models: dict[str, Model] = {}
        self._sizes: dict[str, int] = {}
        self._seats: dict[frozenset[str], Seat] = {}
        self._clock = itertools.count()

    async def start(self, models: Sequence[Model], changed: Callable[[], None] = lambda: None) -> None:
        """Open each model once, in order, so that its size is known and a fault is told now, not to a user.

        Raises:
            Lost: a model that cannot be opened, or that is larger than the budget.
        """
        self._models = {model.key: model for model in models}
        for model in models:
            keys = frozenset({model.key})
            seat = await self._open(keys)
            self._sizes[model.key] = seat.bytes
            why = self.can_host(keys)
            if why is not None:
                raise Lost(why)
            while self._taken() > (self._memory or self._taken()):
                idle = [each for each in self._seats.values() if not each.busy]
                if not idle:
                    break  # it runs already; room is made for the next job that needs it
                await self._close(min(idle, key=lambda seat: seat.used))
            changed()

    # ---- what is asked before

    def can_host(self, keys: frozenset[str]) -> str | None:
        """Why these models can never be in one worker, in words; None if they can."""
        wanted = self._size(keys)
        if self._memory is None or wanted <= self._memory:
            return None
        what = " and ".join(sorted(keys))
        return (
            f"{what} need{'s' if len(keys) == 1 else ''} {wanted:,} bytes{' together' if len(keys) > 1 else ''}, and "
            f"this server has {self._memory:,}: use fewer models in one session, or ask for a server with more memory"
        )

    def free(self, keys: frozenset[str]) -> bool:
        """Whether jobs for these models would be begun now, swapping models if need be."""
        seat = self._seats.get(keys)
        if seat is not None:
            return not seat.busy
        if not keys <= self._sizes.keys():
            return False  # not opened yet
        if self._memory is None:
            return True
        held = sum(seat.bytes for seat in self._seats.values() if seat.busy)
        return held + self._size(keys) <= self._memory

    def _size(self, keys: frozenset[str]) -> int:
        return sum(self._sizes.get(key, 0) for key in keys)

    def _taken(self) -> int:
        return sum(seat.bytes for seat in self._seats.values())

    # ---- running

    async def submit(self, keys: frozenset[str], tasks: Sequence[Task], deadline: float, on_event: OnEvent) -> None:
        """Run jobs; raises `Lost` when their worker died."""
        seat = self._seats.get(keys)
        if seat is not None and not seat.child.alive:  # it ended while it had nothing to do
            await self._close(seat)
            seat = None
        if seat is None:
            seat = await self._seat(keys)
        seat.busy, seat.used, seat.jobs = True, next(self._clock), tuple(task.job for task in tasks)
        try:
            clean = await seat.child.run(tasks, deadline, on_event)
            seat.done += len(tasks)
        except BaseException:
            await self._close(seat)
            raise
        if not clean:
            LOG.warning("the worker for %s was not as before after a job, and is replaced", ", ".join(sorted(keys)))
            await self._close(seat)
            return
        seat.busy, seat.jobs = False, ()

    async def _seat(self, keys: frozenset[str]) -> Seat:
        """A new worker, after the least recently used ones gave up their places for it."""
        if self._memory is not None:
            wanted = self._size(keys)
            placeholder = Seat(keys, Child(), wanted, next(self._clock))
            placeholder.busy = True
            self._seats[keys] = placeholder  # the room is taken from now on
            try:
                while self._taken() > self._memory:
                    idle = [seat for seat in self._seats.values() if not seat.busy]
                    if not idle:
                        raise Lost("there was no room for the model; try again")
                    await self._close(min(idle, key=lambda seat: seat.used))
            except BaseException:
                self._seats.pop(keys, None)
                raise
        return await self._open(keys)

    async def _open(self, keys: frozenset[str]) -> Seat:
        child = worker(self._limits, self._functions, self._errors, self._ranks)
        seat = self._seats[keys] = Seat(keys, child, self._size(keys), next(self._clock))
        seat.busy = True
        try:
            await child.start()
            seat.bytes = await child.load([self._models[key] for key in sorted(keys)])
            LOG.info("%s: ready; around its jobs: %s", ", ".join(sorted(keys)), "; ".join(child.shut) or "no walls")
        except BaseException:
            await self._close(seat)
            raise
        seat.busy = False
        return seat

    async def _close(self, seat: Seat) -> None:
        """End a worker; its place is free once the process is gone."""
        seat.busy = True
        await seat.child.kill()
        if self._seats.get(seat.keys) is seat:
            del self._seats[seat.keys]

    # ---- from outside

    def cancel(self, job: str) -> None:
        """End a job that runs."""
        for seat in self._seats.values():
            if job in seat.jobs:
                seat.child.cancel()

    def kill(self, key: str) -> None:
        """Kill the workers that host a model; they are replaced when they are next needed."""
        for seat in self._seats.values():
            if key in seat.keys:
                seat.child.end("the worker was killed by the operator")

    def loaded(self) -> list[dict[str, Any]]:
        """Each worker's models, bytes, and what it does."""
        return [
            {
                "models": sorted(seat.keys),
                "bytes": seat.bytes,
                "busy": seat.busy,
                "jobs": list(seat.jobs),
                "done": seat.done,
                "functions": seat.child.functions,
                "pid": seat.child.pid,
            }
            for seat in self._seats.values()
        ]

    async def stop(self) -> None:
        """End all workers."""
        await asyncio.gather(*(seat.child.stop() for seat in list(self._seats.values())), return_exceptions=True)
        self._seats.clear()
        if self._errors is not None:
            self._errors.close()
