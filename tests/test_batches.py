"""Invokes that share a pass: what mixes them, what they share, what crosses; `test_families` has the law itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.families import PROMPTS, family, prompts
from tests.test_families import alone, differences, open_family


def test_what_mixes_all_prompts_says_so() -> None:
    model = open_family("mixtral")
    with model.trace() as tracer, tracer.invoke(PROMPTS[0]):
        alone = model.model.layers[0].mlp.experts.act_fn.output.save()
    with model.trace() as tracer:
        with tracer.invoke(PROMPTS[0]):
            mixed = model.model.layers[0].mlp.experts.act_fn.output.save()
        with tracer.invoke(PROMPTS[1]):
            pass
    assert isinstance(alone.value, Tensor)
    assert "the rows of all invokes mixed in axis 0" in repr(mixed)
    with pytest.raises(ValueError, match=r"mixed in axis 0 of its shape .*; trace this prompt alone\nWhile running"):
        with model.trace() as tracer:
            with tracer.invoke(PROMPTS[0]):
                (model.model.layers[0].mlp.experts.act_fn.output * 2).save()
            with tracer.invoke(PROMPTS[1]):
                pass


def test_patches_of_all_images_in_one_axis_say_so() -> None:
    model = open_family("llava")
    first, second, *_ = prompts("llava")
    with model.trace() as tracer:
        with tracer.invoke(first):
            pass
        with tracer.invoke(second):
            seen = model.output.save()
    assert seen.logits.shape == (1, 11, 60)
    assert "the rows of all invokes mixed in axis 0 of its shape (8, 32)" in repr(seen.image_hidden_states)


def test_an_encoder_with_a_decoder() -> None:
    model = open_family("t5")
    prompts = [
        {"input_ids": torch.tensor([[5, 9, 14]]), "decoder_input_ids": torch.tensor([[0, 7]])},
        {"input_ids": torch.tensor([[7, 3, 8, 21, 33]] * 2), "decoder_input_ids": torch.tensor([[0, 8], [0, 9]])},
    ]
    names = ("encoder.block.1", "decoder.block.2.layer.1.EncDecAttention", "lm_head")
    with model.trace() as tracer:
        ours = []
        for prompt in prompts:
            with tracer.invoke(prompt):
                ours.append([model.find(name).output.save() for name in names])
    for prompt, mine in zip(prompts, ours, strict=True):
        seen = alone(model, prompt, {})
        for name, value in zip(
            ("encoder.block.1", "decoder.block.2.layer.1.EncDecAttention", "lm_head"), mine, strict=True
        ):
            assert not differences(value.value, seen[name, "output"], torch.ones_like(prompt["input_ids"])), name


def test_images_have_rows_and_no_positions() -> None:
    module, kwargs = family("vit")
    model = wb.NNsight(module)
    images = kwargs["pixel_values"]
    with model.trace() as tracer:
        with tracer.invoke(images[:1]):
            first = model.output.logits.save()
        with tracer.invoke(images):
            model.vit.layers[0].output[:] = 0
            both = model.output.logits.save()
    with torch.no_grad():
        torch.testing.assert_close(first.value, module(images[:1]).logits)
    assert both.shape == (2, 1000 if module.num_labels == 1000 else module.num_labels)
    torch.testing.assert_close(both[0], both[1])


def test_values_cross_between_prompts_of_different_lengths() -> None:
    model = open_family("llama")
    layer = model.model.layers[1]
    short, long = PROMPTS[:2]
    with model.trace() as tracer:
        with tracer.invoke(long):
            model.model.layers[2].output[:, -3:] = layer.output[:, :3]
            there = model.lm_head.output.save()
        with tracer.invoke(short):
            kept = layer.output.save()
            model.model.layers[2].output[:] = kept
            here = model.lm_head.output.save()
    states: dict[str, Tensor] = {}

    def run(prompt: list[list[int]], put: Any) -> Tensor:
        def change(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            put(output)
            return output

        handles = [
            layer.module.register_forward_hook(lambda m, a, output: states.__setitem__("layer", output)),
            model.model.layers[2].module.register_forward_hook(change),
        ]
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor(prompt)).logits
        for handle in handles:
            handle.remove()
        return logits

    torch.testing.assert_close(there.value, run(long, lambda out: out[:, -3:].copy_(states["layer"][:, :3])))
    torch.testing.assert_close(here.value, run(short, lambda out: out.copy_(states["layer"])))


@pytest.mark.parametrize("first", [0, 1])
def test_a_value_that_does_not_fit_is_refused_with_both_shapes(first: int) -> None:
    model = open_family("gpt2")
    block = model.transformer.h[1]
    order = [PROMPTS[0], PROMPTS[1]][:: 1 if first == 0 else -1]
    sizes = [len(prompt[0]) for prompt in order]
    said = rf"this invoke has \(1, {sizes[1]}, 32\), the replacement has \(1, {sizes[0]}, 32\)"
    with pytest.raises(ValueError, match=said):
        with model.trace() as tracer:
            with tracer.invoke(order[0]):
                hidden = block.output
            with tracer.invoke(order[1]):
                block.output = hidden
    with pytest.raises(RuntimeError) as error:
        with model.trace() as tracer:
            with tracer.invoke(order[0]):
                hidden = block.output
            with tracer.invoke(order[1]):
                block.output[:] = hidden
    assert f"transformer.h.1.output has shape (1, {sizes[1]}, 32)" in str(error.value)
    assert f"transformer.h.1.output has shape (1, {sizes[0]}, 32)" in str(error.value)


class Shared(nn.Module):
    """Has a value that does not depend on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 2)
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.table(torch.arange(4, device=x.device)).sum(1))


