"""`remote=True`, and nothing else changes: run against a real server, beside the same run here."""

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
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import workbench as wb
from tests.serving import GPT2, LLAMA, ROOT, Serving, serving
from workbench import errors, remote
from workbench.experiment.cell import Cell
from workbench.jupyter.bench import Bench
from workbench.remote import connection as connections
from workbench.remote import protocol
from workbench.remote.connection import Connection, close_all, connection
from workbench.remote.protocol import Event
from workbench.remote.words import SHOW_STATUS, line
from workbench.views.tokens import best

PROMPT = "The Eiffel Tower is in the city of"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("remote")
    (folder / "offered.py").write_text(
        "from workbench.graph.allowed import offer\n\n\n@offer('halved')\ndef halved(x, by=2):\n    return x / by\n"
    )
    with serving(folder, GPT2, LLAMA, "--functions", str(folder / "offered.py")) as running:
        yield running
    close_all()


@pytest.fixture(autouse=True)
def _asked(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOST", server.host)
    monkeypatch.delenv("WORKBENCH_API_KEY", raising=False)


@pytest.fixture(scope="module")
def away() -> Any:
    """The model opened from its configuration only."""
    return wb.LanguageModel(GPT2)


@pytest.fixture(scope="module")
def here() -> Any:
    return wb.LanguageModel(GPT2, dispatch=True)


@pytest.fixture(scope="module")
def llama() -> Any:
    return wb.LanguageModel(LLAMA)


@pytest.fixture(autouse=True)
def _no_weights(away: Any, llama: Any) -> Iterator[None]:
    yield
    assert all(parameter.is_meta for model in (away, llama) for parameter in model.module.parameters())


def same(one: Any, other: Any) -> None:
    one, other = getattr(one, "value", one), getattr(other, "value", other)
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):  # two processes may add up in another order
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    else:
        assert one == other


# ---- traces


