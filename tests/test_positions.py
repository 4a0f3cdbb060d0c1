"""Positions in a list of prompts of unequal length: each prompt's own, beside the bare model on that prompt alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.families import family
from tests.test_families import hooked
from workbench.models.positions import own_mean, own_positions

LIST = [[5, 9, 14, 21], [7, 3], [8, 21, 33, 40, 11, 6]]
FAMILIES = ["gpt2", "llama", "mixtral", "bert", "peft"]


def opened(name: str) -> Any:
    module: Any = family(name)[0]
    if name != "bert":
        module.generation_config.eos_token_id = None
    return wb.LanguageModel(module)


def alone(model: Any, row: list[int], change: Callable[[Tensor], Any]) -> Tensor:
    """The bare model's logits, where this is done to what its second layer gives."""

    def changed(output: Tensor) -> Tensor:
        output = output.clone()
        change(output)
        return output

    with hooked(model.layers[1].module, changed), torch.no_grad():
        return model.module(input_ids=torch.tensor([row])).logits


def compare(model: Any, logits: Tensor, rows: list[list[int]], change: Callable[[Tensor], Any]) -> None:
    for found, row in zip(logits, rows, strict=True):
        expected = alone(model, row, change)[0]
        torch.testing.assert_close(found[-len(row) :], expected, rtol=1e-4, atol=2e-5)


def zeroed(*positions: int) -> Callable[[Tensor], None]:
    def change(output: Tensor) -> None:
        output[:, [*positions]] = 0

    return change


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("positions", [(0,), (1,), (-1,), (0, -2), (1, 0)])
def test_positions_are_each_prompts_own(name: str, positions: tuple[int, ...]) -> None:
    model = opened(name)
    with model.trace() as tracer:
        with tracer.invoke(LIST):
            hidden = model.layers[1].resid_post
            read = hidden[own_positions(hidden, positions)].clone().save()
            hidden[own_positions(hidden, positions)] = 0
            logits = model.output.logits.save()
        with tracer.invoke([8, 9, 10, 11, 12, 13, 14, 15]):  # so that the list is padded behind as well
            pass
    compare(model, logits.value, LIST, zeroed(*positions))
    for found, row in zip(read, LIST, strict=True):
        seen: list[Tensor] = []
        alone(model, row, lambda output, seen=seen: seen.append(output.clone()))
        torch.testing.assert_close(found, seen[0][0, [*positions]], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mean_over_each_prompts_own_positions(name: str) -> None:
    model = opened(name)
    with model.trace(LIST):
        hidden = model.layers[1].resid_post
        hidden[:] = own_mean(hidden)
        logits = model.output.logits.save()
    compare(model, logits.value, LIST, lambda output: output.copy_(output.mean(1, keepdim=True)))


def test_prompts_of_one_length_need_no_more_than_an_index() -> None:
    model = opened("gpt2")
    for prompt in (LIST[0], [LIST[0], LIST[0]]):
        with model.trace(prompt) as tracer:
            hidden = model.layers[1].resid_post
            hidden[own_positions(hidden, [0, -1])] = 0
        assert tracer.graph is not None
        assert "own_positions" not in {node.op.name for node in tracer.graph.nodes}


def test_in_an_edit_in_a_file_in_a_loop_and_in_generation(tmp_path: Path) -> None:
    model = opened("llama")
    with model.edit() as edited:
        hidden = model.layers[1].resid_post
        hidden[own_positions(hidden, 0)] = 0
    edited.save_edits(tmp_path / "edits.safetensors")
    for each in (edited, model.load_edits(tmp_path / "edits.safetensors")):
        for prompt in (LIST, LIST[:1]):
            with each.trace(prompt):
                logits = each.output.logits.save()
            compare(model, logits.value, prompt, zeroed(0))
    with model.session() as session:
        kept = wb.list().save()
        with session.iter([LIST[:2], LIST[1:]]) as prompt:
            with model.trace(prompt):
                hidden = model.layers[1].resid_post
                hidden[own_positions(hidden, 1)] = 0
                kept.append(model.output.logits)
    for logits, rows in zip(kept, (LIST[:2], LIST[1:]), strict=True):
        compare(model, logits, rows, zeroed(1))
    with model.generate(LIST, max_new_tokens=3) as tracer:
        hidden = model.layers[1].resid_post
        hidden[own_positions(hidden, 0)] = 0
        with tracer.iter[1:]:  # a later step has one position, the same for each prompt
            hidden = model.layers[1].resid_post
            hidden[own_positions(hidden, 0)] *= 0.5
        tokens = model.generator.output.save()
    for row, prompt in enumerate(LIST):
        steps = iter(range(3))

        def change(output: Tensor, steps: Any = steps) -> Tensor:
            output = output.clone()
            output[:, 0] *= 0.5 if next(steps) else 0
            return output

        with hooked(model.layers[1].module, change):
            plain = model.module.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)
        assert torch.equal(tokens[row, -3:], plain[0, -3:])


