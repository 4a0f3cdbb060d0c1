"""Jobs: what a server was asked to do, to be asked about, awaited, cancelled, and found again from another process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from workbench.errors import RemoteError
from workbench.graph.package import Outcome, unpack_outcome
from workbench.graph.source import warn_unreached
from workbench.recorder import Recorder
from workbench.remote import protocol
from workbench.remote.connection import Connection, connection
from workbench.remote.protocol import Event, Stage
from workbench.remote.words import SHOW_STATUS, error_of, printed
from workbench.tracing.scope import SHOW_LOG

_BAR_FROM = 1 << 18
"""Bytes of a result from which a bar is shown."""


class Values(Mapping[str, Any]):
    """What a job kept, by the names that it had where it was written; `values[0]` is the first that was saved.

    Two of one name get a number behind it, as `hidden` and `hidden_2`.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._values: dict[str, Any] = {}
        for id in sorted(outcome.values):
            name = outcome.names.get(id) or f"value_{len(self._values)}"
            count = sum(each == name or each.startswith(f"{name}_") for each in self._values)
            self._values[f"{name}_{count + 1}" if name in self._values else name] = outcome.values[id]

    def __getitem__(self, name: str | int) -> Any:
        if isinstance(name, int):
            return list(self._values.values())[name]
        if name not in self._values:
            raise KeyError(f"the job kept nothing called {name!r}; it kept {', '.join(self._values) or 'nothing'}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<values: {', '.join(self._values) or 'none'}>"


class Job:
    """One job on a server.

    `id` is what finds it again: `workbench.remote.job(id)` in any process with the same key.
    """

    def __init__(
        self,
        at: Connection,
        id: str,
        recorder: Recorder | None = None,
        log: Callable[[str], None] | None = None,
        data: bytes | None = None,
    ) -> None:
        self.id = id
        self._at = at
        self._recorder = recorder
        self._log = log
        self._data = data
        self._after = 0
        self._outcome: Values | None = None
        self._error: Exception | None = None
        self._lock = threading.RLock()

    @property
    def status(self) -> Stage:
        """How it stands: QUEUED, RUNNING, COMPLETED or ERROR."""
        if self._outcome is not None:
            return "COMPLETED"
        return self._at.job(self.id).status

    @property
    def position(self) -> int | None:
        """How many jobs are before it; None if it is not queued."""
        return self._at.job(self.id).position

    def events(self) -> Iterator[Event]:
        """All that happened to it, and what happens, until it ends."""
        return self._at.follow(self.id)

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._error is not None or self.status in protocol.ENDED

    def cancel(self) -> None:
        """End it: at once if it waits, as soon as it can be if it runs. One that has ended stays as it is."""
        if not self.done():
            self._at.cancel(self.id)

    def delete(self) -> None:
        """Delete its result from the server."""
        self._at.cancel(self.id)

    def result(self) -> Values:
        """Wait for it; its values, which the proxies of its trace have then too.

        Raises:
            RemoteError: it was refused, lost, or cancelled.
            Exception: the error in which it ended, as if it had run here.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._outcome is None:
                try:
                    self._outcome = self._wait()
                except Exception as error:
                    if not isinstance(error, RemoteError) or error.status is not None:
                        self._error = error
                    self._end({}, f"the run ended in {type(error).__name__}: {str(error).split(chr(10))[0]}")
                    raise
                except BaseException as error:
                    self._end({}, f"the wait ended in {type(error).__name__}; job {self.id} may go on")
                    raise
            return self._outcome

    def __await__(self) -> Generator[Any, None, Values]:
        return asyncio.to_thread(self.result).__await__()

    def _wait(self) -> Values:
        data, self._data = self._data, None
        show, log = SHOW_STATUS.get(), self._log or SHOW_LOG.get()
        came: list[bytes] = []
        for event in self._at.follow(self.id, data, self._after, came.append):
            self._after = max(self._after, event.number)
            if event.status == "LOG":
                log(event.text)
                continue
            show(self.id, event)
            if event.failure is not None:
                raise error_of(event.failure)
        return self._finish(bytearray(came[0]) if came else self._download())

    def _download(self) -> bytearray:
        bar: Any = None

        def progress(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and total >= _BAR_FROM and printed():
                from tqdm.auto import tqdm

                bar = tqdm(total=total, desc="Downloading result", unit="B", unit_scale=True)
            if bar is not None:
                bar.update(done - bar.n)

        try:
            return self._at.fetch(self.id, progress)
        finally:
            if bar is not None:
                bar.close()

    def _finish(self, data: bytearray) -> Values:
        outcome = unpack_outcome(data)
        self._end(outcome.values, None, outcome.reasons)
        for site, what, why in outcome.idle:
            warn_unreached(site, what, why)
        return Values(outcome)

    def _end(self, values: dict[int, Any], why: str | None, reasons: Mapping[int, str] | None = None) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            told = dict(reasons or {})
            recorder.finish(values, lambda id: why or told.get(id, "the server gave no value for it"))

    def __repr__(self) -> str:
        return f"<job {self.id} at {self._at.host}>"


def job(id: str, host: str | None = None) -> Job:
    """A job by its id, from any process that shows the same key.

    Raises:
        RemoteError: the server knows no such job of this key.
    """
    at = connection(host)
    at.job(id)
    return Job(at, id)
