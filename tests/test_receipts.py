"""Receipts against sums by hand, and what lint says of each kind before anything is run."""

# ruff: noqa: E501  # a fault a line

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.random_experiments import gpt2, keep_tensors, llama
from workbench.errors import NeverReachedWarning
from workbench.experiment.kinds import (
    Ablate,
    AddNoise,
    Code,
    Experiment,
    Intervention,
    Log,
    Measure,
    Patch,
    Save,
    Scale,
    Set,
    Steer,
    Target,
)
from workbench.experiment.lint import lint
from workbench.experiment.run import run
from workbench.jupyter.messages import Receipt
from workbench.jupyter.report import receipt
from workbench.store import tensor

PROMPT, OTHER = "the cat sat on", "its dog"
MLP = Target(path="transformer.h.1.mlp")


@pytest.fixture(autouse=True)
def _tensors(_home: None) -> None:
    keep_tensors()


def receipts(*cards: Intervention, **settings: Any) -> dict[str, Receipt]:
    """Each card's, by its id."""
    e = Experiment(**{"model": "model", "prompts": (PROMPT,), "interventions": cards, **settings})
    return {tally.card: receipt(tally) for tally in run(e, gpt2(), receipts=True).tallies}


def values(path: str, prompt: str = PROMPT, port: str = "output") -> torch.Tensor:
    """A module's value in the bare model."""
    found: list[torch.Tensor] = []
    module: Any = gpt2().module.get_submodule(path)
    handle = (
        module.register_forward_hook(lambda m, a, out: found.append(out[0] if isinstance(out, tuple) else out))
        if port == "output"
        else module.register_forward_pre_hook(lambda m, a: found.append(a[0]))
    )
    with torch.no_grad():
        gpt2().module(torch.tensor([gpt2().tokenizer(prompt)["input_ids"]]))
    handle.remove()
    return found[0]


# ---- receipts


def test_how_often_how_many_and_how_much() -> None:
    before = values(MLP.path)
    after = before.clone()
    after[:, [0, -1]] = 0
    found = receipts(Ablate(id="a", at=MLP.model_copy(update={"positions": (0, -1)})), Save(id="b", at=MLP, name="x"))
    assert (found["a"].fired, found["a"].changed, found["a"].total) == (1, 16, 32)
    assert found["a"].norm_before == pytest.approx(float(before.norm()))
    assert found["a"].norm_after == pytest.approx(float(after.norm()))
    assert found["a"].warning is None
    norms = f"norm {float(before.norm()):.3g} → {float(after.norm()):.3g}"
    assert found["a"].text == f"fired 1×, changed 16 of 32 values, {norms}"
    assert found["b"].text == "fired 1×, 32 values"


def test_two_cards_on_one_value_have_a_receipt_each() -> None:
    before = values(MLP.path)
    found = receipts(Scale(id="a", at=MLP, factor=2), Scale(id="b", at=MLP, factor=3))
    norm = float(before.norm())
    assert [found[each].norm_before for each in "ab"] == pytest.approx([norm, 2 * norm])
    assert [found[each].norm_after for each in "ab"] == pytest.approx([2 * norm, 6 * norm])


def test_heads_and_neurons_are_counted_where_they_are_written() -> None:
    attn = Target(path="transformer.h.0.attn", heads=(1,), positions=(2,))
    inner = values("transformer.h.0.attn.c_proj", port="input")
    after = inner.clone()
    after[:, 2, 4:] = 0
    found = receipts(Ablate(id="a", at=attn))["a"]
    assert (found.changed, found.total) == (4, 32)
    assert (found.norm_before, found.norm_after) == pytest.approx((float(inner.norm()), float(after.norm())))
    neurons = receipts(Ablate(id="a", at=Target(path="transformer.h.1.mlp", neurons=(0, 5))))["a"]
    assert (neurons.changed, neurons.total) == (2 * 4, 6 * 4)


def test_a_card_that_changed_nothing_warns() -> None:
    found = receipts(Scale(id="a", at=MLP, factor=1), Ablate(id="b", at=MLP), Ablate(id="c", at=MLP))
    assert found["a"].warning == "it changed nothing: the values were so already"
    assert found["a"].text == "fired 1×, it changed nothing: the values were so already"
    assert found["b"].warning is None
    assert found["c"].warning is not None


