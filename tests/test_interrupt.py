"""An exception raised in another thread: it arrives, wherever it lands, and what is ended by it can end in peace."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pytest

from workbench.errors import Cancelled
from workbench.interrupt import Interrupt, leaving

begun = Event()
lost: list[int] = []
"""How often what was raised came to its end in `forever`, the first time always where it is swallowed."""


@pytest.fixture(autouse=True)
def _not_begun() -> None:
    begun.clear()
    lost.clear()


def forever() -> None:
    begun.set()
    try:
        while True:
            time.sleep(0.001)
    finally:
        lost.append(1)


class Dying:
    def __del__(self) -> None:
        forever()


class Plain:
    pass


def in_a_finalizer() -> None:
    Dying()


def in_a_callback() -> None:
    thing = Plain()
    watched = weakref.ref(thing, lambda _: forever())
    del thing
    assert watched() is None


def in_the_collector() -> None:
    def callback(phase: str, info: Any) -> None:
        if phase == "start":
            gc.callbacks.remove(callback)
            forever()

    gc.callbacks.append(callback)
    gc.collect()


def in_what_swallows_all() -> None:
    with suppress(BaseException):
        forever()


@pytest.mark.parametrize("place", [in_a_finalizer, in_a_callback, in_the_collector, in_what_swallows_all])
def test_it_is_not_lost(place: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    told = sys.unraisablehook
    seen: list[str] = []

    def work() -> None:
        try:
            place()
            seen.append("swallowed")
            forever()
        except Cancelled:
            seen.append("arrived")
            interrupt.end()

    thread = Thread(target=work)
    interrupt = Interrupt(thread, Cancelled)
    thread.start()
    begun.wait()
    interrupt.begin()
    thread.join(10)
    assert seen[-1] == "arrived"
    assert lost, "it landed where Python swallows it"
    assert "Cancelled" not in capsys.readouterr().err
    for _ in range(100):
        if sys.unraisablehook is told:
            break
        time.sleep(0.01)
    assert sys.unraisablehook is told


def test_who_is_on_the_way_out_is_let_alone() -> None:
    steps: list[Any] = []

    def work() -> None:
        try:
            forever()
        finally:
            for _ in range(10):
                time.sleep(0.02)
                with suppress(ValueError):  # an error of its own, meanwhile
                    raise ValueError
            steps.append("tidied up")

    def outer() -> None:
        try:
            work()
        except Cancelled:
            interrupt.end()
            steps.append(leaving(thread, Cancelled))
        time.sleep(0.1)
        steps.append(leaving(thread, Cancelled))

    thread = Thread(target=outer)
    interrupt = Interrupt(thread, Cancelled)
    thread.start()
    begun.wait()
    interrupt.begin()
    thread.join(10)
    assert steps == ["tidied up", True, False]


def test_other_errors_that_python_swallows_are_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise ZeroDivisionError

    def work() -> None:
        try:
            Dying()
            Broken()
            forever()
        except Cancelled:
            interrupt.end()

    thread = Thread(target=work)
    interrupt = Interrupt(thread, Cancelled)
    thread.start()
    begun.wait()
    interrupt.begin()
    thread.join(10)
    assert told == [ZeroDivisionError]
