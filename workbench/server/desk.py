"""Desk: one running server: what it accepts, what it knows of each job, and how news of it gets out."""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable

from fastapi import HTTPException
from fastapi.sse import format_sse_event

from workbench.graph.limits import Limits, Refused
from workbench.graph.package import look
from workbench.remote import protocol
from workbench.remote.protocol import Event, Job
from workbench.server.auth import Keys
from workbench.server.embedded import Embedded
from workbench.server.results import Files
from workbench.server.scheduler import Scheduler
from workbench.server.settings import Settings
from workbench.server.store import Row, Store
from workbench.server.together import kin
from workbench.server.workers import Lost, Workers

LOG = logging.getLogger("workbench.server")
_PING = 15.0


class Desk:
    """One running server: what the endpoints work on."""

    def __init__(self, settings: Settings, workers: Workers | None = None) -> None:
        self.settings = settings
        self.limits = Limits.read(settings.limits)
        self.files = Files(settings.folder)
        self.store = Store(settings.folder / "jobs.sqlite")
        self.keys = Keys(settings.keys)
        self.workers: Workers = workers or Embedded(
            settings.memory,
            settings.limits,
            None if settings.functions is None else str(settings.functions),
            settings.folder / "workers.log",
            settings.ranks,
        )
        self.scheduler = Scheduler(
            self.store, self.files, self.workers, self.tell, settings.seconds, settings.keep, settings.together
        )
        self.hosted = {model.key for model in settings.models}
        self.ready = asyncio.Event()
        self.fault: str | None = None
        self.end: Callable[[], None] = lambda: None  # what ends the process
        self._watching: dict[str, set[asyncio.Event]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # ---- its life

    async def start(self) -> None:
        """Go on with what was accepted, and open the models, while requests are taken already."""
        self.scheduler.recover()
        self.files.sweep({row.id for row in self.scheduler.queued()})
        self._tasks = [asyncio.create_task(each) for each in (self._open(), self.scheduler.run(), self._expire())]

    async def stop(self) -> None:
        """End; jobs that were accepted stay so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.scheduler.stop()
        await self.workers.stop()
        self.store.close()

    async def _open(self) -> None:
        try:
            await self.workers.start(self.settings.models, self.scheduler.wake)
        except Lost as lost:
            self.fault = str(lost)
            LOG.error("the server ends: %s", lost)
            self.end()
            return
        self.ready.set()

    async def _expire(self) -> None:
        while True:
            gone = self.store.expired(time.time())
            for id in gone:
                self.files.drop(id)
            if gone:
                self.store.forget(gone)
            await asyncio.sleep(min(60.0, max(0.5, self.settings.keep / 10)))

    # ---- news

    def tell(self, id: str) -> None:
        """There is news of a job."""
        for event in self._watching.get(id, ()):
            event.set()

    async def news(self, row: Row, after: int, inline: bool = False) -> AsyncIterator[bytes]:
        """A job's events as they come, until it ends. A slow reader holds up nobody: events are read from the store.

        With `inline` a small result is the last of them.
        """
        watch = asyncio.Event()
        self._watching.setdefault(row.id, set()).add(watch)
        try:
            last, place = after, None
            while True:
                watch.clear()
                events = self.store.events(row.id, last)
                position = self.scheduler.position(row) if not events or events[-1].status == "QUEUED" else None
                if events:  # what is there goes out at once: each piece wakes the reader
                    last = events[-1].number
                    if events[-1].status == "QUEUED":
                        events[-1].position = place = position
                    last_one = self._inline(row.id) if inline and events[-1].status == "COMPLETED" else b""
                    yield b"".join((*map(_sse, events), last_one))
                    if events[-1].status in protocol.ENDED:
                        return
                if len(events) == 500:
                    continue
                if not events and position is not None and position != place:
                    place = position
                    yield _sse(Event(number=0, at=time.time(), status="QUEUED", position=position))
                try:
                    async with asyncio.timeout(_PING):
                        await watch.wait()
                except TimeoutError:
                    if self.store.get(row.id) is None:
                        return
                    yield format_sse_event(comment="still here")
        finally:
            watching = self._watching.get(row.id, set())
            watching.discard(watch)
            if not watching:
                self._watching.pop(row.id, None)

    def _inline(self, id: str) -> bytes:
        """A result as one piece of news, if it is small."""
        row = self.store.get(id)
        if row is None or row.bytes is None or row.bytes > protocol.INLINE:
            return b""
        try:
            data = self.files.result(id).read_bytes()
        except FileNotFoundError:  # deleted meanwhile
            return b""
        return format_sse_event(event="result", data_str=f"{row.sha256} {b64encode(data).decode()}")

    def view(self, row: Row) -> Job:
        """A job as its owner sees it."""
        return Job(
            id=row.id,
            models=row.models,
            status=row.status,
            created=row.created,
            started=row.started,
            ended=row.ended,
            position=self.scheduler.position(row) if row.status == "QUEUED" else None,
            failure=row.failure,
            bytes=row.bytes,
            sha256=row.sha256,
            expires=row.expires,
        )

    # ---- what is accepted

    async def accept(self, id: str, owner: str, data: bytes) -> Row:
        """Check a request and queue it; the same id again is the same job."""
        known = self.store.get(id)
        if known is not None:
            return self._same(known, owner)
        if self.scheduler.waiting(owner) >= self.settings.queue:
            raise HTTPException(429, f"{self.settings.queue} of your jobs are queued; wait until some have run")
        try:
            small = len(data) < 1 << 20
            request = look(data, self.limits) if small else await asyncio.to_thread(look, data, self.limits)
        except Refused as refused:
            raise HTTPException(refused.status, str(refused)) from refused
        keys = frozenset(request.models)
        unknown = sorted(keys - self.hosted)
        if unknown:
            raise HTTPException(
                404,
                f"this server does not host {' and '.join(unknown)}; it hosts {', '.join(sorted(self.hosted))}",
            )
        if len(keys) > 1:
            await self.ready.wait()
        why = self.workers.can_host(keys)
        if why is not None:
            raise HTTPException(422, why)
        if small:
            self.files.keep(id, data)
        else:
            await asyncio.to_thread(self.files.keep, id, data)
        known = self.store.get(id)  # it was sent twice at once
        if known is not None:
            return self._same(known, owner)
        row = self.store.add(id, owner, sorted(keys))
        row.kin = kin(request) if self.settings.together > 1 else None
        self.scheduler.put(row)
        for _ in range(2):  # the scheduler's turn, then its new task's: a worker that is free begins before the answer
            await asyncio.sleep(0)
        return row

    def _same(self, row: Row, owner: str) -> Row:
        if row.owner != owner:
            raise HTTPException(409, "this job id is taken; send the request with another one")
        return row

    def job(self, id: str, owner: str) -> Row:
        """A job of this owner's; another's is as one that is not there."""
        row = self.store.get(id)
        if row is None or row.owner != owner:
            raise HTTPException(404, "there is no such job; it may have been deleted at the end of its time")
        return row


def _sse(event: Event) -> bytes:
    return format_sse_event(
        data_str=event.model_dump_json(exclude_none=True), id=str(event.number) if event.number else None
    )
