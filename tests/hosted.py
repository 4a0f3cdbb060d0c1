"""What the tests' own servers host: models made in a moment, opened by `open="tests/hosted.py:name"`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def gpt2() -> Any:
    """Two layers, random weights from a fixed seed, words as tokens."""
    from tests.tiny import gpt2

    return gpt2()


class Buffered(nn.Module):
    """A net that returns a view of its own buffer beside what it computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 3)
        self.table: Tensor
        self.register_buffer("table", torch.linspace(0, 1, 12).reshape(2, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(x)
        return self.last(hidden + self.table[0]), self.table[0]


def net() -> nn.Module:
    """A small net with a buffer."""
    return Buffered().eval()


class Mixed(nn.Module):
    """A net in which each row is moved by the mean of all rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return hidden - hidden.mean(0)


def mixed() -> nn.Module:
    """A small net whose rows depend on each other."""
    return Mixed().eval()
