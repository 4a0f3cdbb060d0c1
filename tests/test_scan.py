"""A scan tells the shapes that a run has, by every rung of its ladder, and leaves nothing behind."""

from __future__ import annotations

import time
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import workbench as wb
from tests.families import FAMILIES, family
from tests.nets import Mixed, hooks_left
from workbench.engine.blocks import same_blocks
from workbench.engine.scan import Scan, Scanner, scan
from workbench.site import Site


def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def layout(value: Any) -> Any:
    """Shapes, dtypes and containers of a value."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, dict):
        return type(value).__name__, [(name, layout(item)) for name, item in value.items()]
    if isinstance(value, (tuple, list)):
        return type(value).__name__, [layout(item) for item in value]
    return type(value).__name__


def layouts(scanned: Scan) -> list[tuple[Site, Any]]:
    return [(site, layout(value)) for site, value in scanned.values.items()]


def really(root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Site, Any]:
    """What plain hooks see of a real pass."""
    seen: dict[Site, Any] = {}
    counts: dict[tuple[str, str], int] = {}

    def note(path: str, port: Any, value: Any) -> None:
        call = counts.get((path, port), 0)
        counts[path, port] = call + 1
        seen[Site(path, port, call)] = layout(value)

    handles = []
    for path, module in root.named_modules():
        handles.append(
            module.register_forward_pre_hook(lambda m, a, k, p=path: note(p, "input", (a, k)), with_kwargs=True)
        )
        handles.append(module.register_forward_hook(lambda m, a, o, p=path: note(p, "output", o)))
    with torch.no_grad():
        root(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return seen


# ---- right


@pytest.mark.parametrize("name", FAMILIES)
def test_a_scan_is_what_a_real_pass_shows_and_leaving_blocks_out_changes_nothing(name: str) -> None:
    model, kwargs = family(name)
    expected = really(model, (), kwargs)
    before = hooks_left(model)  # transformers' own, where it collects a vision tower's hidden states
    whole = scan(model, forward, (), kwargs, collapse=False)
    short = scan(model, forward, (), kwargs)
    assert whole.how == short.how == "scanned"
    assert layouts(short) == layouts(whole)
    assert dict(layouts(short)) == expected
    assert list(short.values) == list(expected)
    assert same_blocks(model), "there are blocks to leave out"
    assert hooks_left(model) == before


class Block(nn.Module):
    def __init__(self, wide: int = 4) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, wide), nn.Linear(wide, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x))


class Halving(Block):
    """Its output's shape depends on more than itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[: max(1, len(x) // 2)]


def stack(*blocks: nn.Module) -> nn.Sequential:
    return nn.Sequential(*blocks)


@pytest.mark.parametrize(
    ("net", "left_out"),
    [
        (stack(Block(), Block(), Block()), {"1": "0", "2": "0"}),
        (stack(Block(), Block(8), Block()), {"2": "0"}),
        (stack(Block(), Block().requires_grad_(False), Block()), {"2": "0"}),
        (stack(Halving(), Halving(), Halving()), {"1": "0", "2": "0"}),  # found out while it is scanned
        (stack(Block(), Block(), Block(), nn.Sequential(nn.Linear(4, 4))), {"1": "0", "2": "0"}),
        (stack(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)), {}),
        (stack(*[Block()] * 3), {}),
    ],
)
def test_which_blocks_are_the_same(net: nn.Sequential, left_out: dict[str, str]) -> None:
    assert same_blocks(net) == left_out
    x = torch.ones(8, 4)
    assert dict(layouts(scan(net, forward, (x,), {}))) == really(net, (x,), {})


def test_awkward_outputs_and_two_calls() -> None:
    net = Mixed()
    x = torch.ones(2, 4)
    assert dict(layouts(scan(net, forward, (x,), {}))) == really(net, (x,), {})


# ---- the ladder