def test_a_value_that_is_not_a_number_is_no_change() -> None:
    found = receipts(Set(id="a", at=MLP, value=0.0), Code(id="b", code="model.transformer.h[1].mlp.output[:] /= 0"),
                     Scale(id="c", at=MLP, factor=2))  # fmt: skip
    assert found["c"].warning == "it changed nothing: the values were so already"


def test_prompts_and_steps_are_summed() -> None:
    two = receipts(Scale(id="a", at=MLP, factor=2), prompts=(PROMPT, OTHER))["a"]
    both = [values(MLP.path, prompt) for prompt in (PROMPT, OTHER)]
    assert (two.fired, two.changed, two.total) == (2, 32 + 16, 32 + 16)
    assert two.norm_before == pytest.approx(float(torch.cat([each.flatten() for each in both]).norm()))
    steps = receipts(Scale(id="a", at=MLP, factor=2), Log(id="b", at=MLP), generate=3)
    assert (steps["a"].fired, steps["a"].changed) == (3, 32 + 8 + 8)
    assert steps["b"].fired == 3


def test_a_card_that_was_never_reached_says_so() -> None:
    with pytest.warns(NeverReachedWarning):
        found = receipts(Ablate(id="a", at=Target(path="transformer.h.1.mlp", steps="9")), generate=2)["a"]
    assert (found.fired, found.changed) == (0, None)
    assert found.text == found.warning == "never reached: generation ended after 2 steps"


# ---- lint


def faults(*cards: Intervention, model: Any = None, **settings: Any) -> list[tuple[str | None, str]]:
    e = Experiment(**{"model": "model", "prompts": (PROMPT,), "interventions": cards, **settings})
    return [(fault.card, fault.message) for fault in lint(e, model or gpt2())]


def at(path: str = "transformer.h.1", **more: Any) -> dict[str, Any]:
    return {"id": "a", "at": Target(path=path, **more)}


WRONG: dict[str, tuple[Intervention, str]] = {
    "a head that is not there": (Ablate(**at("transformer.h.0.attn", heads=(2,))), "head 2 is out of range: there are 2 heads (0–1)"),
    "heads of no layer": (Ablate(**at("lm_head", heads=(0,))), "lm_head is in no layer, so it has no heads; choose one in a layer"),
    "no head": (Ablate(**at("transformer.h.0.attn", heads=())), "no head is chosen; choose one, or all"),
    "a neuron that is not there": (Scale(**at("transformer.h.0.mlp", neurons=(-7,))), "neuron −7 is out of range: there are 6 neurons (0–5)"),
    "heads and neurons": (Scale(**at(heads=(0,), neurons=(0,))), "a value is of heads or of neurons; choose one of them"),
    "a slice and tokens": (Scale(**at(index="[:, 0]", positions=(0,))), "a slice says it all; take back the tokens, heads and neurons, or the slice"),
    "a slice out of range": (Set(**at(index="[:, 9]"), value=0.0), "index 9 is out of bounds for dimension 1 with size 4 (transformer.h.1 output has shape (1, 4, 8)); change what this card is about"),
    "a slice of a tuple": (Save(**at("transformer.h.0.attn", index="[:, -1]"), name="x"), "transformer.h.0.attn output is a tuple, not a tensor; its first tensor is [0], so write the slice as [0][:, -1]"),
    "a set of a tuple": (Set(**at("transformer.h.0.attn"), value=0.0), "transformer.h.0.attn output is a tuple, not a tensor; set a slice of its first tensor, such as [0][:, -1], or choose a module inside it"),
    "a tensor that is not there": (Set(**at(), value="love"), "there is no tensor named 'love'; there are 2 names"),
    "a tensor of another shape": (Patch(**at(), tensor="long"), "a tensor of shape (9,) does not fit a value of shape (1, 4, 8), nor the part of it that is meant, (1, 4, 8) (transformer.h.1 output has shape (1, 4, 8)); change what this card is about"),
    "no such name": (Save(**at(), name="a b"), "'a b' is not a Python name; use letters, digits and _, a letter first, as in a_b"),
    "no value": (Set(**at(), value=""), "there is no value yet; write a number, or the name of a kept tensor"),
    "no direction": (Steer(**at()), "there is no direction yet; write a prompt of what is wanted and one of its opposite, or name a tensor"),
    "no other prompt": (Patch(**at()), "there is no other prompt yet; write one, or name a tensor of an earlier run"),
    "no reference": (Ablate(**at(), mode="reference"), "there is no other prompt yet whose mean is taken; write one"),
    "an empty reference": (Ablate(**at(), mode="resample", source=" "), "the other prompt ' ' has no tokens; write at least one"),
    "another length": (Patch(**at(), source=OTHER), "this prompt has 4 tokens and the other 2, so their values cannot be exchanged whole; choose tokens, such as −1 for the last of both"),
    "a token the other has not": (Patch(**at(positions=(3,)), source=OTHER), "the other prompt has 2 tokens (0–1); token 3 is not one of them"),
    "not as many tokens": (Patch(**at(positions=(0, 1)), source=OTHER, source_positions=(1,)), "1 tokens of the other prompt are to go to 2 of this one; choose as many"),
    "whole numbers": (AddNoise(**at("transformer.wte", port="input")), "transformer.wte input holds int64 numbers, which cannot be changed by a part; choose a module after it"),
    "a norm of a tuple": (Log(**at("transformer.h.0.attn")), "transformer.h.0.attn output is a tuple, not a tensor, so it has no norm; log its value, or write the slice [0]"),
    "code that is no Python": (Code(id="a", code="x ="), "line 1 of this code is not Python: invalid syntax"),
    "no code": (Code(id="a", code="  "), "there is no code yet; write some, or remove this card"),
    "a prompt that is not there": (Scale(**at(prompt=1)), "there is no prompt 2: the run has one prompt; choose another, or all"),
}  # fmt: skip


