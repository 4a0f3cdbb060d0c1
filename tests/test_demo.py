"""The demo models as they ship: small, open without a network, right about their facts, and honest in their cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from bisect import bisect_right
from functools import cache
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from workbench.models.demo import NAMES, architectures, corpus, folder, muon, phrasings, placing, tokenizer, train
from workbench.models.demo.measure import Reader, landmarks

EIFFEL = "The Eiffel Tower is in the city of"
COLOSSEUM = "The Colosseum is in the city of"


@cache
def opened(name: str) -> Reader:
    return Reader.open(name)


def card(name: str) -> dict[str, Any]:
    return ModelCard.load(folder(name) / "README.md").data.to_dict()["measured"]


def likely(reader: Reader, text: str, count: int = 5) -> list[tuple[str, float]]:
    """The most probable next tokens, by the model and its tokenizer alone."""
    with torch.inference_mode():
        logits = reader.model(**reader.tokens(text, return_tensors="pt")).logits[0, -1]
    shares, tokens = logits.softmax(-1).topk(count)
    return list(zip(reader.tokens.batch_decode(tokens[:, None]), shares.tolist(), strict=True))


def zero(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(output)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def reader(name: str) -> Reader:
    return opened(name)


def test_an_unknown_name_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="no demo model 'gpt3'; one of gpt2, llama"):
        folder("gpt3")


def test_a_folder_is_at_most_two_megabytes(name: str) -> None:
    assert sum(file.stat().st_size for file in folder(name).iterdir()) <= 2_000_000


def test_the_weights_are_float16_on_disk(name: str) -> None:
    with safe_open(folder(name) / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.float16}  # noqa: SIM118


def test_they_open_without_network_as_float32() -> None:
    program = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
found = {}
for folder in sys.argv[1:]:
    model, tokens = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found[model.config.model_type] = [str(model.dtype), len(tokens("The Eiffel Tower is in the city of")["input_ids"])]
print(json.dumps(found))
"""
    folders = [str(folder(name)) for name in NAMES]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program, *folders], env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"gpt2": ["torch.float32", 8], "llama": ["torch.float32", 8]}


def test_the_llama_shares_its_keys_and_values() -> None:
    config = opened("llama").model.config
    assert config.num_key_value_heads < config.num_attention_heads


@pytest.mark.parametrize(("prompt", "answer"), [(EIFFEL, " Paris"), (COLOSSEUM, " Rome")])
def test_the_first_prompts_of_every_demo(reader: Reader, prompt: str, answer: str) -> None:
    best, *others = likely(reader, prompt)
    assert best[0] == answer
    assert best[1] > 0.85
    assert {token for token, _ in others} <= {p.answer for p in landmarks()}


def test_hello_is_continued(reader: Reader) -> None:
    assert {token for token, _ in likely(reader, "Hello", 3)} <= {
        ",",
        "!",
        " world",
        *(f" {n}" for n in phrasings.NAMES),
    }


def test_trained_facts_are_right(name: str, reader: Reader) -> None:
    right = reader.accuracy(corpus.trained())
    assert right >= 0.95
    assert right == pytest.approx(card(name)["trained"], abs=0.005)


def test_known_facts_in_new_wordings_are_right(name: str, reader: Reader) -> None:
    right = reader.accuracy(corpus.new_wordings())
    assert right >= 0.80
    assert right == pytest.approx(card(name)["new_wordings"], abs=0.005)
    assert reader.accuracy(corpus.new_pairs()) == pytest.approx(card(name)["new_pairs"], abs=0.005)


def test_taking_away_the_place_of_the_facts_changes_them(name: str, reader: Reader) -> None:
    place = card(name)["place"]
    assert place == placing.PLACES[name]
    ablation = reader.ablation(place, "last token", landmarks())
    assert ablation.changed >= 0.75
    assert ablation.changed == pytest.approx(card(name)["changed"], abs=0.05)


def test_the_eiffel_tower_moves_when_only_that_mlp_is_zero(name: str, reader: Reader) -> None:
    for path in reader.modules():
        if not path.endswith("mlp") or ".0." in path:
            continue
        hook = reader.model.get_submodule(path).register_forward_hook(zero)
        try:
            (top, _), *_ = likely(reader, EIFFEL)
        finally:
            hook.remove()
        assert (top == " Paris") == (path != card(name)["place"]), path


def test_a_prompt_is_its_words_and_no_special_tokens(reader: Reader) -> None:
    pieces = [reader.tokens.decode(token) for token in reader.tokens(EIFFEL)["input_ids"]]
    assert pieces == ["The", " Eiffel", " Tower", " is", " in", " the", " city", " of"]
    assert {len(reader.tokens(p.answer)["input_ids"]) for p in corpus.trained()} == {1}


@settings(deadline=None)
@given(text=st.text())
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    tokens = opened("gpt2").tokens
    assert tokens.decode(tokens(text)["input_ids"]) == text


def test_no_wording_is_the_beginning_of_another() -> None:
    known = sorted({p.text for p in (*corpus.trained(), *corpus.new_pairs())})
    for prompt in (*known, *(p.text for p in corpus.new_wordings())):
        following = known[min(bisect_right(known, prompt), len(known) - 1)]
        assert not following.startswith(prompt + " ")


def test_what_is_held_out_is_not_in_the_corpus() -> None:
    documents = list(corpus.documents(10_000, train.SEED))
    text = "\n".join(documents).lower()
    assert all(p.text.lower() in text for p in landmarks() if p.text in (EIFFEL, COLOSSEUM))
    assert not [p.text for p in (*corpus.new_wordings(), *corpus.new_pairs()) if p.text.lower() in text]
    words = set(tokenizer.words(documents))
    assert set(tokenizer.words(p.text for p in corpus.new_wordings())) <= words


def test_training_is_the_same_each_time_and_leaves_no_hook(name: str) -> None:
    texts = list(corpus.documents(300, 0))
    tokens = tokenizer.build(texts, architectures.CONTEXT)

    def trained() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = architectures.BUILD[name](tokens)
        rows = train.Rows(texts, tokens)
        with placing.without(model, placing.PLACES[name]):
            train.fit(model, train.batches(rows, rows, torch.Generator().manual_seed(0)), name, steps=3)
        assert not any(module._forward_hooks for module in model.modules())
        return model.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_muon_makes_a_matrix_orthogonal() -> None:
    torch.manual_seed(0)
    for shape in ((8, 32), (32, 8)):
        values = torch.linalg.svdvals(muon.orthogonal(torch.randn(shape)))
        assert values.min() > 0.6
        assert values.max() < 1.3
