"""Jobs: asked about, awaited, found again, ended; their news and results, whole, packed, damaged, cut off."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.remotes import PROMPT, same
from tests.remotes import _asked as _asked  # the fixtures
from tests.remotes import _no_weights as _no_weights
from tests.remotes import away as away
from tests.remotes import here as here
from tests.remotes import llama as llama
from tests.remotes import server as server
from tests.serving import GPT2, LLAMA, ROOT, Serving
from workbench import errors, remote
from workbench.remote import connection as connections
from workbench.remote import protocol
from workbench.remote.connection import Connection, connection
from workbench.remote.protocol import Event
from workbench.remote.words import SHOW_STATUS, line


def test_a_job_that_is_not_waited_for(away: Any, here: Any) -> None:
    with away.trace(PROMPT, remote=True, blocking=False) as tracer:
        logits = away.lm_head.output[:, -1].save()
        tracer.log("there")
    job = tracer.job
    with pytest.raises(errors.NotSetError, match=r"tracer\.job\.result\(\) does"):
        _ = logits.value
    values = asyncio.run(_awaited(job))
    assert list(values) == ["logits"]
    same(logits, values["logits"])
    same(values[0], here.trace(PROMPT, trace=False).logits[:, -1])
    assert (job.status, job.done(), tracer.logs) == ("COMPLETED", True, ["there"])


async def _awaited(job: Any) -> Any:
    return await job


def test_a_job_is_found_again_from_another_process(away: Any, server: Serving) -> None:
    with away.trace(PROMPT, remote=True, blocking=False) as tracer:
        hidden = away.transformer.h[0].output.save()
        best = away.lm_head.output[:, -1].argmax(-1).save()
    program = (
        "from workbench import remote\n"
        f"found = remote.job({tracer.job.id!r}).result()\n"
        "print(sorted(found), int(found['best']), found['hidden'].shape)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]
    tracer.job.result()
    assert said == f"['best', 'hidden'] {int(best)} {hidden.shape}"
    assert tracer.job.id in [job.id for job in remote.list_jobs()]
    with pytest.raises(errors.RemoteError, match="there is no such job"):
        remote.job("0" * 32)


def test_a_job_is_cancelled(away: Any) -> None:
    with away.session(remote=True, blocking=False) as session:
        with session.iter(list(range(5000))):
            with away.trace(PROMPT):
                pass
        last = away.lm_head  # nothing is saved
    del last
    events: list[Event] = []
    for event in session.job.events():
        events.append(event)
        if event.status == "RUNNING":
            session.job.cancel()
    assert events[-1].failure is not None
    assert events[-1].failure.kind == "Cancelled"
    with pytest.raises(errors.RemoteError, match="cancelled"):
        session.job.result()
    assert away.trace(PROMPT, trace=False, remote=True).logits.shape[1] == 8


def test_an_interrupt_ends_the_job(away: Any) -> None:
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    count: Any = None
    with pytest.raises(KeyboardInterrupt):
        with away.session(remote=True) as session:
            with session.iter(list(range(50_000))):
                with away.trace(PROMPT):
                    pass
            count = wb.int(1).save()
    assert "the wait ended in KeyboardInterrupt; job" in repr(count)
    *_, last = remote.list_jobs()[0].events()
    assert last.failure is not None
    assert last.failure.kind == "Cancelled"


def test_how_many_jobs_are_before_is_printed(away: Any, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = []
    for rounds in (2000, 1):
        with away.session(remote=True, blocking=False) as session:
            with session.iter(list(range(rounds))):
                with away.trace(PROMPT):
                    pass
        jobs.append(session.job)
    while jobs[0].status == "QUEUED":
        time.sleep(0.01)
    ending = threading.Timer(0.5, jobs[0].cancel)
    ending.start()
    with away.trace(PROMPT, remote=True):
        away.lm_head.output.save()
    ending.join()
    said = [line.partition(" - ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said[2:4] == ["QUEUED: 1 job is before yours.", "QUEUED: Yours is the next job."]
    assert said[-1] == "COMPLETED: Your job has been completed."
    assert line("0" * 32, Event(number=3, at=0, status="QUEUED", position=2)).endswith("2 jobs are before yours.")


def test_a_long_result_has_a_bar_where_statuses_are_printed(
    away: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(rows: int) -> str:
        with away.trace(PROMPT, remote=True):
            (away.lm_head.output[0, 0, 0] + torch.ones(rows)).save()
        return capsys.readouterr().err

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert re.search(r"Downloading result: 100%.*4\.00M/4\.00M", fetched(1_000_000))
    assert fetched(10) == ""
    monkeypatch.setattr(wb.CONFIG, "show_status", False)
    assert fetched(1_000_000) == ""


def test_statuses_are_events_for_who_wants_them(away: Any, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[str, str]] = []
    token = SHOW_STATUS.set(lambda job, event: heard.append((job, event.status)))
    try:
        with away.trace(PROMPT, remote=True) as tracer:
            pass
    finally:
        SHOW_STATUS.reset(token)
    assert heard[-1] == (tracer.job.id, "COMPLETED")
    assert capsys.readouterr().out == ""


def test_the_servers_models(server: Serving) -> None:
    assert connection(server.host).hosted().functions == ["halved"]
    end = time.monotonic() + 60
    while not all(model.loaded for model in remote.models()) and time.monotonic() < end:
        time.sleep(0.1)
    assert [(model.key, model.loaded) for model in remote.models()] == [(GPT2, True), (LLAMA, True)]
    assert {model.key: model.bytes for model in remote.models()}[GPT2] == sum(
        p.numel() * p.element_size() for p in wb.LanguageModel(GPT2).module.parameters()
    )


# ---- versions, and what is packed


@pytest.mark.parametrize(
    ("mine", "cure"),
    [(protocol.VERSION - 1, "update workbench on your machine"), (protocol.VERSION + 1, "ask its operator to update")],
)
def test_an_older_and_a_newer_client_are_told_so(
    mine: int, cure: str, away: Any, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = protocol.VERSION
    monkeypatch.setattr(protocol, "VERSION", mine)
    at = Connection(server.host)
    said = f"this server speaks version {theirs} of the protocol, and your workbench version {mine}; {cure}"
    with pytest.raises(errors.RemoteError, match=said):
        at.hosted()
    at.close()
    assert cure in str(protocol.mismatch(str(theirs), "client"))


def test_requests_and_answers_are_packed_where_that_is_asked_for(
    away: Any, here: Any, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    before = Connection.follow
    monkeypatch.setattr(
        Connection, "follow", lambda at, id, data=None, *more: sent.append(data or b"") or before(at, id, data, *more)
    )
    found, sizes = [], []
    for compress in (False, True):
        monkeypatch.setitem(wb.CONFIG._own, "compress", compress)
        with away.trace(PROMPT, remote=True) as tracer:
            zeros = (away.lm_head.output[0, 0, 0].nan_to_num() * 0 + torch.zeros(50_000)).save()
            logits = away.lm_head.output.save()
        found.append((zeros.value, logits.value))
        data = connection(server.host).fetch(tracer.job.id)
        sizes.append((len(sent[-1]), len(data)))
        assert [each[:4] == b"\x28\xb5\x2f\xfd" for each in (sent[-1], data)] == [compress] * 2
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert sizes[1][0] < sizes[0][0] / 2
    assert sizes[1][1] < sizes[0][1] - 150_000


def test_a_small_result_spares_a_request_and_one_that_came_damaged_is_fetched(
    away: Any, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = Connection.fetch
    monkeypatch.setattr(Connection, "fetch", lambda at, id, *more: fetched.append(id) or fetch(at, id, *more))
    with here.trace(PROMPT):
        right = here.lm_head.output[:, -1].save()
    for spoil, asked in ((lambda text: text, 0), (lambda text: text[:-8] + b"AAAAAAA=", 1)):
        monkeypatch.setattr(connections, "b64decode", lambda text, spoil=spoil: base64.b64decode(spoil(text)))
        fetched.clear()
        with away.trace(PROMPT, remote=True):
            logits = away.lm_head.output[:, -1].save()
        same(logits, right)
        assert len(fetched) == asked
    with away.trace([PROMPT] * 5, remote=True):
        many = away.lm_head.output.save()
    assert many.shape[0] == 5
    assert len(fetched) == 2  # too large for the news


# ---- a cut


def test_a_result_goes_on_behind_a_cut(away: Any, server: Serving, tmp_path: Path) -> None:
    with away.trace([PROMPT] * 40, remote=True, blocking=False) as tracer:
        away.lm_head.output.save()
    list(tracer.job.events())
    with cutting(server.port, after=300_000) as port:
        at = Connection(f"http://127.0.0.1:{port}", patience=20)
        whole = connection(server.host).fetch(tracer.job.id)
        told: list[int] = []
        assert at.fetch(tracer.job.id, lambda done, total: told.append(done)) == whole
        assert told == sorted(told)
        assert len(whole) > 900_000
        at.close()


class cutting:
    """A way to the server that is cut each time so many bytes have come through it."""

    def __init__(self, to: int, after: int) -> None:
        import socket

        self._to, self._after = to, after
        self._door = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._open = True

    def __enter__(self) -> int:
        self._thread.start()
        return self._door.getsockname()[1]

    def __exit__(self, *error: object) -> None:
        self._open = False
        self._door.close()
        self._thread.join(5)

    def _run(self) -> None:
        import socket

        while self._open:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            with near, socket.create_connection(("127.0.0.1", self._to)) as far:
                far.settimeout(5)
                left = self._after
                try:
                    far.sendall(near.recv(1 << 16))
                    while left > 0:
                        part = far.recv(min(left, 1 << 16))
                        if not part:
                            break
                        near.sendall(part)
                        left -= len(part)
                except OSError:
                    pass


# ---- from a cell
