"""Positions: where a prompt's own tokens are, when it stands in a list beside longer ones.

Within a list, shorter prompts are padded, so that index 0 of a tensor `(batch, position, …)` is padding in some rows.
What is made here are indices that mean each prompt's own tokens: 0 its first, -1 its last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from workbench.graph.operations import Operation, register
from workbench.models.naming import base_of
from workbench.numerics import DRAWN, drawn
from workbench.recorder import require


def own_positions(value: Any, positions: int | Sequence[int]) -> Any:
    """An index into a traced value `(batch, position, …)`: these positions of each prompt of the open invoke.

    Args:
        value: the traced value that is to be indexed.
        positions: counted from 0 at each prompt's own first token, or from -1 at its last.

    Returns:
        `(slice(None), [positions])` where all prompts of the invoke have one length; else a traced index that has the
        rows of the prompts and the columns of their tokens, to be read and written with.

    Raises:
        NotTracingError: outside a trace.
        IndexError: while running, a position that one of the prompts does not have.

    Example:
        >>> import workbench as wb
        >>> from workbench.models.positions import own_positions
        >>> model = wb.demo("gpt2")
        >>> with model.trace(["The Eiffel Tower is in the city of", "The Colosseum"]):
        ...     hidden = model.layers[0].resid_pre
        ...     first = hidden[own_positions(hidden, 0)].save()
        >>> first.shape, bool((first[0] == first[1]).all())  # both begin with "The"
        (torch.Size([2, 1, 128]), True)
    """
    chosen = [positions] if isinstance(positions, int) else list(positions)
    if not _may_be_padded():
        return (slice(None), chosen)
    return require("positions").always(OWN, (_inputs(), value, chosen))


def own_mean(value: Any) -> Any:
    """The mean over each prompt's own positions, `(batch, 1, …)`, of a traced value `(batch, position, …)`."""
    if not _may_be_padded():
        return value.mean(1, keepdim=True)
    return require("a mean over positions").always(OWN_MEAN, (_inputs(), value))


def own_inputs() -> Any:
    """What says where the open invoke's own tokens are, for `own_drawn`; None where all positions are."""
    return _inputs() if _may_be_padded() else None


def own_drawn(value: Any, other: Any, seed: int, inputs: Any) -> Any:
    """For each position of `value`, what `other` has at one of its own positions, drawn at random."""
    recorder = require("a draw of positions")
    if inputs is None:
        return recorder.always(DRAWN, (value, other, seed))
    return recorder.always(OWN_DRAWN, (inputs, value, other, seed))


def _inputs() -> Any:
    recorder = require("positions")
    return recorder.site(base_of(recorder.root.module)[0], "input")  # type: ignore[attr-defined]  # a model


def _may_be_padded() -> bool:
    """Whether a list with padding is, or may be, what the open invoke was given."""
    recorder = require("positions")
    if not hasattr(recorder.root, "tokenizer"):
        return False  # inputs that are no prompts
    given = recorder.prompt()
    if given is None:
        return True  # known in the run: a loop's input, or an edit, which is for any
    mask = given[1].get("attention_mask")
    return isinstance(mask, Tensor) and not bool(mask.all())


# ---- in the run


def _own(inputs: Any, value: Tensor, positions: list[int]) -> Any:
    mask = _mask(inputs[1], value)
    if mask is None:
        return (slice(None), positions)
    if isinstance(mask, FakeTensor):
        rows = torch.arange(len(mask), device=mask.device)[:, None]
        return rows, rows.new_zeros((len(mask), len(positions)))
    first, count = mask.int().argmax(1), mask.sum(1).int()  # (batch)
    columns = []
    for position in positions:
        missing = (count <= position) if position >= 0 else (count < -position)
        if missing.any():
            row = int(missing.int().argmax())
            raise IndexError(
                f"position {position} is out of range for prompt {row} of this list, which has {int(count[row])} tokens"
            )
        columns.append(first + (position if position >= 0 else count + position))
    return (torch.arange(len(mask), device=mask.device)[:, None], torch.stack(columns, 1))


def _own_mean(inputs: Any, value: Tensor) -> Tensor:
    mask = _mask(inputs[1], value)
    if mask is None:
        return value.mean(1, keepdim=True)
    weights = mask.to(value.dtype).unflatten(1, (-1, *[1] * (value.ndim - 2)))  # (batch, position, 1, …)
    return (value * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


def _own_drawn(inputs: Any, value: Tensor, other: Tensor, seed: int) -> Tensor:
    mask = _mask(inputs[1], other)
    if mask is None:
        return drawn(value, other, seed)
    first, count = mask.int().argmax(1), mask.sum(1)  # (batch)
    draw = torch.rand(value.shape[1], generator=torch.Generator().manual_seed(seed)).to(mask.device)
    picks = first[:, None] + (draw[None] * count[:, None]).long()  # (batch, position)
    return other[torch.arange(len(mask), device=mask.device)[:, None], picks].expand_as(value)


def _mask(kwargs: Mapping[str, Any], value: Tensor) -> Tensor | None:
    """Which positions of a value are the prompts' own; None where all are, or where these are no positions of theirs,
    as the one new token of a later step."""
    mask = kwargs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or tuple(value.shape[:2]) != tuple(mask.shape):
        return None
    if isinstance(mask, FakeTensor):  # only shapes are asked for
        return torch.ones(mask.shape, dtype=torch.bool, device=value.device)
    if mask.all():
        return None
    answer = kwargs.get("decoder_input_ids")
    if isinstance(answer, Tensor) and answer.shape == mask.shape:
        raise ValueError(
            "the prompts of this list and their answers have the same length, so whether a position is of one or of "
            "the other cannot be told; trace each prompt in an invoke of its own"
        )
    return mask.to(value.device).bool()


OWN = register(Operation("own_positions", _own))
OWN_MEAN = register(Operation("own_mean", _own_mean))
OWN_DRAWN = register(Operation("own_drawn", _own_drawn))
