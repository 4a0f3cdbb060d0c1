"""A model divided over two processes by transformers: each sees in every trace what the whole model has, and writes
what is written in the whole model. What it must be is worked out with plain transformers and hooks, in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import workbench as wb
from tests.divided import IDS, tensors_of
from tests.serving import LLAMA, ROOT, serving

PROMPT = "The Eiffel Tower is in the city of"
WORLD = 2
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 51, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "attn_implementation": "eager",
}  # fmt: skip
"""51 and 97 are not even: the last process has less."""


def start(folder: Path, what: str) -> list[subprocess.Popen[bytes]]:
    """The processes that share the model of a folder."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    made = []
    for rank in range(WORLD):
        with (folder / f"{what}-{rank}.log").open("wb") as log:
            words = [sys.executable, "-m", "tests.divided", str(rank), str(WORLD), str(folder), what]
            made.append(subprocess.Popen(words, cwd=ROOT, env=surroundings, stdout=log, stderr=log))
    return made


def end(processes: list[subprocess.Popen[bytes]], seconds: float = 200) -> list[int]:
    """Their exit statuses."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Seen:
    """A model, and what each of the processes that share it has seen."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.model = model.eval()
        (folder / "model").mkdir()
        model.save_pretrained(folder / "model")
        ends = end(start(folder, "seen"))
        logs = "\n".join((folder / f"seen-{rank}.log").read_text()[-3000:] for rank in range(WORLD))
        assert ends == [0] * WORLD, logs
        self.ranks = [torch.load(folder / f"seen-{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    torch.manual_seed(0)
    config, kind = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}[request.param]
    return Seen(tmp_path_factory.mktemp(request.param), kind(config(**SIZES)))


@contextmanager
def written(model: Any, *hooks: tuple[str, Callable[[Any], Any]], before: bool = False) -> Iterator[None]:
    """What these functions make of modules' outputs, or inputs, stands in their place."""
    handles = []
    for path, function in hooks:
        module = model.get_submodule(path)
        if before:
            handles.append(module.register_forward_pre_hook(lambda module, args, f=function: (f(args[0]), *args[1:])))
        else:
            handles.append(module.register_forward_hook(lambda module, args, output, f=function: f(output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def put(value: Tensor, where: Any, new: Any) -> Tensor:
    value = value.clone()
    value[where] = new
    return value


def test_every_modules_output_and_input_is_the_whole_models(seen: Seen) -> None:
    expected: dict[str, list[Tensor]] = {}
    handles = []
    for path, module in seen.model.named_modules():
        handles.append(
            module.register_forward_hook(
                lambda module, args, output, name=path: expected.update({f"{name}.output": tensors_of(output)})
            )
        )
        handles.append(
            module.register_forward_pre_hook(
                lambda module, args, name=path: expected.update({f"{name}.input": tensors_of(args)})
            )
        )
    with torch.no_grad():
        seen.model(input_ids=IDS, output_attentions=True)
    for handle in handles:
        handle.remove()
    for rank in seen.ranks:
        assert len(rank["sites"]) > 40
        for name, values in rank["sites"].items():
            assert values, name
            torch.testing.assert_close(values, expected[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    assert expected["model.layers.0.self_attn.output"][1].shape == (2, 4, 5, 5)  # the pattern, all heads


def test_what_is_written_where_it_is_divided_is_written_in_the_whole(seen: Seen) -> None:
    model, layers = seen.model, "model.layers"
    expected = {}
    with written(model, (f"{layers}.0.self_attn.q_proj", lambda x: put(x, (slice(None), -1, slice(5, 20)), 0))):
        expected["part of a query"] = logits(model)
    with written(model, (f"{layers}.0.self_attn.k_proj", lambda x: x + 1)):
        expected["keys"] = logits(model)
    with written(
        model,
        (f"{layers}.0.mlp.gate_proj", lambda x: put(x, (..., slice(20, 40)), x[..., 20:40] + 1)),
        (f"{layers}.1.mlp.up_proj", lambda x: put(x, (slice(None), 2), 3.0)),
    ):
        expected["gate and up"] = logits(model)
    with written(model, (f"{layers}.1.mlp.act_fn", lambda x: put(x, (..., 30), 3.0))):
        expected["a neuron"] = logits(model)
    with written(
        model, (f"{layers}.0.self_attn.o_proj", lambda x: put(x, (..., slice(24, 32)), 0)), before=True
    ):  # the fourth head of eight features each
        expected["a head"] = logits(model)
    taken: list[Tensor] = []
    with written(model, (f"{layers}.0.self_attn.v_proj", lambda x: taken.append(x[:, -1].clone()))):
        logits(model, IDS[:1])
    with written(model, (f"{layers}.0.self_attn.v_proj", lambda x: put(x, (slice(None), -1), taken[0]))):
        expected["from another prompt"] = logits(model, IDS[1:])
    plain = logits(model)
    for rank in seen.ranks:
        assert rank["edits"].keys() == expected.keys()
        for name, value in rank["edits"].items():
            torch.testing.assert_close(value, expected[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
            assert not torch.allclose(value, plain[-len(value) :], **CLOSE), name


def test_gradients_are_the_whole_models(seen: Seen) -> None:
    kept: dict[str, Tensor] = {}
    layers = "model.layers"

    def keep(name: str) -> Callable[[Tensor], None]:
        return lambda value: kept.update({name: value})

    with written(
        seen.model,
        (f"{layers}.1.mlp.gate_proj", keep("gate")),
        (f"{layers}.0.self_attn.k_proj", keep("key")),
        (f"{layers}.0", keep("stream")),
    ):
        total = seen.model(input_ids=IDS).logits[..., 3].sum()
    expected = dict(zip(kept, torch.autograd.grad(total, list(kept.values())), strict=True))
    for rank in seen.ranks:
        for name, value in rank["gradients"].items():
            torch.testing.assert_close(value, expected[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_modules_that_are_called_weights_calls_inside_and_steps(seen: Seen) -> None:
    model = seen.model
    second = model.model.layers[1]
    kept: dict[str, Any] = {}
    with torch.no_grad():
        with written(
            model,
            ("model.layers.0", lambda x: kept.update(stream=x)),
            ("model.layers.0.self_attn.q_proj", lambda x: kept.update(q=x)),
            ("model.layers.1.mlp.gate_proj", lambda x: kept.update(gate=x)),
        ):
            logits(model)
        with written(model, ("model.layers.1.mlp.up_proj", lambda x: kept["gate"] * 2)):
            skipped = logits(model)
        lens = model.lm_head(model.model.norm(kept["stream"]))
        called = second.mlp.down_proj(second.mlp.gate_proj(kept["stream"]))
        pattern = model(input_ids=IDS, output_attentions=True).attentions[0]
        with written(
            model, ("model.layers.1.self_attn.o_proj", lambda x: put(x, (..., slice(24, 32)), 0)), before=True
        ):
            unseeing = logits(model)
        steps: list[Tensor] = []
        with written(model, ("model.layers.0.self_attn.v_proj", steps.append)):
            tokens = model.generate(IDS, max_new_tokens=3, do_sample=False)
    for rank in seen.ranks:
        found = rank["others"]
        assert found["shape"] == [2, 5, 32]
        torch.testing.assert_close(found["lens"], lens, **CLOSE)
        torch.testing.assert_close(found["called"], called, **CLOSE)
        torch.testing.assert_close(found["skipped"], skipped, **CLOSE)
        assert torch.equal(found["weight"].detach(), second.mlp.down_proj.weight)
        torch.testing.assert_close(found["pattern"], pattern, **CLOSE)
        torch.testing.assert_close(found["unseeing"], unseeing, **CLOSE)
        assert found["rotated"].shape == (2, 4, 5, 8)
        torch.testing.assert_close(found["step"], steps[1], **CLOSE)
        assert torch.equal(found["tokens"], tokens)
    assert torch.equal(seen.ranks[0]["others"]["noise"], seen.ranks[1]["others"]["noise"])


def test_an_error_in_one_process_ends_all(tmp_path: Path) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(tmp_path / "model")
    processes = start(tmp_path, "fault")
    ends = [0, 0]
    began = None
    while any(process.poll() is None for process in processes):
        time.sleep(0.05)
        if began is None and processes[1].poll() is not None:
            began = time.monotonic()
        if began is not None and time.monotonic() - began > 15:
            break
    ends = [process.poll() for process in processes]
    for process in processes:
        process.kill()
        process.wait()
    assert ends[1] == 1, (tmp_path / "fault-1.log").read_text()
    assert ends[0] not in (None, 0), "the other process goes on"
    assert "this process alone fails" in (tmp_path / "fault-1.log").read_text()


# ---- a server whose workers are several processes each


FAILS_ALONE = """
import os
from workbench.graph.allowed import offer

@offer("fails_alone")
def fails_alone(value):
    if os.environ["RANK"] == "1":
        raise ValueError("this process alone fails")
    return value
"""


def test_a_server_divides_its_model_and_one_process_that_fails_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text(FAILS_ALONE)
    words = (LLAMA, "--tensor-parallel", str(WORLD), "--functions", str(tmp_path / "functions.py"))
    model = wb.LanguageModel(LLAMA)

    def asked() -> Tensor:
        with model.trace(PROMPT, remote=server.host):
            model.model.layers[0].self_attn.q_proj.output[:, -1, :20] = 0
            gate = model.model.layers[1].mlp.gate_proj.output.save()
        return gate.value

    with serving(tmp_path, *words) as server:
        server.ready(seconds=200)
        kept: list[Tensor] = []
        whole = wb.LanguageModel(LLAMA, dispatch=True).module
        with written(
            whole,
            ("model.layers.0.self_attn.q_proj", lambda x: put(x, (slice(None), -1, slice(20)), 0)),
            ("model.layers.1.mlp.gate_proj", kept.append),
        ):
            logits(whole, model.tokenizer(PROMPT, return_tensors="pt")["input_ids"])
        first = asked()
        torch.testing.assert_close(first, kept[0], rtol=1e-4, atol=1e-4)
        began = time.monotonic()
        with pytest.raises(ValueError, match="this process alone fails"):
            with model.trace(PROMPT, remote=server.host):
                model.model.layers[1].output = wb.remote.function("fails_alone")(model.model.layers[0].output)
                model.lm_head.output.save()
        assert time.monotonic() - began < 15
        assert torch.equal(asked(), first)
    walls = "a network of its own, with nothing in it"
    assert walls in server.log or "seccomp" in server.log