class DataDependent(nn.Module):
    """Cannot be run on fake or meta tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.last = x
        rows = int(x.sum().item())
        return self.drop(self.norm(x)).repeat(rows, 1)


def test_a_real_run_when_nothing_else_can_and_it_leaves_nothing() -> None:
    net = DataDependent().train()
    x = torch.full((2, 4), 0.5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    scanned = scan(net, forward, (x,), {})
    assert scanned.how.startswith("scanned by a real run, since fake tensors failed: ")
    assert scanned.shape("") == (8, 4)
    assert net.last is None
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert hooks_left(net) == 0


def test_statements_on_a_real_runs_shapes() -> None:
    model = wb.NNsight(DataDependent().eval())
    with model.trace(torch.full((2, 4), 0.5)):
        assert (model.output @ torch.zeros(4, 9)).shape == (8, 9)


def test_without_weights_there_is_no_real_run() -> None:
    with torch.device("meta"):
        net = DataDependent()
    scanned = scan(net, forward, (torch.ones(2, 4),), {})
    assert not scanned.known
    assert scanned.how.startswith("unknown, because fake tensors failed: ")
    assert scanned.how.endswith("without weights nothing can be run")


def test_a_model_that_cannot_be_run_at_all() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("the valve is stuck")

    scanned = scan(Broken(), forward, (torch.ones(1),), {})
    assert "a real run failed: ValueError: the valve is stuck" in scanned.how


# ---- once


def test_a_scan_leaves_a_model_in_train_mode_as_it_was() -> None:
    model, kwargs = family("gpt2")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {path: set(module.__dict__) for path, module in model.named_modules()}
    random = torch.get_rng_state()
    scan(model, forward, (), kwargs)
    assert torch.equal(torch.get_rng_state(), random)
    assert {path: set(module.__dict__) for path, module in model.named_modules()} == attributes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_an_experts_setting_is_the_users_own() -> None:
    model, kwargs = family("mixtral")
    before = model.config._experts_implementation  # type: ignore[union-attr]
    assert scan(model, forward, (), kwargs).how == "scanned"
    assert model.config._experts_implementation == before  # type: ignore[union-attr]


def test_a_changed_model_is_scanned_anew() -> None:
    net = stack(Block(), Block(), Block())
    scanner = Scanner(net)
    assert scanner.scan(forward, (torch.ones(2, 4),), {}).shape("1.up") == (2, 4)
    net[1] = Block(9)
    assert scanner.scan(forward, (torch.ones(2, 4),), {}).shape("1.up") == (2, 9)
    net.to(torch.float64)
    assert scanner.scan(forward, (torch.ones(2, 4, dtype=torch.float64),), {}).dtype("1.up") == torch.float64


def test_a_scan_beside_another_and_beside_runs() -> None:
    net = stack(Block(), Block(), Block())
    model = wb.NNsight(net)
    wrong: list[Any] = []

    def work(rows: int) -> None:
        x = torch.ones(rows, 4)
        for _ in range(10):
            with model.trace(x):
                shape = model[1].up.output.shape
                out = model.output.save()
            if tuple(shape) != (rows, 4) or not torch.equal(out.value, net(x)):
                wrong.append(shape)

    threads = [Thread(target=work, args=(rows,)) for rows in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert hooks_left(net) == 0


def test_the_shape_of_405_billion_parameters_is_scanned_at_once() -> None:
    config = LlamaConfig(
        hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    small, inputs = family("llama")
    scan(small, forward, (), inputs)  # the first fake operation of a process loads half of torch
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    start = time.thread_time()
    found = scan(model, forward, (torch.ones(1, 6, dtype=torch.long),), {})
    seconds = time.thread_time() - start
    assert found.how == "scanned"
    assert all(found.shape(path) is not None for path, _ in model.named_modules() if path != "model.layers")
    assert found.shape("model.layers.125.mlp.gate_proj") == (1, 6, 53248)
    assert found.shape("lm_head") == (1, 6, 128256)
    assert seconds < 0.5
