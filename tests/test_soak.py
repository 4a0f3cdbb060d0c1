"""The soak's short form: a server that is killed, workers that are killed, requests that no client sends."""

from __future__ import annotations

from scripts import soak


def test_a_server_that_is_killed_loses_nothing_and_does_nothing_twice() -> None:
    assert soak.kills(120, 2)


def test_workers_that_are_killed_lose_nothing() -> None:
    assert soak.workers(3, 150)


def test_changed_requests_are_answered_with_a_sentence() -> None:
    assert soak.fuzz(300, seed=7)


def test_the_api_as_it_describes_itself() -> None:
    assert soak.schema(3)
