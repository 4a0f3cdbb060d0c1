"""The most probable next tokens, before and after: two rows of the same tokens, to be read side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from workbench.experiment.kinds import Frozen


class TopToken(Frozen):
    """A next token with its probability."""

    token: str
    id: int
    probability: float
    rank: int = Field(description="1 for the most probable")


def compare(
    before: Tensor, after: Tensor, decode: Callable[[int], str], count: int = 5
) -> tuple[tuple[TopToken, ...], tuple[TopToken, ...]]:
    """The top tokens of two runs, merged: the same tokens in both rows, the most probable of either run first.

    Args:
        before: logits `(vocabulary,)` of the clean run.
        after: logits `(vocabulary,)` of the run with interventions.
        decode: a token's text by its id.
        count: how many of each run's top tokens are shown.

    Returns:
        Two rows of `count` to `2 * count` tokens. Both are empty when the clean run's logits are not numbers, the
        second when those of the other run are not.

    Example:
        >>> import torch
        >>> rows = compare(torch.tensor([0.0, 4.0]), torch.tensor([4.0, 0.0]), "ab".__getitem__, count=1)
        >>> [(top.token, round(top.probability, 2)) for top in rows[0]]
        [('a', 0.02), ('b', 0.98)]
        >>> [(top.token, round(top.probability, 2)) for top in rows[1]]
        [('a', 0.98), ('b', 0.02)]
    """
    clean, changed = _probabilities(before), _probabilities(after)
    if clean is None:
        return (), ()
    ids = _top(clean, count)
    if changed is not None:
        ids = ids | _top(changed, count)
    highest = clean if changed is None else torch.maximum(clean, changed)
    order = sorted(ids, key=lambda id: (-float(highest[id]), id))
    return _row(clean, order, decode), () if changed is None else _row(changed, order, decode)


def best(row: tuple[TopToken, ...]) -> TopToken | None:
    """The most probable token of a row."""
    return max(row, key=lambda top: top.probability, default=None)


def _probabilities(logits: Tensor) -> Tensor | None:
    found = logits.detach().cpu().double().softmax(-1)
    return found if bool(found.isfinite().all()) else None


def _top(probabilities: Tensor, count: int) -> set[int]:
    return set(probabilities.topk(min(count, len(probabilities))).indices.tolist())


def _row(probabilities: Tensor, ids: list[int], decode: Callable[[int], str]) -> tuple[TopToken, ...]:
    return tuple(
        TopToken(
            token=decode(id),
            id=id,
            probability=float(probabilities[id]),
            rank=int((probabilities > probabilities[id]).sum()) + 1,
        )
        for id in ids
    )