def test_a_trace(away: Any, here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.trace(PROMPT, remote=where) as tracer:
            model.transformer.h[1].mlp.output[:, -1] = 0
            hidden = model.transformer.h[2].output.save()
            logits = model.lm_head.output[:, -1].save()
            best = logits.argmax(-1).save()
            tracer.log("best:", best)
        found.append((hidden, logits, best, tracer.logs))
    for one, other in zip(*found, strict=True):
        same(one, other)
    printed = [line.partition(" - ")[2] for line in capsys.readouterr().out.splitlines() if " - " in line]
    assert [line.partition(":")[0] for line in printed] == ["RECEIVED", "APPROVED", "QUEUED", "RUNNING", "COMPLETED"]


def test_what_a_model_returns(away: Any, here: Any) -> None:
    there = away.trace(PROMPT, trace=False, remote=True)
    near = here.trace(PROMPT, trace=False)
    assert type(there) is type(near)
    same(there.logits, near.logits)
    same(there["logits"], near["logits"])
    assert len(there.past_key_values) == len(near.past_key_values)


def test_an_address_instead_of_true(away: Any, server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOST", "http://127.0.0.1:9")
    with away.trace(PROMPT, remote=server.host):
        logits = away.lm_head.output.save()
    assert logits.shape[-1] == away.module.config.vocab_size


def test_several_invokes_and_constants_of_earlier_runs(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.trace("The Colosseum is in the city of", remote=where):
            clean = model.transformer.h[3].output[:, -1].save()
        with model.trace(remote=where) as tracer:
            with tracer.invoke(PROMPT):
                model.transformer.h[3].output[:, -1] = clean
                patched = model.lm_head.output[:, -1].save()
            with tracer.invoke("The Great Wall is in"):
                other = model.lm_head.output[:, -1].save()
        found.append((clean, patched, other))
    for one, other in zip(*found, strict=True):
        same(one, other)


def test_a_generation_and_its_steps(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.generate(PROMPT, max_new_tokens=3, remote=where) as tracer:
            steps = wb.list().save()
            with tracer.all():
                steps.append(model.lm_head.output[0, -1].argmax(-1))
            tokens = model.generator.output.save()
        found.append((tokens, steps))
    same(found[0][0], found[1][0])
    assert [int(each) for each in found[0][1]] == [int(each) for each in found[1][1]]


def test_gradients(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.trace(PROMPT, remote=where):
            grad = model.transformer.h[1].output.grad.save()
            model.lm_head.output[:, -1].sum().backward()
        found.append(grad)
    same(*found)


def test_edits_travel_with_each_trace(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.edit(remote=where) as edited:
            model.transformer.h[0].output[:] = 0
        found.append(edited.trace(PROMPT, trace=False, remote=where).logits)
    same(*found)


def test_a_scan_asks_nobody(away: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOST", "http://127.0.0.1:9")
    with away.scan(PROMPT, remote=True):
        assert away.lm_head.output.shape == (1, 8, away.module.config.vocab_size)
    with pytest.raises(errors.RemoteError), away.trace(PROMPT, remote=True):
        assert away.lm_head.output.shape[1] == 8


def test_a_function_of_the_operators(away: Any, here: Any) -> None:
    halved = remote.function("halved")
    with away.trace(PROMPT, remote=True):
        quarter = halved(away.lm_head.output[:, -1], by=4).save()
    with here.trace(PROMPT):
        whole = here.lm_head.output[:, -1].save()
    same(quarter.value, whole.value / 4)


# ---- errors


def test_an_error_of_the_run_comes_home_with_the_users_line(away: Any, here: Any) -> None:
    said = []
    for model, where in ((away, True), (here, False)):
        late: Any = None
        with pytest.raises(IndexError) as caught:
            with model.trace(PROMPT, remote=where):
                late = model.lm_head.output[:, 99].save()
        said.append(caught.value)
        assert isinstance(caught.value, errors.NodeError)
        assert "the run ended in IndexError" in repr(late)
    strip = [str(each).replace("line ", "").translate(str.maketrans("", "", "0123456789")) for each in said]
    assert strip[0] == strip[1]
    assert said[0].line is not None
    assert said[0].line.startswith("test_remote.py line ")
    assert "late = model.lm_head.output[:, 99].save()" in said[0].line


def test_what_was_not_reached_says_why(away: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.NeverReachedWarning)
        with away.trace(PROMPT, remote=True):
            early = away.transformer.h[0].output.save()
            early.stop()
            late = away.transformer.h[3].output.save()
    assert early.shape[1] == 8
    with pytest.raises(errors.NotSetError, match=r"the run was stopped by \.stop\(\)"):
        _ = late.value


def test_what_did_nothing_is_told_at_the_users_line(away: Any) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with away.generate(PROMPT, max_new_tokens=2, remote=True) as tracer:
            with tracer.iter[5:7]:
                away.transformer.h[3].output[:] = 0
    assert [(each.category, each.filename) for each in told] == [(errors.NeverReachedWarning, __file__)]
    assert "transformer.h.3.output was never reached, so this did nothing" in str(told[0].message)
    assert "generation ended after 2 steps" in str(told[0].message)


def test_what_cannot_travel_is_refused_on_its_line(away: Any) -> None:
    reached = []
    with pytest.raises(errors.WireError, match=r"<lambda> is not torch's, and cannot travel") as caught:
        with away.trace(PROMPT, remote=True):
            wb.apply(lambda x: x, away.lm_head.output)
            reached.append(1)
    assert not reached
    assert caught.value.line is not None
    assert "wb.apply(lambda x: x, away.lm_head.output)" in caught.value.line
    assert "Write it with torch functions" in str(caught.value)
    with open(__file__) as file:
        words = (
            r"TextIOWrapper cannot travel \(test_remote.py line \d+: session.log\(file\)\). What travels are tensors"
        )
        with pytest.raises(errors.WireError, match=words):
            with away.session(remote=True) as session:
                session.log(file)
                reached.append(2)
    with pytest.raises(errors.WireError, match="<lambda>"):
        with away.edit(remote=True):
            wb.apply(lambda x: x, away.lm_head.output)
    assert not reached


@pytest.mark.parametrize("validate", [False, True])
def test_in_a_session_each_line_is_refused_by_itself_also_behind_and_inside_a_pass(away: Any, validate: bool) -> None:
    reached = []
    with pytest.raises(errors.WireError, match="<lambda>"):
        with away.session(remote=True) as session:
            with session.iter([1, 2]):
                with away.trace(PROMPT):
                    total = away.lm_head.output.sum()
                reached.append("behind the pass")
                wb.apply(lambda x: x, total)
                reached.append("never")
    with pytest.raises(errors.WireError, match="<lambda>"):
        with away.session(remote=True):
            with away.trace(PROMPT):
                pass
            with away.trace(PROMPT, validate=validate):
                reached.append("in the second pass")
                wb.apply(lambda x: x, away.lm_head.output)
                reached.append("never")
    assert reached == ["behind the pass", "in the second pass"]


def test_a_model_of_ones_own_has_no_name_there() -> None:
    own = wb.NNsight(nn.Linear(2, 2))
    with pytest.raises(errors.InputError, match="a server finds its models by name, and this Linear was not opened"):
        with own.trace(torch.ones(1, 2), remote=True):
            own.output.save()


def test_a_module_attached_here_is_not_there(here: Any, away: Any) -> None:
    model = wb.LanguageModel(GPT2)
    model.transformer.h[0].probe = nn.Linear(128, 2)
    with pytest.raises(errors.WireError, match=r"transformer\.h\.0\.probe was attached here, and the server's model"):
        with model.trace(PROMPT, remote=True):
            model.transformer.h[0].probe(model.transformer.h[0].output)


def test_a_page_of_another_site_is_not_let_in_where_there_are_no_keys(server: Serving) -> None:
    for headers, status in (
        ({}, 200),
        ({"Origin": server.host}, 200),
        ({"Host": f"localhost:{server.port}"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Origin": "https://other.example"}, 403),
    ):
        answer = httpx.get(f"{server.host}/v1/jobs", headers=headers, trust_env=False)
        assert answer.status_code == status, headers
        if status == 403:
            assert "without keys this server answers this machine alone" in answer.json()["error"]


def test_no_server(away: Any) -> None:
    with pytest.raises(errors.RemoteError, match=r"no server answers at http://127\.0\.0\.1:9"):
        with away.trace(PROMPT, remote="127.0.0.1:9"):
            away.lm_head.output.save()


# ---- sessions


def test_a_session_over_two_models(away: Any, llama: Any) -> None:
    with away.session(remote=True) as session:
        with away.trace(PROMPT):
            first = away.lm_head.output[:, -1].argmax(-1)
        with llama.trace(PROMPT):
            second = llama.lm_head.output[:, -1].argmax(-1).save()
            stacked: Any = torch.stack([first, second])
            both = stacked.save()
        session.log(both)
    assert [away.tokenizer.decode(id) for id in both.value] == [" Paris", " Paris"]
    job = session.job
    assert [event.status for event in job.events()].count("QUEUED") == 1  # and not for each trace
    assert len(connection().fetch(job.id)) < 2000  # two ids and a stack of them; no hidden state, no logits
    with pytest.raises(errors.NotSetError, match="was not saved"):
        _ = first.value


def test_a_loop_that_is_left(away: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with away.session(remote=True) as session:
        with session.iter([0, 1, 2, 3], return_context=True) as (item, iterator):
            iterator.log(item)
            with iterator.cond(item == 2):
                iterator.exit()
    assert session.logs == ["0", "1", "2"]
    assert [line for line in capsys.readouterr().out.splitlines() if " - " not in line] == ["0", "1", "2"]
    with away.session(remote=True) as session:
        session.log("-- Early Stop --")
        session.exit()
    assert session.logs == ["-- Early Stop --"]


def test_lists_and_nested_loops(away: Any) -> None:
    with away.session(remote=True) as session:
        numbers = wb.list()
        for number in range(3):
            numbers.append([number])
        flat = wb.list().save()
        with session.iter(numbers) as item:
            with session.iter(item) as inner:
                flat.append(inner)
    assert flat.value == [0, 1, 2]


class LORA(nn.Module):
    """As a person writes it: what is made inside a session is made where it runs."""

    def __init__(self, module: wb.Envoy, dim: int, r: int) -> None:
        super().__init__()
        self.module = module
        self.WA: Any = nn.Parameter(torch.randn(dim, r), requires_grad=True).save()  # type: ignore[attr-defined]
        self.WB: Any = nn.Parameter(torch.zeros(r, dim), requires_grad=True).save()  # type: ignore[attr-defined]

    def __call__(self, alpha: float = 1.0) -> None:
        added = torch.matmul(torch.matmul(self.module.input, self.WA), self.WB)
        self.module.output = (added + self.module.output) * alpha

    def parameters(self) -> Any:  # type: ignore[override]
        return [self.WA, self.WB]


def test_a_lora_is_trained_there_and_used(llama: Any) -> None:
    answer = llama.tokenizer.encode(" Paris")[-1]
    module = llama.model.layers[-1].mlp
    with llama.scan(" "):
        width = module.output.shape[-1]
    with llama.session(remote=True) as session:
        loader = DataLoader([["_", answer]] * 100, batch_size=10)  # type: ignore[arg-type]
        lora = LORA(module, width, 4)
        optimizer = torch.optim.AdamW(lora.parameters(), lr=3)
        with session.iter(loader, return_context=True) as (batch, iterator):
            with llama.trace(batch[0]):
                lora()
                loss = nn.functional.cross_entropy(llama.lm_head.output[:, -1], batch[1])
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            iterator.log(loss)
    assert len(session.logs) == 10
    assert lora.WA.value.shape == (width, 4)
    assert lora.WB.value.detach().abs().sum() > 0
    with llama.generate("Hello", remote=True):
        lora()
        taught = llama.generator.output.save()
    with llama.generate("Hello", remote=True):
        untaught = llama.generator.output.save()
    assert llama.tokenizer.batch_decode(taught.value) == ["Hello Paris"]
    assert llama.tokenizer.batch_decode(untaught.value) != ["Hello Paris"]


# ---- jobs


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


def test_a_traced_cell_runs_there_as_it_does_here(away: Any, here: Any) -> None:
    body = "wb.ablate(model.transformer.h[2].mlp)\nx = model.lm_head.output.save()\nx[:, -1].argmax(-1)"
    found = []
    for model, option in ((away, " --remote"), (here, "")):
        variables: dict[str, Any] = {"model": model, "wb": wb}
        cell = Cell(f'%%trace model "{PROMPT}"{option}\n{body}', "cell", variables)
        record = Bench(lambda variables=variables: variables).trace(cell)
        found.append((variables["x"].value, int(cell.shown), record))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert found[0][1] == found[1][1]
    there, local = found[0][2], found[1][2]
    assert there.sites == local.sites
    assert [best(each.after).id for each in (there, local)] == [found[0][1]] * 2  # type: ignore[union-attr]
    assert there.before == ()  # no clean run is asked of the server
    assert local.before
