"""MLP: the neurons that answer most to a prompt, and each of them over its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.errors import InputError
from workbench.views.grid import Buffers, Side, draw
from workbench.views.header import NeuronsView
from workbench.views.view import View

TOP = 16


def mlp(
    neurons: Tensor,
    tokens: Sequence[str] = (),
    *,
    top: int = TOP,
    also: Sequence[int] = (),
    at: int | None = None,
    layer: int | None = None,
    layers: int = 1,
    batch: int = 0,
    title: str = "",
    code: str = "",
) -> View:
    """The neurons of an MLP.

    Args:
        neurons: activations `(position, neuron)` or `(batch, position, neuron)`.
        tokens: a token for each position.
        top: how many are shown: those that are largest in size at any position, or at the position `at`.
        also: neurons that are shown too.
        layer: of which layer they are, and of how many.
        batch: which row of the batch.

    Raises:
        InputError: another number of axes; a neuron, a row or a position that is not there.

    Example:
        >>> import torch
        >>> view = mlp(torch.tensor([[0.0, -5.0, 1.0], [2.0, 0.0, 0.0]]), ["a", "b"], top=2, also=[2])
        >>> view.header.neurons, view.header.at
        ((1, 0, 2), (0, 1, 0))
    """
    numbers = neurons.detach()
    if numbers.ndim == 3:
        if not 0 <= batch < len(numbers):
            raise InputError(f"row {batch} of a batch of {len(numbers)}")
        numbers = numbers[batch]
    if numbers.ndim != 2:
        raise InputError(f"neurons are (batch, position, neuron) or (position, neuron), not {tuple(neurons.shape)}")
    positions, width = numbers.shape
    missing = [each for each in also if not 0 <= each < width]
    if missing:
        raise InputError(f"neuron {missing[0]}; there are {width}")
    if at is not None and not -positions <= at < positions:
        raise InputError(f"position {at}; there are {positions}")
    size = torch.where(numbers.isnan(), 0, numbers.float().abs())  # (position, neuron)
    strength = size.amax(0) if at is None else size[at]
    best = strength.topk(min(top, width)).indices.tolist()
    shown = [*best, *(each for each in dict.fromkeys(also) if each not in best)]
    buffers = Buffers()
    grid = draw(
        numbers.T[shown],
        Side("neuron", tuple(map(str, shown))),
        Side("position", tuple(tokens) if len(tokens) == positions else ()),
        buffers,
        unit="activation",
        most=(1024, 4096),
    )
    header = NeuronsView(
        title=title or ("neurons" if layer is None else f"neurons of layer {layer}"),
        tokens=tuple(tokens),
        code=code,
        bytes=neurons.numel() * neurons.element_size(),
        layer=layer,
        layers=layers,
        width=width,
        neurons=tuple(shown),
        at=tuple(size[:, shown].argmax(0).tolist()),
        grid=grid,
    )
    return View(header, tuple(buffers.parts))
