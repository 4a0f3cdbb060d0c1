"""The panel's runs: one at a time on a thread of its own, the others waiting, the last ones remembered.

State lives here and is touched only under the lock. A run is ended early by raising `Cancelled` in its thread, so
within the module call that is being computed.
"""

from __future__ import annotations

import linecache
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import RLock, Thread, current_thread

from workbench.errors import Cancelled, InputError
from workbench.experiment.fault import explain
from workbench.experiment.kinds import Experiment
from workbench.experiment.to_python import Written
from workbench.interrupt import Interrupt
from workbench.jupyter.archive import Archive
from workbench.jupyter.messages import LogLine, Purpose
from workbench.jupyter.record import Record
from workbench.models.base import NNsight

REMEMBERED = 200
"""Runs in the history."""
KEPT = 3
"""Of these, how many keep their tensors in memory; those of others are on disk, as far as the budget goes."""

Work = Callable[[Record, NNsight], None]


@dataclass(eq=False)
class _Job:
    record: Record
    model: NNsight
    work: Work
    thread: Thread | None = None
    open: bool = False
    """It is computing, so it can be interrupted."""
    cancelled: bool = False
    interrupt: Interrupt | None = None
    error: BaseException | None = None


class Runs:
    """The runs of one kernel, and those before it that `archive` finds.

    Args:
        changed: told of each run when it begins and when it ends.
        archive: where the history lies on disk, asked for when it is first needed.
        keep: writes a run to it, when it begins, and when it has ended, on its thread, before `changed`.
    """

    def __init__(
        self,
        changed: Callable[[Record], None],
        archive: Callable[[], Archive],
        keep: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self._changed = changed
        self._keep = keep
        self._find_archive = archive
        self._archive: Archive | None = None
        self._lock = RLock()
        self._records: dict[int, Record] = {}
        self._jobs: list[_Job] = []  # the first is running
        self._cells: list[_Job] = []  # on their cells' threads
        self._last = 0

    @property
    def archive(self) -> Archive:
        """The history on disk."""
        with self._lock:
            if self._archive is None:
                self._archive = self._find_archive()
                self._records = {record.run: record for record in self._archive.read(REMEMBERED)} | self._records
                self._last = max([self._last, *self._records])
            return self._archive

    def start(self, experiment: Experiment, code: Written, model: NNsight, work: Work, purpose: Purpose) -> Record:
        """Begin a run, or let it wait for those before it. `work(record, model)` computes it."""
        with self._lock:
            record = self._new(experiment, code, purpose)
            if self._jobs:
                record.behind = self._jobs[-1].record.run
            self._jobs.append(_Job(record, model, work))
            self._forget()
            first = len(self._jobs) == 1
        self._write(record)
        self._changed(record)
        if first:
            self._next()
        return record

    def here(self, experiment: Experiment, code: Written, model: NNsight, work: Work, title: str | None) -> Record:
        """A run that a cell makes on its own thread, at once; what goes wrong in it is raised, and kept as well."""
        with self._lock:
            record = self._new(experiment, code, "trace")
            record.title = title
            job = _Job(record, model, work, current_thread())
            self._cells.append(job)
            self._forget()
        __tracebackhide__ = True
        self._write(record)
        self._changed(record)
        self._through(job)
        error, job.error = job.error, None
        if error is None and record.state == "cancelled":
            error = KeyboardInterrupt(f"{record.name} was cancelled in the panel")
        if error is not None:
            raise error
        return record

    def _new(self, experiment: Experiment, code: Written, purpose: Purpose) -> Record:
        archive = self.archive
        self._last = max(self._last, archive.last()) + 1
        at = datetime.now().astimezone().isoformat(timespec="seconds")
        record = Record(self._last, experiment, code, purpose=purpose, at=at, store=archive.store)
        self._records[record.run] = record
        return record

    def rename(self, run: int, title: str | None) -> Record:
        """Give a run a name of a person's own, or take it back."""
        record = self.get(run)
        record.title = (title or "").strip() or None
        self._changed(record)
        return record

    def delete(self, run: int) -> None:
        """Let a run that has ended go, with its tensors."""
        record = self.get(run)
        with self._lock:
            if record.state == "running":
                raise InputError(f"run {run} is still running; cancel it first")
            del self._records[run]
        self.archive.delete(run)

    def cancel(self, run: int) -> None:
        """End a run. Raises `InputError` when it has ended already."""
        with self._lock:
            job = next((job for job in (*self._jobs, *self._cells) if job.record.run == run), None)
            if job is None:
                state = self._records[run].state if run in self._records else "not known"
                raise InputError(f"run {run} cannot be cancelled: it is {state}")
            job.cancelled = True
            if job.open and job.thread is not None and job.interrupt is None:
                job.interrupt = Interrupt(job.thread, Cancelled)
                job.interrupt.begin()
            waiting = job.thread is None
            if waiting:
                self._jobs.remove(job)
                job.record.state = "cancelled"
        if waiting:
            self._finish(job.record)

    def get(self, run: int) -> Record:
        """A run that is still remembered."""
        with self._lock:
            _ = self.archive
            if run not in self._records:
                raise InputError(f"run {run} is not remembered; the last {REMEMBERED} are")
            return self._records[run]

    def all(self) -> list[Record]:
        """The runs that are remembered, the newest first."""
        with self._lock:
            _ = self.archive
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
        try:
            self._through(job)
        finally:
            job.error = None  # it holds the frames of its run, and these their tensors
            self._next()

    def _through(self, job: _Job) -> None:
        """Compute a run, to its end or until it is cancelled."""
        __tracebackhide__ = True
        began = time.monotonic()
        try:
            self._until_closed(job)
        except Cancelled:  # on the way from one round to the next
            job.cancelled = True
            self._close(job)
        record = job.record
        with self._lock:
            record.seconds = time.monotonic() - began
            if job.error is not None and not job.cancelled:
                record.state = "failed"
            elif record.outcome is None:
                record.state, record.fault = "cancelled", None
                record.prompts, record.receipts, record.saved = (), (), []
            else:
                record.state = "done"
            (self._jobs if job in self._jobs else self._cells).remove(job)
        self._finish(record)

    def _until_closed(self, job: _Job) -> None:
        """Compute. A cancel that arrives between two lines below leads back to the first, and finds its flag set."""
        __tracebackhide__ = True
        ended = False
        while not ended:
            try:
                if not job.open and not job.cancelled and job.record.outcome is None and job.error is None:
                    self._compute(job)
                self._close(job)
                ended = True
            except Cancelled:
                job.cancelled = True

    def _finish(self, record: Record) -> None:
        for each in record.tidy:
            each()
        record.tidy.clear()
        with self._lock:
            self._forget()
        self._write(record)
        if record.run not in self._records:  # it was deleted meanwhile
            self.archive.delete(record.run)
            return
        self._changed(record)

    def _write(self, record: Record) -> None:
        try:
            self._keep(record)
        except Exception as error:  # a full disk, say: the run is there all the same
            record.logs.append(LogLine(run=record.run, text=f"this run was not written to the history: {error}"))

    def _compute(self, job: _Job) -> None:
        __tracebackhide__ = True
        with self._lock:
            job.open = not job.cancelled
        try:
            if job.open:
                job.record.model = job.model
                job.work(job.record, job.model)
        except Cancelled:
            raise
        except BaseException as error:  # a forward pass may even exit(); the next run is to come all the same
            job.error = error
            job.cancelled = isinstance(error, KeyboardInterrupt)
            job.record.fault = explain(error, job.record.code.cards)

    def _close(self, job: _Job) -> None:
        """From here on the thread is not interrupted any more."""
        with self._lock:
            job.open = False
            if job.interrupt is not None:
                job.interrupt.end()

    def _forget(self) -> None:
        ended = [record for record in self._records.values() if record.state != "running"]
        for record in ended[:-KEPT]:
            record.outcome = record.model = None
        for record in ended[: max(0, len(self._records) - REMEMBERED)]:
            del self._records[record.run]
            linecache.cache.pop(record.name, None)
