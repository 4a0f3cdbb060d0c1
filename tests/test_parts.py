"""Interventions on heads, neurons, slices and from other prompts, against plain PyTorch hooks on the demo models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from workbench.errors import InputError
from workbench.models.language import LanguageModel

PROMPT = "The Eiffel Tower is in the city of"
OTHER = "The Colosseum is in the city of"
LAYER = 1

Edit = Callable[[Tensor], object]
PLACES = {
    "gpt2": {
        "layer": "transformer.h.1", "attn": "transformer.h.1.attn", "mlp": "transformer.h.1.mlp",
        "out": "transformer.h.1.attn.c_proj", "down": "transformer.h.1.mlp.c_proj",
    },
    "llama": {
        "layer": "model.layers.1", "attn": "model.layers.1.self_attn", "mlp": "model.layers.1.mlp",
        "out": "model.layers.1.self_attn.o_proj", "down": "model.layers.1.mlp.down_proj",
    },
}  # fmt: skip


@cache
def model(name: str) -> LanguageModel:
    return wb.demo(name)


def ids(name: str, prompt: str) -> Tensor:
    return torch.tensor([model(name).tokenizer(prompt)["input_ids"]])


def by_hooks(name: str, place: str, side: str, edit: Edit, prompt: str = PROMPT) -> tuple[Tensor, Tensor]:
    """The logits with one site edited in place by a hook, and what stood there before."""
    module: Any = model(name)._ready()
    target = module.get_submodule(PLACES[name][place])
    seen: list[Tensor] = []

    def of(value: Any) -> Any:
        first = value if isinstance(value, Tensor) else value[0]
        seen.append(first.clone())
        changed = first.clone()
        edit(changed)
        return changed if isinstance(value, Tensor) else (changed, *value[1:])

    if side == "input":
        handle = target.register_forward_pre_hook(lambda _, args: (of(args[0]), *args[1:]))
    else:
        handle = target.register_forward_hook(lambda _, args, output: of(output))
    try:
        with torch.no_grad():
            return module(ids(name, prompt)).logits, seen[0]
    finally:
        handle.remove()


def unchanged(value: Tensor) -> None:
    pass


def traced(name: str, write: Callable[[Any], None]) -> Tensor:
    """The logits with an intervention, given the model's second layer under its standard name."""
    with model(name).trace(PROMPT):
        write(model(name).layers[LAYER])
        logits = model(name).output.logits.save()
    return logits.value


def parts(name: str, value: Tensor) -> Tensor:
    """Heads of what the output projection reads, a view: `(batch, position, head, d_head)`."""
    config: Any = model(name).module.config
    return value.view(*value.shape[:2], config.num_attention_heads, -1)


both = pytest.mark.parametrize("name", ["gpt2", "llama"])


@both
def test_heads_at_positions(name: str) -> None:
    def edit(value: Tensor) -> None:
        for position in (0, -1):
            for head in (1, 3):
                parts(name, value)[:, position, head] = 0

    expected, _ = by_hooks(name, "out", "input", edit)
    found = traced(name, lambda layer: wb.ablate(layer.attn, heads=[1, 3], positions=[0, -1]))
    torch.testing.assert_close(found, expected)
    direct = traced(name, lambda layer: wb.heads(layer.attn).__setitem__((slice(None), [[0], [-1]], [1, 3]), 0))
    torch.testing.assert_close(direct, expected)


@both
def test_a_query_head_shares_its_key_and_value_with_its_neighbours(name: str) -> None:
    config: Any = model(name).module.config
    shared = getattr(config, "num_key_value_heads", config.num_attention_heads)
    assert (shared < config.num_attention_heads) == (name == "llama")  # else this tests nothing of grouped queries
    with model(name).trace(PROMPT):
        heads = wb.heads(model(name).layers[LAYER].attn).save()
    assert heads.shape == (
        1,
        len(ids(name, PROMPT)[0]),
        config.num_attention_heads,
        config.hidden_size // config.num_attention_heads,
    )


