"""Scheduler: which job runs next: in turn between keys, first come first served within one, each once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from workbench.remote.protocol import Failure
from workbench.server.child import Late
from workbench.server.results import Files
from workbench.server.store import Row, Store
from workbench.server.workers import Lost, Task, Unreachable, Workers

LOG = logging.getLogger("workbench.server")
ATTEMPTS = 3
"""How often a job is begun: a worker that dies under the same job each time is not to blame."""


class Line:
    """The jobs that wait for one set of models: a queue for each key, served in turn."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Row]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def oldest(self) -> int:
        """The number of the job that has waited longest."""
        return min(queue[0].number for queue in self._queues.values())

    def put(self, row: Row, front: bool = False) -> None:
        """Queue a job behind its key's others, or, to run it once more, before them."""
        queue = self._queues.setdefault(row.owner, deque())
        queue.appendleft(row) if front else queue.append(row)

    @property
    def next(self) -> Row:
        """The job that `take` gives."""
        return next(iter(self._queues.values()))[0]

    def take(self) -> Row:
        """The next job; its key goes to the end of the turn."""
        owner, queue = next(iter(self._queues.items()))
        row = queue.popleft()
        del self._queues[owner]
        if queue:
            self._queues[owner] = queue
        return row

    def remove(self, id: str) -> bool:
        """Take a job out."""
        for owner, queue in self._queues.items():
            for row in queue:
                if row.id == id:
                    queue.remove(row)
                    if not queue:
                        del self._queues[owner]
                    return True
        return False

    def position(self, row: Row) -> int | None:
        """How many jobs will be begun before this one, if no more come."""
        before = list(self._queues)
        if row.owner not in before:
            return None
        turn = before.index(row.owner)
        own = next((index for index, each in enumerate(self._queues[row.owner]) if each.id == row.id), None)
        if own is None:
            return None
        others = ((place, queue) for place, (owner, queue) in enumerate(self._queues.items()) if owner != row.owner)
        return own + sum(min(len(queue), own + (place < turn)) for place, queue in others)

    def in_turn(self) -> Iterator[Row]:
        """All jobs in the order in which `take` would give them."""
        for each in zip_longest(*self._queues.values()):
            yield from (row for row in each if row is not None)

    def of(self, owner: str) -> int:
        """How many jobs a key has here."""
        return len(self._queues.get(owner, ()))

    def __iter__(self) -> Iterator[Row]:
        return (row for queue in self._queues.values() for row in queue)


