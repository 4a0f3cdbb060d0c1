"""Export, proven: for random experiments of every kind, in all three forms, the text gives what the experiment gives,
and reading it gives the experiment back."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from tests.random_experiments import MODELS, experiments, gpt2, keep_tensors
from workbench.errors import InputError
from workbench.experiment.cell import Cell
from workbench.experiment.from_python import from_python, lifted
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
from workbench.experiment.merging import normal
from workbench.experiment.run import Job, run, seeded
from workbench.experiment.to_python import to_python, write
from workbench.experiment.verify import verify
from workbench.proxy import values_of

PROMPT = "the cat sat on"
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # each example runs a model ten times


@pytest.fixture(autouse=True)
def _tensors(_home: None) -> None:
    keep_tensors()


def of(*cards: Intervention, **settings: Any) -> Experiment:
    return Experiment(**{"model": "model", "prompts": (PROMPT,), "interventions": cards, **settings})


# ---- the text gives what the experiment gives


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, phases=UNSHRUNK)
def test_each_form_gives_every_value_bit_by_bit(name: str, data: st.DataObject) -> None:
    keep_tensors()
    e, model = data.draw(experiments(name)), MODELS[name]()
    found = verify(e, model)
    assert found.equal, found.text
    assert found.exact
    saved = run(e, model).saved
    for form in (executed, traced):
        again = form(e, model)
        for key, value in saved.items():
            same(again[key], value)


def executed(e: Experiment, model: Any) -> dict[str, Any]:
    """The script, run as a file of its own would be, but for opening the model."""
    text = to_python(e, "script", opening="opened()")
    namespace: dict[str, Any] = {"opened": lambda: model, "__name__": "__main__", "print": lambda *words: None}
    namespace["__builtins__"] = builtins
    with torch.random.fork_rng():
        exec(compile(text, "script.py", "exec"), namespace)
    return {key: plain(value) for key, value in namespace.items()}


def traced(e: Experiment, model: Any) -> dict[str, Any]:
    """The `%%trace` cell; an ordinary one where there is code around the trace."""
    text = to_python(e, "cell")
    namespace: dict[str, Any] = {"model": model, "wb": wb}
    if not text.startswith("%%trace"):
        with seeded(e.seed):
            exec(text, namespace)
    else:
        cell = Cell(text, "cell", namespace)
        job = Job(cell.experiment, model, cell.cards, "cell")
        with seeded(cell.header.seed):
            job.execute(cell.block(), namespace, cell.given())
    return {key: plain(value) for key, value in namespace.items()}


def plain(value: Any) -> Any:
    try:
        return values_of(value)
    except ValueError:
        return None


def same(left: Any, right: Any) -> None:
    if isinstance(right, Tensor):
        assert torch.equal(left, right) or bool((left.isnan() == right.isnan()).all())
    elif isinstance(right, dict):
        for key in right:
            same(left[key], right[key])
    elif isinstance(right, (tuple, list)):
        for one, other in zip(left, right, strict=True):
            same(one, other)


def test_verify_says_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    e = of(
        Scale(id="a", at=Target(path="transformer.h.0"), factor=2), Save(id="b", at=Target(path="lm_head"), name="x")
    )
    assert verify(e, gpt2()).text == "1 value equal, bit by bit"
    with gpt2().trace(PROMPT):
        wb.scale(gpt2().transformer.h[0], 3)
        other = gpt2().lm_head.output.save()
    wrong = to_python(e).replace("2)", "3)")
    monkeypatch.setattr("workbench.experiment.verify.to_python", lambda e: wrong)
    found = verify(e, gpt2())
    gap = (run(e, gpt2()).saved["x"].double() - other.value.double()).abs().max()
    assert not found.equal
    assert found.text == f"x differs by up to {float(gap):.3g}"


def test_chance_is_the_same_twice_only_with_a_seed() -> None:
    code = "import torch\nc = (torch.rand(3) + model.lm_head.output.sum() * 0).save()"
    e = of(
        Code(id="a", code=code),
        Save(id="b", at=Target(path="lm_head", steps=":"), name="x"),
        generate=3,
        temperature=1.0,
    )
    assert verify(e.model_copy(update={"seed": 5}), gpt2()).text == "2 values equal, bit by bit"
    found = verify(e, gpt2())
    assert not found.equal
    assert not found.exact


# ---- reading it gives the experiment back


@pytest.mark.parametrize("form", ["with", "cell"])
@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_reading_what_was_written_gives_the_experiment(name: str, form: Any, data: st.DataObject) -> None:
    keep_tensors()
    e = normal(data.draw(experiments(name)))
    for variables in ({}, {"model": MODELS[name]()}):
        assert from_python(to_python(e, form), variables) == e
    assert normal(e) == e


anything = st.text(max_size=20)
paths = st.sampled_from(["", "transformer.h.1", "a.output.b", "0.x-y.class", "transformer.h.0.attn"])
maybe = st.none() | anything
positions = st.none() | st.lists(st.integers(-9, 9), max_size=3).map(tuple)
sides = st.sampled_from(["output", "input"])
steps = st.none() | st.sampled_from(["0", "2", ":", "1:", ":2", "0:4:2"])
indices = st.sampled_from(["[:, -1]", "[0][:, [1, 2]]", "[...]", "[:, [0]]", "[None]", "['x']", "[:, []]"])
wild = st.builds(
    Target, path=paths, port=sides, positions=positions, prompt=st.none() | st.integers(0, 1), steps=steps
) | st.builds(Target, path=paths, index=indices, steps=steps)
finite = st.floats(allow_nan=False, allow_infinity=False)
modes = st.sampled_from(["zero", "mean", "reference", "resample"])
shows = st.sampled_from(["norm", "mean", "value", "shape"])
card: dict[str, Any] = {"id": st.uuids().map(str), "at": wild, "note": anything}
wild_cards = (
    st.builds(Save, **card, name=st.from_regex(r"\A[a-z]\Z"))
    | st.builds(Ablate, **card, mode=modes, source=maybe, seed=st.integers(0, 9))
    | st.builds(Set, **card, value=finite | anything)
    | st.builds(Scale, **card, factor=finite)
    | st.builds(AddNoise, **card, std=st.floats(0, 9), seed=st.integers(0, 9))
    | st.builds(Steer, **card, toward=maybe, away=maybe, tensor=maybe, factor=finite)
    | st.builds(Patch, **card, source=maybe, tensor=maybe, source_positions=positions)
    | st.builds(Log, **card, show=shows, text=anything)
)
measures = st.builds(
    Measure,
    metric=st.sampled_from(["logit_difference", "probability", "rank", "kl"]),
    answers=st.lists(anything | st.integers(0, 9), max_size=2).map(tuple),
)


@st.composite
def unruly(draw: st.DrawFn) -> Experiment:
    """Experiments with anything in them that has a place in one, runnable or not."""
    chosen = draw(st.lists(wild_cards, max_size=4))
    named = [c.model_copy(update={"name": f"{c.name}{n}"}) if isinstance(c, Save) else c for n, c in enumerate(chosen)]
    return Experiment(
        model="model",
        prompts=tuple(draw(st.lists(anything, min_size=1, max_size=2))),
        generate=draw(st.sampled_from([0, 0, 4])),
        temperature=draw(st.sampled_from([0.0, 0.7])),
        seed=draw(st.none() | st.integers(0, 99)),
        measure=draw(st.none() | measures),
        interventions=tuple(named),
    )


@pytest.mark.parametrize("form", ["with", "cell"])
@given(e=unruly())
@example(e=of(Set(id="a", at=Target(path="x", index="[...]"), value=1.0)))
@settings(max_examples=150, deadline=None)
def test_reading_gives_back_whatever_can_be_written(form: Any, e: Experiment) -> None:
    e = normal(e)
    text = to_python(e, form)
    ast.parse(text.partition("\n")[2] if text.startswith("%%") else text)
    assert from_python(text) == e, text


# ---- what is not known becomes code, word for word

FOREIGN = """\
import numpy  # for later
xs = [1,
      2]