@both
def test_neurons_to_their_mean(name: str) -> None:
    def edit(value: Tensor) -> None:
        value[:, :, [5, 7]] = value[:, :, [5, 7]].sum(1, keepdim=True) / value.shape[1]

    expected, _ = by_hooks(name, "down", "input", edit)
    torch.testing.assert_close(traced(name, lambda it: wb.ablate(it.mlp, neurons=[5, 7], mode="mean")), expected)


@both
def test_the_mean_over_another_prompt(name: str) -> None:
    _, there = by_hooks(name, "mlp", "output", unchanged, OTHER)

    def edit(value: Tensor) -> None:
        value[:, [2]] = there.mean(1, keepdim=True)

    expected, _ = by_hooks(name, "mlp", "output", edit)
    found = traced(name, lambda it: wb.ablate(it.mlp, positions=2, mode="reference", source=OTHER))
    torch.testing.assert_close(found, expected)


@both
@pytest.mark.parametrize("source", [OTHER, None])
def test_resampling(name: str, source: str | None) -> None:
    _, there = by_hooks(name, "mlp", "output", unchanged, source or PROMPT)

    def edit(value: Tensor) -> None:
        draw = torch.Generator().manual_seed(3)
        for position, pick in enumerate(torch.randint(there.shape[1], (value.shape[1],), generator=draw).tolist()):
            value[:, position] = there[:, pick]

    expected, _ = by_hooks(name, "mlp", "output", edit)
    torch.testing.assert_close(
        traced(name, lambda it: wb.ablate(it.mlp, mode="resample", source=source, seed=3)), expected
    )


@both
def test_scale_a_slice(name: str) -> None:
    def edit(value: Tensor) -> None:
        value[:, 1:3, :10] *= -2

    expected, _ = by_hooks(name, "layer", "output", edit)
    torch.testing.assert_close(traced(name, lambda it: wb.scale(it._envoy, -2.0, index="[:, 1:3, :10]")), expected)


@both
def test_scale_a_part_of_a_tuple(name: str) -> None:
    def edit(value: Tensor) -> None:
        value[:, -1] *= 3

    expected, _ = by_hooks(name, "attn", "output", edit)
    torch.testing.assert_close(traced(name, lambda it: wb.scale(it.attn, 3.0, index="[0][:, -1]")), expected)
    torch.testing.assert_close(traced(name, lambda it: wb.scale(it.attn.output[0], 3.0, positions=[-1])), expected)


@both
def test_noise_is_the_seeds(name: str) -> None:
    def edit(value: Tensor) -> None:
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
        value[:, [1, 2]] += 0.5 * noise[:, [1, 2]]

    expected, _ = by_hooks(name, "layer", "input", edit)
    found = traced(name, lambda it: wb.add_noise(it.resid_pre, 0.5, positions=[1, 2], seed=7))
    torch.testing.assert_close(found, expected)


@both
def test_steering_between_two_prompts(name: str) -> None:
    (_, wanted), (_, opposite) = (by_hooks(name, "layer", "output", unchanged, each) for each in (OTHER, PROMPT))

    def edit(value: Tensor) -> None:
        value += 2.5 * (wanted[:, -1:] - opposite[:, -1:])

    expected, _ = by_hooks(name, "layer", "output", edit)
    found = traced(name, lambda it: wb.steer(it._envoy, toward=OTHER, away=PROMPT, factor=2.5))
    torch.testing.assert_close(found, expected)
    vector = (wanted[:, -1] - opposite[:, -1])[0]
    torch.testing.assert_close(traced(name, lambda it: wb.steer(it, vector, factor=2.5)), expected)


@both
def test_patching_from_another_prompt_and_from_a_tensor(name: str) -> None:
    _, there = by_hooks(name, "out", "input", unchanged, OTHER)

    def edit(value: Tensor) -> None:
        parts(name, value)[:, 3, 2] = parts(name, there)[:, 2, 2]

    expected, _ = by_hooks(name, "out", "input", edit)
    found = traced(name, lambda it: wb.patch(it.attn, OTHER, positions=[3], source_positions=[2], heads=[2]))
    torch.testing.assert_close(found, expected)
    value = parts(name, there)[:, [2]][:, :, [2]]
    torch.testing.assert_close(traced(name, lambda it: wb.patch(it.attn, value, positions=[3], heads=[2])), expected)


