"""The HTTP side, asked as any client would, of a real server in a process of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from jsonschema import Draft202012Validator

import workbench as wb
from scripts.fuzz import seeds
from tests.doors import named
from tests.serving import GPT2, LLAMA, Serving, serving
from workbench.cli import main
from workbench.graph.package import Request, pack, unpack_outcome
from workbench.server.auth import Keys, new_key
from workbench.tracing import elsewhere
from workbench.tracing.elsewhere import Call

PROMPT = "The Eiffel Tower is in the city of"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    return {name: new_key(folder / "keys", name) for name in ("ann", "bob")}


@pytest.fixture(scope="module")
def server(folder: Path, keys: dict[str, str]) -> Iterator[Serving]:
    with serving(folder, GPT2, "--keys", str(folder / "keys"), "--limit", "body=2MB", "--queue", "5") as running:
        yield running


@pytest.fixture
def ann(server: Serving, keys: dict[str, str]) -> Iterator[httpx.Client]:
    with client(server, keys["ann"]) as made:
        yield made


@pytest.fixture
def bob(server: Serving, keys: dict[str, str]) -> Iterator[httpx.Client]:
    with client(server, keys["bob"]) as made:
        yield made


def client(server: Serving, key: str | None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=server.host, headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def model() -> Any:
    return wb.LanguageModel(GPT2)


class Captured:
    """Takes a call where it would be sent."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def run(self, call: Call, where: Any, blocking: bool) -> None:
        self.calls.append(call)

    def refuse(self, node: Any, bindings: Any) -> None:
        pass


@contextmanager
def captured() -> Iterator[Captured]:
    before, taken = list(elsewhere._found), Captured()
    elsewhere.register(lambda: taken)
    try:
        yield taken
    finally:
        elsewhere._found[:] = before


def request(model: Any, prompt: str = PROMPT, rounds: int = 0) -> bytes:
    """A trace's request; with rounds, a session's that goes on for a while."""
    with captured() as taken:
        if rounds:
            with model.session(remote=True) as session:
                with session.iter(list(range(rounds))) as item:
                    with model.trace(prompt):
                        last = model.lm_head.output[:, -1].argmax(-1).save()
                    session.log(item)
        else:
            with model.trace(prompt, remote=True):
                last = model.lm_head.output[:, -1].save()
        del last
    (call,) = taken.calls
    return pack(Request(call.graph, call.bindings, call.models, call.inputs, call.options))


@pytest.fixture(scope="module")
def data(model: Any) -> bytes:
    return request(model)


@pytest.fixture
def next_user(ann: httpx.Client, data: bytes) -> Iterator[None]:
    """After a test of what a server must withstand, someone else has bit for bit what there is without a server."""
    yield
    known = wb.LanguageModel(GPT2, dispatch=True)
    with torch.no_grad():
        right = known.module(known.tokenizer(PROMPT, return_tensors="pt")["input_ids"]).logits[:, -1]
    id = ann.post("/v1/jobs", content=data).json()["id"]
    assert ended(ann, id)[-1]["status"] == "COMPLETED"
    (logits,) = unpack_outcome(ann.get(f"/v1/jobs/{id}/result").content).values.values()
    assert torch.equal(logits, right)


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def ended(client: httpx.Client, id: str) -> list[dict[str, Any]]:
    return events_of(client.get(f"/v1/jobs/{id}/events").text)


