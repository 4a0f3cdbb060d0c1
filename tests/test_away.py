"""The panel's runs on a server: the same numbers as here, what the server is, its statuses, and a run that is ended."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import workbench as wb
from tests.serving import GPT2, Serving, serving
from workbench.errors import NeverReachedWarning
from workbench.experiment.kinds import Ablate, Code, Experiment, Log, Patch, Save, Scale, Target
from workbench.experiment.run import run
from workbench.jupyter.bench import Bench
from workbench.jupyter.messages import (
    CodeParams,
    Event,
    ModelParams,
    Progress,
    RunParams,
    RunResult,
    StartParams,
    ViewParams,
)
from workbench.remote.connection import close_all

PROMPT = "The Eiffel Tower is in the city of"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("away"), GPT2) as running:
        yield running.ready()
    close_all()


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def bench(server: Serving, heard: list[Event], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("WORKBENCH_HOST", server.host)
    names = {"model": wb.LanguageModel(GPT2), "own": wb.NNsight(torch.nn.Linear(2, 2))}
    return Bench(lambda: names, heard.append)


def ended(bench: Bench, run: int) -> RunResult:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = bench.result(RunParams(run=run))
        if found.state != "running":
            return found
        time.sleep(0.02)
    raise AssertionError("it did not end")


def experiment(*more: Any, generate: int = 0) -> Experiment:
    cards = (
        Ablate(id="a", at=Target(path="transformer.h.2.mlp", positions=(-1,))),
        Save(id="b", at=Target(path="transformer.h.3"), name="hidden"),
        Log(id="c", at=Target(path="transformer.h.3")),
        *more,
    )
    return Experiment(model="model", prompts=(PROMPT,), interventions=cards, generate=generate)


def test_what_the_server_is(bench: Bench, server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench.server(ModelParams(model="model"))
    assert (found.host, found.hosts, found.fault) == (server.host, GPT2, None)
    assert [(each.key, each.loaded, each.queued) for each in found.models] == [(GPT2, True, 0)]
    assert bench.server(ModelParams(model="own")).fault == (
        "a server finds its models by name, and this one was made here"
    )
    monkeypatch.setenv("WORKBENCH_HOST", "http://127.0.0.1:9")
    assert "no server answers at http://127.0.0.1:9" in str(bench.server(ModelParams(model="model")).fault)


def test_the_same_numbers_there_and_here(bench: Bench, heard: list[Event]) -> None:
    there = ended(bench, bench.run(StartParams(experiment=experiment(), remote=True)).run)
    assert there.fault is None
    assert all(parameter.is_meta for parameter in bench._model("model").module.parameters())
    here = ended(bench, bench.run(StartParams(experiment=experiment())).run)
    for when, answer in (("before", " Paris"), ("after", " London")):
        rows = [getattr(each.prompts[0], when) for each in (there, here)]
        assert max(rows[0], key=lambda row: row.probability).token == answer
        for one, other in zip(*rows, strict=True):
            assert one.token == other.token
            assert one.probability == pytest.approx(other.probability, abs=1e-4)
    assert [(each.name, each.shape) for each in there.saved] == [("hidden", (1, 8, 128))]
    assert [line.text.rpartition(" ")[0] for line in there.logs] == [line.text.rpartition(" ")[0] for line in here.logs]
    assert there.receipts == here.receipts
    assert [each.text.partition(",")[0] for each in there.receipts] == ["fired 1×"] * 3
    entries = bench.views(RunParams(run=there.run)).entries  # no view that would run it once more, here
    assert [(entry.name, entry.kind) for entry in entries] == [("hidden", entries[0].kind)]
    shown, buffers = bench.view(ViewParams(run=there.run, name="hidden", kind="array"))
    assert shown.view.kind == "array"
    assert buffers
    assert "remote=True" in there.code
    assert "remote" not in here.code
    told = [event.text for event in heard if isinstance(event, Progress)]
    assert "running there" in told


def test_a_generation_there(bench: Bench) -> None:
    there = ended(bench, bench.run(StartParams(experiment=experiment(generate=2), remote=True)).run)
    here = ended(bench, bench.run(StartParams(experiment=experiment(generate=2))).run)
    assert there.receipts == here.receipts
    assert [each.token for each in there.prompts[0].generated] == [each.token for each in here.prompts[0].generated]


def test_cards_say_there_what_they_did(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOST", server.host)
    here, away = wb.LanguageModel(GPT2, dispatch=True), wb.LanguageModel(GPT2)
    first, second = Target(path="transformer.h.1"), Target(path="transformer.h.2.mlp")
    cards = (
        Scale(id="nothing", at=first, factor=1),
        Ablate(id="heads", at=Target(path="transformer.h.1.attn", heads=(1,))),
        Ablate(id="neurons", at=second.model_copy(update={"neurons": (1, 5), "positions": (0,)})),
        Patch(id="patch", at=first.model_copy(update={"positions": (4,)}), source="The Colosseum is in the city of"),
        Save(id="save", at=second, name="hidden"),
    )
    step = (
        Ablate(id="some", at=Target(path="transformer.h.0.mlp", steps="1:3")),
        Ablate(id="late", at=Target(path="transformer.h.0", steps="9")),
    )
    several = Experiment(model="model", prompts=(PROMPT, "Rome is"), interventions=cards[:3])
    for e in (
        Experiment(model="model", prompts=(PROMPT,), interventions=cards),
        several,
        Experiment(model="model", prompts=(PROMPT,), interventions=(*cards, *step), generate=4),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NeverReachedWarning)
            there = run(e, away, receipts=True, remote=True).tallies
            assert there == run(e, here, receipts=True).tallies
        did = {tally.card: tally for tally in there}
        assert (did["nothing"].fired > 0, did["nothing"].changed) == (True, 0)
        assert did["neurons"].changed == 2 * len(e.prompts)
    assert (did["some"].fired, did["some"].changed, did["some"].squares_after) == (2, 2 * 128, 0)
    assert (did["late"].fired, did["late"].why) == (0, "generation ended after 4 steps")


def test_a_fault_there_is_its_cards(bench: Bench) -> None:
    wrong = Code(id="d", code="late = model.lm_head.output[:, 99].save()")
    found = ended(bench, bench.run(StartParams(experiment=experiment(wrong), remote=True)).run)
    assert found.fault is not None
    assert (found.state, found.fault.card) == ("failed", "d")
    assert "index 99 is out of bounds" in found.fault.message


def test_a_run_is_ended_there(bench: Bench, heard: list[Event]) -> None:
    slow = Code(id="d", code="x = torch.rand(900, 900)\nfor _ in range(400):\n    x = torch.linalg.svd(x)[0]\nx.save()")
    slow = slow.model_copy(update={"code": "import torch\n" + slow.code})
    run = bench.run(StartParams(experiment=experiment(slow), remote=True)).run
    end = time.monotonic() + 60
    while bench.runs_made.get(run).job is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.5)
    start = time.monotonic()
    bench.cancel(RunParams(run=run))
    assert ended(bench, run).state == "cancelled"
    assert time.monotonic() - start < 20
    again = ended(bench, bench.run(StartParams(experiment=experiment(), remote=True)).run)
    assert again.state == "done"


def test_the_code_says_where(bench: Bench) -> None:
    code = bench.code(CodeParams(experiment=experiment(), remote=True)).code
    assert f'with model.trace("{PROMPT}", remote=True)' in code
    assert "--remote" in bench.code(CodeParams(experiment=experiment(), remote=True, form="cell")).code
