"""OnRay: the workers of a server whose models run on a Ray cluster: seats for replicas, filled by way of the gate.

A seat is opened before a job needs it, and a job is given only to one that is there, so that waiting for machines
costs no attempt. What is lost, a replica, a machine or the whole cluster, is opened again; jobs wait meanwhile, for as
long as the operator has patience.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.server.child import Late
from workbench.server.workers import Lost, Model, OnEvent, Task, Unreachable

LOG = logging.getLogger("workbench.server")

Keys = frozenset[str]

JOINING = 90.0
"""Seconds that joining a cluster may take."""

_ROOM = 5.0
"""Seconds that a seat which a job waits for may be without a place, until an idle one gives up its own."""

_GRACE = 20.0
"""Seconds beyond a job's deadline after which its replica is given up: it ends jobs itself, if it can."""

_OPENING = 600.0
"""Seconds that a replica may need to open its models again before a job."""

_AGAIN = 1.0
_LINE = 1 << 22


class Seat:
    """A replica's place: what it hosts, and what is said of it."""

    def __init__(self, id: str, keys: Keys, number: int, used: int) -> None:
        self.id = id
        self.keys = keys
        self.number = number
        self.used = used
        self.placed: str | None = None
        self.loaded = False
        self.busy = False
        self.jobs: dict[str, str] = {}  # job → attempt
        self.bytes = 0
        self.done = 0
        self.pid: int | None = None
        self.functions: list[str] = []
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()