def test_a_job_from_sending_it_to_its_result(ann: httpx.Client, data: bytes, model: Any) -> None:
    sent = ann.post("/v1/jobs", content=data)
    assert sent.status_code == 202
    id = sent.json()["id"]
    assert sent.headers["location"] == f"/v1/jobs/{id}"
    events = ended(ann, id)
    assert [event["status"] for event in events if event["number"]] == [
        "RECEIVED", "APPROVED", "QUEUED", "RUNNING", "COMPLETED",
    ]  # fmt: skip
    numbers = [event["number"] for event in events if event["number"]]
    assert numbers == [1, 2, 3, 4, 5]
    result = ann.get(f"/v1/jobs/{id}/result")
    whole = result.content
    view = ann.get(f"/v1/jobs/{id}").json()
    assert view["status"] == "COMPLETED"
    assert view["sha256"] == hashlib.sha256(whole).hexdigest() == result.headers["etag"].strip('"')
    assert view["bytes"] == len(whole)
    (logits,) = unpack_outcome(whole).values.values()
    known = wb.LanguageModel(GPT2, dispatch=True)
    ids = known.tokenizer(PROMPT, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(logits, known.module(**ids).logits[:, -1])


def test_a_result_comes_in_parts(ann: httpx.Client, data: bytes) -> None:
    id = ann.post("/v1/jobs", content=data).json()["id"]
    ended(ann, id)
    path = f"/v1/jobs/{id}/result"
    whole = ann.get(path)
    half = len(whole.content) // 2
    first = ann.get(path, headers={"Range": f"bytes=0-{half - 1}"})
    second = ann.get(path, headers={"Range": f"bytes={half}-", "If-Range": whole.headers["etag"]})
    assert (first.status_code, second.status_code) == (206, 206)
    assert first.content + second.content == whole.content
    for wrong, status, words in (
        ("bytes=99999999-", 416, "the result has no such bytes"),
        ("bytes=9-3", 400, "start must be less than end"),
        ("lines=1-2", 400, "Only support bytes range"),
        ("nonsense", 400, "range header"),
    ):
        answer = ann.get(path, headers={"Range": wrong})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
        assert words in answer.json()["error"]
        assert answer.headers["x-workbench-protocol"] == "1"
    changed = ann.get(path, headers={"Range": f"bytes={half}-", "If-Range": '"another"'})
    assert changed.content == whole.content


def test_news_go_on_behind_the_last_that_was_heard(ann: httpx.Client, data: bytes) -> None:
    id = ann.post("/v1/jobs", content=data).json()["id"]
    every = ended(ann, id)
    rest = events_of(ann.get(f"/v1/jobs/{id}/events", headers={"Last-Event-ID": "3"}).text)
    assert rest == [event for event in every if event["number"] > 3]
    ids = [line for line in ann.get(f"/v1/jobs/{id}/events").text.splitlines() if line.startswith("id: ")]
    assert ids == [f"id: {number}" for number in range(1, 6)]


def test_the_news_can_be_the_answer(ann: httpx.Client, data: bytes) -> None:
    answer = ann.post("/v1/jobs", content=data, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events_of(answer.text)[-1]["status"] == "COMPLETED"


def test_a_small_result_can_be_the_last_of_the_news(ann: httpx.Client, data: bytes) -> None:
    headers = {"Accept": "text/event-stream", "X-Workbench-Inline": "yes"}
    answer = ann.post("/v1/jobs", content=data, headers=headers)
    id = answer.headers["x-workbench-job"]
    again = ann.get(f"/v1/jobs/{id}/events", headers={**headers, "Last-Event-ID": "4"})
    whole = ann.get(f"/v1/jobs/{id}/result").content
    said = f"event: result\ndata: {hashlib.sha256(whole).hexdigest()} {base64.b64encode(whole).decode()}\n\n"
    for each in (answer, again):
        assert each.text.endswith(said)
        assert each.text.count("event: result") == 1
    assert "event: result" not in ann.get(f"/v1/jobs/{id}/events").text  # nobody asked


def test_the_same_id_is_the_same_job(ann: httpx.Client, bob: httpx.Client, data: bytes) -> None:
    id = uuid.uuid4().hex
    first, again = (ann.post("/v1/jobs", content=data, headers={"X-Workbench-Job": id}) for _ in range(2))
    assert first.json()["id"] == again.json()["id"] == id
    assert [event["status"] for event in ended(ann, id)].count("RUNNING") == 1
    taken = bob.post("/v1/jobs", content=data, headers={"X-Workbench-Job": id})
    assert (taken.status_code, taken.json()["error"][:21]) == (409, "this job id is taken;")


@pytest.mark.usefixtures("next_user")
def test_no_key_sees_anothers_job(ann: httpx.Client, bob: httpx.Client, data: bytes) -> None:
    id = ann.post("/v1/jobs", content=data).json()["id"]
    ended(ann, id)
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", "")):
        answer = bob.request(method, f"/v1/jobs/{id}{path}")
        assert (answer.status_code, answer.json()["error"][:21]) == (404, "there is no such job;")
    assert id not in bob.get("/v1/jobs").text
    assert id in ann.get("/v1/jobs").text
    assert ann.get(f"/v1/jobs/{id}/result").status_code == 200


@pytest.mark.usefixtures("next_user")
def test_without_a_key_nothing_is_told(server: Serving, data: bytes) -> None:
    for key in (None, "wb-guessed"):
        with client(server, key) as stranger:
            for method, path in (("GET", "/v1/models"), ("POST", "/v1/jobs"), ("GET", f"/v1/jobs/{'0' * 32}")):
                answer = stranger.request(method, path, content=data)
                assert answer.status_code == 401
                assert "this server asks for a key" in answer.json()["error"]


@pytest.mark.usefixtures("next_user")
@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "first bytes"),
        (b"{}", 400, "first bytes"),
        (b"wbench1\n" + (99).to_bytes(8, "little") + b"{}", 400, "longer than it may be"),
        (b"x" * 2_000_001, 413, "2,000,000 are allowed"),
    ],
)
def test_what_is_no_request(ann: httpx.Client, content: bytes, status: int, words: str) -> None:
    answer = ann.post("/v1/jobs", content=content)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.usefixtures("next_user")
