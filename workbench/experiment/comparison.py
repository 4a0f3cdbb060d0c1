"""Comparison: two experiments, or what two runs gave, side by side, in words and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from workbench.engine.values import placed
from workbench.experiment.kinds import Experiment, Frozen
from workbench.experiment.merging import normal
from workbench.experiment.table import kind_of


class Compared(Frozen):
    """One value of two runs."""

    name: str
    equal: bool
    difference: float | None = Field(default=None, description="the largest, between values of the same shape")
    text: str


class TokenPair(Frozen):
    """A next token in two runs."""

    token: str
    id: int
    left: float | None = Field(description="its probability in the first; null where that is no longer known")
    right: float | None = Field(description="in the second")


class Comparison(Frozen):
    """Two runs side by side, or a run and its text, or a capsule and its rerun."""

    equal: bool
    exact: bool = Field(default=True, description="bit by bit; else within the tolerance")
    tolerance: float = 0.0
    text: str = Field(description="in one line")
    values: tuple[Compared, ...] = ()
    tokens: tuple[tuple[TokenPair, ...], ...] = Field(
        default=(), description="of each prompt, the next tokens that either run thinks probable"
    )
    experiment: tuple[str, ...] = Field(default=(), description="in what the two experiments differ, in words")
    environment: tuple[str, ...] = Field(default=(), description="versions, weights and tokens that differ, in words")


def compared(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = 0.0) -> tuple[Compared, ...]:
    """Each value that either has, by name.

    Args:
        before: values by name.
        after: the other's.
        tolerance: how far two numbers may be from one another, times one plus the larger, to count as equal; 0 is bit
            by bit.

    Example:
        >>> import torch
        >>> compared({"x": torch.tensor([1.0])}, {"x": torch.tensor([1.5])})[0].text
        'differs by up to 0.5'
    """
    names = dict.fromkeys((*before, *after))
    return tuple(_pair(name, before, after, tolerance) for name in names)


def _pair(name: str, before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float) -> Compared:
    if name not in before or name not in after:
        return Compared(name=name, equal=False, text=f"only in the {'first' if name in before else 'second'}")
    one, other = before[name], after[name]
    left, right = dict(placed(one)), dict(placed(other))
    if not left and not right:
        same = type(one) is type(other) and (repr(one) == repr(other))
        return Compared(name=name, equal=same, text="the same" if same else f"{one!r} and {other!r}")
    shapes = [[tuple(each.shape) for each in side.values()] for side in (left, right)]
    if left.keys() != right.keys() or shapes[0] != shapes[1]:
        return Compared(name=name, equal=False, text=f"of another shape: {_shapes(shapes[0])} and {_shapes(shapes[1])}")
    differences = [_difference(left[where], right[where]) for where in left]
    equal = all(_equal(left[where], right[where], tolerance) for where in left)
    largest = max((each for each in differences if each is not None), default=0.0)
    exact = all(_equal(left[where], right[where], 0.0) for where in left)
    text = "the same, bit by bit" if exact else f"differs by up to {largest:.3g}"
    return Compared(name=name, equal=equal, difference=largest, text=text)


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "no tensor"


def _equal(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.dtype != other.dtype:
        return False
    other = other.to(one.device)
    if not tolerance:
        same = one == other
        return bool((same | (one != one) & (other != other)).all())
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)


def _difference(one: Tensor, other: Tensor) -> float | None:
    if not one.numel():
        return 0.0
    gap = (one.detach().cpu().double() - other.detach().cpu().double()).abs() if not one.is_complex() else None
    return None if gap is None else float(gap.nan_to_num(0.0, float("inf")).max())


def in_words(before: Experiment, after: Experiment) -> tuple[str, ...]:
    """In what the second experiment differs from the first.

    Example:
        >>> in_words(Experiment(model="m", prompts=("a",)), Experiment(model="m", prompts=("b",)))
        ('prompt 1: “a” → “b”',)
    """
    return tuple(_differences(normal(before), normal(after)))


def _differences(one: Experiment, other: Experiment) -> Iterator[str]:
    if one.model != other.model:
        yield f"model: {one.model} → {other.model}"
    for number in range(max(len(one.prompts), len(other.prompts))):
        texts = [f"“{each.prompts[number]}”" if number < len(each.prompts) else "none" for each in (one, other)]
        if texts[0] != texts[1]:
            yield f"prompt {number + 1}: {texts[0]} → {texts[1]}"
    for name, title in (("generate", "new tokens"), ("temperature", "temperature"), ("seed", "seed")):
        values = getattr(one, name), getattr(other, name)
        if values[0] != values[1]:
            yield f"{title}: {values[0]} → {values[1]}"
    if one.measure != other.measure:
        yield f"measure: {_measure(one)} → {_measure(other)}"
    words = [[kind_of(card).words(card) for card in each.interventions] for each in (one, other)]
    yield from (f"− {each}" for each in words[0] if each not in words[1])
    yield from (f"+ {each}" for each in words[1] if each not in words[0])
    if sorted(words[0]) == sorted(words[1]) and words[0] != words[1]:
        yield "the same cards in another order"


def _measure(experiment: Experiment) -> str:
    measure = experiment.measure
    if measure is None:
        return "nothing"
    answers = ", ".join(map(repr, measure.answers))
    return f"{measure.metric.replace('_', ' ')}{f' of {answers}' if answers else ''}"


def summed_up(values: tuple[Compared, ...], tolerance: float = 0.0) -> str:
    """All pairs in one line."""
    wrong = [each for each in values if not each.equal]
    if not values:
        return "there are no saved values to compare"
    if not wrong:
        how = f"within {tolerance:g}" if tolerance else "bit by bit"
        return f"{len(values)} value{'s' if len(values) != 1 else ''} equal, {how}"
    first = wrong[0]
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{first.name} {first.text}{more}"
