"""Gate: the one process of a server that speaks to a Ray cluster: `python -m workbench.server.cluster.gate ADDRESS`.

Ray ends a process whose cluster is gone, and starts threads of its own; so the API process has none of it, and starts
another gate. It is spoken to over a pipe, one JSON object a line, as a worker is, of several replicas at once:

    to the gate                                            from the gate, first of all
                                                       →  {"event": "ready", "nodes": 2}
                                                       |  {"event": "refused", "why": "…"}  (nothing to be tried again)
    {"do": "open", "seat": id, "name": "…",
     "models": […], "limits": {…}, "functions": text,
     "resources": {…}, "ranks"}                          →  {"event": "placed", "seat": id, "node": "…"}, then
                                                          {"event": "loaded", "seat": id, "bytes": …, "pid": …} or
                                                          {"event": "unloadable", "seat": id, "why": "…"}
    {"do": "run", "seat": id, "deadline": seconds,
     "jobs": [{"job", "attempt", "request", "result"}]} →  as a worker, each with seat and attempt, until
                                                          {"event": "idle", "seat": id, …}
    {"do": "cancel" | "end" | "close", "seat": id}     →  nothing
    at any time                                        →  {"event": "lost", "seat": id, "why": "…", "late": false,
                                                           "gone": true}  (the actor, its node, or its place)

Requests and results are files on the API process's side. End of input ends it, and with it all its actors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_LOOK = 2.0
_MISSED = 3
"""After how many looks in vain, each so many seconds apart, the cluster's head counts as gone."""

_ANSWER = 15.0
"""Seconds that the head may take to say which nodes there are."""

_LINE = 1 << 22
_AHEAD = 8
"""Messages that an actor may be ahead of what was read of it, pieces of results among them."""

Say = Callable[[dict[str, Any]], None]


class Gate:
    """The cluster as one server sees it: its actors, by seat."""

    def __init__(self, ray: Any, say: Say) -> None:
        self._ray = ray
        self._say = say
        self._actors: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def obey(self, message: dict[str, Any]) -> None:
        """Begin what is asked."""
        what, seat = message.pop("do"), message.pop("seat")
        if what == "open":
            self._begin(self._open(seat, **message))
        elif (actor := self._actors.get(seat)) is None:
            self._say({"event": "lost", "seat": seat, "why": "its replica is no more", "gone": True})
        elif what == "run":
            self._begin(self._run(seat, actor, **message))
        elif what == "cancel":
            actor.cancel.remote()
        elif what == "end":
            actor.end.remote(message["why"])
        elif what == "close":
            self._close(seat)

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(
        self,
        seat: str,
        name: str,
        models: Any,
        limits: Any,
        functions: str | None,
        resources: dict[str, float],
        ranks: int = 1,
    ) -> None:
        from workbench.server.cluster.replica import Replica

        own = dict(resources)
        asked = {
            "num_cpus": own.pop("CPU", 1),
            "num_gpus": own.pop("GPU", 0),
            "memory": own.pop("memory", None),
            "resources": own,
        }
        made = self._ray.remote(concurrency_groups={"work": 1})(Replica).options(
            name=name, scheduling_strategy="SPREAD", max_restarts=0, max_task_retries=0, **asked
        )
        try:
            hosted = [(model["key"], model["options"]) for model in models]
            actor = self._actors[seat] = made.remote(hosted, limits, functions, ranks)
            node = await actor.where.remote()
            self._say({"event": "placed", "seat": seat, "node": node})
            self._say({**await actor.load.options(concurrency_group="work").remote(), "seat": seat})
            await actor.stay.remote()  # ends when the replica does
        except Exception as error:
            self._gone(seat, error)

    async def _run(self, seat: str, actor: Any, jobs: list[dict[str, str]], deadline: float) -> None:
        results = {each["job"]: Path(each["result"]) for each in jobs}
        try:
            asked = [(each["job"], each["attempt"], Path(each["request"]).read_bytes()) for each in jobs]
            said = actor.run.options(
                num_returns="streaming", concurrency_group="work", _generator_backpressure_num_objects=_AHEAD
            ).remote(asked, deadline)
            async for ref in said:
                message = await ref
                if message["event"] == "part":
                    with results[message["job"]].open("ab") as file:
                        file.write(message["data"])
                else:
                    self._say({**message, "seat": seat})
        except Exception as error:
            self._gone(seat, error)

    def _gone(self, seat: str, error: Exception) -> None:
        if seat in self._actors:  # else it was closed, or that it is gone was said
            self._close(seat)
            self._say({"event": "lost", "seat": seat, "why": in_words(error), "late": False, "gone": True})

    def _close(self, seat: str) -> None:
        actor = self._actors.pop(seat, None)
        if actor is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)


