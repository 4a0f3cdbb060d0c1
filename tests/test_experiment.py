"""The experiment's laws: data and JSON, data and Python, Python and hooks by hand; and what is wrong before a run."""

from __future__ import annotations

import ast
import keyword
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from tests.byhand import by_hand
from tests.tiny import WORDS, gpt2
from workbench.errors import InputError
from workbench.experiment.fault import explain
from workbench.experiment.kinds import Ablate, Experiment, Intervention, Save, Target
from workbench.experiment.lint import lint
from workbench.experiment.run import run
from workbench.experiment.scene import TAKES_TENSORS
from workbench.experiment.to_python import is_name, quoted, to_python, write
from workbench.tracing.tracer import SHOW_LOG

PATHS = [envoy.path for envoy in gpt2().walk()]
PROMPT = "the cat sat on"


def experiment(*cards: Intervention, prompt: str = PROMPT, model: str = "model") -> Experiment:
    return Experiment(model=model, prompts=(prompt,), interventions=cards)


def save(path: str, name: str = "x", positions: tuple[int, ...] | None = None, port: Any = "output") -> Save:
    return Save(id=f"save {name}", at=Target(path=path, port=port, positions=positions), name=name)


def ablate(path: str, positions: tuple[int, ...] | None = None, port: Any = "output", mode: Any = "zero") -> Ablate:
    return Ablate(id=f"ablate {path}", at=Target(path=path, port=port, positions=positions), mode=mode)


# ---- laws

mostly = st.sampled_from([True, True, True, False])
targets = st.builds(
    Target,
    path=st.sampled_from(PATHS),
    port=st.sampled_from(["output", "input"]),
    positions=st.none() | st.lists(st.integers(-3, 2), min_size=1, max_size=3, unique=True).map(tuple),
)
cards = st.builds(
    Save, id=st.uuids().map(str), at=targets, enabled=mostly, name=st.from_regex(r"\A[a-z]\w?\Z")
) | st.builds(Ablate, id=st.uuids().map(str), at=targets, enabled=mostly, mode=st.sampled_from(["zero", "mean"]))
prompts = st.lists(st.sampled_from(WORDS), min_size=3, max_size=6).map(" ".join)


@st.composite
def runnable(draw: st.DrawFn) -> Experiment:
    """A random experiment in which whatever lint found wrong is switched off."""
    chosen = draw(st.lists(cards, min_size=2, max_size=6))
    named = [
        card.model_copy(update={"name": f"v{index}"} if isinstance(card, Save) else {})
        for index, card in enumerate(chosen)
    ]
    drawn = Experiment(model="model", prompts=(draw(prompts),), interventions=tuple(named))
    while faults := {fault.card for fault in lint(drawn, gpt2())}:
        mended = [
            card.model_copy(update={"enabled": False}) if card.id in faults else card for card in drawn.interventions
        ]
        drawn = drawn.model_copy(update={"interventions": tuple(mended)})
    return drawn


anything = st.builds(
    Experiment,
    model=st.text(max_size=8) | st.just("model"),
    prompts=st.lists(st.text(max_size=30), min_size=1, max_size=2).map(tuple),
    interventions=st.lists(
        st.builds(Save, id=st.text(max_size=4), at=targets, name=st.text(max_size=8))
        | st.builds(Ablate, id=st.text(max_size=4), at=st.builds(Target, path=st.text(max_size=12)))
        | cards,
        max_size=4,
    ).map(tuple),
)


@given(anything)
def test_json_and_back(e: Experiment) -> None:
    assert Experiment.model_validate_json(e.model_dump_json()) == e


@given(st.text())
def test_any_prompt_can_be_quoted(text: str) -> None:
    literal = quoted(text)
    assert ast.literal_eval(literal) == text
    assert literal.isprintable()


