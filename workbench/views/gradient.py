"""Gradient: how a number at the end depends on the values here: by how much, and towards what."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from workbench.errors import InputError
from workbench.views.grid import Buffers, Side, draw
from workbench.views.header import GradientView
from workbench.views.view import View


def gradient(
    gradients: Tensor,
    activations: Tensor | None = None,
    tokens: Sequence[str] = (),
    *,
    layers: Sequence[str] = (),
    of: str = "",
    title: str = "",
    code: str = "",
) -> View:
    """Gradients by layer and position: their norm, and activation × gradient summed over features.

    The product is, to first order, how much the number would fall if the activation there were zero.

    Args:
        gradients: `(layer, position, feature)`, or `(position, feature)` of one layer.
        activations: the values there, of the same shape.
        tokens: a token for each position.
        layers: a name for each layer.
        of: what was differentiated, in words.

    Raises:
        InputError: shapes that differ.

    Example:
        >>> import torch
        >>> view = gradient(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, -1.0]]), ["a"])
        >>> view.to_dataframe()[["norm", "product"]].values.tolist()
        [[5.0, -1.0]]
    """
    if gradients.ndim not in (2, 3):
        raise InputError(f"gradients are (layer, position, feature), not {tuple(gradients.shape)}")
    if activations is not None and activations.shape != gradients.shape:
        raise InputError(f"activations {tuple(activations.shape)} and gradients {tuple(gradients.shape)}")
    slopes = gradients.detach().float() if gradients.ndim == 3 else gradients.detach().float()[None]
    names = tuple(layers) if len(layers) == len(slopes) else tuple(map(str, range(len(slopes))))
    sides = Side("layer", names), Side("position", tuple(tokens) if len(tokens) == slopes.shape[1] else ())
    buffers = Buffers()
    norms = slopes.norm(dim=-1)  # (layer, position)
    finite = norms[norms.isfinite()]
    limit = float(finite.max()) if finite.numel() else 1.0
    drawn = draw(norms, *sides, buffers, scale="sequential", unit="norm", limit=limit or 1.0)
    product = None
    if activations is not None:
        product = draw((activations.detach().float().reshape(slopes.shape) * slopes).sum(-1), *sides, buffers)
    header = GradientView(
        title=title or "gradient",
        tokens=tuple(tokens),
        code=code,
        bytes=gradients.numel() * gradients.element_size(),
        of=of,
        norms=drawn,
        product=product,
    )
    return View(header, tuple(buffers.parts))