def in_words(error: Exception) -> str:
    """What a fault of Ray's means, without its numbers of actors and nodes."""
    kind, text = type(error).__name__, str(error)
    for name, words in _WORDS.items():
        if name in kind or name in text:
            return words
    return f"its replica could not go on ({kind}: {' '.join(text.split())[:300]})"


_WORDS = {
    "node died": "the machine of its replica went away",
    "Node": "the machine of its replica went away",
    "ActorDiedError": "its replica died",
    "ActorUnavailableError": "its replica could not be reached any more",
    "ActorUnschedulableError": "the cluster has no machine with what a replica asks for",
    "OutOfMemory": "the machine of its replica ran out of memory",
    "ObjectLost": "its result was lost on the way",
    "OwnerDied": "its result was lost on the way",
}


# ---- the token


def token_is_known() -> bool:
    """Whether there is a token where Ray looks for one."""
    if os.environ.get(TOKEN):
        return True
    path = os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token"
    try:
        return bool(Path(path).read_text().strip())
    except OSError:
        return False


NO_TOKEN = (
    f"a Ray cluster is joined with a token only: make one (`ray get-auth-token --generate`), start every node with "
    f"{MODE}=token and this token in {TOKEN} or in a file named by {TOKEN_PATH}, and give it to this server in the "
    "same way"
)
OPEN = (
    "the Ray cluster at {} lets in anyone, with whichever token, and who can reach it could run any code: start every "
    f"node of it with {MODE}=token and a token"
)
WRONG = "the Ray cluster at {} does not know this server's token; give the one that its nodes were started with"


def _lets_in(address: str) -> subprocess.Popen[bytes]:
    """Ask, in a process of its own, with a token that is none: the exit status is 0 if it was let in."""
    code = (
        "import sys; from ray._raylet import GcsClient\n"
        "try: GcsClient(address=sys.argv[1]).internal_kv_keys(b'', b'workbench')\n"
        "except BaseException as error: sys.exit(7 if 'uth' in type(error).__name__ + str(error) else 8)\n"
    )
    surroundings = {**os.environ, MODE: "token", TOKEN: secrets.token_hex(16)}
    return subprocess.Popen(
        [sys.executable, "-c", code, address], env=surroundings, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


# ---- the process


async def serve(heard: int, say: Say, address: str, namespace: str) -> None:
    """Join the cluster, and do what is asked until the pipe closes."""
    if not token_is_known():
        say({"event": "refused", "why": NO_TOKEN})
        return
    os.environ[MODE] = "token"
    asking = _lets_in(address)
    try:
        import ray

        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    except ModuleNotFoundError as error:
        say({"event": "refused", "why": f"{error.name} is not installed: pip install 'workbench[ray]'"})
        return
    except Exception as error:
        asking.kill()
        asking.wait()
        if type(error).__name__ == "AuthenticationError" or "uthentication token" in str(error):
            say({"event": "refused", "why": WRONG.format(address)})
        else:
            say({"event": "away", "why": " ".join(str(error).split())[:400]})
        return
    if await asyncio.to_thread(asking.wait) == 0:
        say({"event": "refused", "why": OPEN.format(address)})
        return
    gate = Gate(ray, say)
    reader = asyncio.StreamReader(limit=_LINE)
    pipe = os.fdopen(heard, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    looking = asyncio.create_task(_look(ray, address))
    say({"event": "ready", "nodes": sum(bool(node["Alive"]) for node in ray.nodes())})
    while line := await reader.readline():
        gate.obey(json.loads(line))
    looking.cancel()


async def _look(ray: Any, address: str) -> None:
    """End this process when the cluster is gone that it has joined: Ray itself would wait for it for a minute, or for
    ever, also where another cluster has begun at the same address."""
    host, _, port = address.rpartition(":")
    own = ray.get_runtime_context().get_node_id()
    missed = 0
    while True:
        await asyncio.sleep(_LOOK)
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _LOOK)
            writer.close()
            nodes = await asyncio.wait_for(asyncio.to_thread(ray.nodes), _ANSWER)
            missed = 0 if any(node["NodeID"] == own and node["Alive"] for node in nodes) else _MISSED
        except TimeoutError:
            missed = _MISSED
        except Exception:  # no connection, or another cluster, which does not know us
            missed += 1
        if missed >= _MISSED:
            os._exit(3)


def main() -> None:
    """Serve the pipe until it closes."""
    heard, told_to = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what a library prints is no message

    def say(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(told_to, data) :]

    asyncio.run(serve(heard, say, sys.argv[1], sys.argv[2]))
    os._exit(0)  # the driver's end is the end of its actors; Ray's own farewell can wait for a head that is gone


if __name__ == "__main__":
    main()