@given(anything)
def test_the_code_is_always_python_or_refused_in_words(e: Experiment) -> None:
    if not is_name(e.model):
        with pytest.raises(InputError, match="is not a Python name"):
            to_python(e)
        return
    (block,) = ast.parse(to_python(e)).body
    assert isinstance(block, ast.With)
    enabled = [card for card in e.interventions if card.enabled]
    parts = [block.body] if len(e.prompts) == 1 else [each.body for each in block.body if isinstance(each, ast.With)]
    assert len(parts) == len(e.prompts)
    for part in parts:
        assert len(part) == max(1, len(enabled))
        for statement in part:  # nothing in it but what the kinds write, whatever the names say
            assert isinstance(statement, (ast.Assign, ast.Expr, ast.Pass))


@given(anything)
@settings(max_examples=100, deadline=None)
def test_lint_answers_for_anything(e: Experiment) -> None:
    for fault in lint(e, gpt2()):
        assert fault.message
        assert fault.card is None or fault.card in [card.id for card in e.interventions]


def same(left: Any, right: Any) -> bool:
    """Equal, tensors bit by bit."""
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return left is right or type(left) is type(right)


@given(runnable())
@settings(max_examples=200, deadline=None)
def test_running_is_the_text_is_hooks_by_hand(e: Experiment) -> None:
    model = gpt2()
    outcome = run(e, model)

    namespace: dict[str, Any] = {"model": model, "wb": wb}
    exec(to_python(e), namespace)
    names = [card.name for card in e.interventions if isinstance(card, Save) and card.enabled]
    assert not outcome.unset
    assert sorted(outcome.saved) == sorted(names)
    assert all(same(outcome.saved[name], namespace[name].value) for name in names)

    ids = torch.tensor([model.tokenizer(e.prompts[0])["input_ids"]])
    by, output = by_hand(model.module, e, input_ids=ids, attention_mask=torch.ones_like(ids))
    assert sorted(by) == sorted(names)
    for name in names:
        close(outcome.saved[name], by[name])
    assert outcome.next_logits[0] is not None
    torch.testing.assert_close(outcome.next_logits[0], output.logits[0, -1])


def close(left: Any, right: Any) -> None:
    """Equal up to rounding: a mean may be summed in another order."""
    if isinstance(left, Tensor):
        torch.testing.assert_close(left, right)
    elif isinstance(left, (tuple, list)):
        for one, other in zip(left, right, strict=True):
            close(one, other)
    elif isinstance(left, dict):
        for name in left:
            close(left[name], right[name])


# ---- the Python

FULL = experiment(
    ablate("transformer.h.1.mlp", positions=(-1,)),
    save("transformer.h.0", "hidden"),
    save("lm_head", "first", positions=(0, 2)),
    ablate("transformer.h.1", port="input", mode="mean"),
    save("transformer.wte", "off").model_copy(update={"enabled": False}),
    save("", "whole"),
)


def test_the_code_of_each_kind() -> None:
    assert to_python(FULL) == (
        'with model.trace("the cat sat on"):\n'
        "    wb.ablate(model.transformer.h[1].mlp, positions=[-1])\n"
        "    hidden = model.transformer.h[0].output.save()\n"
        "    first = model.lm_head.output[:, [0, 2]].save()\n"
        '    wb.ablate(model.transformer.h[1].input, mode="mean")\n'
        "    whole = model.output.save()"
    )


def test_modules_with_names_that_are_no_attributes() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.get_submodule("class").get_submodule("output").get_submodule("a-b")(x)

    odd = Odd()
    odd.add_module("class", torch.nn.Module())
    odd.get_submodule("class").add_module("output", torch.nn.Module())
    odd.get_submodule("class.output").add_module("a-b", torch.nn.ReLU())
    code = to_python(experiment(save("class.output.a-b")))
    assert "x = model['class']['output']['a-b'].output.save()" in code
    namespace: dict[str, Any] = {"model": wb.NNsight(odd)}
    exec(code.replace(quoted(PROMPT), "torch.ones(1)"), namespace | {"torch": torch}, namespace)
    assert torch.equal(namespace["x"].value, torch.ones(1))


