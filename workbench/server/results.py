"""Results: requests and results as files, each with a checksum and a day on which it is deleted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import InputError


class Files:
    """The server's folder. A result appears under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._requests = folder / "requests"
        self._results = folder / "results"
        for each in (folder, self._requests, self._results):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)

    def request(self, job: str) -> Path:
        """Where a job's request lies."""
        return self._requests / job

    def result(self, job: str) -> Path:
        """Where a job's result lies, once it is whole."""
        return self._results / job

    def draft(self, job: str, attempt: int) -> Path:
        """Where a worker writes a result: a place of its own for each attempt, so that a worker that was given up
        cannot write into what another one made."""
        return self._results / f"{job}.{attempt}.part"

    def keep(self, job: str, data: bytes) -> None:
        """Write a request."""
        new = self._requests / f"{job}.part"
        new.write_bytes(data)
        os.replace(new, self.request(job))

    def publish(self, job: str, draft: Path) -> tuple[int, str]:
        """Make a draft the result; its size and checksum."""
        with draft.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        os.replace(draft, self.result(job))
        return size, checksum

    def drop_request(self, job: str, attempts: int) -> None:
        """A job has ended: its request, and what its attempts left half-written, are of no more use."""
        self.request(job).unlink(missing_ok=True)
        for attempt in range(1, attempts + 1):
            self.draft(job, attempt).unlink(missing_ok=True)

    def drop(self, job: str) -> None:
        """Delete the result of a job that has ended."""
        self.result(job).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> None:
        """Delete what belongs to no job that goes on: left by a process that was killed."""
        for each in self._requests.iterdir():
            if each.name not in known:
                each.unlink(missing_ok=True)
        for each in self._results.glob("*.part"):
            each.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder is this process's for the time of a block; one that is killed leaves it free.

    Raises:
        InputError: another server has it, whose jobs a second one would take for left behind.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        import fcntl
    except ImportError:  # a system that has other locks
        yield
        return
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{folder} is in use by another server; end that one, or name another folder with --data"
            ) from error
        yield
