"""Child: a worker process as its parent sees it: told what to do over a pipe, and killed when it must be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.server.workers import Lost, Model, OnEvent, Task

_LONGEST_LINE = 1 << 22
_GRACE = 3.0
"""Seconds that a cancelled job has to end by itself."""

_ENVIRONMENT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PREFIXES = ("HF_", "CUDA_", "NVIDIA_", "TORCH_", "PYTORCH_", "LD_LIBRARY_PATH", "XDG_", "WORKBENCH_WORKER_")
"""What a worker is told of the surroundings: no keys, no secrets."""


class Child:
    """A worker process. One thing is asked of it at a time.

    Args:
        limits: what jobs may use, as plain data, for the load message.
        functions: a file of the operator's with functions that traces may name.
        errors: where its standard error goes; None for this process's own.
        rank: of one of several that share the models, its number, how many there are, and the file where they meet.
    """

    def __init__(
        self,
        limits: Mapping[str, Any] | None = None,
        functions: str | None = None,
        errors: Any = None,
        rank: tuple[int, int, str] | None = None,
    ) -> None:
        self.bytes = 0
        self.models: tuple[Model, ...] = ()
        self.functions: list[str] = []
        self.shut: list[str] = []
        self._limits = dict(limits or {})
        self._functions = functions
        self._errors = errors
        self._rank = rank
        self._process: asyncio.subprocess.Process | None = None
        self._cancelled: set[str] = set()
        self._running: set[str] = set()
        self._why: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process."""
        kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith(_PREFIXES)}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "workbench.server.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=self._errors,
            env=kept, limit=_LONGEST_LINE, start_new_session=True,
        )  # fmt: skip

    async def load(self, models: Sequence[Model], seconds: float = 3600) -> int:
        """Have it open these models; gives their bytes. Raises `Lost` with the worker's own words if it cannot."""
        self._say(
            {
                "do": "load",
                "models": [{"key": model.key, "options": model.options} for model in models],
                "limits": self._limits,
                "functions": self._functions,
                "rank": self._rank,
            }
        )
        said = await self._hear_within(seconds, seconds)
        if said["event"] != "loaded":
            await self.kill()
            raise Lost(str(said.get("why", f"the worker said {said['event']!r} where it should have loaded")))
        self.models, self.bytes = tuple(models), int(said["bytes"])
        self.functions = [str(name) for name in said.get("functions", ())]
        self.shut = [str(words) for words in said.get("shut", ())]
        return self.bytes

    async def run(self, tasks: Sequence[Task], deadline: float, on_event: OnEvent) -> bool:
        """Run jobs, telling of each; gives whether the worker is as it was before. Raises `Lost` when it ends."""
        self._why = None
        self._running = {task.job for task in tasks}
        self._say(
            {
                "do": "run",
                "jobs": [{"job": task.job, "request": str(task.request), "result": str(task.result)} for task in tasks],
                "deadline": deadline,
            }
        )
        try:
            return await self._follow(on_event, deadline)
        finally:
            self._running = set()

    async def _follow(self, on_event: OnEvent, deadline: float) -> bool:
        """What happens, until the worker is idle. From one job's beginning or end to the next is the time of a job."""
        now = asyncio.get_running_loop().time
        due = now() + deadline + _GRACE
        while True:
            said = await self._hear_within(max(0.0, due - now()), deadline)
            if said["event"] != "log":
                due = now() + deadline + _GRACE
            if said["event"] == "idle":
                self.bytes = int(said.get("bytes", self.bytes))
                return bool(said.get("clean", True))
            job = said.get("job")
            if job not in self._running:
                await self.kill()
                raise Lost(f"the worker spoke of a job that it was not given: {str(job)[:60]!r}")
            on_event(job, said)

    def cancel(self) -> None:
        """End what runs; the worker is killed if that takes too long."""
        if self.alive and self._running and self._process is not None:
            self._process.send_signal(signal.SIGUSR1)
            running = self._running
            asyncio.get_running_loop().call_later(_GRACE, lambda: self._running is running and self.end("cancelled"))

    async def kill(self, why: str | None = None) -> None:
        """End the process at once, and wait until it is gone."""
        self.end(why)
        if self._process is not None:
            await self._process.wait()

    def end(self, why: str | None = None) -> None:
        """Kill the process; whoever waits for it hears why."""
        self._why = self._why or why
        if self.alive and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Let the process end by itself, or kill it."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 1.0)
        except TimeoutError:
            await self.kill()

    # ---- the pipe

    def _say(self, message: Mapping[str, Any]) -> None:
        if not self.alive or self._process is None or self._process.stdin is None:
            raise Lost(self._ended())
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _hear(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            if line:
                said = json.loads(line)
                if isinstance(said, dict) and isinstance(said.get("event"), str):
                    return said
        except ValueError:  # a line too long, or no JSON: not to be trusted any more
            line = b"?"
        if line:
            await self.kill()
            raise Lost("the worker said something that is no message")
        await self._process.wait()
        raise Lost(self._ended())

    async def _hear_within(self, seconds: float, allowed: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                return await self._hear()
        except TimeoutError:
            await self.kill()
            raise Late(f"it took longer than {allowed:.0f} seconds, which is the limit here") from None

    def _ended(self) -> str:
        if self._why is not None:
            return self._why
        code = None if self._process is None else self._process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"the worker was ended by {signal.Signals(-code).name}"
        return f"the worker ended with status {code}"


class Late(Lost):
    """Killed at its deadline: to be tried again it would only be late again."""
