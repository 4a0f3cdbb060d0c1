"""All kinds of cards against plain PyTorch hooks: one by one, and at random, with several prompts and in generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.random_experiments import ATTN, LAYER, MODELS, cards, experiments, hands, keep_tensors
from workbench.experiment.kinds import (
    Ablate,
    AddNoise,
    Experiment,
    Intervention,
    Log,
    Patch,
    Save,
    Scale,
    Set,
    Steer,
    Target,
)
from workbench.experiment.lint import lint
from workbench.experiment.run import Outcome, run

PROMPT, OTHER = "the cat sat on a", "its dog run"


@pytest.fixture(autouse=True)
def _tensors(_home: None) -> None:
    keep_tensors()


def against_hooks(name: str, e: Experiment) -> Outcome:
    """Run an experiment, and compare all it gives with what hooks give."""
    model, by = MODELS[name](), hands(name)
    assert [fault for fault in lint(e, model) if fault.level == "error"] == []
    outcome = run(e, model)
    several = len(e.prompts) > 1
    assert not outcome.unset, outcome.unset
    for prompt in range(len(e.prompts)):
        seen = by.run(e, prompt)
        for card in e.enabled:
            if isinstance(card, Save) and card.at.prompt in (None, prompt):
                key = card.name + (f"_{prompt}" if several and card.at.prompt is None else "")
                close(outcome.saved[key], seen.saved[card.name])
        logits = outcome.next_logits[prompt]
        assert logits is not None
        close(logits, seen.logits)
        if e.generate:
            assert outcome.generated[prompt].ids == seen.written
    return outcome


def close(left: Any, right: Any) -> None:
    if isinstance(right, Tensor):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    elif isinstance(right, dict):
        assert list(left) == list(right)
        for name in right:
            close(left[name], right[name])
    elif isinstance(right, (tuple, list)) and all(isinstance(each, Tensor) for each in right):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            close(one, other)


def places(name: str) -> dict[str, Target]:
    """A target of each sort."""
    layer = LAYER[name].format(1)
    attn = f"{LAYER[name].format(0)}.{ATTN[name]}"
    return {
        "all": Target(path=layer),
        "input": Target(path=f"{layer}.mlp", port="input"),
        "tokens": Target(path=f"{layer}.mlp", positions=(0, -1)),
        "a tuple's first": Target(path=attn, positions=(1,)),
        "slice": Target(path=layer, index="[:, -2:, [0, 2]]"),
        "heads": Target(path=attn, heads=(1,)),
        "heads at tokens": Target(path=attn, heads=(0, 1), positions=(0, 2)),
        "neurons": Target(path=f"{layer}.mlp", neurons=(0, 4)),
    }


def kinds(at: Target) -> dict[str, Intervention]:
    """A card of each kind that changes something."""
    here: dict[str, Any] = {"id": "a", "at": at}
    tokens: dict[str, Any] = (
        {} if at.positions is None else {"source_positions": tuple(each - 1 for each in at.positions)}
    )
    same = OTHER if at.positions is not None else "a mat and its dog"
    return {
        "ablate to zero": Ablate(**here),
        "ablate to its mean": Ablate(**here, mode="mean"),
        "ablate to another's mean": Ablate(**here, mode="reference", source=OTHER),
        "resample from itself": Ablate(**here, mode="resample", seed=3),
        "resample from another": Ablate(**here, mode="resample", source=OTHER, seed=1),
        "set": Set(**here, value=1.5),
        "set to a tensor": Set(**here, value="run 1/one number"),
        "scale": Scale(**here, factor=-2),
        "add noise": AddNoise(**here, std=0.5, seed=2),
        "steer": Steer(**here, toward=OTHER, away="the mat", factor=2),
        "steer toward one": Steer(**here, toward=OTHER),
        "steer by a tensor": Steer(**here, tensor="run 1/one number", factor=3),
        "patch": Patch(**here, source=same, **tokens),
        "patch from a run": Patch(**here, tensor="run 1/one number"),
    }


@pytest.mark.parametrize("kind", kinds(Target(path="")))
@pytest.mark.parametrize("place", places("gpt2"))
def test_each_kind_at_each_sort_of_place(kind: str, place: str) -> None:
    for name in MODELS:
        at = places(name)[place]
        card = kinds(at)[kind]
        if isinstance(card, Set) and place == "a tuple's first":  # a set is a line of the language, which says which
            card = card.model_copy(update={"at": Target(path=at.path, index="[0][:, [1]]")})
        there = Target(path=at.path, port=at.port)
        saves = (
            Save(id="b", at=there, name="there"),
            Save(id="c", at=Target(path=LAYER[name].format(1)), name="after"),
        )
        e = Experiment(model="model", prompts=(PROMPT,), interventions=(card, *saves))
        against_hooks(name, e)


@pytest.mark.parametrize("name", MODELS)
def test_a_direction_of_ones_own_from_a_file(name: str, tmp_path: Any) -> None:
    from safetensors.torch import save_file

    file = str(tmp_path / "steering.safetensors")
    vector = torch.linspace(-1, 1, 8)
    save_file({"only": vector}, file)
    at = Target(path=LAYER[name].format(0))
    e = Experiment(
        model="model",
        prompts=(PROMPT,),
        interventions=(Steer(id="a", at=at, tensor=file, factor=2), Save(id="b", at=at, name="x")),
    )
    clean = e.model_copy(update={"interventions": e.interventions[1:]})
    before, after = (run(each, MODELS[name]()).saved["x"] for each in (clean, e))
    torch.testing.assert_close(after, before + 2 * vector)


@pytest.mark.parametrize("show", ["norm", "mean", "shape", "value"])
def test_log_lines_are_what_hooks_see_with_their_site(show: Any) -> None:
    card = Log(id="a", at=Target(path="transformer.h.1.mlp", positions=(-1,)), show=show, text="here")
    e = Experiment(model="model", prompts=(PROMPT, OTHER), interventions=(card,))
    outcome = run(e, MODELS["gpt2"]())
    wanted = [hands("gpt2").run(e, prompt).logged[0] for prompt in (0, 1)]
    assert [line.site for line in outcome.logs] == ["transformer.h.1.mlp.output"] * 2
    assert [line.card for line in outcome.logs] == ["a", "a"]
    for line, value in zip(outcome.logs, wanted, strict=True):
        if show in ("norm", "mean"):
            found = line.text.removeprefix("here tensor(").removesuffix(")")
            assert float(found) == pytest.approx(float(value), abs=1e-3)
        else:
            assert line.text == f"here {value}"


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_random_experiments_are_hooks_by_hand(name: str, data: st.DataObject) -> None:
    keep_tensors()
    against_hooks(name, data.draw(experiments(name, code=False)))


def test_every_kind_is_drawn() -> None:
    """The strategy reaches all kinds, or the law above says little."""
    found: set[str] = set()

    @given(cards("gpt2", count=1, generate=0, id="0", code=True))
    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    def collect(card: Intervention) -> None:
        found.add(card.kind)

    collect()
    assert found == {"save", "ablate", "set", "scale", "add_noise", "steer", "patch", "log", "code"}