@both
def test_a_clean_source_does_not_see_the_edits(name: str) -> None:
    """Above the patch its own prompt is edited; the other prompt's pass is as it is without any trace."""
    _, there = by_hooks(name, "mlp", "output", unchanged, OTHER)
    with model(name).trace(PROMPT):
        wb.ablate(model(name).layers[0].mlp)
        wb.patch(model(name).layers[LAYER].mlp, OTHER, positions=-1)
        value = model(name).layers[LAYER].mlp.output.save()
    torch.testing.assert_close(value.value[:, -1], there[:, -1])


@both
def test_measures(name: str) -> None:
    clean, _ = by_hooks(name, "mlp", "output", unchanged)
    changed, _ = by_hooks(name, "mlp", "output", lambda value: value.zero_())
    paris, rome = (model(name).tokenizer(each)["input_ids"][0] for each in (" Paris", " Rome"))
    with model(name).trace(PROMPT):
        wb.ablate(model(name).layers[LAYER].mlp)
        difference = wb.measure("logit_difference", [" Paris", rome]).save()
        probability = wb.measure("probability", [" Paris"]).save()
        rank = wb.measure("rank", [" Rome"]).save()
        kl = wb.measure("kl").save()
    last, before = changed[0, -1].double(), clean[0, -1].double()
    assert difference.value == pytest.approx(float(last[paris] - last[rome]), abs=1e-4)
    assert probability.value == pytest.approx(float(last.softmax(0)[paris]), abs=1e-5)
    assert rank.value == 1 + sum(float(each) > float(last[rome]) for each in last)
    expected = torch.nn.functional.kl_div(last.log_softmax(0), before.log_softmax(0), log_target=True, reduction="sum")
    assert kl.value == pytest.approx(float(expected), abs=1e-5)


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a mode": (lambda it: wb.ablate(it.mlp, mode="none"), "one of 'zero', 'mean', 'reference', 'resample'"),  # type: ignore[arg-type]
    "no reference": (lambda it: wb.ablate(it.mlp, mode="reference"), 'needs the other prompt: source="'),
    "a source for zero": (lambda it: wb.ablate(it.mlp, source=OTHER), "takes nothing from another prompt"),
    "nothing to add": (lambda it: wb.steer(it.mlp), "toward=… and away=…; give one"),
    "heads of a value": (lambda it: wb.scale(it.mlp.output, 2, heads=0), "are chosen at a module"),
    "heads of no layer": (lambda it: wb.scale(it._envoy._root, 2, heads=0), "are chosen in a layer, such as"),
    "heads and neurons": (lambda it: wb.scale(it.mlp, 2, heads=0, neurons=0), "choose one of them"),
    "an index and positions": (lambda it: wb.scale(it.mlp, 2, positions=0, index=":, 0"), "an index says it all"),
    "an index that calls": (lambda it: wb.scale(it.mlp, 2, index="[f()]"), "numbers, lists of numbers, slices"),
    "too few source positions": (lambda it: wb.patch(it.mlp, OTHER, [1, 2], source_positions=[1]), "as many as"),
    "something computed": (lambda it: wb.patch(it.mlp.output * 2, OTHER), "not at something computed from it"),
    "no module": (lambda it: wb.patch("mlp", OTHER), "this is a str"),  # type: ignore[arg-type]
    "an answer of two tokens": (lambda it: wb.measure("rank", ["Paris Rome"]), "is 2 tokens, not one"),
    "too few answers": (lambda it: wb.measure("logit_difference", [" Paris"]), "takes 2 answer tokens, not 1"),
}


@pytest.mark.parametrize(("write", "words"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_says_why(write: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        traced("gpt2", write)
    assert words in str(error.value)
