"""What interventions compute in the run: noise and draws that a seed decides, and values made to fit where they go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.graph.operations import Operation, register


def noise(like: Tensor, std: float, seed: int) -> Tensor:
    """Gaussian noise of a tensor's shape, drawn on the CPU, so that it is the same on every device."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    return (drawn * std).to(like)


def drawn(value: Tensor, other: Tensor, seed: int) -> Tensor:
    """For each position of `value`, what `other` has at a position drawn at random, with replacement."""
    draw = torch.Generator().manual_seed(seed)
    picks = torch.randint(other.shape[1], (value.shape[1],), generator=draw)
    return other[:, picks.to(other.device)].expand_as(value)


def like(value: Tensor, other: Tensor) -> Tensor:
    """`other` repeated to the shape of `value`."""
    return other.to(value).expand_as(value)


def fitted(value: Tensor, given: Any, index: Any) -> Tensor:
    """A tensor as the part `value[index]` takes it: all of a value of the same shape, or the part itself.

    Raises:
        ValueError: it fits neither.
    """
    part = value[index]
    given = torch.as_tensor(given).to(value)
    if given.shape == value.shape:
        return given[index]
    for part_of in (lambda: given, lambda: given[index]):
        try:
            return part_of().expand_as(part)
        except (RuntimeError, IndexError):
            continue
    raise ValueError(
        f"a tensor of shape {tuple(given.shape)} does not fit a value of shape {tuple(value.shape)}, nor the part of "
        f"it that is meant, {tuple(part.shape)}"
    )


NOISE = register(Operation("noise", noise))
DRAWN = register(Operation("drawn", drawn))
LIKE = register(Operation("like", like, views=True))
FITTED = register(Operation("fitted", fitted, views=True))