def test_which_line_is_whose() -> None:
    assert write(FULL).cards == {
        2: "ablate transformer.h.1.mlp",
        3: "save hidden",
        4: "save first",
        5: "ablate transformer.h.1",
        6: "save whole",
    }


def test_nothing_to_do_is_a_clean_run() -> None:
    assert to_python(experiment()) == 'with model.trace("the cat sat on"):\n    pass'


def test_a_value_saved_above_an_ablation_of_it_is_copied() -> None:
    e = experiment(save("transformer.h.0", "before"), ablate("transformer.h.0"), save("transformer.h.0", "after"))
    assert "before = model.transformer.h[0].output.clone().save()" in to_python(e)
    saved = run(e, gpt2()).saved
    assert saved["before"].abs().sum() > 0
    assert saved["after"].abs().sum() == 0


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("The cat", '"The cat"'),
        ("it's", '"it\'s"'),
        ('say "no"', "'say \"no\"'"),
        ("one\ntwo\t", '"one\\ntwo\\t"'),
        ("back\\slash", '"back\\\\slash"'),
        ("Zürich 北京", '"Zürich 北京"'),
        ("a\u202eb", '"a\\u202eb"'),
    ],
)
def test_prompts_as_a_person_writes_them(text: str, literal: str) -> None:
    assert quoted(text) == literal


# ---- what is wrong

WRONG = {
    "an unknown module": (
        ablate("transformer.h.1.mpl"),
        "no module at 'transformer.h.1.mpl'; near: transformer.h.1.mlp, transformer.h.0.mlp",
    ),
    "a module that is never called": (
        save("transformer.h"),
        "transformer.h (ModuleList) is not called when this prompt is run, so it has no output; "
        "choose a module inside it, such as transformer.h.0",
    ),
    "a token beyond the end": (
        ablate("transformer.h.1.mlp", positions=(9,)),
        "token 9 is out of range: the prompt has 4 tokens (0–3). Use −1 for the last.",
    ),
    "a token before the beginning": (
        save("transformer.h.1.mlp", positions=(-5,)),
        "token −5 is out of range: the prompt has 4 tokens (0–3). Counted from the end it begins at −4.",
    ),
    "no token at all": (ablate("transformer.h.1.mlp", positions=()), "no token is chosen; choose one, or all tokens"),
    "tokens of a tuple": (
        save("transformer.h.0.attn", positions=(0,)),
        "transformer.h.0.attn output is a tuple, not a tensor, so it has no positions to choose from; "
        "save all tokens, or a module inside it",
    ),
    "a mean of whole numbers": (
        ablate("transformer.wte", port="input", mode="mean"),
        "transformer.wte input holds int64 numbers, which have no mean; ablate it to zero",
    ),
    "no name": (save("transformer.h.0", ""), "this value has no name yet; give it one, such as hidden"),
    "a name with a space": (save("transformer.h.0", "my value"), "as in my_value"),
    "a name that begins with a digit": (save("transformer.h.0", "2nd"), "as in x_2nd"),
    "a keyword": (save("transformer.h.0", "class"), "'class' is not a Python name"),
    "a name that Python folds": (save("transformer.h.0", "ﬁrst"), "is not a Python name"),
    "a name of Python's": (save("transformer.h.0", "__builtins__"), "use builtins"),
    "the model's name": (save("transformer.h.0", "model"), "'model' is the name of the model itself; use another"),
    "the workbench's name": (save("transformer.h.0", "wb"), "'wb' is the name of the workbench itself"),
}


@pytest.mark.parametrize(("card", "words"), WRONG.values(), ids=WRONG)
def test_a_fault_stands_on_its_card_and_names_the_cure(card: Intervention, words: str) -> None:
    other = save("transformer.h.1", "fine")
    (fault,) = lint(experiment(other, card), gpt2())
    assert fault.card == card.id
    assert words in fault.message


@pytest.mark.parametrize("card", [card for card, _ in WRONG.values()], ids=WRONG)
def test_a_card_that_is_switched_off_has_no_faults(card: Intervention) -> None:
    assert lint(experiment(card.model_copy(update={"enabled": False})), gpt2()) == ()


