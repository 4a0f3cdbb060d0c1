"""Client: a recorded run is packed, sent, followed, and its values handed to the proxies that wait for them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from workbench.envoy import Envoy
from workbench.graph import allowed
from workbench.graph import operations as ops
from workbench.graph.node import Node
from workbench.graph.package import Request, pack
from workbench.graph.wire import travels
from workbench.recorder import require
from workbench.remote.config import CONFIG
from workbench.remote.connection import connection
from workbench.remote.jobs import Job
from workbench.remote.protocol import ModelView
from workbench.tracing.elsewhere import Call, Where


class Client:
    """Runs calls on a server."""

    def run(self, call: Call, where: Where, blocking: bool) -> Job:
        """Send a call. With `blocking`, its values are there when this returns."""
        request = Request(call.graph, call.bindings, call.models, call.inputs, call.options, call.names)
        data = pack(replace(request, compressed=CONFIG.API.COMPRESS))
        at = connection(where)
        id = uuid.uuid4().hex
        if not blocking:
            job = Job(at, at.send(data, id).id, call.recorder, call.log)
            call.recorder.pend(lambda node: f"job {id} has not been waited for: tracer.job.result() does")
            return job
        job = Job(at, id, call.recorder, call.log, data)
        try:
            job.result()
        except KeyboardInterrupt:
            job.cancel()
            raise
        return job

    def refuse(self, node: Node, bindings: Mapping[str, Any]) -> None:
        """Raise `WireError` for a node that cannot travel, naming its line and the cure."""
        loop = node.op is ops.LOOP  # what it goes over is read out, whatever it is
        travels(node, bindings, lambda value: loop or isinstance(value, Envoy))


def function(name: str) -> Callable[..., Any]:
    """A function that the operator of a server offers, to be called in a trace.

    Args:
        name: as the server names it.

    Example:
        >>> from workbench import remote
        >>> remote.function("halved").__name__
        'halved'
    """
    op = allowed.function(name)

    def call(*args: Any, **kwargs: Any) -> Any:
        return require(f"the server's function {name!r}").add(op, args, kwargs)

    call.__name__ = call.__qualname__ = name
    return call


def models(host: str | None = None) -> list[ModelView]:
    """The models that a server hosts.

    Args:
        host: its address; the one that CONFIG names unless given.
    """
    return connection(host).hosted().models


def list_jobs(host: str | None = None) -> list[Job]:
    """This key's jobs on a server, newest first."""
    at = connection(host)
    return [Job(at, each.id) for each in at.jobs()]
