"""One process of those that share a model: `python -m tests.divided RANK WORLD FOLDER WHAT` opens the model of a folder
divided over gloo processes, runs the cases below and keeps what it saw in the folder."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import workbench as wb

IDS = torch.tensor([[3, 14, 15, 9, 26], [5, 35, 8, 9, 7]])


def divided(folder: Path, world: int) -> Any:
    """The model, divided."""
    from transformers.distributed.configuration_utils import DistributedConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    shares = DistributedConfig(tp_size=world, tp_plan="auto")
    return wb.LanguageModel(str(folder), tokenizer=NoWords(), distributed_config=shares, attn_implementation="eager")


class NoWords:
    """In a tokenizer's place: prompts are token ids."""


def sites(model: Any) -> dict[str, Any]:
    """Every module's output, and the input of those that take one."""
    found: dict[str, Any] = {}
    paths = [path for path, _ in model.module.named_modules()]
    with model.trace(input_ids=IDS, output_attentions=True):
        for path in paths:
            if "rotary" not in path and not path.endswith("layers"):
                found[f"{path}.output"] = model.find(path).output.save()
                if path.endswith(("proj", "act_fn")):
                    found[f"{path}.input"] = model.find(path).input.save()
    return {name: tensors_of(value.value) for name, value in found.items()}


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of a module's output."""
    if isinstance(value, Tensor):
        return [value.detach()]
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else []
    return [each for item in items for each in tensors_of(item)]


def edits(model: Any) -> dict[str, Tensor]:
    """Logits after writing into what is divided; the test writes the same with plain hooks."""
    first, second = model.model.layers[0], model.model.layers[1]
    found: dict[str, Any] = {}
    with model.trace(input_ids=IDS):
        first.self_attn.q_proj.output[:, -1, 5:20] = 0
        found["part of a query"] = model.lm_head.output.save()
    with model.trace(input_ids=IDS):
        first.self_attn.k_proj.output = first.self_attn.k_proj.output + 1
        found["keys"] = model.lm_head.output.save()
    with model.trace(input_ids=IDS):
        first.mlp.gate_proj.output[..., 20:40] += 1
        second.mlp.up_proj.output[:, 2] = 3.0
        found["gate and up"] = model.lm_head.output.save()
    with model.trace(input_ids=IDS):
        second.mlp.act_fn.output[..., 30] = 3.0
        found["a neuron"] = model.lm_head.output.save()
    with model.trace(input_ids=IDS):
        model.layers[0].attn.heads[:, :, 3] = 0
        found["a head"] = model.lm_head.output.save()
    with model.trace() as tracer:
        with tracer.invoke(input_ids=IDS[:1]):
            values = first.self_attn.v_proj.output[:, -1]
        with tracer.invoke(input_ids=IDS[1:]):
            first.self_attn.v_proj.output[:, -1] = values
            found["from another prompt"] = model.lm_head.output.save()
    return {name: value.value.detach() for name, value in found.items()}


def gradients(model: Any) -> dict[str, Tensor]:
    """Of the logits' third, at divided sites and at a whole one; and of logits after an edited gradient."""
    first, second = model.model.layers[0], model.model.layers[1]
    with model.trace(input_ids=IDS):
        gate = second.mlp.gate_proj.output.grad.save()
        key = first.self_attn.k_proj.output.grad.save()
        stream = first.output.grad.save()
        model.lm_head.output[..., 3].sum().backward()
    return {"gate": gate.value, "key": key.value, "stream": stream.value}


def others(model: Any) -> dict[str, Any]:
    """Modules called, weights, calls inside a forward, steps of a generation, noise."""
    first, second = model.model.layers[0], model.model.layers[1]
    found: dict[str, Any] = {}
    with model.trace(input_ids=IDS):
        stream = first.output
        found["lens"] = model.lm_head(model.model.norm(stream)).save()
        found["called"] = second.mlp.down_proj(second.mlp.gate_proj(stream)).save()
        found["weight"] = second.mlp.down_proj.weight.save()
        found["rotated"] = first.self_attn.source.apply_rotary_pos_emb.output[0].save()
        found["shape"] = list(first.self_attn.q_proj.output.shape)
    with model.trace(input_ids=IDS):
        second.mlp.up_proj.skip(second.mlp.gate_proj.output * 2)
        found["skipped"] = model.lm_head.output.save()
    with model.trace(input_ids=IDS):
        found["pattern"] = model.layers[0].attn.pattern.save()
        model.layers[1].attn.pattern[:, 3] = 0
        found["unseeing"] = model.lm_head.output.save()
    with model.generate(input_ids=IDS, max_new_tokens=3):
        found["step"] = first.self_attn.v_proj.next().output.save()
        found["tokens"] = model.generator.output.save()
    torch.manual_seed(int(os.environ["RANK"]))
    with model.trace(input_ids=IDS):
        found["noise"] = (torch.randn(2, 5, 4) + 0 * first.output[..., :4]).save()
    return {name: getattr(value, "value", value) for name, value in found.items()}


def fault(model: Any) -> None:
    """An error in one process alone."""

    def fail(value: Tensor) -> Tensor:
        if os.environ["RANK"] == "1":
            raise RuntimeError("this process alone fails")
        return value

    with model.trace(input_ids=IDS):
        value = wb.apply(fail, model.model.layers[0].output)
        model.model.layers[1].output[:] = value


def main(rank: int, world: int, folder: Path, what: str) -> None:
    """Join the others, run, and keep what came of it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo"}
    store = f"file://{folder}/store-{what}"
    dist.init_process_group("gloo", store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    model = divided(folder / "model", world)
    if what == "fault":
        started = time.monotonic()
        try:
            fault(model)
        finally:
            (folder / f"fault-{rank}").write_text(f"{time.monotonic() - started:.3f}")
        return
    seen = {"sites": sites(model), "edits": edits(model), "gradients": gradients(model), "others": others(model)}
    torch.save(seen, folder / f"seen-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
