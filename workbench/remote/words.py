"""Words: what a person sees of a job: a line for each status, and the error as if it had happened here."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from contextvars import ContextVar

import torch

from workbench import errors
from workbench.errors import RemoteError, located
from workbench.remote.config import CONFIG
from workbench.remote.protocol import Event, Failure


def _printed(job: str, event: Event) -> None:
    if CONFIG.show_status:
        print(line(job, event))


SHOW_STATUS: ContextVar[Callable[[str, Event], None]] = ContextVar("workbench.show_status", default=_printed)
"""What shows a status as it comes: a printed line, unless a panel that shows its own has taken over."""


def printed() -> bool:
    """Whether a person reads along where the job was sent: then a long result has a bar."""
    return CONFIG.show_status and SHOW_STATUS.get() is _printed


def line(job: str, event: Event) -> str:
    """`2026-11-25 07:11:21 36ff46f0 - QUEUED: 2 jobs are before yours.`"""
    text = event.text
    if event.position is not None:
        count = event.position
        text = "Yours is the next job." if not count else f"{count} job{' is' if count == 1 else 's are'} before yours."
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    return f"{when} {job[:8]} - {event.status}: {text.splitlines()[0] if text else ''}"


def error_of(failure: Failure) -> Exception:
    """The error that ended a job, of its own kind where that is one of Python's, torch's or ours."""
    if failure.kind in ("Cancelled", "LostError", "Refused"):
        return RemoteError(failure.message, failure.status)
    kind = TimeoutError if failure.kind == "Late" else _kind(failure.kind)
    if kind is None:
        return located(RuntimeError(), f"{failure.kind}: {failure.message}", failure.line)
    try:
        made = kind(failure.message)
    except Exception:  # a kind that wants other arguments
        made = kind.__new__(kind)
    return located(made, failure.message, failure.line)


def _kind(name: str) -> type[Exception] | None:
    for place in (builtins, errors, torch):
        found = getattr(place, name, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None