def test_a_name_used_twice() -> None:
    (fault,) = lint(experiment(save("transformer.h.0"), save("transformer.h.1").model_copy(update={"id": "b"})), gpt2())
    assert fault.card == "b"
    assert fault.message == "'x' is taken already by “Save transformer.h.0 output as x”; use x_2"


def test_a_tuple_saved_above_an_ablation_of_it() -> None:
    e = experiment(save("transformer.h.0.attn"), ablate("transformer.h.0.attn"))
    (fault,) = lint(e, gpt2())
    assert fault.card == "save x"
    assert "move this save below that card" in fault.message
    assert lint(experiment(*reversed(e.interventions)), gpt2()) == ()


def test_a_prompt_without_tokens() -> None:
    (fault,) = lint(experiment(save("transformer.h.0"), prompt=""), gpt2())
    assert fault.card is None
    assert fault.message == "the prompt '' has no tokens; write at least one"


def test_a_model_that_takes_tensors() -> None:
    model = wb.NNsight(torch.nn.Linear(2, 2))
    (fault,) = lint(experiment(save("")), model)
    assert fault.message == TAKES_TENSORS


def test_a_model_named_as_the_workbench() -> None:
    (fault,) = lint(experiment(save("transformer.h.0"), model="wb"), gpt2())
    assert "the model is named wb" in fault.message


def test_axis_one_that_does_not_count_tokens() -> None:
    (fault,) = lint(experiment(ablate("head", positions=(0,)), prompt="the cat sat"), pooled())
    assert fault.message == "head output has shape (1,): there is no axis of positions; choose all tokens"
    (fault,) = lint(experiment(ablate("pool", positions=(0,)), prompt="the cat sat"), pooled())
    assert "pool output has shape (1, 4): its axis 1 does not count the prompt's 3 tokens" in fault.message


def pooled() -> wb.LanguageModel:
    """A classifier: after its pool there are no positions any more."""

    class Pool(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1)

    class Head(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1)

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(len(WORDS) + 1, 4)
            self.pool = Pool()
            self.head = Head()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.head(self.pool(self.embed(input_ids)))

    return wb.LanguageModel(Classifier(), tokenizer=gpt2().tokenizer)


# ---- running


def test_an_error_of_the_run_names_the_generated_line() -> None:
    e = experiment(save("transformer.h.0"), ablate("transformer.h.1.mlp", positions=(9,)))
    with pytest.raises(IndexError) as error:
        run(e, gpt2(), name="run 7")
    fault = explain(error.value, write(e).cards)
    assert fault.card == "ablate transformer.h.1.mlp"
    assert fault.line == "run 7 line 3: wb.ablate(model.transformer.h[1].mlp, positions=[9])"
    assert fault.message == "index 9 is out of bounds for dimension 0 with size 4"
    assert fault.detail is not None
    assert 'File "run 7", line 1' in fault.detail


def test_a_value_that_was_never_there_says_why() -> None:
    outcome = run(experiment(save("transformer.h", "never"), save("transformer.h.0", "there")), gpt2())
    assert list(outcome.saved) == ["there"]
    assert "transformer.h.output was never reached" in outcome.unset["never"]


def test_a_model_that_predicts_no_token_has_no_next_logits() -> None:
    e = experiment(save("pool"), prompt="the cat sat")
    outcome = run(e, pooled())
    assert outcome.next_logits == [None]
    assert outcome.saved["x"].shape == (1, 4)


def test_log_lines_go_to_whoever_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    token = SHOW_LOG.set(lines.append)
    try:
        with gpt2().trace(PROMPT) as tracer:
            tracer.log("shape", gpt2().lm_head.output.shape)
    finally:
        SHOW_LOG.reset(token)
    assert lines == tracer.logs == ["shape torch.Size([1, 4, 12])"]
    assert capsys.readouterr().out == ""


def test_keywords_are_no_names() -> None:
    assert not any(map(is_name, keyword.kwlist))
