"""The bench as the panel uses it: what it finds, what it runs, what it remembers, and what it says of faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb
from tests.byhand import by_hand
from tests.tiny import gpt2
from workbench.errors import InputError
from workbench.experiment.kinds import Ablate, Experiment, Save, Target
from workbench.experiment.scene import TAKES_TENSORS
from workbench.jupyter.bench import Bench, Faulty
from workbench.jupyter.messages import (
    METHODS,
    CodeParams,
    ExperimentParams,
    ModelParams,
    PromptParams,
    PromptsParams,
    RunParams,
    RunResult,
    ViewParams,
)
from workbench.jupyter.runs import KEPT

PROMPT = "the cat sat on"


class Panel:
    """Whoever asks: a bench over a namespace, and the events heard from it."""

    def __init__(self, **namespace: object) -> None:
        self.namespace = namespace
        self.events: list[Any] = []
        self.bench = Bench(lambda: self.namespace, self.events.append)

    def run(self, *cards: Save | Ablate, prompt: str = PROMPT) -> int:
        experiment = Experiment(model="model", prompts=(prompt,), interventions=cards)
        return self.bench.run(ExperimentParams(experiment=experiment)).run

    def result(self, run: int) -> RunResult:
        """The result, once the run has ended."""
        wait(lambda: self.state(run) != "running")
        return self.bench.result(RunParams(run=run))

    def state(self, run: int) -> str:
        return next(summary.state for summary in self.bench.runs().runs if summary.run == run)

    def cancel(self, run: int) -> None:
        self.bench.cancel(RunParams(run=run))


def wait(until: Callable[[], bool], patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while not until():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.005)


@pytest.fixture
def panel() -> Panel:
    return Panel(model=gpt2())


def hidden(name: str = "hidden", positions: tuple[int, ...] | None = None) -> Save:
    return Save(id=name, at=Target(path="transformer.h.1", positions=positions), name=name)


MLP = Ablate(id="mlp", at=Target(path="transformer.h.0.mlp"))


# ---- what there is


def test_models_are_found_by_name(panel: Panel) -> None:
    plain = wb.NNsight(nn.Linear(2, 3))
    panel.namespace |= {"same": gpt2(), "plain": plain, "_hidden": wb.NNsight(nn.ReLU()), "number": 3, "raw": nn.ReLU()}
    found = panel.bench.models()
    assert [(each.name, each.cls, each.device, each.tokenizes) for each in found.models] == [
        ("model", "GPT2LMHeadModel", "cpu", True),
        ("plain", "Linear", "cpu", False),
        ("raw", "ReLU", "cpu", False),
    ]
    assert [each.name for each in found.models if not each.wrapped] == ["raw"]
    assert found.models[1].parameters == 2 * 3 + 3
    assert found.models[0].parameters == gpt2().module.num_parameters()  # pyright: ignore[reportCallIssue]
    assert found.kernel == panel.bench.models().kernel != Bench(dict).models().kernel


def test_changed_models_are_told_once(panel: Panel) -> None:
    panel.bench.models_changed()
    panel.bench.models_changed()
    assert [event.type for event in panel.events] == ["models"]
    panel.namespace["second"] = wb.NNsight(nn.ReLU())
    panel.bench.models_changed()
    panel.namespace["not a model"] = 3
    panel.bench.models_changed()
    assert [event.type for event in panel.events] == ["models"] * 2
    del panel.namespace["second"]
    panel.bench.models_changed()
    assert len(panel.events) == 3


def test_tokens_and_shapes(panel: Panel) -> None:
    tokens = panel.bench.tokens(PromptsParams(model="model", prompts=("the dog",)))
    assert (tokens.prompts[0].tokens, tokens.prompts[0].ids) == (("the", "dog"), (1, 10))
    reply = panel.bench.shapes(PromptParams(model="model", prompt="the dog ran"))
    assert reply.how == "scanned"
    assert reply.shapes is not None


def test_a_model_without_a_tokenizer_says_so(panel: Panel) -> None:
    panel.namespace["plain"] = wb.NNsight(nn.Linear(2, 2))
    with pytest.raises(InputError, match="takes tensors, not text"):
        panel.bench.tokens(PromptsParams(model="plain", prompts=("the",)))
    reply = panel.bench.shapes(PromptParams(model="plain", prompt="the"))
    assert (reply.shapes, reply.how) == (None, f"unknown: {TAKES_TENSORS}")
    code = panel.bench.code(CodeParams(experiment=Experiment(model="plain")))
    assert [fault.message for fault in code.faults] == [TAKES_TENSORS]


def test_shapes_of_no_prompt_are_unknown_with_the_reason(panel: Panel) -> None:
    reply = panel.bench.shapes(PromptParams(model="model", prompt=""))
    assert (reply.shapes, reply.how) == (None, "unknown: the prompt '' has no tokens; write at least one")


def test_a_name_that_is_no_model(panel: Panel) -> None:
    panel.namespace["number"] = 3
    for name in ("number", "nothing"):
        with pytest.raises(InputError, match=f"there is no model named '{name}' in this kernel"):
            panel.bench.tree(ModelParams(model=name))


def test_requests_by_name_and_as_data(panel: Panel) -> None:
    experiment = Experiment(model="model", prompts=(PROMPT,), interventions=(MLP,)).model_dump(mode="json")
    data, buffers = panel.bench.call("code", {"experiment": experiment})
    assert data["code"].startswith('with model.trace("the cat sat on"):\n    wb.ablate(')
    assert (data["faults"], buffers) == ([], [])
    with pytest.raises(InputError, match="unknown request '__init__'; one of models, wrap, tree"):
        panel.bench.call("__init__", {})
    assert all(callable(getattr(panel.bench, method)) for method in METHODS)


# ---- runs


def test_a_run_gives_both_rows_of_tokens_and_the_saved_value(panel: Panel) -> None:
    run = panel.run(MLP, hidden())
    result = panel.result(run)
    assert (result.state, result.fault, result.logs) == ("done", None, ())
    assert result.code == (
        'with model.trace("the cat sat on"):\n'
        "    wb.ablate(model.transformer.h[0].mlp)\n"
        "    hidden = model.transformer.h[1].output.save()"
    )
    ids = torch.tensor([[1, 2, 3, 4]])
    module = gpt2().module
    with torch.no_grad():
        clean = module(input_ids=ids).logits[0, -1].softmax(-1)
    saved, output = by_hand(module, result.experiment, input_ids=ids)
    changed = output.logits[0, -1].softmax(-1)
    for row, expected in ((result.prompts[0].before, clean), (result.prompts[0].after, changed)):
        assert [top.probability for top in row] == pytest.approx(expected[[top.id for top in row]].tolist(), abs=1e-5)
    assert {top.id for top in result.prompts[0].before} == {
        *clean.topk(5).indices.tolist(),
        *changed.topk(5).indices.tolist(),
    }
    assert [top.id for top in result.prompts[0].before] == [top.id for top in result.prompts[0].after]

    (value,) = result.saved
    assert (value.name, value.path, value.shape, value.dtype) == ("hidden", "transformer.h.1", (1, 4, 8), "float32")
    reply, buffers = panel.bench.view(ViewParams(run=run, name="hidden", kind="array"))
    grid = reply.view.grid  # type: ignore[union-attr]
    assert grid is not None
    assert grid.rows is not None
    assert grid.rows.labels == ("the", "cat", "sat", "on")
    np.testing.assert_allclose(
        np.frombuffer(buffers[grid.buffer], np.float32).reshape(4, 8), saved["hidden"][0], rtol=1e-5, atol=1e-6
    )


def test_the_headline(panel: Panel) -> None:
    result = panel.result(panel.run(MLP, hidden("a"), hidden("b")))
    best = [max(row, key=lambda top: top.probability) for row in (result.prompts[0].before, result.prompts[0].after)]
    words = [f"{top.token} {top.probability:.2f}" for top in best]
    assert result.headline == (
        f"run 1 · {result.seconds:.2f} s · {words[0]} → {words[1]} · 1 intervention · 2 values saved"
    )
    result = panel.result(panel.run())
    assert result.headline == f"run 2 · {result.seconds:.2f} s · {words[0]} · no intervention"
    assert result.prompts[0].before == result.prompts[0].after


def test_what_is_told_of_a_run(panel: Panel) -> None:
    panel.bench.models_changed()
    panel.result(panel.run(MLP))
    told = [(event.type, getattr(event, "text", None)) for event in panel.events]
    assert told[:4] == [
        ("models", None),
        ("run", None),
        ("progress", "clean run"),
        ("progress", "run with interventions"),
    ]
    wait(lambda: len(panel.events) == 5)
    assert [event.summary.state for event in panel.events if event.type == "run"] == ["running", "done"]


def test_labels_of_chosen_positions(panel: Panel) -> None:
    run = panel.run(hidden(positions=(-1, 0)))
    panel.result(run)
    reply, _ = panel.bench.view(ViewParams(run=run, name="hidden", kind="array"))
    assert reply.view.grid.rows.labels == ("on", "the")  # type: ignore[union-attr]


def test_a_value_that_is_no_tensor_is_shown_by_its_first(panel: Panel) -> None:
    card = Save(id="a", at=Target(path="transformer.h.0.attn"), name="attention")
    run = panel.run(card)
    (value,) = panel.result(run).saved
    assert value.text == "tuple: (1, 4, 8) float32, None"
    reply, _ = panel.bench.view(ViewParams(run=run, name="attention", kind="array"))
    assert (reply.view.title, reply.view.shape) == ("attention[0]", (1, 4, 8))  # type: ignore[union-attr]


def test_a_faulty_experiment_is_refused(panel: Panel) -> None:
    with pytest.raises(Faulty) as error:
        panel.run(Ablate(id="far", at=Target(path="transformer.h.0", positions=(9,))))
    assert error.value.fault.card == "far"
    assert error.value.fault.message == "token 9 is out of range: the prompt has 4 tokens (0–3). Use −1 for the last."
    assert panel.bench.runs().runs == ()


@contextmanager
def at_each_block(do: Callable[[int], object]) -> Iterator[None]:
    """Something that happens when a block of the model is reached."""
    blocks = gpt2().module.get_submodule("transformer.h").children()

    def hook(index: int) -> Callable[[nn.Module, Any], None]:
        def reached(module: nn.Module, args: Any) -> None:
            do(index)

        return reached

    handles = [block.register_forward_pre_hook(hook(index)) for index, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_an_error_of_the_model_is_a_fault_in_words(panel: Panel, kind: type[BaseException]) -> None:
    panel.bench.code(CodeParams(experiment=Experiment(model="model", prompts=(PROMPT,))))

    def fail(block: int) -> None:
        raise kind("out of luck")

    with at_each_block(fail):
        result = panel.result(panel.run(hidden()))
    assert result.state == "failed"
    assert result.fault is not None
    assert result.fault.message == f"{kind.__name__}: out of luck"
    assert result.headline == f"run 1 · {result.seconds:.2f} s · failed: {kind.__name__}: out of luck"
    assert result.saved == ()
    assert panel.result(panel.run(hidden())).state == "done"


def test_an_ablation_that_ends_in_nan_says_so(panel: Panel) -> None:
    module = gpt2().module.get_submodule("transformer.h.0.mlp")
    calls = []

    def spoil(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output * float("nan") if len(calls) > 1 else output  # the clean run is the first

    panel.bench.code(CodeParams(experiment=Experiment(model="model", prompts=(PROMPT,))))
    handle = module.register_forward_hook(spoil)
    try:
        result = panel.result(panel.run(Ablate(id="a", at=Target(path="transformer.h.1.mlp", positions=(0,)))))
    finally:
        handle.remove()
    assert result.state == "done"
    assert "→ NaN" in result.headline
    assert result.prompts[0].after == ()
    assert [line.text for line in result.logs] == [
        "the logits at the last token are not numbers (NaN), so there are no probabilities"
    ]


# ---- cancel


def hooks_left() -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in gpt2().module.modules())


def test_cancel_ends_a_run_within_one_module_call(panel: Panel) -> None:
    panel.bench.code(CodeParams(experiment=Experiment(model="model", prompts=(PROMPT,))))
    reached: list[int] = []
    gate = threading.Event()

    def slowly(block: int) -> None:
        reached.append(block)
        gate.wait(0.5)

    with at_each_block(slowly):
        run = panel.run(hidden())
        wait(lambda: bool(reached))
        panel.cancel(run)
        result = panel.result(run)
    assert reached == [0]
    assert result.state == "cancelled"
    assert result.headline == f"run 1 · cancelled after {result.seconds:.2f} s"
    assert (result.fault, result.saved) == (None, ())
    assert hooks_left() == 0
    assert panel.result(panel.run(hidden())).state == "done"
    with pytest.raises(InputError, match="run 1 cannot be cancelled: it is cancelled"):
        panel.cancel(run)


def test_a_cancel_that_python_swallows_is_made_again(panel: Panel) -> None:
    panel.bench.code(CodeParams(experiment=Experiment(model="model", prompts=(PROMPT,))))
    reached: list[int] = []

    class Dying:
        """What is raised while it dies is lost."""

        def __del__(self) -> None:
            while True:
                time.sleep(0.001)

    def slowly(block: int) -> None:
        reached.append(block)
        Dying()
        while len(reached) == 1:
            time.sleep(0.001)

    with at_each_block(slowly):
        run = panel.run(hidden())
        wait(lambda: bool(reached))
        panel.cancel(run)
        assert panel.result(run).state == "cancelled"
    assert reached == [0]
    assert hooks_left() == 0


def test_runs_wait_for_each_other_and_can_be_cancelled_while_they_wait(panel: Panel) -> None:
    panel.bench.code(CodeParams(experiment=Experiment(model="model", prompts=(PROMPT,))))
    gate = threading.Event()
    running: list[int] = []
    with at_each_block(lambda block: (running.append(block), gate.wait(30))):
        first, second, third = panel.run(), panel.run(), panel.run()
        wait(lambda: running == [0])
        headlines = [summary.headline for summary in panel.bench.runs().runs]
        assert headlines == ["run 3 · waiting for run 2", "run 2 · waiting for run 1", "run 1 · running"]
        panel.cancel(second)
        assert panel.result(second).headline == "run 2 · cancelled before it began"
        gate.set()
        assert panel.result(first).state == panel.result(third).state == "done"
    assert running == [0, 1, 0, 1]


def test_cancel_at_any_moment_leaves_nothing_behind(panel: Panel) -> None:
    states = []
    for number in range(150):
        run = panel.run(MLP, hidden())
        time.sleep(number % 50 * 0.0002)
        with suppress(InputError):  # it had ended
            panel.cancel(run)
        states.append(panel.result(run).state)
        assert hooks_left() == 0
    assert set(states) <= {"done", "cancelled"}
    assert "cancelled" in states
    assert panel.result(panel.run(MLP, hidden())).state == "done"


# ---- history


def test_the_history_holds_few_tensors_in_memory_and_the_others_on_disk(panel: Panel) -> None:
    made = [panel.result(panel.run(hidden())).run for _ in range(KEPT + 2)]
    runs = panel.bench.runs().runs
    assert [summary.run for summary in runs] == made[::-1]
    wait(lambda: panel.bench.records()[-1].outcome is None)
    records = panel.bench.records()
    assert [record.outcome is not None for record in records] == [True] * KEPT + [False] * 2
    assert torch.equal(records[-1].value("hidden"), records[0].value("hidden"))
    with pytest.raises(InputError, match="run 99 is not remembered; the last 200 are"):
        panel.bench.result(RunParams(run=99))


def test_a_run_keeps_its_model_although_the_name_is_given_away(panel: Panel) -> None:
    gate = threading.Event()
    with at_each_block(lambda block: gate.wait(30)):
        run = panel.run(hidden())
        panel.namespace.clear()
        gate.set()
        assert panel.result(run).state == "done"


def test_what_an_earlier_version_kept_is_read() -> None:
    kept = {"version": 1, "model": "model", "prompt": PROMPT, "interventions": [hidden().model_dump(mode="json")]}
    reply, _ = Panel().bench.call("migrate", {"experiment": kept})
    assert reply["experiment"]["version"] == 2
    assert reply["experiment"]["prompts"] == [PROMPT]
    with pytest.raises(ValueError, match="version"):
        Panel().bench.call("migrate", {"experiment": {**kept, "version": 99}})


def test_of_a_run_the_modules_that_were_not_called_are_known() -> None:
    panel = Panel(model=wb.demo())
    run = panel.run(Save(id="s", at=Target(path="transformer.h.1"), name="h"))
    panel.result(run)
    quiet = panel.bench.fired(RunParams(run=run)).quiet
    # An attention's dropout is not called where attention is computed in one; the list of layers only holds them.
    assert quiet == tuple(f"transformer.h.{layer}.attn.attn_dropout" for layer in range(4))