@pytest.mark.parametrize(("card", "words"), WRONG.values(), ids=WRONG)
def test_each_fault_stands_on_its_card_with_its_cure(card: Intervention, words: str) -> None:
    if getattr(card, "tensor", None) == "long":
        tensor("long", torch.ones(9))
    other = Save(id="fine", at=Target(path="transformer.h.0"), name="fine")
    assert faults(other, card) == [("a", words)]
    off = card.model_copy(update={"enabled": False})
    assert faults(other, off) == []


def test_heads_are_those_of_the_queries() -> None:
    """Four heads of queries share two of keys and values; the cards are about the four."""
    card = Ablate(**at("model.layers.0.self_attn", heads=(3,)))
    assert faults(card, model=llama()) == []
    wrong = Ablate(**at("model.layers.0.self_attn", heads=(4,)))
    assert faults(wrong, model=llama()) == [("a", "head 4 is out of range: there are 4 heads (0–3)")]


def test_a_fault_says_of_which_prompt_it_is() -> None:
    (fault,) = faults(Ablate(**at(positions=(3,))), prompts=(PROMPT, OTHER))
    assert fault == ("a", "prompt 2: token 3 is out of range: the prompt has 2 tokens (0–1). Use −1 for the last.")


def test_a_step_that_is_not_there() -> None:
    (fault,) = faults(Scale(**at(steps="3:")), generate=3)
    assert fault == ("a", "there is no step 3: the generation has 3 (0–2); choose another")


def test_what_is_measured_is_checked_too() -> None:
    assert faults(measure=Measure(metric="rank", answers=("the cat",))) == [
        (None, "the answer 'the cat' is 2 tokens, not one; choose the first of them. Is a leading space meant, ' the cat'?")
    ]  # fmt: skip
    assert faults(measure=Measure(metric="logit_difference", answers=("the",)))[0][1].startswith(
        "the metric logit_difference takes 2 answer tokens, not 1"
    )


def test_steps_without_a_generation_are_a_warning() -> None:
    e = Experiment(model="model", prompts=(PROMPT,), interventions=(Scale(**at(steps="1")),))
    (fault,) = lint(e, gpt2())
    assert (fault.level, fault.card) == ("warning", "a")
    assert "mean nothing in a plain pass" in fault.message


@pytest.mark.parametrize("kind", [Ablate, Scale, AddNoise, Patch, Steer, Set, Log, Save])
def test_nothing_is_run_to_find_a_fault(kind: type[Any]) -> None:
    called: list[Any] = []
    module = gpt2().module
    handle = module.get_submodule("transformer.h.0").register_forward_pre_hook(lambda *a: called.append(a))
    needed: dict[Any, dict[str, Any]] = {Save: {"name": "x"}, Patch: {"source": PROMPT}, Steer: {"toward": OTHER}}
    assert faults(kind(**at(), **needed.get(kind, {}))) == []
    handle.remove()
    assert called == []
