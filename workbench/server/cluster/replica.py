"""Replica: what runs as an actor on a node of the cluster: it supervises a worker, and passes on what is said.

The actor has the cluster's network; the worker, where users' graphs run, has pipes only, as on one machine. A worker
that died, or was not as before, is replaced here when the next job comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.server.child import Child, Late
from workbench.server.ranks import Ranks, worker
from workbench.server.workers import Lost, Model, Task

PIECE = 4 << 20
"""Bytes of a result that travel at once."""

Message = dict[str, Any]


class Replica:
    """One worker, and a folder for its files.

    Args:
        models: what it hosts, as `(key, options)`.
        limits: what a job may use, as plain data.
        functions: the text of the operator's file of functions.
        ranks: how many processes share each model, all on this machine.
    """

    def __init__(
        self,
        models: Sequence[tuple[str, Mapping[str, Any]]],
        limits: Mapping[str, Any],
        functions: str | None = None,
        ranks: int = 1,
    ) -> None:
        self._ranks = ranks
        self._models = [Model(key, dict(options)) for key, options in models]
        self._limits = dict(limits)
        self._folder = _folder()
        self._functions: str | None = None
        if functions is not None:
            file = self._folder / "functions.py"
            file.write_text(functions)
            self._functions = str(file)
        self._child = self._worker()
        self._running = False

    def _worker(self) -> Child | Ranks:
        return worker(self._limits, self._functions, None, self._ranks)

    async def where(self) -> str:
        """The address of the machine that this is on."""
        import ray

        return str(ray.util.get_node_ip_address())

    async def load(self) -> Message:
        """Open the models. What cannot be opened is said, not raised: it will not be better on another node."""
        try:
            await self._fresh()
        except Lost as lost:
            return {"event": "unloadable", "why": str(lost)}
        child = self._child
        return {
            "event": "loaded", "bytes": child.bytes, "pid": child.pid, "functions": child.functions, "shut": child.shut,
        }  # fmt: skip

    async def _fresh(self) -> None:
        if not self._child.alive:
            await self._child.kill()
            self._child = self._worker()
            await self._child.start()
            await self._child.load(self._models)

    async def run(self, jobs: Sequence[tuple[str, str, bytes]], deadline: float) -> AsyncIterator[Message]:
        """Run jobs, given as `(job, attempt, request)`: yields what their worker says, each with its attempt, a result
        in pieces before its `done`, and at last `idle`, or `lost` if the worker died."""
        if self._running:
            raise RuntimeError("this replica runs a job already, and two would mix")
        self._running = True
        tasks = {job: self._task(attempt, job, request) for job, attempt, request in jobs}
        attempts = {job: attempt for job, attempt, _ in jobs}
        said: asyncio.Queue[Message] = asyncio.Queue()
        working = asyncio.create_task(self._work(list(tasks.values()), deadline, said))
        try:
            while True:
                message = await said.get()
                job = message.get("job")
                if job is None:
                    yield message
                    return
                if message["event"] == "done":
                    async for data in _pieces(tasks[job].result):
                        yield {"event": "part", "job": job, "attempt": attempts[job], "data": data}
                yield {**message, "attempt": attempts[job]}
        finally:
            working.cancel()
            self._running = False
            for task in tasks.values():
                task.request.unlink(missing_ok=True)
                task.result.unlink(missing_ok=True)

    async def _work(self, tasks: list[Task], deadline: float, said: asyncio.Queue[Message]) -> None:
        def heard(job: str, message: Message) -> None:
            said.put_nowait(message)

        try:
            await self._fresh()
            clean = await self._child.run(tasks, deadline, heard)
            if not clean:
                await self._child.kill("it was not as before after a job")
            said.put_nowait({"event": "idle", "clean": clean, "bytes": self._child.bytes})
        except Lost as lost:
            said.put_nowait({"event": "lost", "why": str(lost), "late": isinstance(lost, Late)})
        except BaseException as error:
            self._child.end("its job was given up")
            said.put_nowait({"event": "lost", "why": f"{type(error).__name__}: {error}", "late": False})
            raise

    def _task(self, attempt: str, job: str, request: bytes) -> Task:
        name = f"{job}-{attempt}"
        if not name.replace("-", "").replace(".", "").isalnum():
            raise ValueError(f"{name!r} is no name of an attempt")
        asked = self._folder / f"{name}.request"
        asked.write_bytes(request)
        return Task(job, asked, self._folder / f"{name}.result")

    async def stay(self) -> None:
        """Never ends, so that who waits for it hears at once when this process does."""
        await asyncio.Event().wait()

    async def cancel(self) -> None:
        """End what runs."""
        self._child.cancel()

    async def end(self, why: str) -> None:
        """Kill the worker; it is replaced with the next job."""
        await self._child.kill(why)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, PIECE):
            yield data


def _folder() -> Path:
    """A folder of this process's own; those of processes that are no more are deleted, as after a power cut."""
    around = Path(tempfile.gettempdir()) / f"workbench-replicas-{os.getuid()}"
    around.mkdir(mode=0o700, exist_ok=True)
    for each in around.iterdir():
        if each.name.isdigit() and not Path("/proc", each.name).exists() and Path("/proc/self").exists():
            shutil.rmtree(each, ignore_errors=True)
    own = around / str(os.getpid())
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(own)
    own.mkdir(mode=0o700)
    return own
