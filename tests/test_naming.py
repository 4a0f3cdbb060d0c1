"""Standard names beside what transformers itself says of hidden states and attentions, and beside plain hooks."""

from __future__ import annotations

from threading import Event, Thread, get_ident
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.families import DECODERS, FAMILIES, family
from workbench.errors import InputError
from workbench.models.naming import FAMILIES as TABLE
from workbench.models.naming import guessed

IDS = [[5, 9, 14, 21, 33], [7, 3, 8, 40, 11]]
WITH_HEADS = [name for name in FAMILIES if name != "mamba"]


def opened(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """The model, its own module, and the inputs of a pass."""
    module: Any = family(name)[0]
    inputs = family(name)[1]
    if "attention_mask" in inputs:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if name != "mamba":
        module.set_attn_implementation("eager")
    return wb.LanguageModel(module), module, inputs


def traced(model: Any, inputs: dict[str, Any]) -> Any:
    return model.trace(**inputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_residual_stream_is_transformers_hidden_states(name: str) -> None:
    model, module, inputs = opened(name)
    before = [path for path, _ in module.named_modules()]
    with torch.no_grad():
        plain = module(**inputs, output_hidden_states=True)
    states = plain.decoder_hidden_states if name == "t5" else plain.hidden_states
    with traced(model, inputs):
        pre = [layer.resid_pre.save() for layer in model.layers]
        post = [layer.resid_post.save() for layer in model.layers]
        normed = (model.final_norm if name != "bert" else model.layers[3]).output.save()
        logits = model.unembed.output.save()
    assert len(pre) == 4
    if name == "mamba":  # which counts from the first block's output
        states = (pre[0].value, *states)
    for index, layer in enumerate(pre):
        torch.testing.assert_close(layer.value, states[index])
    for index, layer in enumerate(post[:3]):
        torch.testing.assert_close(layer.value, states[index + 1])
    last = post[3] if name in ("bert", "vit", "mamba") else normed
    torch.testing.assert_close(last.value, states[4])
    expected = plain.logits
    if name != "gemma2":  # which caps its logits after the unembedding
        torch.testing.assert_close(logits.value, expected)
    assert [path for path, _ in module.named_modules()] == before


@pytest.mark.parametrize("name", FAMILIES)
def test_the_stream_is_written(name: str) -> None:
    model, module, inputs = opened(name)
    inner = module.get_base_model() if name == "peft" else module
    stack = inner.get_submodule(TABLE[module.config.model_type].layers)

    def run(path: Any, change: Any) -> Tensor:
        handle = path.register_forward_hook(change)
        with torch.no_grad():
            logits = module(**inputs).logits
        handle.remove()
        return logits

    def halved(module: nn.Module, args: Any, output: Any) -> Any:
        return output * 0.5 if isinstance(output, Tensor) else (output[0] * 0.5, *output[1:])

    beside = run(stack[1], halved)
    for write in (assigned, in_place):
        with traced(model, inputs):
            write(model.layers[1])
            logits = model.output.logits.save()
        torch.testing.assert_close(logits.value, beside)


def assigned(layer: Any) -> None:
    layer.resid_post = layer.resid_post * 0.5


def in_place(layer: Any) -> None:
    layer.resid_post[:] *= 0.5


@pytest.mark.parametrize("name", WITH_HEADS)
def test_heads_add_up_to_the_attention_output(name: str) -> None:
    model, _module, inputs = opened(name)
    layer = model.layers[1]
    attn = layer.attn
    projection = layer._envoy.find(layer._family.out).module
    with traced(model, inputs):
        heads = attn.heads.save()
        output = layer._envoy.find(layer._family.out).output.save()
    weight = projection.weight.T if type(projection).__name__ == "Conv1D" else projection.weight
    if name == "peft":
        weight = weight + projection.get_delta_weight("default")
    bias = 0 if projection.bias is None else projection.bias
    size = attn.d_head
    assert heads.shape[-2:] == (attn.n_heads, size) == (4, 8)
    parts = [heads[:, :, h] @ weight[:, h * size : (h + 1) * size].T for h in range(attn.n_heads)]
    torch.testing.assert_close(torch.stack(list(parts)).sum(0) + bias, output.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_patterns_are_transformers_attentions_and_are_written(name: str) -> None:
    model, module, inputs = opened(name)
    with torch.no_grad():
        plain = module(**inputs, output_attentions=True)
    expected = plain.decoder_attentions if name == "t5" else plain.attentions
    with traced(model, inputs):
        patterns = [layer.attn.pattern.save() for layer in model.layers]
    for pattern, beside in zip(patterns, expected, strict=True):
        torch.testing.assert_close(pattern.value, beside)
        torch.testing.assert_close(pattern.sum(-1), torch.ones(beside.shape[:-1]))
    with traced(model, inputs):
        attn = model.layers[1].attn
        attn.pattern[:, 2] = 0
        heads = attn.heads.save()
    assert (heads[:, :, 2] == 0).all()
    assert (heads[:, :, [0, 1, 3]] != 0).any()
    if name != "gemma2":  # which has no other attention
        module.set_attn_implementation("sdpa")
        with traced(model, inputs):
            again = [layer.attn.pattern.save() for layer in model.layers]
        for pattern, beside in zip(again, expected, strict=True):
            torch.testing.assert_close(pattern.value, beside)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_attention_is_made_of_queries_keys_and_values(name: str) -> None:
    """Each query head against its own key head, without masks and rotations, where a family has none: T5, ViT, BERT;
    and values weighed by the pattern, which is what a head gives, in every family."""
    model, _module, inputs = opened(name)
    with traced(model, inputs):
        attn = model.layers[1].attn
        query, key, value = attn.query.save(), attn.key.save(), attn.value.save()
        pattern, heads = attn.pattern.save(), attn.heads.save()
    groups = attn.n_heads // attn.n_kv_heads
    assert query.shape[2:] == (4, 8)
    assert key.shape[2:] == value.shape[2:] == (4 // groups, 8)
    for head in range(4):
        mixed = pattern[:, head] @ value[:, :, head // groups]
        torch.testing.assert_close(heads[:, :, head], mixed, rtol=1e-4, atol=1e-5)
    if name in ("vit", "bert"):
        for head in range(4):
            scores = query[:, :, head] @ key[:, :, head // groups].transpose(1, 2) / 8**0.5
            torch.testing.assert_close(scores.softmax(-1), pattern[:, head], rtol=1e-4, atol=1e-5)
    if name in ("gpt2", "gpt_neox"):  # fused: the first position attends only to itself
        torch.testing.assert_close(heads[:, 0], value[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_one_key_head_serves_its_group_of_queries(name: str) -> None:
    model, _, inputs = opened(name)
    groups = model.layers[1].attn.n_heads // model.layers[1].attn.n_kv_heads
    with traced(model, inputs):
        model.layers[1].attn.value[:, :, 1] = 0
        heads = model.layers[1].attn.heads.save()
    silent = [(heads[:, :, head] == 0).all().item() for head in range(4)]
    assert silent == [head // groups == 1 for head in range(4)]


@pytest.mark.parametrize("name", WITH_HEADS)
def test_a_head_is_silenced(name: str) -> None:
    model, module, inputs = opened(name)
    layer = model.layers[2]
    projection = layer._envoy.find(layer._family.out).module

    def silence(module: nn.Module, args: Any) -> Any:
        inside = args[0].clone()
        inside[..., 8:16] = 0
        return (inside,)

    handle = projection.register_forward_pre_hook(silence)
    with torch.no_grad():
        beside = module(**inputs).logits
    handle.remove()
    with traced(model, inputs):
        model.layers[2].attn.heads[:, :, 1] = 0
        ours = model.output.logits.save()
    torch.testing.assert_close(ours.value, beside)
    with traced(model, inputs):
        heads = model.layers[2].attn.heads
        model.layers[2].attn.heads = torch.where(torch.arange(4)[:, None] == 1, 0.0, heads)
        ours = model.output.logits.save()
    torch.testing.assert_close(ours.value, beside)


@pytest.mark.parametrize("name", [name for name in WITH_HEADS if name != "mixtral"])
def test_neurons(name: str) -> None:
    model, _module, inputs = opened(name)
    layer = model.layers[1]
    down = layer._envoy.find(layer._family.down)
    with traced(model, inputs):
        neurons = layer.mlp.neurons.save()
        output = down.output.save()
    assert neurons.shape[-1] == 48 if name != "gpt2" else 128
    torch.testing.assert_close(down.module(neurons.value), output.value)
    with traced(model, inputs):
        model.layers[1].mlp.neurons[..., 5] = 0
        silenced = model.layers[1].mlp.neurons.save()
        after = down.output.save()
    changed = neurons.clone()
    changed[..., 5] = 0
    assert torch.equal(silenced.value, changed)
    torch.testing.assert_close(after.value, down.module(changed))


def test_names_say_where_they_come_from() -> None:
    model, *_ = opened("gpt2")
    said = repr(model.names)
    assert said.startswith("standard names, from the table for 'gpt2'\n  layers      transformer.h\n")
    assert "  qkv         layers[i].attn.c_attn" in said
    assert len(model.layers) == 4
    assert model.layers[-1]._envoy is model.transformer.h[3]
    assert model.layers[0].attn.c_attn is model.transformer.h[0].attn.c_attn
    assert model.embed is model.transformer.wte
    assert "attn" in dir(model.layers[0])
    assert repr(model.layers) == "<4 layers: transformer.h>"


@pytest.mark.parametrize("name", DECODERS)
def test_a_guess_is_the_table(name: str) -> None:
    module = family(name)[0]
    config: Any = module.config
    found, table = guessed(module), TABLE[config.model_type]
    assert found[:4] == table[:4]
    if name not in ("mamba", "gpt2", "gpt_neox", "opt", "phi", "mixtral"):
        assert found == table
    elif name not in ("mamba",):
        assert (found.attn, found.mlp, found.out) == (table.attn, table.mlp, table.out)


def test_another_architecture_is_guessed() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return x + self.mlp(x), "more"

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_in = nn.Embedding(9, 4)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.out_norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 9)

        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.embed_in(input_ids)
            for block in self.blocks:
                x = block(x)[0]
            return self.head(self.out_norm(x))

    model: Any = wb.LanguageModel(Net())
    assert model.names.how == "guessed by structure: Net is not in the table"
    assert model.names.family[:4] == ("blocks", "embed_in", "out_norm", "head")
    with model.trace([[1, 2]]):
        model.layers[0].resid_post = model.layers[0].resid_post * 0
        zero = model.layers[1].resid_pre.save()
        whole = model.blocks[0].output.save()
    assert (zero == 0).all()
    assert whole[1] == "more"
    with pytest.raises(InputError, match=r"blocks.0 \(Block\) has no attention"):
        _ = model.layers[0].attn
    with pytest.raises(InputError, match="Linear has no list of layers"):
        _ = wb.LanguageModel(nn.Linear(2, 2)).layers


def test_what_an_architecture_has_not() -> None:
    model, *_ = opened("mamba")
    with pytest.raises(InputError, match=r"backbone.layers.0 \(MambaBlock\) has no attention"):
        _ = model.layers[0].attn
    model, _, inputs = opened("mixtral")
    with pytest.raises(InputError, match="has no one set of neurons"), traced(model, inputs):
        _ = model.layers[0].mlp.neurons


def test_a_pass_that_looks_at_patterns_is_run_with_eager_attention_and_no_other() -> None:
    model, module, _ = opened("llama")
    module.set_attn_implementation("sdpa")
    kind = type(module.config)
    used: list[str] = []
    handle = model.layers[0].attn.module.register_forward_pre_hook(
        lambda attn, args: used.append(attn.config._attn_implementation)
    )
    with model.trace(IDS):
        attn = model.layers[0].attn
        assert attn.pattern.shape == (2, 4, 5, 5)
        attn.pattern[:, 2] = 0
        heads = attn.heads.save()
    assert (heads[:, :, 2] == 0).all()
    with pytest.raises(RuntimeError, match="shape"), model.trace(IDS):
        _ = model.layers[0].attn.pattern @ torch.ones(3)
    with model.trace(IDS):
        model.layers[0].attn.heads.save()
    with model.generate(IDS[:1], max_new_tokens=3, min_new_tokens=3) as tracer:
        later = wb.list().save()
        with tracer.iter[1:]:
            later.append(model.layers[0].attn.pattern)
    assert [each.shape for each in later] == [(1, 4, 1, 6), (1, 4, 1, 7)]
    with model.session():
        with model.trace(IDS):
            pattern = model.layers[0].attn.pattern
        with model.trace(IDS):
            model.layers[0].attn.pattern = pattern.roll(1, 1)
            rolled = model.layers[0].attn.pattern.save()
        with model.trace(IDS):
            model.layers[0].attn.heads.save()
    handle.remove()
    assert rolled.shape == (2, 4, 5, 5)
    assert used == ["eager", "eager", "sdpa", *["eager"] * 3, "eager", "eager", "sdpa"]
    assert module.config._attn_implementation == "sdpa"
    assert type(module.config) is kind


def test_other_threads_run_the_model_as_it_is_while_patterns_are_looked_at() -> None:
    model, module, inputs = opened("llama")
    module.set_attn_implementation("sdpa")
    with torch.no_grad():
        plain = module(**inputs).logits
    used: set[tuple[bool, str]] = set()
    main, reading, over = get_ident(), Event(), Event()

    def note(attn: Any, args: Any) -> None:
        used.add((get_ident() == main, attn.config._attn_implementation))
        if get_ident() == main:
            reading.set()
            over.wait(60)  # the other thread's whole passes fall into the middle of this one

    handle = model.layers[1].attn.module.register_forward_pre_hook(note)
    beside: list[Tensor] = []

    def run() -> None:
        reading.wait(60)
        with torch.no_grad():
            beside.append(module(**inputs).logits)
        with model.trace(**inputs):
            logits = model.output.logits.save()
        beside.append(logits.value)
        over.set()

    thread = Thread(target=run)
    thread.start()
    with traced(model, inputs):
        pattern = model.layers[1].attn.pattern.save()
    thread.join()
    handle.remove()
    assert used == {(True, "eager"), (False, "sdpa")}
    for logits in beside:
        torch.testing.assert_close(logits, plain)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 7))


def test_attention_that_is_chosen_once_says_how_to_get_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    model, module, inputs = opened("llama")
    module.set_attn_implementation("sdpa")
    monkeypatch.setattr(type(module), "_can_set_attn_implementation", classmethod(lambda kind: False))
    said = "never made by 'sdpa' attention, .*LlamaForCausalLM chooses it when it is made: open the model with attn_"
    with pytest.raises(InputError, match=said):
        with traced(model, inputs):
            _ = model.layers[0].attn.pattern


def test_code_for_blocks_that_returned_a_tuple_is_told_what_to_leave_out() -> None:
    model, *_ = opened("llama")
    said = r"layers.1.output is a tensor, not a tuple, so its \[0\] is the first row: leave \[0\] out"
    with pytest.raises(IndexError, match=said), model.trace(IDS):
        model.model.layers[1].output[0][:, -1, :].save()
    with pytest.raises(IndexError, match=said), model.trace(IDS):
        model.model.layers[1].output[0][:, -1, :] = 0
    with pytest.raises(IndexError, match="out of bounds") as error, model.trace(IDS):
        model.model.layers[1].output[:, 99].save()
    assert "not a tuple" not in str(error.value)


def test_prompts_of_unequal_length_and_edits_by_standard_names() -> None:
    model, *_ = opened("llama")
    with model.trace() as tracer:
        with tracer.invoke([[5, 9, 14]]):
            model.layers[1].attn.heads[:, -1, 2] = 0
            kept = model.layers[1].attn.pattern.save()
        with tracer.invoke([[7, 3, 8, 40, 11]]):
            heads = model.layers[1].attn.heads.save()
    with model.trace([[5, 9, 14]]):
        alone = model.layers[1].attn.pattern.save()
    with model.trace([[7, 3, 8, 40, 11]]):
        beside = model.layers[1].attn.heads.save()
    torch.testing.assert_close(kept.value, alone.value)
    torch.testing.assert_close(heads.value, beside.value, rtol=1e-4, atol=1e-5)
    with model.edit() as edited:
        model.layers[1].resid_post[:, -1] = 0
    with edited.trace([[5, 9, 14]]):
        state = edited.layers[1].resid_post.save()
    assert (state[:, -1] == 0).all()