with model.trace("the cat sat on") as tracer:
    # first this
    wb.ablate(model.transformer.h[0].mlp)  # gone
    for layer in (0, 1):
        # deep inside
        text = \"\"\"
  not moved
\"\"\"
        model.transformer.h[layer].output[:] *= 2
    x = model.lm_head.output.save(); y = 1
    wb.scale(model.transformer.h[n], 2.0)
    z = model.transformer.h[1].output.save()

print(x)  # the end
"""


def test_a_cell_of_ones_own_is_lifted_word_for_word() -> None:
    e = from_python(FOREIGN)
    assert [card.kind for card in e.interventions] == ["code", "ablate", "code", "save", "code"]
    before, ablate, inside, save, after = e.interventions
    assert isinstance(before, Code)
    assert (before.where, before.code) == ("before", "import numpy  # for later\nxs = [1,\n      2]")
    assert ablate.note == "first this\ngone"
    assert isinstance(inside, Code)
    assert inside.code == (
        'for layer in (0, 1):\n    # deep inside\n    text = """\n  not moved\n"""\n'
        "    model.transformer.h[layer].output[:] *= 2\nx = model.lm_head.output.save(); y = 1\n"
        "wb.scale(model.transformer.h[n], 2.0)"
    )
    assert isinstance(save, Save)
    assert isinstance(after, Code)
    assert (after.where, after.code) == ("after", "print(x)  # the end")
    lines = lambda text: [line.strip() for line in text.splitlines() if line.strip()]  # noqa: E731
    assert sorted(lines(to_python(e))) == sorted(lines(FOREIGN.replace("  # gone", "\n    # gone")))


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "with model.trace(prompt) as tracer:\n    x = model.h.output.save()",
        'with model.trace("a", scan=True):\n    x = model.h.output.save()',
        'with model.trace("a") as t:\n    x = model.h.output.save()',
        'with model.trace("a"), open("f"):\n    x = model.h.output.save()',
        'for p in ["a"]:\n    with model.trace(p):\n        pass',
    ],
)
def test_what_is_no_experiment_is_one_card_of_code(text: str) -> None:
    (card,) = from_python(text).interventions
    assert isinstance(card, Code)
    assert (card.code, card.where) == (text, "before")


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("wb.ablate(model.h, -1)", "ablate"),
        ("wb.ablate(at=model.h, positions=(0, 1), mode='mean')", "ablate"),
        ("wb.scale(model.h, factor=3)", "scale"),
        ("wb.steer(model.h, wb.tensor('love'), factor=2)", "steer"),
        ("wb.patch(model.h.input, 'other', -1)", "patch"),
        ("model.h.output[:, -1, :10] = 0", "set"),
        ("model.h.output[0][:, -1] = wb.tensor('run 3/x')", "set"),
        ("tracer.log('seen', model.h.output.norm())", "log"),
        ("x = model.h.output[:, 3].save()", "save"),
        ("x = model.h.output.clone().save()", "save"),
        ("wb.ablate(model.h, positions=[i])", "code"),
        ("wb.ablate(model.h, *more)", "code"),
        ("wb.ablate(model.h, wrong=1)", "code"),
        ("wb.ablate(other.h)", "code"),
        ("wb.ablate(model.h[-1])", "code"),
        ("x = model.h.output * 2", "code"),
        ("x = y = model.h.output.save()", "code"),
        ("x: int = model.h.output.save()", "code"),
        ("model.h.output = 0", "code"),
        ("model.h.output[:, i] = 0", "code"),
        ("model.h.output[:] = True", "code"),
        ("tracer.log(model.h.output)", "code"),
        ("wb.measure('rank', [' a'])", "code"),
        ("if True: wb.ablate(model.h)", "code"),
    ],
)
def test_a_statement_is_what_it_is(statement: str, kind: str) -> None:
    e = from_python(f'with model.trace("a") as tracer:\n    {statement}')
    (card,) = e.interventions
    assert card.kind == kind
    if kind == "code":
        assert isinstance(card, Code)
        assert card.code == statement


def test_standard_names_are_read_by_the_model_itself() -> None:
    text = (
        'with model.trace("a"):\n    wb.ablate(model.layers[1].attn, heads=[0])\n    x = model.layers[0].output.save()'
    )
    for name, paths in (
        ("gpt2", ["transformer.h.1.attn", "transformer.h.0"]),
        ("llama", ["model.layers.1.self_attn", "model.layers.0"]),
    ):
        found = from_python(text, {"model": MODELS[name]()}).interventions
        assert [card.at.path for card in found if not isinstance(card, Code)] == paths


def test_what_is_no_python_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="line 2 of this code is not Python"):
        from_python("x = 1\ny = = 2")


def test_lines_know_their_cards() -> None:
    e = of(
        Code(id="a", code="x = 1\ny = 2", where="before"),
        Ablate(id="b", at=Target(path="h"), note="why"),
        Save(id="c", at=Target(path="h"), name="z"),
        prompts=("a", "b"),
    )
    written = write(e)
    lines = written.text.split("\n")
    assert [lines[line - 1].strip() for line, card in written.cards.items() if card == "b"] == [
        "# why",
        "wb.ablate(model.h)",
    ] * 2
    assert {card for line, card in written.cards.items() if "wb.ablate" in lines[line - 1]} == {"b"}
    assert {card for line, card in written.cards.items() if "z_" in lines[line - 1]} == {"c"}
    again = lifted(written.text)
    kinds = {card.id: card.kind for card in again.experiment.interventions}
    assert {kinds[card] for line, card in again.cards.items() if "wb.ablate" in lines[line - 1]} == {"ablate"}


def test_a_script_is_complete(tmp_path: Path) -> None:
    """It runs by itself, in another process, and prints what was saved."""
    e = Experiment(
        model="model",
        prompts=("The Eiffel Tower is in the city of",),
        seed=3,
        measure=Measure(metric="probability", answers=(" Paris",)),
        interventions=(
            AddNoise(id="a", at=Target(path="transformer.h.0"), std=1.0, seed=2),
            Save(id="b", at=Target(path="lm_head", index="[:, -1, :2]"), name="x"),
        ),
    )
    text = to_python(e, "script", opening='wb.demo("gpt2")')
    file = tmp_path / "script.py"
    file.write_text(text)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    outcome = run(e, wb.demo("gpt2"))
    assert done.stdout == f"x: {outcome.saved['x']}\nmeasured: {outcome.measured[0]}\n"
    assert text.startswith('"""Add noise of 1 to transformer.h.0 output: “The Eiffel Tower is in the city of”."""')
