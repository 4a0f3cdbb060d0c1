"""Store: jobs and what happened to them, in one SQLite file that outlives the process."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.remote.protocol import ENDED, Event, Failure, Stage, Status

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, models TEXT NOT NULL, status TEXT NOT NULL, created REAL NOT NULL,
    started REAL, ended REAL, attempts INTEGER NOT NULL DEFAULT 0, failure TEXT, bytes INTEGER, sha256 TEXT,
    expires REAL, number INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, number);
CREATE INDEX IF NOT EXISTS jobs_by_expiry ON jobs (expires);
CREATE TABLE IF NOT EXISTS events (
    job TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, status TEXT NOT NULL, text TEXT NOT NULL,
    failure TEXT, PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""
VERSION = 1


@dataclass
class Row:
    """A job as it is kept."""

    id: str
    owner: str
    models: list[str]
    status: Stage
    created: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    failure: Failure | None = None
    bytes: int | None = None
    sha256: str | None = None
    expires: float | None = None
    number: int = 0
    kin: Any = None  # not kept: jobs of the same may share a forward pass; None for one that is run alone


class Store:
    """One process writes it; a transaction is on disk's journal before anyone is told of it."""

    def __init__(self, path: Path) -> None:
        self._db = db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing; a power cut, the last moment
        db.execute("PRAGMA busy_timeout=5000")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise ValueError(
                f"{path} is of version {version}, and this workbench reads version {VERSION}; move it away"
            )
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version={VERSION}")
        self._next = (db.execute("SELECT max(number) FROM jobs").fetchone()[0] or 0) + 1

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written inside is written as a whole, or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # ---- jobs

    def add(self, id: str, owner: str, models: Iterable[str]) -> Row:
        """A new job, queued."""
        row = Row(id, owner, list(models), "QUEUED", time.time(), number=self._next)
        with self.together():
            self._db.execute(
                "INSERT INTO jobs (id, owner, models, status, created, number) VALUES (?, ?, ?, ?, ?, ?)",
                (id, owner, json.dumps(row.models), row.status, row.created, row.number),
            )
            for number, (status, text) in enumerate(_ACCEPTED, 1):
                self._insert(id, Event(number=number, at=row.created, status=status, text=text))
        self._next += 1
        return row

    def get(self, id: str) -> Row | None:
        """A job."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id,)).fetchone()
        return None if found is None else _row(found)

    def unfinished(self) -> list[Row]:
        """Jobs that were accepted and have not ended, oldest first: what a server that starts has to go on with."""
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE status IN ('QUEUED', 'RUNNING') ORDER BY number"
        ).fetchall()
        return [_row(each) for each in found]

    def of(self, owner: str, limit: int = 100) -> list[Row]:
        """A key's jobs, newest first."""
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? ORDER BY number DESC LIMIT ?", (owner, limit)
        ).fetchall()
        return [_row(each) for each in found]

    def begin(self, id: str) -> Event:
        """A job runs."""
        with self.together():
            self._db.execute(
                "UPDATE jobs SET status = 'RUNNING', started = ?, attempts = attempts + 1 WHERE id = ?",
                (time.time(), id),
            )
            return self._event(id, "RUNNING", "Your job has started running.")

    def again(self, id: str, why: str) -> Event:
        """A job is queued once more, since what ran it is gone."""
        with self.together():
            self._db.execute("UPDATE jobs SET status = 'QUEUED' WHERE id = ?", (id,))
            return self._event(id, "QUEUED", why)

    def complete(self, id: str, bytes: int, sha256: str, expires: float) -> bool:
        """A job's result is there. False if the job had ended already, so that no result is given twice."""
        with self.together():
            changed = self._db.execute(
                "UPDATE jobs SET status = 'COMPLETED', ended = ?, bytes = ?, sha256 = ?, expires = ? "
                "WHERE id = ? AND status NOT IN ('COMPLETED', 'ERROR')",
                (time.time(), bytes, sha256, expires, id),
            ).rowcount
            if changed:
                self._event(id, "COMPLETED", "Your job has been completed.")
        return bool(changed)

    def fail(self, id: str, failure: Failure, expires: float) -> bool:
        """A job ended in an error. False if it had ended already."""
        with self.together():
            changed = self._db.execute(
                "UPDATE jobs SET status = 'ERROR', ended = ?, failure = ?, expires = ? "
                "WHERE id = ? AND status NOT IN ('COMPLETED', 'ERROR')",
                (time.time(), failure.model_dump_json(), expires, id),
            ).rowcount
            if changed:
                self._event(id, "ERROR", f"{failure.kind}: {failure.message}", failure)
        return bool(changed)

    def expired(self, now: float) -> list[str]:
        """Jobs whose time is over."""
        found = self._db.execute("SELECT id FROM jobs WHERE expires < ?", (now,)).fetchall()
        return [id for (id,) in found]

    def forget(self, ids: Iterable[str]) -> None:
        """Delete jobs and their events."""
        with self.together():
            for id in ids:
                self._db.execute("DELETE FROM events WHERE job = ?", (id,))
                self._db.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return dict(self._db.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall())

    # ---- events

    def log(self, id: str, lines: Iterable[str]) -> None:
        """Lines that a job wrote."""
        with self.together():
            for line in lines:
                self._event(id, "LOG", line)

    def events(self, id: str, after: int = 0, limit: int = 500) -> list[Event]:
        """A job's events behind a number."""
        found = self._db.execute(
            "SELECT number, at, status, text, failure FROM events WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
            (id, after, limit),
        ).fetchall()
        return [
            Event(number=number, at=at, status=status, text=text, failure=_failure(failure))
            for number, at, status, text, failure in found
        ]

    def _event(self, id: str, status: Status, text: str, failure: Failure | None = None) -> Event:
        last = self._db.execute("SELECT max(number) FROM events WHERE job = ?", (id,)).fetchone()[0] or 0
        event = Event(number=last + 1, at=time.time(), status=status, text=text, failure=failure)
        self._insert(id, event)
        return event

    def _insert(self, id: str, event: Event) -> None:
        self._db.execute(
            "INSERT INTO events (job, number, at, status, text, failure) VALUES (?, ?, ?, ?, ?, ?)",
            (
                id,
                event.number,
                event.at,
                event.status,
                event.text,
                None if event.failure is None else event.failure.model_dump_json(),
            ),
        )


_COLUMNS = "id, owner, models, status, created, started, ended, attempts, failure, bytes, sha256, expires, number"

_ACCEPTED: tuple[tuple[Status, str], ...] = (
    ("RECEIVED", "Your job has been received."),
    ("APPROVED", "Your job was approved and is waiting to be run."),
    ("QUEUED", "Your job is queued."),
)


def _failure(text: str | None) -> Failure | None:
    return None if text is None else Failure.model_validate_json(text)


def _row(values: Any) -> Row:
    row = Row(*values)
    row.models = json.loads(values[2])
    row.failure = _failure(values[8])
    return row


__all__ = ["ENDED", "Row", "Store"]
