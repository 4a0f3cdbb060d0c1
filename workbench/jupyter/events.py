"""Pusher: events on their way to one page, gathered so that it gets at most twenty messages a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from threading import Event as Signal
from threading import Thread
from typing import Any

INTERVAL = 0.05
"""Seconds from one message to the next."""


class Pusher:
    """Sends from a thread of its own, so that a run never waits for a page.

    Args:
        send: given each message, `{"events": [...]}`.
        context: what the thread runs in; the kernel finds there which page, by which of its shells, is spoken to.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], context: Context) -> None:
        self._send = send
        self._waiting: deque[dict[str, Any]] = deque()
        self._wake = Signal()
        self._closed = False
        Thread(target=context.run, args=(self._loop,), name="workbench events", daemon=True).start()

    def push(self, event: dict[str, Any]) -> None:
        """Send an event with the next message."""
        self._waiting.append(event)
        self._wake.set()

    def close(self) -> None:
        """Send no more."""
        self._closed = True
        self._wake.set()

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closed:
                return
            events = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if events:
                self._send({"events": events})
            time.sleep(INTERVAL)
