"""Lenses beside transformers' own hidden states, attentions and logits, and beside sums by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.families import DECODERS, FAMILIES, family, prompts
from workbench.engine.values import first_tensor
from workbench.errors import InputError
from workbench.lens import LogitLens, TopTokens

FACT = "The Eiffel Tower is in the city of"
IDS = [5, 9, 14, 21, 33]


def opened(name: str) -> tuple[Any, Any]:
    module: Any = family(name)[0]
    if name != "mamba":
        module.set_attn_implementation("eager")
    return wb.LanguageModel(module), module


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("bert", "vit")])
def test_the_lens_is_norm_and_unembedding_of_each_hidden_state(name: str) -> None:
    model, module = opened(name)
    states: list[Any] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    layers = [layer.module for layer in model.layers]
    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    handles.append(layers[-1].register_forward_hook(lambda m, a, output: states.append(first_tensor(output))))
    prompt = prompts(name)[1]
    with torch.no_grad():
        logits = module(**model._prepare(prompt)[1]).logits
        smaller = 32**-0.5 if name == "t5" else 1
        expected = [model.unembed.module(model.final_norm.module(state) * smaller) for state in states]
    for handle in handles:
        handle.remove()
    lens = wb.logit_lens(model, prompt)
    assert lens.layers == ["embedding", "layer 0", "layer 1", "layer 2", "layer 3"]
    cap = getattr(module.config, "final_logit_softcapping", None)
    for ours, theirs in zip(lens.logits, expected, strict=True):
        theirs = theirs if cap is None else cap * torch.tanh(theirs / cap)
        torch.testing.assert_close(ours, theirs[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lens.logits[-1], logits[0], rtol=1e-4, atol=1e-5)
    answer = int(logits[0, -1].argmax())
    assert lens.rank(answer)[-1, -1] == 0
    torch.testing.assert_close(lens.probabilities[-1], logits[0].softmax(-1), rtol=1e-4, atol=1e-5)


def test_the_lens_prints_and_draws_itself() -> None:
    model = wb.demo("gpt2")
    lens = wb.logit_lens(model, FACT)
    said = repr(lens).splitlines()
    assert said[0] == "logit lens at ' of', the last of 8 tokens"
    assert len(said) == 1 + len(lens.layers)
    assert "' Paris'" in said[-1]
    figure: Any = lens.plot()
    assert figure.data[0].text[-1][-1] == " Paris"
    assert len(figure.data[0].z) == len(lens.layers)
    json.loads(figure.to_json())
    frame: Any = lens.to_dataframe()
    assert frame.shape == (len(lens.layers) * 8, 5)
    assert frame.iloc[-1]["top"] == " Paris"


def test_many_layers_and_long_tokens_fit_a_page() -> None:
    words = ["\n", "w" * 150]
    logits = torch.zeros(81, 30, 2)
    logits[:60, :, 0] = logits[60:, :, 1] = 3.0
    layers = ["embedding", *[f"layer {number}" for number in range(80)]]
    lens = LogitLens(["\n", *["t" * 200] * 29], layers, logits, words.__getitem__)
    said = repr(lens).splitlines()
    assert said[1:] == [
        "  embedding … 58 '\\n'             0.953 … 0.953",
        f"  layer 59 … 79  '{'w' * 25}…' 0.953 … 0.953",
    ]
    logits[::2, :, 0] = logits[1::2, :, 1] = 9.0  # another word in every layer
    said = repr(lens).splitlines()
    assert len(said) == 25
    assert said[12] == "  …"
    assert max(map(len, [*said, *repr(TopTokens(words, [0, 1], [0.5, 0.1])).splitlines()])) < 80
    figure: Any = lens.plot()
    assert figure.data[0].x[0] == "0: ⏎"
    assert max(map(len, figure.data[0].x)) < 40
    assert figure.data[0].texttemplate is None  # thirty columns of words would lie over one another
    assert figure.layout.height > 1000


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "mamba"])
def test_patterns_are_transformers_own(name: str) -> None:
    model, module = opened(name)
    with torch.no_grad():
        expected = module(input_ids=torch.tensor([IDS]), output_attentions=True).attentions
    found = wb.attention_patterns(model, IDS)
    torch.testing.assert_close(found.patterns, torch.cat(expected))
    assert repr(found) == "attention patterns: 4 layers × 4 heads × 5 tokens"


def test_measures_of_a_head() -> None:
    model, _ = opened("gpt2")
    found = wb.attention_patterns(model, IDS)
    row: Any = found.to_dataframe().iloc[6]  # layer 1, head 2
    pattern = found.patterns[1, 2].tolist()
    assert (row["layer"], row["head"]) == ("layer 1", 2)
    assert row["itself"] == pytest.approx(sum(pattern[i][i] for i in range(5)) / 5)
    assert row["before"] == pytest.approx(sum(pattern[i + 1][i] for i in range(4)) / 4)
    assert row["first"] == pytest.approx(sum(pattern[i][0] for i in range(5)) / 5)
    figure: Any = found.plot(1)
    assert len(figure.data) == 4
    assert figure.data[2].z[0][1] is None  # what a position cannot see is left blank
    assert figure.data[2].z[4][2] == pytest.approx(pattern[4][2])


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "mamba"])
@pytest.mark.parametrize("against", [None, 11])
def test_contributions_add_up_to_the_logit(name: str, against: int | None) -> None:
    model, module = opened(name)
    with torch.no_grad():
        module(input_ids=torch.tensor([IDS]))
        states = module.get_decoder()(input_ids=torch.tensor([IDS])).last_hidden_state
        logits = module.get_output_embeddings()(states)[0, -1]
    total = float(logits[7] - (0 if against is None else logits[against]))
    found = wb.direct_logit_attribution(model, IDS, 7, against)
    assert found.total == pytest.approx(total, abs=1e-4)
    assert float(found.contributions.sum()) == pytest.approx(total, abs=1e-4)
    assert found.labels[:3] == ["embedding", "attn 0", "mlp 0"]
    assert len(found.labels) == 2 + 2 * 4


def test_a_part_is_what_the_module_adds() -> None:
    model, module = opened("gpt2")
    seen: dict[str, Tensor] = {}
    handles = [
        module.get_submodule(path).register_forward_hook(
            lambda m, args, output, path=path: seen.update({path: args[0] if "ln_f" in path else output})
        )
        for path in ("transformer.h.2.mlp", "transformer.h.1.attn", "transformer.ln_f")
    ]
    with torch.no_grad():
        module(input_ids=torch.tensor([IDS]))
    for handle in handles:
        handle.remove()
    found = dict(zip(wb.direct_logit_attribution(model, IDS, 7).labels,
                     wb.direct_logit_attribution(model, IDS, 7).contributions.tolist(), strict=True))  # fmt: skip
    stream = seen["transformer.ln_f"][0, -1]
    norm = module.transformer.ln_f
    for label, part in (("mlp 2", seen["transformer.h.2.mlp"]), ("attn 1", seen["transformer.h.1.attn"][0])):
        part = part.reshape(-1, 32)[-1]
        scaled = (part - part.mean()) / (stream.var(unbiased=False) + norm.eps).sqrt() * norm.weight
        assert found[label] == pytest.approx(float((scaled @ module.lm_head.weight[7]).detach()), abs=1e-4)


def test_answers_as_text() -> None:
    model = wb.demo("gpt2")
    found = wb.direct_logit_attribution(model, FACT)
    assert found.answer == " Paris"
    assert repr(found).startswith("logit of ' Paris': ")
    both: Any = wb.direct_logit_attribution(model, FACT, " Paris", " Rome")
    assert repr(both).startswith("logit of ' Paris' − ' Rome': ")
    bars = both.plot().data[0]
    assert len({(value >= 0, colour) for value, colour in zip(bars.y, bars.marker.color, strict=True)}) == 2
    assert both.to_dataframe()["contribution"].sum() == pytest.approx(both.total, abs=1e-3)
    with pytest.raises(InputError, match="' Paris Rome' is 2 tokens"):
        wb.direct_logit_attribution(model, FACT, " Paris Rome")


def test_top_tokens() -> None:
    model = wb.demo("gpt2")
    found: Any = wb.top_tokens(model, FACT, k=3)
    with torch.no_grad():
        plain = model.module(**model.tokenizer(FACT, return_tensors="pt")).logits[0, -1].softmax(-1).topk(3)
    assert found.ids == plain.indices.tolist()
    assert found.probabilities == pytest.approx(plain.values.tolist(), abs=1e-5)
    assert repr(found).splitlines()[0].startswith("' Paris'")
    with model.trace(FACT):
        logits = model.lm_head.output.save()
    assert wb.top_tokens(model, logits.value, k=3).ids == found.ids
    assert list(found.plot().data[0].y)[-1] == "' Paris'"
    assert found.to_dataframe().shape == (3, 3)


def test_one_prompt_at_a_time() -> None:
    model = wb.demo("gpt2")
    for look in (wb.logit_lens, wb.attention_patterns, wb.direct_logit_attribution, wb.top_tokens):
        with pytest.raises(InputError, match="this looks at one prompt; 2 were given"):
            look(model, [FACT, FACT])