def test_a_body_that_says_nothing_of_its_length_is_cut_off(ann: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * (1 << 16)

    answer = ann.post("/v1/jobs", content=parts())
    assert (answer.status_code, "more than the 2,000,000 bytes" in answer.json()["error"]) == (413, True)


@pytest.mark.usefixtures("next_user")
def test_a_head_without_an_end_is_cut_off(server: Serving) -> None:
    at = httpx.URL(server.host)
    assert at.port is not None
    with socket.create_connection((at.host, at.port), 30) as line:
        line.sendall(b"GET /v1/models HTTP/1.1\r\n")
        for _ in range(64):  # 4 MB
            try:
                line.sendall(b"X-More: " + b"x" * (1 << 16) + b"\r\n")
            except ConnectionError:
                break
        else:
            pytest.fail("it was read to its end")


def test_a_model_that_is_not_hosted(ann: httpx.Client) -> None:
    answer = ann.post("/v1/jobs", content=request(wb.LanguageModel(LLAMA)))
    assert answer.status_code == 404
    assert answer.json()["error"] == f"this server does not host {LLAMA}; it hosts {GPT2}"


def test_another_version_is_told_in_words(ann: httpx.Client) -> None:
    answer = ann.get("/v1/models", headers={"X-Workbench-Protocol": "2"})
    assert answer.status_code == 400
    assert "this server speaks version 1 of the protocol, and your workbench version 2" in answer.json()["error"]
    assert ann.get("/v1/models").headers["x-workbench-protocol"] == "1"


def test_ids_that_are_none(ann: httpx.Client) -> None:
    assert ann.get("/v1/jobs/%2e%2e%2fkeys").status_code in (404, 422)
    assert ann.get("/v1/jobs/short").status_code == 422
    assert ann.get(f"/v1/jobs/{'0' * 32}").status_code == 404
    assert ann.get("/v1/nothing").json()["error"] == "there is nothing at /v1/nothing; what there is stands at /docs"
    assert ann.put("/v1/jobs").json()["error"] == "PUT is not for /v1/jobs; what is stands at /docs"


def test_a_key_may_not_fill_the_queue_and_keys_take_turns(
    ann: httpx.Client, bob: httpx.Client, model: Any, data: bytes
) -> None:
    long = request(model, rounds=300)
    first = ann.post("/v1/jobs", content=long).json()["id"]
    while ann.get(f"/v1/jobs/{first}").json()["status"] == "QUEUED":
        time.sleep(0.01)
    anns = [ann.post("/v1/jobs", content=data).json()["id"] for _ in range(5)]
    full = ann.post("/v1/jobs", content=data)
    assert (full.status_code, full.json()["error"]) == (429, "5 of your jobs are queued; wait until some have run")
    bobs = [bob.post("/v1/jobs", content=data).json()["id"] for _ in range(2)]
    assert [bob.get(f"/v1/jobs/{id}").json()["position"] for id in bobs] == [1, 3]
    assert [ann.get(f"/v1/jobs/{id}").json()["position"] for id in anns] == [0, 2, 4, 5, 6]
    early = ann.get(f"/v1/jobs/{anns[0]}/result")
    assert (early.status_code, "has not ended, it is QUEUED" in early.json()["error"]) == (409, True)
    gone = ann.delete(f"/v1/jobs/{anns[1]}").json()
    assert (gone["status"], gone["failure"]["kind"]) == ("ERROR", "Cancelled")
    page = ann.get("/").text
    assert "Running" in page
    assert first[:8] in page
    assert ann.delete(f"/v1/jobs/{first}").status_code == 200
    assert ended(ann, first)[-1]["failure"]["kind"] == "Cancelled"
    started = {id: ended(ann, id) for id in anns if id != anns[1]} | {id: ended(bob, id) for id in bobs}
    order = sorted(started, key=lambda id: next(e["at"] for e in started[id] if e["status"] == "RUNNING"))
    assert order == [anns[0], bobs[0], anns[2], bobs[1], anns[3], anns[4]]


def test_a_result_whose_file_is_lost_is_told_to_be(ann: httpx.Client, folder: Path, data: bytes) -> None:
    id = ann.post("/v1/jobs", content=data).json()["id"]
    ended(ann, id)
    (folder / "data" / "results" / id).unlink()
    for headers in ({}, {"Range": "bytes=0-9"}):
        answer = ann.get(f"/v1/jobs/{id}/result", headers=headers)
        assert (answer.status_code, answer.json()["error"][:23]) == (410, "this result was deleted")


def test_a_deleted_result_is_gone(ann: httpx.Client, data: bytes) -> None:
    id = ann.post("/v1/jobs", content=data).json()["id"]
    ended(ann, id)
    assert ann.delete(f"/v1/jobs/{id}").status_code == 200
    assert ann.get(f"/v1/jobs/{id}/result").status_code == 404


@pytest.mark.usefixtures("next_user")
def test_those_who_listen_slowly_hold_up_nobody(
    server: Serving, keys: dict[str, str], ann: httpx.Client, model: Any, data: bytes
) -> None:
    slow = request(model, rounds=400)
    with client(server, keys["bob"]) as lazy:
        with lazy.stream("POST", "/v1/jobs", content=slow, headers={"Accept": "text/event-stream"}) as answer:
            id = answer.headers["x-workbench-job"]  # and nothing of it is read
            start = time.perf_counter()
            assert ann.get("/v1/models").status_code == 200
            assert time.perf_counter() - start < 2
            lazy_events = events_of(answer.read().decode())
    assert [int(e["text"]) for e in lazy_events if e["status"] == "LOG"] == list(range(400))
    assert id


def test_the_api_is_described(ann: httpx.Client) -> None:
    schema = ann.get("/openapi.json").json()
    assert {"/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/events", "/v1/jobs/{id}/result", "/v1/models"} <= set(
        schema["paths"]
    )
    for path, methods in schema["paths"].items():
        for method, each in methods.items():
            assert each["summary"], (path, method)
            for code, answer in each["responses"].items():
                if code.startswith("4"):
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")


def test_the_pages_need_no_other_address(ann: httpx.Client, server: Serving, data: bytes) -> None:
    """Status and API are whole as they are sent, so they open in a closed network."""
    status, docs = ann.get("/").text, ann.get("/docs").text
    for page in (status, docs):
        assert re.findall(r"(?:src|href)=[\"'](?!/|#|data:)", page) == []
        assert "<script" not in page
        assert "@import" not in page
    assert f'wb.CONFIG.API.HOST = "{server.host}"' in status
    assert "wb.CONFIG.set_default_api_key" in status
    assert GPT2 in status
    for path in ("/v1/jobs/{id}/result", "Last-Event-ID", "/v1/schema", 'id="Event"', "Too many jobs are queued."):
        assert path in docs
    strange = ann.get("/", headers={"Host": 'x"><script>.example'})
    assert "<script>" not in strange.text


def test_a_requests_form_is_told_as_a_schema(ann: httpx.Client, data: bytes, model: Any) -> None:
    schema = ann.get("/v1/schema").json()
    Draft202012Validator.check_schema(schema)
    known = Draft202012Validator(schema)
    for each in (data, request(model, rounds=2), *seeds(named(wb.LanguageModel(GPT2), GPT2))):
        length = int.from_bytes(each[8:16], "little")
        head = json.loads(each[16 : 16 + length])
        known.validate(head)
        head["graph"]["nodes"][0]["code"] = "1"
        assert not known.is_valid(head)


def test_many_at_once(server: Serving, keys: dict[str, str], data: bytes) -> None:
    results: list[str] = []

    def ask() -> None:
        with client(server, keys["ann"]) as own:
            for _ in range(3):
                answer = own.post("/v1/jobs", content=data, headers={"Accept": "text/event-stream"})
                id = answer.headers["x-workbench-job"]
                results.append(hashlib.sha256(own.get(f"/v1/jobs/{id}/result").content).hexdigest())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    assert len(set(results)) == 1


def test_an_address_that_is_taken_and_a_folder_that_is_in_use(
    server: Serving, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", GPT2, "--port", str(server.port), "--data", str(tmp_path)]) == 2
    assert f"127.0.0.1:{server.port} cannot be listened on (Address already in use)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["serve", GPT2, "--port", "0", "--data", str(folder / "data")]) == 2
    assert "is in use by another server" in capsys.readouterr().err


def test_models_may_stand_behind_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Serving) -> None:
    words = ["serve", GPT2, "--data", str(tmp_path), LLAMA, "--port", str(server.port), GPT2]
    assert main(words) == 2
    assert f"{GPT2} was named twice" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", GPT2, "--memry", "1GB"])
    assert "unrecognized arguments: --memry 1GB" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["key", "ann", "--keys", str(tmp_path / "keys"), "bob"])
    assert "unrecognized arguments: bob" in capsys.readouterr().err