INTERVENTIONS: dict[str, Callable[[Any], None]] = {
    "zero": lambda layer: wb.ablate(layer, positions=0),
    "mean": lambda layer: wb.ablate(layer.mlp, positions=[0, -1], mode="mean"),
    "reference": lambda layer: wb.ablate(layer.mlp, positions=[1], mode="reference", source=[9, 4, 8]),
    "scale": lambda layer: wb.scale(layer, 3.0, positions=1),
    "steer": lambda layer: wb.steer(layer, torch.linspace(-1, 1, 32), positions=[1, -2]),
    "heads": lambda layer: wb.ablate(layer.attn, positions=[0, 1], heads=[0, 3]),
    "neurons": lambda layer: wb.scale(layer.mlp, 5.0, positions=[-2], neurons=[4, 5]),
    "patch": lambda layer: wb.patch(layer, [9, 4, 8], positions=[0, -1], source_positions=[1, 2]),
}


@pytest.mark.parametrize("kind", INTERVENTIONS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_interventions_are_at_each_prompts_own_positions(name: str, kind: str) -> None:
    model = opened(name)
    intervene = INTERVENTIONS[kind]
    with model.trace(LIST):
        intervene(model.layers[1])
        _ = model.layers[1].output.shape  # which is worked out with the intervention in it
        ours = model.output.logits.save()
    changed = 0.0
    for found, row in zip(ours, LIST, strict=True):
        with model.trace([row]):
            intervene(model.layers[1])
            beside = model.output.logits.save()
        torch.testing.assert_close(found[-len(row) :], beside[0], rtol=1e-4, atol=2e-5)
        with torch.no_grad():
            changed += float((model.module(input_ids=torch.tensor([row])).logits - beside).abs().max())
    assert changed > 1e-3


def test_values_drawn_at_random_are_never_of_padding() -> None:
    model = opened("gpt2")
    with model.trace(LIST):
        before = model.layers[1].resid_post.clone().save()
        wb.ablate(model.layers[1], mode="resample", seed=3)
        after = model.layers[1].resid_post.save()
    for row, prompt in enumerate(LIST):
        own = before[row, -len(prompt) :]
        for drawn in after[row]:
            assert (own - drawn).abs().amax(-1).min() < 1e-6


def test_edits_at_positions_open_in_a_process_that_knows_nothing_of_them(tmp_path: Path) -> None:
    model = wb.demo()
    texts = ["The Eiffel Tower is in the city of", "The Colosseum"]
    with model.edit() as edited:
        wb.ablate(model.layers[1].mlp, positions=[0, -1], mode="mean")
        model.layers[2].attn.heads[:, :, 1] *= 0.5
        model.layers[3].attn.pattern[:, 0] = 0
    edited.save_edits(tmp_path / "edits.safetensors")
    code = """
import json, sys, workbench as wb
edited = wb.demo().load_edits(sys.argv[1])
with edited.trace(json.loads(sys.argv[2])):
    logits = edited.output.logits[:, -1].save()
print(json.dumps(logits.tolist()))
"""
    given = [sys.executable, "-c", code, str(tmp_path / "edits.safetensors"), json.dumps(texts)]
    done = subprocess.run(given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]
    with edited.trace(texts):
        logits = edited.output.logits[:, -1].save()
    torch.testing.assert_close(logits.value, torch.tensor(json.loads(done.stdout)), rtol=1e-4, atol=1e-4)


def test_an_encoders_positions() -> None:
    module: Any = family("t5")[0]
    model: Any = wb.LanguageModel(module)
    with model.trace(LIST):
        hidden = model.encoder.block[1].output[0]
        last = hidden[own_positions(hidden, -1)].save()
    for row, prompt in enumerate(LIST):
        with torch.no_grad():
            plain = module.encoder(torch.tensor([prompt]), output_hidden_states=True).hidden_states[2][:, -1]
        torch.testing.assert_close(last[row], plain, rtol=1e-4, atol=2e-5)


def test_a_position_that_a_prompt_does_not_have() -> None:
    model = opened("gpt2")
    for position in (2, -3):
        with pytest.raises(
            IndexError, match=rf"position {position} is out of range for prompt 1 of this list.* 2 tokens"
        ):
            with model.trace(LIST):
                hidden = model.layers[1].resid_post
                hidden[own_positions(hidden, position)] = 0
    module: Any = family("t5")[0]
    seq: Any = wb.LanguageModel(module)
    with pytest.raises(ValueError, match="prompts of this list and their answers have the same length"):
        with seq.trace([[5, 9, 14], [7, 3]], decoder_input_ids=[[0, 5, 9], [0, 4, 4]]):
            hidden = seq.decoder.block[1].output[0]
            hidden[own_positions(hidden, -1)].save()
