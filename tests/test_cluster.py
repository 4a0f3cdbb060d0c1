"""A server whose workers are on a real Ray cluster: what it computes, and what becomes of jobs when parts of it die.

The cluster is one for the file: a head, and two nodes in network namespaces where the system allows that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray  # a test dependency: without it these tests fail  # noqa: F401
import torch

import workbench as wb
from tests.raycluster import Cluster, cluster
from tests.serving import GPT2, ROOT, Serving
from tests.test_server import request
from workbench.cli import main
from workbench.graph.package import unpack_outcome

pytestmark = pytest.mark.timeout(600)
PROMPT = "The Eiffel Tower is in the city of"
ROUNDS = 40
SLOWLY = """
import time
from workbench.graph.allowed import offer

@offer("slowly")
def slowly(value):
    time.sleep(0.1)
    return value
"""
AWAY = "cannot be reached|connection .* was lost|replica died|could not be reached|could not go on|went away"


@pytest.fixture(scope="module")
def ring() -> Iterator[Cluster]:
    with cluster(begin=0) as made:
        yield made


def served(ring: Cluster, folder: Path, *words: str, port: int | None = None) -> Serving:
    """A server on the cluster, which has begun to open its models."""
    (folder / "functions.py").write_text(SLOWLY)
    all_words = (GPT2, "--ray", ring.address, "--functions", str(folder / "functions.py"), *words)
    return Serving(folder, *all_words, port=port, surroundings=ring.surroundings).start()


@pytest.fixture(scope="module")
def server(ring: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    made = served(ring, tmp_path_factory.mktemp("server"), "--replicas", "2", "--patience", "200")
    try:
        ring.start()  # the server joins the head meanwhile
        made.ready(seconds=200)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def model() -> Any:
    return wb.LanguageModel(GPT2, dispatch=True)


def until(what: Callable[[], Any], seconds: float = 150) -> Any:
    """What comes of it, once it is something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def workers(ring: Cluster) -> list[int]:
    """The worker processes on the nodes, both of them."""
    found = [pid for node in ring.nodes if node is not None for pid in node.processes("workbench.server.worker")]
    return found if len(found) == 2 else []


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def network(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def expected(model: Any, scale: float) -> torch.Tensor:
    """By plain hooks: the last logits with a layer's output times this."""
    handle = model.module.transformer.h[1].mlp.register_forward_hook(lambda module, args, output: output * scale)
    try:
        with torch.no_grad():
            return model.module(**model.tokenizer(PROMPT, return_tensors="pt")).logits[:, -1]
    finally:
        handle.remove()


def sent(model: Any, server: Serving, scale: float, rounds: int = ROUNDS) -> Any:
    """A job of so many rounds of a tenth of a second or more, by a function of the operator's."""
    with model.session(remote=server.host, blocking=False) as session:
        kept = wb.list().save()
        with session.iter(list(range(rounds))) as item:
            with model.trace(PROMPT):
                model.transformer.h[1].mlp.output = model.transformer.h[1].mlp.output * scale
                kept.append(wb.remote.function("slowly")(model.lm_head.output[:, -1]))
        del item
    return session.job


def right(job: Any, model: Any, scale: float, rounds: int = ROUNDS) -> list[str]:
    """Its result is whole and right, and it was published once; its statuses."""
    (values,) = job.result().values()
    assert len(values) == rounds
    for value in values:
        torch.testing.assert_close(value, expected(model, scale), rtol=1e-4, atol=1e-4)
    statuses = [event.status for event in job.events()]
    assert statuses.count("COMPLETED") == 1
    assert statuses[-1] == "COMPLETED"
    return statuses


def running(*jobs: Any) -> None:
    for job in jobs:
        until(lambda job=job: job.status == "RUNNING")


def test_a_trace_on_ray_is_the_local_one_and_replicas_are_spread(ring: Cluster, server: Serving, model: Any) -> None:
    with model.trace(PROMPT, remote=server.host):
        model.transformer.h[1].mlp.output = model.transformer.h[1].mlp.output * 0.5
        there = model.lm_head.output[:, -1].save()
    with model.trace(PROMPT):
        model.transformer.h[1].mlp.output = model.transformer.h[1].mlp.output * 0.5
        here = model.lm_head.output[:, -1].save()
    torch.testing.assert_close(there.value, here.value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(there.value, expected(model, 0.5), rtol=1e-4, atol=1e-4)
    until(lambda: workers(ring))
    assert [len(node.processes("workbench.server.worker")) for node in ring.nodes if node] == [1, 1]
    for pid in workers(ring):  # the actor has the cluster's network, and where graphs run there is none
        if os.geteuid() == 0:
            until(lambda pid=pid: network(pid) != network(parent(pid)))
        surroundings = Path(f"/proc/{pid}/environ").read_bytes()
        assert ring.surroundings["RAY_AUTH_TOKEN"].encode() not in surroundings


def test_many_jobs_at_a_time_do_not_mix(server: Serving, model: Any) -> None:
    scales = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
    jobs = [sent(model, server, scale, 5) for scale in scales]
    for job, scale in zip(jobs, scales, strict=True):
        assert "QUEUED" in right(job, model, scale, 5)


def test_an_actor_is_killed(ring: Cluster, server: Serving, model: Any) -> None:
    jobs = [sent(model, server, scale) for scale in (0.5, 2.0)]
    running(*jobs)
    pid = workers(ring)[0]
    os.kill(parent(pid), signal.SIGKILL)
    statuses = [right(job, model, scale) for job, scale in zip(jobs, (0.5, 2.0), strict=True)]
    assert sorted(each.count("RUNNING") for each in statuses) == [1, 2]
    until(lambda: gone(pid))  # the worker dies with the actor
    until(lambda: workers(ring))


def test_a_node_is_killed(ring: Cluster, server: Serving, model: Any) -> None:
    jobs = [sent(model, server, scale) for scale in (0.5, 2.0)]
    running(*jobs)
    ring.kill_node(1)
    statuses = [right(job, model, scale) for job, scale in zip(jobs, (0.5, 2.0), strict=True)]
    assert sorted(each.count("RUNNING") for each in statuses) == [1, 2]


def test_the_head_is_killed_and_comes_back(ring: Cluster, server: Serving, model: Any) -> None:
    jobs = [sent(model, server, scale) for scale in (0.5, 2.0)]
    running(jobs[0])
    ring.kill_head()
    late = sent(model, server, 1.5, 2)
    for index in range(2):  # they would wait for their head for a while, and then end
        ring.kill_node(index)
    ring.start(nodes=1)
    for job, scale in zip(jobs, (0.5, 2.0), strict=True):
        right(job, model, scale)
    right(late, model, 1.5, 2)


def test_the_operators_words(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--replicas", "2"], "are for a Ray cluster"),
        (["--ray", "nowhere"], "write the head's address and port"),
        (["--ray", "10.0.0.1:6379", "--replicas", "0"], "there is at least one of each model"),
        (["--ray", "10.0.0.1:6379", "--resources", "GPU"], "write a name and a number"),
        (["--tensor-parallel", "2", "--device-map", "auto"], "leave out --device-map"),
    ):
        assert main(["serve", GPT2, *words]) == 2
        assert told in capsys.readouterr().err


def test_the_api_process_imports_no_ray() -> None:
    code = (
        "import sys, workbench.cli, workbench.server.app, workbench.server.cluster.workers\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'ray']"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class Gate:
    """A gate, spoken to by hand."""

    def __init__(self, address: str, surroundings: dict[str, str]) -> None:
        words = [sys.executable, "-m", "workbench.server.cluster.gate", address, f"test-{os.getpid()}"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            words, cwd=ROOT, env=surroundings, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
        )
        self._timer = threading.Timer(150, self._process.kill)
        self._timer.start()

    def say(self, **message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"event": "ended"}

    def close(self) -> None:
        self._timer.cancel()
        self._process.kill()
        with self._process:  # closes its pipes
            self._process.wait()


def test_two_jobs_at_one_actor_run_one_after_the_other(ring: Cluster, model: Any, tmp_path: Path) -> None:
    gate = Gate(ring.address, ring.surroundings)
    try:
        assert gate.hear()["event"] == "ready"
        models = [{"key": GPT2, "options": {}}]
        gate.say(do="open", seat="s", name="one", models=models, limits={}, functions=None, resources={"CPU": 0})
        assert [gate.hear()["event"], gate.hear()["event"]] == ["placed", "loaded"]
        data = request(model, rounds=5)
        for job in ("a", "b"):
            (tmp_path / job).write_bytes(data)
            places = {"request": str(tmp_path / job), "result": str(tmp_path / f"{job}.result")}
            gate.say(do="run", seat="s", deadline=60, jobs=[{"job": job, "attempt": f"{job}.1", **places}])
        heard = []
        while sum(message["event"] == "idle" for message in heard) < 2:
            heard.append(gate.hear())
            assert heard[-1]["event"] in ("running", "log", "done", "idle"), heard
        order = [message["job"] for message in heard if "job" in message]
        assert order in (["a"] * 7 + ["b"] * 7, ["b"] * 7 + ["a"] * 7)
        assert all(message["attempt"] == f"{message['job']}.1" for message in heard if "job" in message)
        for job in ("a", "b"):
            unpack_outcome((tmp_path / f"{job}.result").read_bytes())
    finally:
        gate.close()


@pytest.mark.parametrize(
    ("token", "words"), [("0" * 32, "does not know this server's token"), ("", "is joined with a token only")]
)
def test_without_the_right_token_nothing_is_joined(ring: Cluster, tmp_path: Path, token: str, words: str) -> None:
    gate = Gate(ring.address, {**ring.surroundings, "RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)})
    try:
        said = gate.hear()
    finally:
        gate.close()
    assert said["event"] == "refused"
    assert words in said["why"]


@pytest.fixture(scope="module")
def again(ring: Cluster, server: Serving, model: Any) -> Iterator[tuple[Serving, Any]]:
    """The server once more, on what it kept, with less patience, and a job that it had before it was killed."""
    job = sent(model, server, 0.5)
    running(job)
    server.kill()
    made = served(ring, server.folder, "--patience", "8", port=server.port)
    try:
        yield made, job
    finally:
        made.stop()


def test_the_api_process_is_killed_and_started_again(again: tuple[Serving, Any], model: Any) -> None:
    _, job = again
    assert right(job, model, 0.5).count("RUNNING") == 2


def test_a_cluster_that_is_away_for_good_ends_jobs_in_words(
    ring: Cluster, again: tuple[Serving, Any], model: Any
) -> None:
    server, _ = again
    jobs = [sent(model, server, scale, 1000) for scale in (2.0, 1.0, 0.5)]
    running(jobs[0])
    ring.close()
    for job in jobs:
        with pytest.raises(ConnectionError, match=f"could not be run for [0-9]+ seconds: .*({AWAY})"):
            job.result()
        assert [event.status for event in job.events()].count("ERROR") == 1
