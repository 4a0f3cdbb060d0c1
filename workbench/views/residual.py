"""Residual: the stream by layer and position: how large it is, and what the model would say if it stopped there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workbench.errors import InputError
from workbench.views.grid import Buffers, Side, draw
from workbench.views.header import ResidualView
from workbench.views.view import View

RUNNERS = 3
"""Tokens named after the first, in a cell."""
CELLS = 4096
"""Cells of the lens whose other candidates are sent too."""


def residual(
    streams: Tensor,
    tokens: Sequence[str] = (),
    *,
    layers: Sequence[str] = (),
    unembed: Callable[[Tensor], Tensor] | None = None,
    decode: Callable[[int], str] = str,
    title: str = "",
    note: str = "",
    code: str = "",
) -> View:
    """The residual stream.

    Args:
        streams: `(layer, position, d_model)`, or `(position, d_model)` of one layer.
        tokens: a token for each position.
        layers: a name for each layer.
        unembed: logits `(…, vocabulary)` from a stream `(…, d_model)`: the final norm and the unembedding. Without
            it there are only norms.
        decode: a token's text by its id.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".

    Example:
        >>> import torch
        >>> view = residual(torch.tensor([[3.0, 4.0]]), ["a"], unembed=lambda x: x, decode="no".__getitem__)
        >>> view.header.lens.texts, view.to_dataframe()["norm"].tolist()
        (('o',), [5.0])
    """
    if streams.ndim not in (2, 3):
        raise InputError(f"a residual stream is (layer, position, d_model), not {tuple(streams.shape)}")
    numbers = streams.detach() if streams.ndim == 3 else streams.detach()[None]
    names = tuple(layers) if len(layers) == len(numbers) else tuple(map(str, range(len(numbers))))
    sides = Side("layer", names), Side("position", tuple(tokens) if len(tokens) == numbers.shape[1] else ())
    buffers = Buffers()
    norms = numbers.float().norm(dim=-1)  # (layer, position)
    largest = norms[norms.isfinite()]
    drawn = draw(
        norms, *sides, buffers, scale="sequential", unit="norm", limit=float(largest.max()) if largest.numel() else 1.0,
        most=(CELLS, CELLS),
    )  # fmt: skip
    lens, runners = None, ()
    if unembed is not None:
        best = _likeliest(numbers, unembed, min(norms.numel(), CELLS))
        whole = max(best.indices.shape[:2]) <= CELLS  # merged cells have no words
        texts = tuple(decode(id) for id in best.indices[..., 0].flatten().tolist()) if whole else ()
        lens = draw(
            best.values[..., 0], *sides, buffers, scale="sequential", limit=1.0, unit="probability", texts=texts,
            most=(CELLS, CELLS),
        )  # fmt: skip
        if norms.numel() <= CELLS:
            runners = _runners(best, decode)
    header = ResidualView(
        title=title or "residual stream",
        tokens=tuple(tokens),
        code=code,
        note=note,
        bytes=streams.numel() * streams.element_size(),
        norms=drawn,
        lens=lens,
        runners=runners,
    )
    return View(header, tuple(buffers.parts))


def _likeliest(numbers: Tensor, unembed: Callable[[Tensor], Tensor], cells: int) -> torch.return_types.topk:
    """Probabilities and ids `(layer, position, 1 + RUNNERS)`, a layer at a time: the vocabulary is never all there."""
    found = []
    for layer in numbers:
        p = unembed(layer).detach().float().softmax(-1)
        found.append(p.topk(min(1 + RUNNERS, p.shape[-1])))
    values, indices = (torch.stack([each[part] for each in found]).cpu() for part in (0, 1))
    return torch.return_types.topk((values, indices))


def _runners(best: torch.return_types.topk, decode: Callable[[int], str]) -> tuple[tuple[str, ...], ...]:
    values, ids = best.values[..., 1:].flatten(0, 1).tolist(), best.indices[..., 1:].flatten(0, 1).tolist()
    return tuple(
        tuple(f"{decode(id)} {p:.3f}" for p, id in zip(*pair, strict=True)) for pair in zip(values, ids, strict=True)
    )
