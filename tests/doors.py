"""A worker process for tests, asked as a server asks it, and traces that are packed instead of run."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.graph.package import MAGIC, Outcome, Request, pack, unpack_outcome
from workbench.server.child import Child
from workbench.server.workers import Lost, Model, Task
from workbench.tracing.elsewhere import keys_of
from workbench.tracing.session import Session
from workbench.tracing.tracer import Tracer

HOSTED = Path(__file__).with_name("hosted.py")


class Packed(Tracer):
    """A trace that becomes a request when its block ends."""

    request: Request

    def _run(self, plan: Any) -> None:
        assert self.graph is not None
        inputs = [each.inputs for each in self.invokers if each.inputs is not None]
        self.request = Request(
            self.graph, dict(self._recorder.bindings), keys_of([self.model]), inputs, dict(self._kwargs)
        )
        self._recorder.finish({}, lambda id: "it was sent")


class PackedSession(Session):
    """A session that becomes a request when its block ends."""

    request: Request

    def _run(self, names: dict[int, str]) -> None:
        self._recorder.check = None
        self.graph = self._recorder.freeze()
        bindings = dict(self._recorder.bindings)
        used = [each for each in bindings.values() if hasattr(type(each), "_passing")]
        self.request = Request(self.graph, bindings, keys_of([self.model, *used]))
        self._recorder.finish({}, lambda id: "it was sent")


def named(model: Any, key: str) -> Any:
    """The model, as a server knows it."""
    model.__dict__["_opened_as"] = key
    return model


def packed(model: Any, *inputs: Any, kind: Any = "trace", **kwargs: Any) -> Packed:
    """`model.trace(...)`, or `model.generate(...)`, whose `request` is there after the block."""
    return Packed(model, inputs, kwargs, {}, scan=False, validate=False, kind=kind)


def id_of(value: Any) -> int:
    """The node of a traced value."""
    return value._node_id()


def forged(request: Request, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A request whose head was changed by hand."""
    data = pack(request)
    length = int.from_bytes(data[8:16], "little")
    head = json.loads(data[16 : 16 + length])
    change(head)
    return with_head(data, json.dumps(head).encode())


def with_head(data: bytes, head: bytes) -> bytes:
    """The same bytes with another head."""
    length = int.from_bytes(data[8:16], "little")
    return MAGIC + len(head).to_bytes(8, "little") + head + data[16 + length :]


@dataclass
class Answer:
    """What came of a job: its outcome or its error, its log, and whether the worker was as before."""

    outcome: Outcome | None = None
    error: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    clean: bool = True
    lost: str = ""
    events: list[str] = field(default_factory=list)

    def value(self, traced: Any) -> Any:
        """A saved value."""
        assert self.outcome is not None, self.error or self.lost
        return self.outcome.values[id_of(traced)]


class Door:
    """A worker, replaced when it is no longer as it was, as a server does.

    Args:
        folder: for requests and results.
        models: by key, the name of a function of `tests/hosted.py`.
        limits: what jobs may use.
        functions: a file with functions that traces may name.
    """

    def __init__(
        self, folder: Path, models: Mapping[str, str], limits: Mapping[str, Any], functions: str | None = None
    ) -> None:
        self._folder = folder
        self._models = [Model(key, {"open": f"{HOSTED}:{name}"}) for key, name in models.items()]
        self._limits = limits
        self._functions = functions
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._count = 0
        self.child = self._await(self._opened())

    async def _opened(self) -> Child:
        child = Child(self._limits, self._functions)
        await child.start()
        await child.load(self._models, 120)
        return child

    def _await(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(150)

    def ask(self, request: Request | bytes, deadline: float = 30.0) -> Answer:
        """Run one job."""
        return self.ask_together([request], deadline)[0]

    def ask_together(self, requests: Sequence[Request | bytes], deadline: float = 30.0) -> list[Answer]:
        """Run several jobs that are handed over at once."""
        tasks: list[Task] = []
        answers: dict[str, Answer] = {}
        for request in requests:
            self._count += 1
            name = f"job{self._count}"
            tasks.append(Task(name, self._folder / f"{name}.request", self._folder / f"{name}.result"))
            tasks[-1].request.write_bytes(request if isinstance(request, bytes) else pack(request))
            answers[name] = Answer()

        def heard(job: str, message: dict[str, Any]) -> None:
            answer = answers[job]
            answer.events.append(message["event"])
            if message["event"] == "log":
                answer.log.append(message["line"])
            elif message["event"] == "error":
                answer.error = message

        clean, lost = True, ""
        try:
            clean = self._await(self.child.run(tasks, deadline, heard))
        except Lost as error:
            lost = str(error)
        if lost or not clean:
            self._await(self.child.kill())
            self.child = self._await(self._opened())
        for task, answer in zip(tasks, answers.values(), strict=True):
            answer.clean, answer.lost = clean, lost
            if task.result.exists() and "done" in answer.events:
                answer.outcome = unpack_outcome(task.result.read_bytes())
        return list(answers.values())

    def close(self) -> None:
        """End the worker."""
        self._await(self.child.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
