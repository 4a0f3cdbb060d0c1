"""What a job may leave behind is put back, or found."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from tests.hosted import Buffered
from workbench.server.proof import Proof, checksum


def write_data(model: Any) -> None:
    model.last.weight.data[0, 0] += 1


FOUND: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a parameter": (lambda m: m.last.weight.detach().zero_(), "last is not as it was: parameter weight"),
    "a buffer": (lambda m: m.table.mul_(2), "the model is not as it was: buffer table"),
    "another memory": (lambda m: setattr(m.last.weight, "data", m.last.weight.data.clone()), "last is not as it was"),
    "a flag": (lambda m: m.first.bias.requires_grad_(False), "first is not as it was: parameter bias"),
    "a mode of functions": (lambda m: torch.overrides.BaseTorchFunctionMode().__enter__(), "modes of torch functions"),
    "a hook of all modules": (
        lambda m: nn.modules.module.register_module_forward_hook(lambda *args: None),
        "hooks of all modules",
    ),
    "how tensors are printed": (lambda m: torch.set_printoptions(precision=9), "how tensors are printed"),
}
PUT_BACK: dict[str, Callable[[Any], Any]] = {
    "a gradient": lambda m: m(torch.ones(1, 4))[0].sum().backward(),
    "a hook": lambda m: m.last.register_forward_hook(lambda *args: None),
    "an attribute": lambda m: setattr(m.last, "forward", lambda x: x),
    "another parameter": lambda m: setattr(m.last, "weight", nn.Parameter(torch.ones(3, 6))),
    "another module": lambda m: setattr(m, "last", nn.Identity()),
    "a mode": lambda m: m.train(not m.training),
    "the default dtype": lambda m: torch.set_default_dtype(torch.float64),
    "random numbers": lambda m: (torch.rand(3), random.random(), numpy.random.rand()),
    "a seed": lambda m: torch.manual_seed(3),
    "gradients": lambda m: torch.set_grad_enabled(not torch.is_grad_enabled()),
    "threads": lambda m: torch.set_num_threads(3),
}


@pytest.mark.parametrize("what", PUT_BACK)
def test_what_is_simple_is_put_back(what: str) -> None:
    model = Buffered().eval()
    proof = Proof([model])
    drawn = torch.get_rng_state()
    with proof.job():
        PUT_BACK[what](model)
    assert proof.differences(contents=True) == []
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("what", FOUND)
def test_what_is_not_put_back_is_found(what: str) -> None:
    change, words = FOUND[what]
    model = Buffered()
    proof = Proof([model])
    before = len(nn.modules.module._global_forward_hooks)
    left: Any = None
    try:
        with proof.job():
            left = change(model)
        assert words in "; ".join(proof.differences())
    finally:
        if what == "a mode of functions":
            left.__exit__(None, None, None)
        if len(nn.modules.module._global_forward_hooks) > before:
            left.remove()
        torch.set_printoptions(profile="default")


def test_what_no_version_sees_is_found_by_the_contents() -> None:
    model = Buffered()
    proof = Proof([model])
    with proof.job():
        write_data(model)
    assert proof.differences() == []
    assert proof.differences(contents=True) == ["the contents of 0/last.weight changed"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_a_checksum_sees_each_element(dtype: Any) -> None:
    tensor = torch.zeros(3, 7, dtype=dtype)
    plain = checksum(tensor)
    seen = set()
    for index in range(21):
        changed = tensor.clone()
        changed.view(-1)[index] = 1
        seen.add(checksum(changed))
    assert plain not in seen
    assert len(seen) == 21
    assert checksum(torch.cat([tensor.view(-1)[:1], tensor.view(-1)])[1:].reshape(3, 7)) == plain


def test_a_job_has_random_numbers_of_its_own() -> None:
    proof = Proof([Buffered()])
    drawn = []
    for _ in range(2):
        with proof.job():
            drawn.append(torch.rand(3))
    assert not torch.equal(*drawn)
