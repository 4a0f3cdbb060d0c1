"""What a server keeps: jobs and their events in one file, requests and results as files, keys as hashes."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.remote.protocol import Failure
from workbench.server.auth import Keys, hashed, new_key
from workbench.server.results import Files
from workbench.server.settings import Settings, size
from workbench.server.store import Store
from workbench.server.workers import Model

A, B = "a" * 32, "b" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs.sqlite")


def test_a_job_from_its_first_event_to_its_last(store: Store) -> None:
    store.add(A, "ann", ["m"])
    assert [event.status for event in store.events(A)] == ["RECEIVED", "APPROVED", "QUEUED"]
    store.begin(A)
    store.log(A, ["one", "two"])
    assert store.complete(A, 7, "f" * 64, time.time() + 60)
    events = store.events(A)
    assert [event.number for event in events] == list(range(1, 8))
    assert [event.status for event in events[3:]] == ["RUNNING", "LOG", "LOG", "COMPLETED"]
    assert [event.text for event in store.events(A, after=4)][:2] == ["one", "two"]
    row = store.get(A)
    assert row is not None
    assert (row.status, row.bytes, row.sha256, row.attempts) == ("COMPLETED", 7, "f" * 64, 1)


def test_a_job_ends_once(store: Store) -> None:
    store.add(A, "ann", ["m"])
    assert store.complete(A, 7, "f" * 64, 1.0)
    assert not store.complete(A, 8, "e" * 64, 1.0)
    assert not store.fail(A, Failure(kind="ValueError", message="late"), 1.0)
    row = store.get(A)
    assert row is not None
    assert (row.status, row.bytes, row.failure) == ("COMPLETED", 7, None)
    assert [event.status for event in store.events(A)].count("COMPLETED") == 1


def test_another_process_goes_on_with_what_had_not_ended(tmp_path: Path) -> None:
    first = Store(tmp_path / "jobs.sqlite")
    for id in (A, B, "c" * 32):
        first.add(id, "ann", ["m", "n"])
    first.begin(A)
    first.fail(B, Failure(kind="ValueError", message="no", line="cell line 1"), 5.0)
    second = Store(tmp_path / "jobs.sqlite")  # the first was never closed, as when it was killed
    assert [(row.id, row.status, row.models) for row in second.unfinished()] == [
        (A, "RUNNING", ["m", "n"]),
        ("c" * 32, "QUEUED", ["m", "n"]),
    ]
    failed = second.get(B)
    assert failed is not None
    assert failed.failure == Failure(kind="ValueError", message="no", line="cell line 1")
    assert second.add("d" * 32, "ann", ["m"]).number == 4
    assert second.expired(4.0) == []
    assert second.expired(6.0) == [B]
    second.forget([B])
    assert (second.get(B), second.events(B)) == (None, [])


def test_a_result_appears_when_it_is_whole(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.keep(A, b"request")
    assert files.request(A).read_bytes() == b"request"
    draft = files.draft(A, 1)
    draft.write_bytes(b"values")
    assert not files.result(A).exists()
    assert files.publish(A, draft) == (6, hashlib.sha256(b"values").hexdigest())
    assert files.result(A).read_bytes() == b"values"
    files.draft(B, 2).write_bytes(b"half")
    files.keep(B, b"stays")
    files.sweep({B})
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {A, B}
    assert not files.request(A).exists()
    files.drop(A)
    assert not files.result(A).exists()
    for attempt in (1, 2):
        files.draft(B, attempt).write_bytes(b"half")
    files.drop_request(B, 2)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_servers_folder_is_its_owners_alone(tmp_path: Path) -> None:
    Files(tmp_path / "data")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


# ---- keys


def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ann, bob = new_key(path, "ann"), new_key(path, "bob")
    assert ann not in path.read_text()
    assert hashlib.sha256(ann.encode()).hexdigest() in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = Keys(path)
    assert [keys.who(f"Bearer {key}") for key in (ann, bob, ann + "x", "")] == ["ann", "bob", None, None]
    assert keys.who(f"Basic {ann}") is None
    assert keys.who(None) is None
    with pytest.raises(InputError, match="has a key for 'ann' already"):
        new_key(path, "ann")


def test_a_key_is_taken_back_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = new_key(path, "ann")
    keys = Keys(path)
    assert keys.who(f"Bearer {key}") == "ann"
    path.write_text("# none\n")
    os.utime(path, ns=(1, 1))
    assert keys.who(f"Bearer {key}") is None


def test_a_file_that_is_spoilt_while_a_server_runs_lets_in_who_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    ann, bob = new_key(path, "ann"), new_key(path, "bob")
    keys = Keys(path)
    path.write_text(path.read_text().replace("bob ", "bob and others "))
    os.utime(path, ns=(1, 1))
    assert [keys.who(f"Bearer {key}") for key in (ann, bob, ann)] == ["ann", None, "ann"]
    path.unlink()
    assert [keys.who(f"Bearer {key}") for key in (ann, bob)] == [None, None]
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"{path} line 2 is no key", f"{path} cannot be read (No such file or directory); make a key with",
    ]  # fmt: skip
    assert new_key(path, "ann") != ann
    assert keys.who(f"Bearer {ann}") is None


def test_a_file_that_holds_no_keys(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .*; make a key with: workbench key NAME"):
        Keys(tmp_path / "none")
    (tmp_path / "keys").write_text("ann secret\n")
    with pytest.raises(InputError, match="line 1 is no key"):
        Keys(tmp_path / "keys")
    assert hashed("x") == hashlib.sha256(b"x").digest()


# ---- settings


def test_sizes() -> None:
    assert [size(text) for text in ("12", "8GB", "8 GiB", "0.5k", "2MB")] == [12, 8 * 10**9, 8 << 30, 500, 2 * 10**6]
    with pytest.raises(InputError, match="is no size"):
        size("much")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"models": ()}, "at least one model"),
        ({"models": (Model("m"), Model("m"))}, "m was named twice"),
        ({"host": "0.0.0.0"}, "without --keys FILE each of them could run jobs"),
    ],
)
def test_settings_that_are_refused(more: dict[str, object], words: str, tmp_path: Path) -> None:
    given: dict[str, object] = {"models": (Model("m"),), "folder": tmp_path, **more}
    with pytest.raises(InputError, match=words):
        Settings(**given)  # type: ignore[arg-type]
