"""What a language model is fed: every form in which a person writes a prompt, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, BatchEncoding

import workbench as wb
from tests import tiny
from tests.families import family
from workbench.errors import InputError

TEXT = "The Eiffel Tower is in the city of"
CHAT = [{"role": "user", "content": "The Eiffel Tower"}, {"role": "assistant", "content": " is"}]
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %} in the city of{% endif %}"
)


@pytest.fixture
def model() -> Any:
    return wb.demo("gpt2")


def ids(model: Any, text: Any) -> Any:
    return model.tokenizer(text)["input_ids"]


def fed(model: Any, *inputs: Any, **options: Any) -> Any:
    with model.trace(*inputs, **options) as tracer:
        logits = model.lm_head.output.save()
        given = tracer.invoker.inputs[1]
    return logits.value, given


def test_every_form_is_the_same_prompt(model: Any) -> None:
    tokens = ids(model, TEXT)
    model._ready()
    with torch.no_grad():
        plain = model.module(input_ids=torch.tensor([tokens])).logits
    forms = [TEXT, [TEXT], tokens, [tokens], torch.tensor(tokens), torch.tensor([tokens]), (TEXT,)]
    forms += [
        model.tokenizer(TEXT),
        model.tokenizer([TEXT]),
        model.tokenizer(TEXT, return_tensors="pt"),
        {"input_ids": [tokens]},
    ]
    for form in forms:
        logits, given = fed(model, form)
        assert torch.equal(logits, plain), form
        assert given["input_ids"].tolist() == [tokens]
    assert torch.equal(fed(model, input_ids=torch.tensor([tokens]))[0], plain)
    assert isinstance(model.tokenizer(TEXT), BatchEncoding)


def test_settings_of_the_tokenizer(model: Any) -> None:
    tokens = ids(model, TEXT)
    logits, given = fed(model, TEXT, invoker_args={"max_length": 3, "truncation": True})
    assert given["input_ids"].tolist() == [tokens[:3]]
    with model.trace() as tracer, tracer.invoke(TEXT, max_length=3, truncation=True) as invoker:
        again = model.lm_head.output.save()
    assert invoker.inputs[1]["input_ids"].tolist() == [tokens[:3]]
    assert torch.equal(again.value, logits)


def test_prompts_of_unequal_length_in_a_list(model: Any) -> None:
    short = "The Colosseum"
    logits, given = fed(model, [TEXT, short])
    assert given["attention_mask"].sum(1).tolist() == [len(ids(model, TEXT)), len(ids(model, short))]
    for row, text in enumerate((TEXT, short)):
        with torch.no_grad():
            plain = model.module(input_ids=torch.tensor([ids(model, text)])).logits
        torch.testing.assert_close(logits[row, -plain.shape[1] :], plain[0], rtol=1e-4, atol=1e-4)


def test_chats(model: Any) -> None:
    with pytest.raises(InputError, match="no chat template: give the text itself, or set"):
        fed(model, CHAT)
    model.tokenizer.chat_template = TEMPLATE
    _, given = fed(model, CHAT)
    assert given["input_ids"].tolist() == [ids(model, TEXT)]
    _, given = fed(model, [CHAT, CHAT[:1]])
    assert given["input_ids"][0].tolist() == ids(model, TEXT)
    assert given["attention_mask"][1].sum() == len(ids(model, "The Eiffel Tower in the city of"))
    _, given = fed(model, CHAT, invoker_args={"add_generation_prompt": False})
    assert given["input_ids"].tolist() == [ids(model, "The Eiffel Tower is")]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "the prompt '' has no tokens; write at least one"),
        (["a", ""], "the prompt '' has no tokens"),
        ([], "this is empty"),
        ([[]], "this is a list of list"),
        (3.5, "this is a float"),
        (None, "this is a NoneType"),
        ([1.5, 2.5], "this is a list of float"),
        (["a", 3], "this is a list of str, int"),
        ([True, False], "this is a list of bool"),
        ([[1, 2], ["a"]], "this is a list of list"),
        ([5, 99999], "the token 99999 is not in this model's vocabulary, 0 to 969"),
        ([-1], "the token -1 is not in this model's vocabulary"),
        (torch.tensor([0.5]), r"token ids are whole numbers of shape \(batch, position\)"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"these have \(1, 2, 3\)"),
    ],
)
def test_what_is_no_prompt(model: Any, prompt: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fed(model, prompt)
    assert fed(model, TEXT)[0].shape[1] == 8  # nothing is left open


@pytest.mark.parametrize("name", ["gpt2", "opt", "bert", "llama"])
def test_a_prompt_with_more_tokens_than_there_are_positions(name: str) -> None:
    module: Any = family(name)[0]
    model, room = wb.LanguageModel(module), module.config.max_position_embeddings

    def traced(count: int) -> Any:
        with model.trace([5] * count):
            logits = model.output.logits.save()
        return logits.value

    with torch.no_grad():
        assert torch.equal(traced(room), module(input_ids=torch.full((1, room), 5)).logits)
        if name == "llama":  # positions are worked out, and have no end
            assert traced(room + 1).shape[1] == room + 1
            return
        with pytest.raises((IndexError, RuntimeError)):
            module(input_ids=torch.full((1, room + 1), 5))
    with pytest.raises(InputError, match=f"the prompt has {room + 1} tokens, and this model has positions for {room}"):
        traced(room + 1)


def test_ids_without_a_tokenizer() -> None:
    model: Any = wb.LanguageModel(family("gpt2")[0])
    assert fed(model, [5, 9, 14])[0].shape == (1, 3, 60)
    for prompt in ("text", CHAT):
        with pytest.raises(InputError, match="no tokenizer, so it takes token ids; give it one with tokenizer="):
            fed(model, prompt)


def test_an_answer_begins_with_its_start_token_or_as_given() -> None:
    module: Any = family("t5")[0]
    model: Any = wb.LanguageModel(module, tokenizer=tiny.words())

    def plain(prompt: list[int], answer: list[int]) -> Any:
        with torch.no_grad():
            return module(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([answer])).logits

    cat, dog = ids(model, "the cat sat"), ids(model, "its dog")
    for given, answer in ((None, [0]), ("its dog", [0, *dog]), ([[0, *dog]], [0, *dog]), ([0, 3], [0, 3])):
        with model.trace("the cat sat", decoder_input_ids=given):
            logits = model.output.logits.save()
        assert torch.equal(logits.value, plain(cat, answer)), given
    with model.trace(["the cat sat", "its dog"], invoker_args={"decoder_input_ids": ["a mat", "a dog run"]}):
        logits = model.output.logits.save()
    for row, (prompt, answer) in enumerate((("the cat sat", "a mat"), ("its dog", "a dog run"))):
        beside = plain(ids(model, prompt), [0, *ids(model, answer)])
        torch.testing.assert_close(logits[row, : beside.shape[1]], beside[0], rtol=1e-4, atol=1e-5)
    assert model.scanned("the cat sat").shape("lm_head") == (1, 1, 60)
    with pytest.raises(InputError, match="have different lengths, and one generation cannot go on with them"):
        with model.generate() as tracer:
            for answer in ("a mat", "a dog run"):
                with tracer.invoke("the cat", decoder_input_ids=answer):
                    pass
    module.config.decoder_start_token_id = module.generation_config.decoder_start_token_id = None
    module.config.bos_token_id = module.generation_config.bos_token_id = None
    with pytest.raises(InputError, match="does not say with which token its decoder begins: give decoder_input_ids="):
        fed(model, "the cat")


def test_an_encoder_that_counts_positions_by_itself_is_padded_behind() -> None:
    config = BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=60, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    module = BartForConditionalGeneration(config).eval()
    model: Any = wb.LanguageModel(module)
    prompts = [[5, 9, 14, 21, 33], [7, 3]]
    with model.trace(prompts):
        logits = model.output.logits.save()
    tokens = model.generate(prompts, max_new_tokens=3, trace=False, pad_token_id=0)
    for row, prompt in enumerate(prompts):
        one = {"input_ids": torch.tensor([prompt])}
        with torch.no_grad():
            plain = module(**one, decoder_input_ids=torch.tensor([[2]])).logits
        torch.testing.assert_close(logits[row], plain[0], rtol=1e-4, atol=1e-5)
        alone: Any = module.generate(**one, max_new_tokens=3, do_sample=False)  # type: ignore[operator]
        assert torch.equal(tokens[row], alone[0])


def test_inputs_by_name() -> None:
    module, images = family("vit")
    model: Any = wb.NNsight(module)
    with model.trace(**images):
        logits = model.output.logits.save()
    with torch.no_grad():
        assert torch.equal(logits.value, module(**images).logits)


def test_a_model_that_sees() -> None:
    module, inputs = family("llava")
    seeing: Any = module
    model: Any = wb.LanguageModel(module)
    with torch.no_grad():
        plain = seeing(**inputs).logits
    with model.trace(**inputs):
        logits = model.output.logits.save()
        image = model.model.vision_tower.output.last_hidden_state.save()
    assert torch.equal(logits.value, plain)
    assert image.shape == (2, 5, 32)
    assert model.scanned(**inputs).how == "scanned"
    with model.generate(**inputs, max_new_tokens=3, pad_token_id=0):
        tokens = model.generator.output.save()
    assert torch.equal(tokens.value, seeing.generate(**inputs, max_new_tokens=3, pad_token_id=0, do_sample=False))