class Scheduler:
    """Takes jobs that were accepted, hands them to workers, and writes down what comes of them.

    Args:
        tell: called with a job's id whenever there is news of it.
        deadline: seconds that a job may run.
        keep: seconds for which results are kept.
        together: how many queued jobs of one model may share a forward pass.
    """

    def __init__(
        self,
        store: Store,
        files: Files,
        workers: Workers,
        tell: Callable[[str], None],
        deadline: float,
        keep: float,
        together: int = 1,
    ) -> None:
        self._store, self._files, self._workers = store, files, workers
        self._tell = tell
        self._deadline, self._keep, self._together = deadline, keep, together
        self._lines: dict[frozenset[str], Line] = {}
        self._alone: set[str] = set()
        self._begun: set[str] = set()
        self.running: dict[str, Row] = {}
        self._cancelled: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._open = False

    # ---- from outside

    def recover(self) -> None:
        """Queue what an earlier process had accepted and not ended."""
        for row in self._store.unfinished():
            if not self._files.request(row.id).exists():
                self._fail(
                    row, Failure(kind="LostError", message="the server lost this request; send it again", status=410)
                )
            elif row.attempts >= ATTEMPTS:
                self._fail(row, _given_up(row.attempts, "the server ended"))
            else:
                if row.status == "RUNNING":
                    self._store.again(row.id, "The server was started again; your job is queued once more.")
                self.put(row)

    def put(self, row: Row, front: bool = False) -> None:
        """Queue a job."""
        self._lines.setdefault(frozenset(row.models), Line()).put(row, front)
        self._wake.set()

    def position(self, row: Row) -> int | None:
        """How many jobs are before this one; None if it is not queued."""
        line = self._lines.get(frozenset(row.models))
        return None if line is None else line.position(row)

    def waiting(self, owner: str) -> int:
        """How many jobs of a key are queued."""
        return sum(line.of(owner) for line in self._lines.values())

    def queued(self) -> list[Row]:
        """All that wait, oldest first."""
        return sorted((row for line in self._lines.values() for row in line), key=lambda row: row.number)

    def in_turn(self) -> list[Row]:
        """All that wait, of each line in the order in which they will be begun, if no more come."""
        lines = sorted(self._lines.values(), key=lambda line: line.oldest)
        return [row for line in lines for row in line.in_turn()]

    def cancel(self, row: Row) -> None:
        """End a job: at once if it waits, as soon as it can be if it runs."""
        if row.id in self.running:
            self._cancelled.add(row.id)
            if row.id in self._begun:  # else as soon as it is its turn in its worker
                self._workers.cancel(row.id)
            return
        line = self._lines.get(frozenset(row.models))
        if line is not None and line.remove(row.id):
            self._fail(row, _cancelled())
            self._tidy(frozenset(row.models))

    def wake(self) -> None:
        """Look again: a worker is there that was not."""
        self._wake.set()

    # ---- the loop

    async def run(self) -> None:
        """Hand out jobs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for keys in sorted(self._lines, key=lambda keys: self._lines[keys].oldest):
                while keys in self._lines and self._workers.free(keys):
                    rows = self._next(keys)
                    task = asyncio.create_task(self._serve(keys, rows))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                    await asyncio.sleep(0)  # the worker is taken before the next one is asked for

    async def stop(self) -> None:
        """Give up what runs; it stays accepted, and a server that starts again goes on with it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _next(self, keys: frozenset[str]) -> list[Row]:
        line = self._lines[keys]
        rows = [line.take()]
        while line and len(rows) < self._together and self._akin(rows[0], line.next):
            rows.append(line.take())
        self._tidy(keys)
        for row in line:
            self._tell(row.id)  # it has moved up
        return rows

    def _akin(self, one: Row, other: Row) -> bool:
        """Whether two jobs may share a forward pass."""
        return one.kin is not None and one.kin == other.kin and self._alone.isdisjoint((one.id, other.id))

    def _tidy(self, keys: frozenset[str]) -> None:
        if not self._lines[keys]:
            del self._lines[keys]

    async def _serve(self, keys: frozenset[str], rows: list[Row]) -> None:
        tasks = [Task(row.id, self._files.request(row.id), self._files.draft(row.id, row.attempts + 1)) for row in rows]
        by_id = {row.id: (row, task) for row, task in zip(rows, tasks, strict=True)}
        self.running |= {row.id: row for row in rows}
        published: list[asyncio.Task[None]] = []

        def on_event(id: str, said: dict[str, Any]) -> None:
            row, task = by_id[id]
            match said["event"]:
                case "running":
                    if id not in self._begun:
                        self._begun.add(id)
                        row.attempts += 1
                        self._store.begin(id)
                        self._tell(id)
                    if id in self._cancelled:
                        self._workers.cancel(id)
                case "log":
                    self._store.log(id, [str(said.get("line", ""))])
                    self._tell(id)
                case "done":
                    published.append(asyncio.create_task(self._publish(row, task)))
                case "error" if said.get("kind") == "Cancelled" and id not in self._cancelled:
                    self._lost(row, "another job, with which it shared a forward pass, was cancelled")
                case "error":
                    self._fail(row, _failure(said))

        try:
            await self._workers.submit(keys, tasks, self._deadline, on_event)
            await asyncio.gather(*published)
            for row in rows:
                if row.id in self.running:
                    self._lost(row, "the worker said no more of it")
        except Lost as lost:
            await asyncio.gather(*published)
            for row in rows:
                if row.id in self.running:
                    if isinstance(lost, Late) and len(rows) == 1:
                        self._fail(row, Failure(kind="TimeoutError", message=f"{lost}; do less in one job", status=408))
                    elif isinstance(lost, Unreachable):
                        self._fail(row, Failure(kind="ConnectionError", message=f"{lost}; send it later", status=409))
                    else:
                        if row.id not in self._begun:
                            row.attempts += 1
                            self._store.begin(row.id)
                        self._lost(row, str(lost))
        except Exception:
            LOG.exception("a job could not be run")
            for row in rows:
                if row.id in self.running:
                    self._lost(row, "the server met a fault of its own")
        finally:
            for row in rows:
                self.running.pop(row.id, None)
                self._cancelled.discard(row.id)
                self._begun.discard(row.id)
            self._wake.set()

    async def _publish(self, row: Row, task: Task) -> None:
        if task.result.stat().st_size > 1 << 20:
            size, checksum = await asyncio.to_thread(self._files.publish, row.id, task.result)
        else:
            size, checksum = self._files.publish(row.id, task.result)
        self.running.pop(row.id, None)
        if self._store.complete(row.id, size, checksum, time.time() + self._keep):
            self._tell(row.id)
        self._alone.discard(row.id)
        self._files.drop_request(row.id, row.attempts)

    def _lost(self, row: Row, why: str) -> None:
        """Its worker is gone: once more, alone, unless that happened too often."""
        self.running.pop(row.id, None)
        if row.id in self._cancelled:
            self._fail(row, _cancelled())
        elif row.attempts >= ATTEMPTS:
            self._fail(row, _given_up(row.attempts, why))
        else:
            self._alone.add(row.id)
            self._store.again(row.id, f"Your job is queued once more: {why}.")
            self.put(row, front=True)
            self._tell(row.id)

    def _fail(self, row: Row, failure: Failure) -> None:
        self.running.pop(row.id, None)
        if self._store.fail(row.id, failure, time.time() + self._keep):
            self._tell(row.id)
        self._alone.discard(row.id)
        self._files.drop_request(row.id, row.attempts)


def _failure(said: dict[str, Any]) -> Failure:
    status = said.get("status", 422)
    return Failure(
        kind=str(said.get("kind", "RuntimeError")),
        message=str(said.get("message", "")),
        line=None if said.get("line") is None else str(said["line"]),
        status=status if isinstance(status, int) and 400 <= status < 500 else 422,
    )


def _cancelled() -> Failure:
    return Failure(kind="Cancelled", message="the job was cancelled", status=409)


def _given_up(attempts: int, why: str) -> Failure:
    return Failure(
        kind="RuntimeError",
        message=f"{why}, {attempts} times while this job ran; it may need more memory than a job has here",
        status=422,
    )