class OnRay:
    """Replicas on a cluster.

    Args:
        address: the head's, as `10.0.0.1:6379`; this machine is a node of the cluster, if only with no processors.
        replicas: how many of each model.
        resources: what each replica asks for, as `{"CPU": 1, "GPU": 1}`.
        memory: bytes of models that one replica may hold, when a session uses several; None for any.
        limits: what a job may use, as plain data.
        functions: the operator's file of functions that traces may name; its text goes to the nodes.
        errors: the file that takes the gate's standard error.
        patience: seconds for which a job waits for a cluster, or a place in it, that is away.
        ranks: how many processes share each model, on one machine.
    """

    def __init__(
        self,
        address: str,
        replicas: int = 1,
        resources: Mapping[str, float] | None = None,
        memory: int | None = None,
        limits: Mapping[str, Any] | None = None,
        functions: str | None = None,
        errors: Path | None = None,
        patience: float = 120.0,
        ranks: int = 1,
    ) -> None:
        self._ranks = ranks
        self._address = address
        self._replicas = replicas
        self._resources = dict(resources or {})
        self._memory = memory
        self._limits = dict(limits or {})
        self._functions = None if functions is None else Path(functions).read_text()
        self._errors = None if errors is None else errors.open("ab")
        self._patience = patience
        self._models: dict[str, Model] = {}
        self._sizes: dict[str, int] = {}
        self._seats: dict[str, Seat] = {}
        self._wanted: dict[Keys, float] = {}  # since when jobs wait for these, with none to run them
        self._why: dict[Keys, str] = {}
        self._faults: dict[Keys, str] = {}  # what cannot be opened anywhere
        self._evicted: set[Keys] = set()  # gave up their place for others, until a job wants them again
        self._away: str | None = "it is being joined"
        self._gate: asyncio.subprocess.Process | None = None
        self._changed: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock = itertools.count()
        self._joined = asyncio.Event()
        self._refused: str | None = None

    # ---- its life

    async def start(self, models: Sequence[Model], changed: Callable[[], None] = lambda: None) -> None:
        """Join the cluster and open each model once; further replicas follow.

        Raises:
            Lost: no cluster there, no token or a wrong one, a model that cannot be opened.
        """
        self._models = {model.key: model for model in models}
        self._changed = changed
        self._begin(self._keep())
        try:
            await asyncio.wait_for(self._joined.wait(), JOINING)
        except TimeoutError:
            raise Lost(self._unreachable()) from None
        if self._refused is not None:
            raise Lost(self._refused)
        for model in models:
            keys = frozenset({model.key})
            self._wanted[keys] = asyncio.get_running_loop().time()  # others make room for it, if they must
            while not any(seat.loaded for seat in self._seats.values() if seat.keys == keys):
                seat = self._sit(keys)
                await self._open(seat)
                if keys in self._faults:
                    raise Lost(self._faults[keys])
                if not seat.loaded:
                    await asyncio.sleep(_AGAIN)  # its machine went away, or the cluster did: once more
            why = self.can_host(keys)
            if why is not None:
                raise Lost(why)
            changed()
        self._fill()

    async def stop(self) -> None:
        """Leave the cluster, which ends all replicas."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end_gate()
        self._seats.clear()
        if self._errors is not None:
            self._errors.close()

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- the gate

    async def _keep(self) -> None:
        """Keep a gate: when it ends, all replicas are lost, and another one joins the cluster."""
        first, wait = True, _AGAIN
        while True:
            joined = await self._one_gate()
            wait = _AGAIN if joined else min(15.0, 2 * wait)
            if self._refused is not None or (first and not joined):
                self._refused = self._refused or self._unreachable()
                self._joined.set()
                if first:
                    return
            first = False
            await asyncio.sleep(wait)

    async def _one_gate(self) -> bool:
        namespace = f"workbench-{secrets.token_hex(4)}"
        self._gate = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "workbench.server.cluster.gate", self._address, namespace,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=self._errors,
            env={"RAY_USAGE_STATS_ENABLED": "0", **os.environ}, limit=_LINE, start_new_session=True,
        )  # fmt: skip
        assert self._gate.stdout is not None
        joined = False
        try:
            while True:
                wait = None if joined else JOINING
                line = await asyncio.wait_for(self._gate.stdout.readline(), wait)
                if not line:
                    break
                said = json.loads(line)
                if said["event"] == "ready":
                    joined, self._away, self._refused = True, None, None
                    self._joined.set()
                    self._fill()
                elif said["event"] in ("refused", "away"):
                    self._away = said["why"]
                    if said["event"] == "refused":
                        self._refused = said["why"]
                        LOG.error("%s", said["why"])
                elif (seat := self._seats.get(said.get("seat"))) is not None:
                    self._hear(seat, said)
        except TimeoutError:
            self._away = f"it did not answer within {JOINING:.0f} seconds"
        finally:
            await self._end_gate()
            if joined:
                self._away = "the connection to it was lost"
                LOG.warning("the Ray cluster at %s: the connection was lost", self._address)
            for seat in list(self._seats.values()):
                self._hear(seat, {"event": "lost", "why": "the connection to the Ray cluster was lost", "gone": True})
        return joined

    def _hear(self, seat: Seat, said: dict[str, Any]) -> None:
        """Pass on what is said of a seat to those who wait for it; an idle one that is lost is opened again."""
        if said["event"] == "lost" and seat.loaded and not seat.busy:
            LOG.warning("a replica of %s is opened again: %s", " and ".join(sorted(seat.keys)), said["why"])
            self._leave(seat)
            self._fill()
        else:
            seat.said.put_nowait(said)

    async def _end_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None and gate.returncode is None:
            gate.kill()
            await gate.wait()

    def _say(self, what: str, seat: Seat, **more: Any) -> None:
        if self._gate is None or self._gate.stdin is None or self._gate.returncode is not None or self._away:
            seat.said.put_nowait({"event": "lost", "why": self._unreachable(), "gone": True})
            return
        self._gate.stdin.write(json.dumps({"do": what, "seat": seat.id, **more}).encode() + b"\n")

    def _unreachable(self) -> str:
        return f"the Ray cluster at {self._address} cannot be reached: {self._away}"

    # ---- seats

    def _sit(self, keys: Keys) -> Seat:
        taken = {seat.number for seat in self._seats.values() if seat.keys == keys}
        number = next(each for each in itertools.count() if each not in taken)
        seat = Seat(secrets.token_hex(4), keys, number, next(self._clock))
        self._seats[seat.id] = seat
        return seat

    def _fill(self) -> None:
        """Open the replicas that are missing, of models that were opened before."""
        if self._away:
            return
        for key in self._sizes:
            keys = frozenset({key})
            if keys in self._evicted:
                continue
            for _ in range(self._replicas - sum(seat.keys == keys for seat in self._seats.values())):
                self._begin(self._open(self._sit(keys)))

    async def _open(self, seat: Seat) -> None:
        """Have a replica made and its models opened; a seat that comes to nothing is no seat any more."""
        self._say(
            "open", seat,
            name=f"{'+'.join(sorted(seat.keys))} {seat.number}",
            models=[{"key": key, "options": self._models[key].options} for key in sorted(seat.keys)],
            limits=self._limits, functions=self._functions, resources=self._resources, ranks=self._ranks,
        )  # fmt: skip
        while not seat.loaded:
            try:
                said = await asyncio.wait_for(seat.said.get(), None if seat.placed else _ROOM)
            except TimeoutError:
                self._why[seat.keys] = "the cluster has no room for it"
                self._make_room(seat)
                continue
            if said["event"] == "placed":
                seat.placed = said["node"]
            elif said["event"] == "loaded":
                seat.loaded, seat.bytes, seat.pid = True, int(said["bytes"]), said.get("pid")
                seat.functions = said.get("functions", [])
                walls = "; ".join(said.get("shut", ())) or "no walls"
                LOG.info("%s on %s: ready; around its jobs: %s", ", ".join(sorted(seat.keys)), seat.placed, walls)
                if len(seat.keys) == 1:
                    self._sizes[next(iter(seat.keys))] = seat.bytes
                self._wanted.pop(seat.keys, None)
                self._why.pop(seat.keys, None)
            else:
                self._why[seat.keys] = said["why"]
                self._leave(seat)
                if said["event"] == "unloadable":
                    LOG.error("%s cannot be opened: %s", " and ".join(sorted(seat.keys)), said["why"])
                    self._faults[seat.keys] = said["why"]
                else:
                    asyncio.get_running_loop().call_later(_AGAIN, self._fill)
                break
        self._changed()

    def _make_room(self, seat: Seat) -> None:
        """A job waits for a seat that finds no place: the least recently used idle one of other models goes."""
        if seat.keys not in self._wanted:
            return
        others = [each for each in self._seats.values() if each.keys != seat.keys and not each.busy]
        for each in others:
            if not each.loaded and each.keys not in self._wanted:
                self._leave(each)
        idle = [each for each in others if each.loaded]
        if idle:
            least = min(idle, key=lambda each: each.used)
            self._evicted.add(least.keys)
            self._leave(least)

    def _leave(self, seat: Seat) -> None:
        if self._seats.pop(seat.id, None) is not None and not self._away:
            self._say("close", seat)

    # ---- what is asked before

    def can_host(self, keys: Keys) -> str | None:
        """Why these models can never be in one replica, in words; None if they can."""
        wanted = sum(self._sizes.get(key, 0) for key in keys)
        if self._memory is None or wanted <= self._memory:
            return None
        return (
            f"{' and '.join(sorted(keys))} need{'s' if len(keys) == 1 else ''} {wanted:,} bytes"
            f"{' together' if len(keys) > 1 else ''}, and a replica on this server may hold {self._memory:,}: use "
            "fewer models in one session, or ask for a server with more memory"
        )

    def free(self, keys: Keys) -> bool:
        """Whether jobs for these models would be begun now, or have waited for longer than there is patience."""
        seats = [seat for seat in self._seats.values() if seat.keys == keys]
        if any(seat.loaded and not seat.busy for seat in seats):
            return True
        if any(seat.busy for seat in seats) or not keys <= self._sizes.keys():
            return False
        now = asyncio.get_running_loop().time()
        self._evicted.discard(keys)
        if keys in self._faults:
            return True
        if keys not in self._wanted:
            self._wanted[keys] = now
            asyncio.get_running_loop().call_later(self._patience + 0.1, self._changed)
        if not seats and not self._away:
            self._begin(self._open(self._sit(keys)))
        return now - self._wanted[keys] > self._patience

    # ---- running

    async def submit(self, keys: Keys, tasks: Sequence[Task], deadline: float, on_event: OnEvent) -> None:
        """Run jobs; raises `Lost` when their replica died, `Unreachable` when there was none for too long."""
        seat = next((s for s in self._seats.values() if s.keys == keys and s.loaded and not s.busy), None)
        if seat is None:
            what = " and ".join(sorted(keys))
            if keys in self._faults:
                raise Unreachable(f"{what} cannot be opened: {self._faults.pop(keys)}")
            since = self._wanted.pop(keys, None)
            if since is None or asyncio.get_running_loop().time() - since <= self._patience:
                raise Lost("its replica went away")
            why = self._unreachable() if self._away else self._why.get(keys, "no replica of it could be opened")
            raise Unreachable(f"{what} could not be run for {self._patience:.0f} seconds: {why}")
        seat.busy, seat.used = True, next(self._clock)
        seat.jobs = {task.job: task.result.name for task in tasks}
        self._say(
            "run", seat, deadline=deadline,
            jobs=[
                {"job": task.job, "attempt": task.result.name, "request": str(task.request), "result": str(task.result)}
                for task in tasks
            ],
        )  # fmt: skip
        try:
            await asyncio.wait_for(self._follow(seat, on_event), deadline + _GRACE + _OPENING)
        except TimeoutError:
            self._leave(seat)
            raise Lost("its replica did not answer any more") from None
        except asyncio.CancelledError:
            self._leave(seat)
            raise
        finally:
            seat.busy, seat.jobs = False, {}
            self._fill()
        seat.done += len(tasks)

    async def _follow(self, seat: Seat, on_event: OnEvent) -> None:
        while True:
            said = await seat.said.get()
            if said["event"] == "idle":
                seat.bytes = int(said.get("bytes", seat.bytes))
                return
            if said["event"] == "lost":
                if said.get("gone"):
                    self._leave(seat)
                raise (Late if said.get("late") else Lost)(said["why"])
            if seat.jobs.get(said.get("job", "")) == said.get("attempt"):  # of no attempt that was given up
                on_event(said["job"], said)

    # ---- from outside

    def cancel(self, job: str) -> None:
        """End a job that runs."""
        for seat in self._seats.values():
            if job in seat.jobs:
                self._say("cancel", seat)

    def kill(self, key: str) -> None:
        """Kill the workers that host a model; their replicas start others."""
        for seat in self._seats.values():
            if key in seat.keys:
                self._say("end", seat, why="the worker was killed by the operator")

    def loaded(self) -> list[dict[str, Any]]:
        """Each replica's models, bytes, machine, and what it does."""
        return [
            {
                "models": sorted(seat.keys),
                "bytes": seat.bytes,
                "busy": seat.busy,
                "jobs": list(seat.jobs),
                "done": seat.done,
                "pid": seat.pid,
                "node": seat.placed,
                "functions": seat.functions,
            }
            for seat in self._seats.values()
            if seat.loaded
        ]
