"""Logits: the most probable next tokens by position, before and after; never the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workbench.errors import InputError
from workbench.views.header import Candidate, LogitsAt, LogitsView
from workbench.views.view import View

TOP = 8
POSITIONS = 64
"""The last so many positions are shown."""


def logits(
    after: Tensor,
    before: Tensor | None = None,
    *,
    decode: Callable[[int], str] = str,
    tokens: Sequence[str] = (),
    top: int = TOP,
    batch: int = 0,
    title: str = "",
    code: str = "",
) -> View:
    """The next token after each position.

    Args:
        after: `(vocabulary,)`, `(position, vocabulary)` or `(batch, position, vocabulary)`.
        before: those of the clean run, of the same shape.
        decode: a token's text by its id.
        tokens: the prompt's tokens.
        top: how many of each run's likeliest tokens are shown.
        batch: which row of the batch.

    Raises:
        InputError: shapes that differ, or a row that is not there.

    Example:
        >>> import torch
        >>> view = logits(torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0]), decode="ab".__getitem__, top=1)
        >>> [(each.token, each.before_rank, each.after_rank) for each in view.header.at[0].top]
        [('a', 2, 1), ('b', 1, 2)]
    """
    if before is not None and before.shape != after.shape:
        raise InputError(f"the logits of two runs: {tuple(before.shape)} and {tuple(after.shape)}")
    new, old = _rows(after, batch), None if before is None else _rows(before, batch)
    first = max(0, len(new) - POSITIONS)
    bad = ~new.isfinite().any(-1)
    header = LogitsView(
        title=title or "next token",
        tokens=tuple(tokens),
        code=code,
        note="logits that are NaN have no probabilities" if bool(bad.any() | new.isnan().any()) else "",
        bytes=after.numel() * after.element_size(),
        vocabulary=after.shape[-1],
        at=tuple(
            _at(position, new[position], None if old is None else old[position], decode, top)
            for position in range(first, len(new))
            if not new[position].isnan().any()
        ),
    )
    return View(header, ())


def _rows(values: Tensor, batch: int) -> Tensor:
    """`(position, vocabulary)`."""
    values = values.detach()
    if values.ndim == 3:
        if not 0 <= batch < len(values):
            raise InputError(f"row {batch} of a batch of {len(values)}")
        values = values[batch]
    if values.ndim > 2 or not values.ndim:
        raise InputError(f"logits are (batch, position, vocabulary) or less, not {tuple(values.shape)}")
    return values[None] if values.ndim == 1 else values


def _at(position: int, new: Tensor, old: Tensor | None, decode: Callable[[int], str], top: int) -> LogitsAt:
    now = new.cpu().double().log_softmax(-1)
    then = None if old is None else old.cpu().double().log_softmax(-1)
    ids = _best(now, top)
    if then is not None and not then.isnan().any():
        ids |= _best(then, top)
    else:
        then = None
    highest = now if then is None else torch.maximum(now, then)
    order = sorted(ids, key=lambda id: (-float(highest[id]), id))
    return LogitsAt(
        position=position,
        kl=None if then is None else max(0.0, float(_expected(then, then - now))),
        entropy=float(_expected(now, -now)),
        top=tuple(
            Candidate(
                token=decode(id),
                id=id,
                before=None if then is None else float(then[id].exp()),
                before_rank=None if then is None else _rank(then, id),
                after=float(now[id].exp()),
                after_rank=_rank(now, id),
            )
            for id in order
        ),
    )


def _expected(log: Tensor, values: Tensor) -> Tensor:
    """The mean of values under a distribution; what cannot happen counts nothing."""
    return torch.where(log > -torch.inf, log.exp() * values, 0).sum()


def _best(log: Tensor, count: int) -> set[int]:
    return set(log.topk(min(count, len(log))).indices.tolist())


def _rank(log: Tensor, id: int) -> int:
    return 1 + int((log > log[id]).sum())
