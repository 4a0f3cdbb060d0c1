"""Away: the server that a panel's remote runs go to: what it hosts, how a run stands there, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.jupyter.messages import Served, ServerReply
from workbench.models.base import NNsight

if TYPE_CHECKING:
    from workbench.jupyter.record import Record
    from workbench.remote.protocol import Event

WORDS = {"QUEUED": "queued", "RUNNING": "running there", "COMPLETED": "fetching the result"}


def server(model: NNsight) -> ServerReply:
    """What the server that CONFIG names hosts, and whether this model is among it."""
    from workbench.remote.config import CONFIG
    from workbench.remote.connection import Connection

    host = CONFIG.API.HOST
    at = Connection(host, CONFIG.API.APIKEY, patience=0.5)  # a page waits for the answer
    try:
        found = at.hosted().models
    except WorkbenchError as error:
        return ServerReply(host=host, models=(), hosts=None, fault=str(error))
    finally:
        at.close()
    models = tuple(Served(key=each.key, loaded=each.loaded, queued=each.queued) for each in found)
    key = model._key
    if key is None:
        fault = "a server finds its models by name, and this one was made here"
    elif key not in [each.key for each in models]:
        fault = f"{key} is not hosted there"
    else:
        return ServerReply(host=host, models=models, hosts=key)
    return ServerReply(host=host, models=models, hosts=None, fault=fault)


@contextmanager
def told(record: Record, progress: Callable[[int, int, str], None]) -> Iterator[None]:
    """Inside, each status of a job of this run is told as its progress."""
    from workbench.remote.words import SHOW_STATUS

    def show(job: str, event: Event) -> None:
        record.job = job
        words = WORDS.get(event.status)
        if words is not None:
            before = "" if not event.position else f", {event.position} before it"
            progress(0, 0, words + before)

    token = SHOW_STATUS.set(show)
    try:
        yield
    finally:
        SHOW_STATUS.reset(token)
        record.job = None


def cancel(job: str) -> None:
    """End a job on the server that CONFIG names."""
    from workbench.remote.connection import connection

    with suppress(WorkbenchError):  # it has ended, or the server is gone
        connection().cancel(job)