def test_news_are_not_held_back_to_fill_a_packet(ann: httpx.Client, data: bytes) -> None:
    """An event that waits until the one before it is acknowledged would take 40 ms, each time."""
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        ann.post("/v1/jobs", content=data, headers={"Accept": "text/event-stream"})
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.04


def test_words_of_the_operators_that_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--keys", str(tmp_path / "none")], "cannot be read"),
        (["--limit", "nods=3"], "--limit nods: there is no such limit; there are body, depth,"),
        (["--limit", "nodes"], "write a name and a number"),
    ):
        assert main(["serve", GPT2, "--data", str(tmp_path), *words]) == 2
        assert said in capsys.readouterr().err


def test_loopback_alone_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", GPT2, "--host", "0.0.0.0"]) == 2
    assert "without --keys FILE" in capsys.readouterr().err


def test_a_key_from_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "ann", "--keys", str(tmp_path / "keys")]) == 0
    assert Keys(tmp_path / "keys").who(f"Bearer {capsys.readouterr().out.strip()}") == "ann"
    assert main(["key", "ann", "--keys", str(tmp_path / "keys")]) == 2
    assert "has a key for 'ann' already" in capsys.readouterr().err


def test_a_model_that_cannot_be_opened_ends_the_server_with_words(tmp_path: Path) -> None:
    server = Serving(tmp_path, str(tmp_path / "nothing")).start(wait=False)
    assert server._process is not None
    assert server._process.wait(120) == 2
    assert "nothing" in server.log.splitlines()[-1]
