"""Attention: the heads of one layer, small, one of them large, and what each does in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.errors import InputError
from workbench.views.grid import Buffers, Side, draw
from workbench.views.header import AttentionView, HeadScore
from workbench.views.view import View

THUMB = 48
"""Cells a side of a head's small picture."""
WHOLE = 1 << 20
"""Numbers of all heads' patterns that are sent at once; of larger ones, one head's."""
SIDE = 1024
"""Cells a side of the large picture."""


def attention(
    pattern: Tensor,
    tokens: Sequence[str] = (),
    *,
    ids: Sequence[int] = (),
    layer: int | None = None,
    layers: int = 1,
    batch: int = 0,
    head: int | None = None,
    title: str = "",
    code: str = "",
) -> View:
    """How the heads of a layer attend.

    Args:
        pattern: `(head, query, key)`, or `(batch, head, query, key)`, rows summing to 1.
        tokens: a token for each position.
        ids: the tokens' ids, by which a token that comes twice is known; their texts where left out.
        layer: of which layer it is, and of how many.
        batch: which row of the batch.
        head: which head is sent whole where all are too many.

    Raises:
        InputError: another number of axes; a row of the batch or a head that is not there.

    Source: previous-token and induction heads: Olsson et al. 2022 (arXiv 2209.11895).

    Example:
        >>> import torch
        >>> view = attention(torch.eye(3)[None], ["a", "b", "a"])
        >>> score = view.header.scores[0]
        >>> score.itself, score.entropy, view.header.pattern.causal
        (1.0, 0.0, True)
    """
    rows = pattern.shape[0] if pattern.ndim == 4 else 1
    if pattern.ndim not in (3, 4):
        raise InputError(f"a pattern is (batch, head, query, key) or (head, query, key), not {tuple(pattern.shape)}")
    if not 0 <= batch < rows:
        raise InputError(f"row {batch} of a batch of {rows}")
    heads = pattern.detach()[batch] if pattern.ndim == 4 else pattern.detach()
    if head is not None and not 0 <= head < len(heads):
        raise InputError(f"head {head} of {len(heads)}")
    shown = tuple(range(len(heads))) if heads.numel() <= WHOLE else (head or 0,)
    causal = bool((heads.float().triu(1) == 0).all())
    names = tuple(tokens) if len(tokens) == heads.shape[-1] else ()
    sides = Side("query", names if heads.shape[-2] == len(names) else ()), Side("key", names)
    buffers = Buffers()
    common = {"scale": "sequential", "limit": 1.0, "unit": "attention", "causal": causal}
    thumbs = draw(heads, *sides, buffers, most=(THUMB, THUMB), merged="largest", **common)
    whole = draw(heads[list(shown)], *sides, buffers, most=(SIDE, SIDE), merged="largest", **common)
    header = AttentionView(
        title=title or ("attention" if layer is None else f"attention of layer {layer}"),
        tokens=tuple(tokens),
        code=code,
        bytes=pattern.numel() * pattern.element_size(),
        layer=layer,
        layers=layers,
        batch=batch,
        rows=rows,
        thumbs=thumbs,
        pattern=whole,
        heads=shown,
        scores=tuple(scores(heads, ids or tokens)),
    )
    return View(header, tuple(buffers.parts))


def scores(heads: Tensor, ids: Sequence[object] = ()) -> list[HeadScore]:
    """What each head does: `heads` are `(head, query, key)`; `ids` say which tokens are the same.

    Each is a mean over queries: previous, without the first query; induction, over queries whose token came before,
    of the attention to all places right after it.
    """
    size = heads.shape[-1]
    numbers = heads.double()
    entropy = torch.xlogy(numbers, numbers).sum(-1).mean(-1).abs()  # (head,)
    columns = {
        "entropy": entropy,
        "previous": numbers.diagonal(-1, -2, -1).mean(-1) if size > 1 else torch.zeros(len(heads)),
        "first": numbers[..., 0].mean(-1),
        "itself": numbers.diagonal(0, -2, -1).mean(-1),
    }
    after = _after_the_same(ids) if len(ids) == size == heads.shape[-2] else None
    induction = None if after is None else (numbers * after.to(numbers.device)).sum(-1)[:, after.any(-1)].mean(-1)
    return [
        HeadScore(
            head=head,
            **{name: float(column[head]) for name, column in columns.items()},
            induction=None if induction is None else float(induction[head]),
        )
        for head in range(len(heads))
    ]


def _after_the_same(ids: Sequence[object]) -> Tensor | None:
    """`(query, key)`: the key stands right after an earlier token that is the query's; None if no token came twice."""
    same = torch.tensor([[a == b for b in ids] for a in ids])  # (query, key)
    found = torch.zeros_like(same)
    found[:, 1:] = same[:, :-1]
    found &= torch.ones_like(same).tril()  # the key is not behind the query
    return found if bool(found.any()) else None