def test_what_all_invokes_share_is_read_by_all_and_changed_by_none() -> None:
    torch.manual_seed(0)
    model: Any = wb.NNsight(Shared())
    x = torch.randn(3, 4)
    with model.trace() as tracer:
        with tracer.invoke(x[:1]):
            one = model.table.output.save()
        with tracer.invoke(x[1:]):
            two = model.table.output.save()
    assert torch.equal(one.value, model.module.table.weight)
    assert torch.equal(two.value, one.value)
    for write in ("in place", "assigned"):
        with pytest.raises(ValueError, match=r"share this value \(shape \(4, 2\) has no axis for the batch\)"):
            with model.trace() as tracer:
                with tracer.invoke(x[:1]):
                    if write == "in place":
                        model.table.output[:] = 0
                    else:
                        model.table.output = model.table.output * 0
                with tracer.invoke(x[1:]):
                    pass
    with model.trace(x):
        model.table.output[:] = 0
        out = model.output.save()
    assert torch.equal(out.value, x)


def test_four_rows_of_a_batch_of_four_are_not_taken_for_the_features() -> None:
    """The shared table has as many rows as the batch: only a scan at other sizes tells them apart."""
    torch.manual_seed(0)
    model: Any = wb.NNsight(Shared())
    with model.trace() as tracer:
        with tracer.invoke(torch.zeros(1, 4)):
            one = model.table.output.save()
        with tracer.invoke(torch.zeros(3, 4)):
            rest = model.last.output.save()
    assert one.shape == (4, 2)
    assert rest.shape == (3, 4)


def test_calls_inside_a_forward_are_cut_too() -> None:
    model = open_family("llama")
    layer = model.model.layers[1].self_attn
    with model.trace(PROMPTS[0]):
        beside = layer.source.attention_interface.output[1].save()
    with model.trace() as tracer:
        with tracer.invoke(PROMPTS[1]):
            layer.source.attention_interface.output[1][:] = 0
        with tracer.invoke(PROMPTS[0]):
            pattern = layer.source.attention_interface.output[1].save()
            assert layer.source.attention_interface.output[1].shape == (1, 4, 3, 3)
    torch.testing.assert_close(pattern.value, beside.value)


def test_a_module_called_by_one_invoke_sees_its_own_rows() -> None:
    model = open_family("gpt2")
    model.transformer.h[0].extra = nn.Linear(32, 32)
    extra: Any = model.transformer.h[0].children["extra"]
    made, kept = [], []
    with model.trace() as tracer:
        for prompt in PROMPTS[:2]:
            with tracer.invoke(prompt):
                block = model.transformer.h[0]
                given = block.output.clone().save()
                block.output = extra(block.output, hook=True)
                kept.append(model.transformer.h[1].input.save())
                made.append((given, extra.output.save() if prompt is PROMPTS[0] else None))
    given, output = made[0]
    torch.testing.assert_close(output.value, extra.module(given.value))
    assert torch.equal(kept[0].value, output.value)
    torch.testing.assert_close(kept[1].value, extra.module(made[1][0].value))


def test_a_session_with_prompts_of_unequal_length() -> None:
    model = open_family("gpt2")
    with model.session():
        with model.trace() as tracer:
            with tracer.invoke(PROMPTS[1]):
                hidden = model.transformer.h[1].output[:, :3]
            with tracer.invoke(PROMPTS[0]):
                model.transformer.h[1].output = hidden
                out = model.lm_head.output.save()
    with model.trace(PROMPTS[1]):
        hidden = model.transformer.h[1].output[:, :3].save()
    with model.trace(PROMPTS[0]):
        model.transformer.h[1].output = hidden
        beside = model.lm_head.output.save()
    torch.testing.assert_close(out.value, beside.value)
