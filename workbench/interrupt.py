"""Interrupt: an exception raised in a running thread from another one, until the thread says that it is over.

Python swallows what is raised in a `__del__`, in a weak reference's callback or in one of the garbage collector's, and
so may a library's `except BaseException`. So it is looked whether the thread is on its way out, and if not, the
exception is raised again.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Any

PATIENCE = 0.02
"""Seconds between two looks. On its way out a thread is let alone, however long what it still has to do takes."""


class Interrupt:
    """`kind` is raised in `thread` until `end` is called, which the thread itself does when it has ended its work.

    Within `kind`, whatever is being computed ends between two of Python's instructions, so within one module's call.
    """

    def __init__(self, thread: Thread, kind: type[BaseException]) -> None:
        self._thread = thread
        self._kind = kind
        self._lock = Lock()
        self._over = Event()

    def begin(self) -> None:
        """Raise it, and see to it that it is not lost."""
        Thread(target=self._insist, name=f"{self._kind.__name__} of {self._thread.name}", daemon=True).start()

    def end(self) -> None:
        """From here on nothing is raised any more; what is on its way is taken back."""
        with self._lock:
            self._over.set()
            _raise_in(self._thread, None)

    def _insist(self) -> None:
        with _unsaid(self._kind):
            while self._thread.is_alive():
                with self._lock:
                    if self._over.is_set():
                        return
                    if not leaving(self._thread, self._kind):
                        _raise_in(self._thread, self._kind)
                if self._over.wait(PATIENCE):
                    return


def leaving(thread: Thread, kind: type[BaseException]) -> bool:
    """Whether a thread is handling such an exception, in an `except`, a `finally` or at the end of a `with`."""
    error: Any = sys._current_exceptions().get(thread.ident or 0)
    if isinstance(error, tuple):  # Python 3.11 gives its kind and traceback too
        error = error[1]
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


def _raise_in(thread: Thread, error: type[BaseException] | None) -> None:
    """Raise an exception in another thread at its next bytecode; None takes back one that has not arrived yet."""
    kind: Any = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), kind)


_silent: list[type[BaseException]] = []
_silent_lock = Lock()
_tell: Callable[[Any], Any] | None = None


@contextmanager
def _unsaid(kind: type[BaseException]) -> Iterator[None]:
    """Meanwhile Python does not print that it swallowed such an exception: it is raised again."""
    global _tell
    with _silent_lock:
        if not _silent:
            _tell, sys.unraisablehook = sys.unraisablehook, _hear
        _silent.append(kind)
    try:
        yield
    finally:
        with _silent_lock:
            _silent.remove(kind)
            if not _silent and sys.unraisablehook is _hear:
                sys.unraisablehook = _tell


def _hear(unraisable: Any) -> None:
    if not issubclass(unraisable.exc_type, tuple(_silent)) and _tell is not None:
        _tell(unraisable)
