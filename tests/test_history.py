"""What a run measures, what of it stays, how two are compared, what a capsule brings back: against plain PyTorch."""

from __future__ import annotations

import copy
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.kernel import Kernel, Page
from tests.random_experiments import gpt2
from tests.tiny import WORDS
from workbench.errors import InputError
from workbench.experiment.kinds import Ablate, Code, Experiment, Intervention, Log, Measure, Save, Scale, Set, Target
from workbench.jupyter.archive import DIED
from workbench.jupyter.bench import Bench
from workbench.jupyter.messages import (
    CapsuleParams,
    ExperimentParams,
    KeepParams,
    PathParams,
    RenameParams,
    RerunParams,
    RunParams,
    RunResult,
    TwoRunsParams,
)
from workbench.models.language import LanguageModel
from workbench.store import Store, store

PROMPT, OTHER = "the cat sat on", "its dog"
MLP = Ablate(id="mlp", at=Target(path="transformer.h.0.mlp"))
HIDDEN = Save(id="hidden", at=Target(path="transformer.h.1"), name="hidden")


class Panel:
    """Whoever asks: a bench over a namespace, as one kernel has it."""

    def __init__(self, model: LanguageModel | None = None) -> None:
        self.events: list[Any] = []
        self.bench = Bench(lambda: {"model": model or gpt2()}, self.events.append)

    def run(self, *cards: Intervention, **settings: Any) -> RunResult:
        e = Experiment(**{"model": "model", "prompts": (PROMPT,), "interventions": cards, **settings})
        return self.ended(self.bench.run(ExperimentParams(experiment=e)).run)

    def ended(self, run: int) -> RunResult:
        end = time.monotonic() + 60
        while all(each.summary.run != run or each.summary.state == "running" for each in self.told("run")):
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.005)
        return self.bench.result(RunParams(run=run))

    def told(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type == kind]


def bare(prompt: str, without: str | None = None) -> Tensor:
    """The bare model's logits of the next token, `without` a module's output."""
    module: Any = gpt2().module
    handles = []
    if without is not None:
        handles = [module.get_submodule(without).register_forward_hook(lambda m, a, out: torch.zeros_like(out))]
    with torch.no_grad():
        found = module(torch.tensor([gpt2().tokenizer(prompt)["input_ids"]])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return found.double()


def by_hand(logits: Tensor, clean: Tensor, metric: str) -> float:
    cat, dog = (WORDS.index(word) + 1 for word in ("cat", "dog"))
    p = logits.softmax(-1)
    return {
        "logit_difference": lambda: float(logits[cat] - logits[dog]),
        "probability": lambda: float(p[cat]),
        "rank": lambda: float(sorted(p.tolist(), reverse=True).index(float(p[cat])) + 1),
        "kl": lambda: float(torch.nn.functional.kl_div(p.log(), clean.softmax(-1), reduction="sum")),
    }[metric]()


# ---- what is measured


@pytest.mark.parametrize(("metric", "count"), [("logit_difference", 2), ("probability", 1), ("rank", 1), ("kl", 0)])
def test_each_metric_of_each_prompt_before_and_after(metric: Any, count: int) -> None:
    measure = Measure(metric=metric, answers=("cat", WORDS.index("dog") + 1)[:count])
    found = Panel().run(MLP, measure=measure, prompts=(PROMPT, OTHER))
    for row in found.prompts:
        clean, changed = bare(row.prompt), bare(row.prompt, without="transformer.h.0.mlp")
        assert row.measure_before == pytest.approx(by_hand(clean, clean, metric), abs=1e-5)
        assert row.measure_after == pytest.approx(by_hand(changed, clean, metric), abs=1e-5)
        assert row.kl == pytest.approx(by_hand(changed, clean, "kl"), abs=1e-5)
        top = row.after[0]
        assert top.probability == pytest.approx(float(changed.softmax(-1)[top.id]), abs=1e-5)
    first = found.prompts[0]
    said = f"{first.measure_before:.3g} → {first.measure_after:.3g}" if metric != "kl" else f"{first.measure_after:.3g}"
    assert f" · {metric.replace('_', ' ').replace('kl', 'KL')} {said} · 1 intervention · 2 prompts" in found.headline


def test_generation_step_by_step_beside_the_clean_one() -> None:
    panel = Panel()
    found = panel.run(MLP, Log(id="log", at=Target(path="lm_head"), show="norm"), generate=3, prompts=(PROMPT, OTHER))
    module: Any = gpt2().module
    for row in found.prompts:
        wanted = []
        for zeroed in (True, False):
            handle = module.get_submodule("transformer.h.0.mlp").register_forward_hook(
                lambda m, a, out, zeroed=zeroed: torch.zeros_like(out) if zeroed else out
            )
            ids = torch.tensor([gpt2().tokenizer(row.prompt)["input_ids"]])
            wanted.append(
                module.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0,
                    return_dict_in_generate=True, output_scores=True,
                )
            )  # fmt: skip
            handle.remove()
        for step, told in enumerate(row.generated):
            place = len(row.tokens) + step
            assert (told.step, told.id) == (step, int(wanted[0].sequences[0, place]))
            chance = wanted[0].scores[step][0].softmax(-1)[told.id]
            assert told.probability == pytest.approx(float(chance), abs=1e-5)
            assert told.clean is not None
            assert told.clean.id == int(wanted[1].sequences[0, place])
        assert len(row.generated) == 3
    assert len(found.logs) == 3 * 2
    assert [event.line for event in panel.told("log")] == list(found.logs)
    assert {line.site for line in found.logs} == {"lm_head.output"}
    assert [receipt.fired for receipt in found.receipts] == [6, 6]


