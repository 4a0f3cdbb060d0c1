"""Small nets for the tests, and the same reads and edits written as plain PyTorch hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class TwoLayers(nn.Sequential):
    """Five features in, ten hidden, two out."""

    layer1: nn.Linear
    layer2: nn.Linear


def two_layers() -> TwoLayers:
    """The same weights each time."""
    torch.manual_seed(0)
    net = TwoLayers(OrderedDict(layer1=nn.Linear(5, 10), layer2=nn.Linear(10, 2)))
    return net.requires_grad_(False)


class Pair(nn.Module):
    """Returns a tuple, and takes one input by keyword."""

    def forward(self, x: Tensor, *, scale: Tensor) -> tuple[Tensor, Tensor]:
        return x * scale, x + scale


class Mixed(nn.Module):
    """A module of every awkward kind: tuple and dict outputs, a module called twice, an identity."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(4, 4)
        self.pair = Pair()
        self.same = nn.Identity()
        self.act = nn.ReLU()
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.act(self.first(x))
        left, right = self.pair(hidden, scale=hidden.mean(-1, keepdim=True))
        return {"logits": self.last(self.act(self.same(left) + right)), "hidden": hidden}


@contextmanager
def hooked(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """A plain PyTorch forward hook that replaces the module's output."""
    handle = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def hooks_left(model: nn.Module) -> int:
    """How many hooks stand anywhere in a model."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._forward_pre_hooks_with_kwargs)
        for module in model.modules()
    )


def traced(value: Any) -> Any:
    """The same object, for a type checker: inside a trace a torch function gives a traced value, not a tensor."""
    return value
