"""The panel's runs: one at a time on a thread of its own, the others waiting, the last ones remembered.

State lives here and is touched only under the lock. A run is ended early by raising `Cancelled` in its thread: Python
does so between two bytecodes, so within the module call that is being computed.
"""

from __future__ import annotations

import ctypes
import linecache
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Literal

from workbench.errors import Cancelled, InputError
from workbench.experiment.fault import Fault, explain
from workbench.experiment.kinds import Experiment
from workbench.experiment.run import Outcome
from workbench.experiment.to_python import Code
from workbench.models.base import NNsight
from workbench.views.tokens import TopToken

REMEMBERED = 20
"""Runs in the history."""
KEPT = 3
"""Of these, how many keep their tensors."""

State = Literal["running", "done", "failed", "cancelled"]


@dataclass
class Record:
    """One run, from the moment it is asked for."""

    run: int
    experiment: Experiment
    code: Code
    state: State = "running"
    behind: int | None = None
    """The run that this one waits for, before it has begun."""
    seconds: float = 0.0
    tokens: tuple[str, ...] = ()
    before: tuple[TopToken, ...] = ()
    after: tuple[TopToken, ...] = ()
    outcome: Outcome | None = None
    """What was saved; None again when the run is no longer among the last few."""
    saved: list[tuple[str, str]] = field(default_factory=list)
    """Name and summary of each saved value, which stay."""
    unset: dict[str, str] = field(default_factory=dict)
    """Why other names have no value."""
    logs: list[str] = field(default_factory=list)
    fault: Fault | None = None

    @property
    def name(self) -> str:
        return f"run {self.run}"


@dataclass
class _Job:
    record: Record
    model: NNsight
    thread: Thread | None = None
    open: bool = False
    """It is computing, so it can be interrupted."""
    cancelled: bool = False
    asked: float = 0.0


class Runs:
    """`work(record, model)` computes a run; `changed(record)` is told when it begins and when it ends."""

    def __init__(self, work: Callable[[Record, NNsight], None], changed: Callable[[Record], None]) -> None:
        self._work = work
        self._changed = changed
        self._lock = Lock()
        self._records: dict[int, Record] = {}
        self._jobs: list[_Job] = []  # the first is running
        self._last = 0

    def start(self, experiment: Experiment, code: Code, model: NNsight) -> Record:
        """Begin a run, or let it wait for those before it."""
        with self._lock:
            self._last += 1
            record = Record(self._last, experiment, code)
            if self._jobs:
                record.behind = self._jobs[-1].record.run
            self._records[record.run] = record
            self._jobs.append(_Job(record, model))
            self._forget()
            first = len(self._jobs) == 1
        self._changed(record)
        if first:
            self._next()
        return record

    def cancel(self, run: int) -> None:
        """End a run. Asking again asks again, should something have swallowed the first time.

        Raises `InputError` when it has ended already.
        """
        with self._lock:
            job = next((job for job in self._jobs if job.record.run == run), None)
            if job is None:
                state = self._records[run].state if run in self._records else "not known"
                raise InputError(f"run {run} cannot be cancelled: it is {state}")
            job.cancelled = True
            now = time.monotonic()
            if job.open and job.thread is not None and now - job.asked > 1.0:
                job.asked = now
                _raise_in(job.thread, Cancelled)
            waiting = job.thread is None
            if waiting:
                self._jobs.remove(job)
                job.record.state = "cancelled"
        if waiting:
            self._changed(job.record)

    def get(self, run: int) -> Record:
        """A run that is still remembered."""
        with self._lock:
            if run not in self._records:
                raise InputError(f"run {run} is not remembered; the last {REMEMBERED} are")
            return self._records[run]

    def all(self) -> list[Record]:
        """The runs that are remembered, the newest first."""
        with self._lock:
            return list(reversed(self._records.values()))

    # ---- the thread

    def _next(self) -> None:
        with self._lock:
            if not self._jobs or self._jobs[0].thread is not None:
                return
            job = self._jobs[0]
            waited, job.record.behind = job.record.behind is not None, None
            job.thread = Thread(target=self._thread, args=(job,), name=f"workbench {job.record.name}", daemon=True)
        if waited:
            self._changed(job.record)
        job.thread.start()

    def _thread(self, job: _Job) -> None:
        began = time.monotonic()
        ended = False
        while not ended:  # a cancel that arrives between two lines below leads back here, and finds its flag set
            try:
                if not job.open and not job.cancelled and job.record.outcome is None and job.record.fault is None:
                    self._compute(job)
                self._close(job)
                ended = True
            except Cancelled:
                job.cancelled = True
        record = job.record
        with self._lock:
            record.seconds = time.monotonic() - began
            if record.fault is not None and not job.cancelled:
                record.state = "failed"
            elif record.outcome is None:
                record.state, record.fault = "cancelled", None
                record.before = record.after = ()
                record.saved, record.unset = [], {}
            else:
                record.state = "done"
            self._jobs.remove(job)
            self._forget()
        try:
            self._changed(record)
        finally:
            self._next()

    def _compute(self, job: _Job) -> None:
        with self._lock:
            job.open = not job.cancelled
        try:
            if job.open:
                self._work(job.record, job.model)
        except Cancelled:
            raise
        except BaseException as error:  # a forward pass may even exit(); the next run is to come all the same
            job.record.fault = explain(error, job.record.code.cards)

    def _close(self, job: _Job) -> None:
        """From here on the thread is not interrupted any more."""
        with self._lock:
            job.open = False
            assert job.thread is not None
            _raise_in(job.thread, None)

    def _forget(self) -> None:
        ended = [record for record in self._records.values() if record.state != "running"]
        for record in ended[:-KEPT]:
            record.outcome = None
        for record in ended[: max(0, len(self._records) - REMEMBERED)]:
            del self._records[record.run]
            linecache.cache.pop(record.name, None)


def _raise_in(thread: Thread, error: type[BaseException] | None) -> None:
    """Raise an exception in another thread at its next bytecode; None takes back one that has not arrived yet."""
    kind: Any = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), kind)