def test_progress_goes_up_and_names_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.jupyter.work.OFTEN", 0.0)
    panel = Panel()
    panel.run(MLP, generate=3)
    told = panel.told("progress")
    shares = [event.done / event.total for event in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {event.text for event in told} >= {"clean run · token 1 of 3", "run with interventions · token 3 of 3"}


# ---- the history


def test_a_kernel_that_starts_again_finds_its_runs() -> None:
    first = Panel()
    one = first.run(MLP, HIDDEN, measure=Measure(metric="rank", answers=("cat",)))
    two = first.run(Scale(id="s", at=MLP.at, factor=2), HIDDEN)
    first.bench.rename(RenameParams(run=one.run, title="  the first "))
    value = first.bench.runs_made.get(one.run).value("hidden")

    again = Panel()
    rows = again.bench.runs().runs
    assert [(row.run, row.title, row.state, row.held) for row in rows] == [
        (2, None, "done", True), (1, "the first", "done", True)
    ]  # fmt: skip
    assert [row.headline for row in rows] == [two.headline, one.headline]
    found = again.bench.result(RunParams(run=1))
    assert found.model_copy(update={"saved": (), "title": None}) == one.model_copy(update={"saved": ()})
    assert found.saved[0].shape == (1, 4, 8)
    assert torch.equal(again.bench.runs_made.get(1).value("hidden"), value)
    assert again.run(HIDDEN).run == 3
    again.bench.delete(RunParams(run=1))
    assert [row.run for row in Panel().bench.runs().runs] == [3, 2]
    assert "run 1/hidden" not in store().names()
    with pytest.raises(InputError, match="run 1 is not remembered"):
        again.bench.result(RunParams(run=1))


def test_what_is_kept_is_small_and_its_tensors_stay_within_a_budget() -> None:
    panel = Panel()
    here = store()
    kept = torch.zeros(10)
    here.keep("mine", kept)
    here.budget = 3 * 128 + 4  # three tensors of a run: (1, 4, 8) in 32 bits
    for _ in range(5):
        panel.run(Scale(id="s", at=MLP.at, factor=float(torch.rand(1))), HIDDEN)
    assert [name for name in here.names()] == ["mine", "run 3/hidden", "run 4/hidden", "run 5/hidden"]
    assert len(list((here.folder / "tensors").glob("*.safetensors"))) == 4
    assert [row.held for row in Panel().bench.runs().runs] == [True, True, True, False, False]
    assert all(path.stat().st_size < 20_000 for path in (here.folder / "runs").glob("*.json"))
    (told,) = Panel().bench.result(RunParams(run=1)).saved
    assert told.text.endswith("no longer held; run it again to see it")


def test_a_damaged_file_hides_no_other_run(caplog: pytest.LogCaptureFixture) -> None:
    panel = Panel()
    panel.run(HIDDEN)
    panel.run(HIDDEN)
    (store().folder / "runs" / "1.json").write_text('{"result": ')
    assert [row.run for row in Panel().bench.runs().runs] == [2]
    assert "a run that cannot be read is left out: 1.json" in caplog.text


def test_a_kept_tensor_is_used_by_another_run() -> None:
    panel = Panel()
    panel.run(HIDDEN)
    panel.bench.keep(KeepParams(run=1, name="hidden", keep_as=" love "))
    assert [each.name for each in panel.bench.tensors().tensors] == ["love", "run 1/hidden"]
    put = Set(id="set", at=Target(path="transformer.h.0"), value="love")
    found = panel.run(put, Save(id="x", at=Target(path="transformer.h.0"), name="x"))
    values = panel.bench.runs_made.get(found.run).value("x"), panel.bench.runs_made.get(1).value("hidden")
    assert torch.equal(*values)


# ---- two runs


def test_two_runs_side_by_side() -> None:
    panel = Panel()
    measure = Measure(metric="probability", answers=("cat",))
    panel.run(HIDDEN, measure=measure)
    panel.run(MLP, HIDDEN, Save(id="m", at=MLP.at, name="more"), measure=measure)
    found = panel.bench.compare(TwoRunsParams(run=1, other=2))
    clean, changed = (panel.bench.runs_made.get(run).value("hidden") for run in (1, 2))
    gap = float((clean.double() - changed.double()).abs().max())
    told = {each.name: each for each in found.values}
    assert not found.equal
    assert told["hidden"].difference == pytest.approx(gap)
    assert told["hidden"].text == f"differs by up to {gap:.3g}"
    assert told["more"].text == "only in the second"
    before, after = (by_hand(bare(PROMPT, gone), bare(PROMPT), "probability") for gone in (None, MLP.at.path))
    assert told["measure"].text == f"{before:.4g} and {after:.4g}"
    assert found.experiment == (
        "+ Ablate transformer.h.0.mlp output to zero", "+ Save transformer.h.0.mlp output as more"
    )  # fmt: skip
    panel.run(HIDDEN, measure=measure)
    assert panel.bench.compare(TwoRunsParams(run=1, other=3)).text == "3 values equal, bit by bit"


def test_next_tokens_are_compared_as_far_as_they_are_known() -> None:
    panel = Panel()
    panel.run(HIDDEN, prompts=(PROMPT, OTHER))
    panel.run(MLP, HIDDEN, prompts=(PROMPT, OTHER))
    both = TwoRunsParams(run=1, other=2)
    p = [[bare(prompt, gone).softmax(-1) for gone in (None, MLP.at.path)] for prompt in (PROMPT, OTHER)]
    gaps = [float((left - right).abs().max()) for left, right in p]

    found = panel.bench.compare(both)  # all is held: of every token in the vocabulary
    told = {each.name: each for each in found.values}
    for number, (rows, (left, right)) in enumerate(zip(found.tokens, p, strict=True)):
        assert told[f"next tokens of prompt {number + 1}"].difference == pytest.approx(gaps[number], rel=1e-4)
        assert {*left.topk(5).indices.tolist(), *right.topk(5).indices.tolist()} <= {row.id for row in rows}
        for row in rows:
            assert (row.left, row.right) == pytest.approx((float(left[row.id]), float(right[row.id])), rel=1e-4)

    found = Panel().bench.compare(both)  # another kernel: only what was written of them is known
    told = {each.name: each for each in found.values}
    for number, (rows, (left, right)) in enumerate(zip(found.tokens, p, strict=True)):
        least = told[f"next tokens of prompt {number + 1}"].difference
        assert least is not None
        assert 0 < least <= gaps[number] * (1 + 1e-4)
        assert any(row.left is None for row in rows)
        for row in rows:
            assert row.left is None or row.left == pytest.approx(float(left[row.id]), rel=1e-4)
            assert row.right == pytest.approx(float(right[row.id]), rel=1e-4)


# ---- capsules


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Go to another kernel, with a history of its own."""

    def go(model: LanguageModel | None = None) -> Panel:
        monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "another"))
        return Panel(model)

    return go


def test_a_capsule_is_run_again_on_another_kernel_and_compared(tmp_path: Path, elsewhere: Any) -> None:
    panel = Panel()
    wb.tensor("love", torch.linspace(-1, 1, 8))
    put = Set(id="set", at=Target(path="transformer.h.0", index="[:, -1]"), value="love")
    made = panel.run(put, HIDDEN, measure=Measure(metric="kl"))
    path = tmp_path / "x.capsule"
    saved = panel.bench.capsule_save(CapsuleParams(run=made.run, path=str(path)))
    assert saved.headline == made.headline
    assert saved.bytes == path.stat().st_size < 30_000
    with zipfile.ZipFile(path) as file:
        contents = json.loads(file.read("capsule.json"))
        assert set(file.namelist()) == {"capsule.json", "results.safetensors", "tensors.safetensors"}
    assert contents["environment"]["ids"] == [gpt2().tokenizer(PROMPT)["input_ids"]]
    assert contents["environment"]["versions"]["torch"] == torch.__version__

    other = elsewhere()
    wb.tensor("love", torch.zeros(8))  # the name is taken here by another tensor
    told = other.bench.capsule_load(PathParams(path=str(path)))
    assert (told.experiment, told.foreign, told.differs) == (made.experiment, (), ())
    again = other.ended(other.bench.capsule_rerun(RerunParams(path=str(path))).run)
    assert again.comparison is not None
    assert again.comparison.equal
    assert again.comparison.text == "3 values equal, bit by bit"  # hidden, next tokens, the measure
    assert again.headline.endswith("rerun · 3 values equal, bit by bit")
    assert torch.equal(wb.tensor("love"), torch.zeros(8))


def test_a_rerun_says_what_differs(tmp_path: Path, elsewhere: Any) -> None:
    panel = Panel()
    path = tmp_path / "x.capsule"
    panel.run(MLP, HIDDEN)
    panel.bench.capsule_save(CapsuleParams(run=1, path=str(path)))
    model = LanguageModel(copy.deepcopy(gpt2().module), tokenizer=gpt2().tokenizer)
    with torch.no_grad():
        model.module.get_submodule("lm_head").weight[0] += 1  # type: ignore[index]
        model.module.get_submodule("transformer.h.1.mlp.c_fc").bias[0] += 1  # type: ignore[index]
    other = elsewhere(model)
    assert other.bench.capsule_load(PathParams(path=str(path))).differs == ("the weights are others",)
    found = other.ended(other.bench.capsule_rerun(RerunParams(path=str(path))).run).comparison
    assert found is not None
    assert not found.equal
    assert found.environment == ("the weights are others",)
    assert {each.name for each in found.values if not each.equal} == {"hidden", "next tokens"}
    before = panel.bench.runs_made.get(1).value("hidden")
    gap = float((before.double() - other.bench.runs_made.get(1).value("hidden").double()).abs().max())
    assert next(each for each in found.values if each.name == "hidden").text == f"differs by up to {gap:.3g}"


def test_code_from_elsewhere_runs_only_with_consent(tmp_path: Path, elsewhere: Any) -> None:
    mark = tmp_path / "mark"
    panel = Panel()
    code = Code(id="c", code=f"open({str(mark)!r}, 'w').close()\nx = model.lm_head.output.save()")
    panel.run(code)
    path = tmp_path / "x.capsule"
    panel.bench.capsule_save(CapsuleParams(run=1, path=str(path)))
    assert panel.bench.capsule_load(PathParams(path=str(path))).foreign == ()  # it was made here
    mark.unlink()
    other = elsewhere()
    told = other.bench.capsule_load(PathParams(path=str(path)))
    assert told.foreign == (code.code,)
    with pytest.raises(InputError, match="this capsule brings code of its own"):
        other.bench.capsule_rerun(RerunParams(path=str(path)))
    with pytest.raises(Exception, match="this code came in a capsule"):  # nor by copying its card
        other.run(code)
    assert not mark.exists()
    again = other.ended(other.bench.capsule_rerun(RerunParams(path=str(path), consent=True)).run)
    assert mark.exists()
    assert again.comparison is not None
    assert again.comparison.equal
    assert other.run(code).state == "done"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "there is no file"),
        (b"nonsense", "x.capsule is no capsule"),
        (b"PK\x05\x06" + bytes(18), "is no capsule"),
    ],
)
def test_what_is_no_capsule(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "x.capsule"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        Panel().bench.capsule_load(PathParams(path=str(path)))


# ---- a kernel that ends

SETUP = "from tests.random_experiments import gpt2\nmodel = gpt2()"


def test_a_kernel_that_is_killed_in_the_middle_of_a_run(tmp_path: Path) -> None:
    with Kernel(tmp_path / "ipython") as kernel:
        with kernel.client() as client:
            Page(client).cell(f"import time\n{SETUP}\nmodule = model.module")
            page = Page(client)
            e = Experiment(model="model", prompts=(PROMPT,), interventions=(HIDDEN,)).model_dump(mode="json")
            page.ended(page.result("run", experiment=e)["run"])
            page.cell("module.transformer.h[0].register_forward_pre_hook(lambda *a: time.sleep(60))")
            page.result("run", experiment=e)
            page.wait(lambda message: any(each["summary"]["run"] == 2 for each in page.told("run")))
            kernel.restart()
        with kernel.client() as client:
            Page(client).cell(SETUP)
            page = Page(client)
            rows = page.result("runs")["runs"]
            assert [(row["run"], row["state"]) for row in rows] == [(2, "failed"), (1, "done")]
            assert rows[0]["headline"] == f"run 2 · 0.00 s · failed: {DIED}"
            found = page.result("result", run=1)["saved"]
            assert found[0]["shape"] == [1, 4, 8]
            assert page.result("run", experiment=e)["run"] == 3
            assert page.ended(3)["state"] == "done"


def test_a_store_of_another_version_is_none() -> None:
    here = store()
    here.folder.mkdir(parents=True)
    (here.folder / "names.json").write_text("[]")
    assert Store(here.folder).names() == {}
