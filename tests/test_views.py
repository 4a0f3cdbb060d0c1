"""Summaries of values and of predictions, checked by arithmetic on numbers small enough to do by hand."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.views.summary import summary
from workbench.views.tokens import best, compare

NAN, INF = math.nan, math.inf


SUMMARIES = {
    "(1, 2) float32 · mean 2 · std 1 · 0 NaN": torch.tensor([[1.0, 3.0]]),
    "(3,) float16 · mean 1.5 · std 0.5 · 1 NaN": torch.tensor([1.0, 2.0, NAN]).half(),
    "(2,) float32 · mean 4 · std 0 · 0 NaN · 1 Inf": torch.tensor([4.0, INF]),
    "(1,) float32 · 1 NaN": torch.tensor([NAN]),
    "(1, 2) int64 · min -3 · max 511": torch.tensor([[511, -3]]),
    "(3,) bool · 2 of 3 true": torch.tensor([True, False, True]),
    "(1,) complex64 · mean magnitude 5": torch.tensor([3 + 4j]),
    "(65536, 65536) float32 · 4,294,967,296 numbers": torch.zeros(1).expand(1 << 16, 1 << 16),
    "(0, 3) float32 · empty": torch.zeros(0, 3),
    "(2,) float32 · on the meta device": torch.zeros(2, device="meta"),
    "(2, 2) float32 · sparse_coo": torch.eye(2).to_sparse(),
    "tuple: (1, 2) float32, None, (list: (3,) int64)": (torch.zeros(1, 2), None, [torch.tensor([1, 2, 3])]),
    "dict: logits (2,) float32, cache object": {"logits": torch.zeros(2), "cache": object()},
    "<object object>": object(),
    "3": 3,
}


@pytest.mark.parametrize(("text", "value"), SUMMARIES.items(), ids=SUMMARIES)
def test_summaries(text: str, value: object) -> None:
    assert summary(value) == text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_millions_of_numbers_are_summed_without_loss(dtype: torch.dtype) -> None:
    value = (torch.randn((1 << 20) + 7, generator=torch.Generator().manual_seed(0)) * 0.1 + 100).to(dtype)
    whole = value.double()
    expected = f"mean {float(whole.mean()):.3g} · std {float(whole.std(correction=0)):.3g} · 0 NaN"
    assert summary(value).endswith(expected)


def test_a_long_summary_is_cut_to_one_line() -> None:
    found = summary("x\n" * 500)
    assert "\n" not in found
    assert len(found) == 200


def letters(id: int) -> str:
    return "abcdefgh"[id]


def test_the_top_tokens_of_both_runs_side_by_side() -> None:
    before = torch.tensor([0.7, 0.2, 0.05, 0.05]).log()
    after = torch.tensor([0.1, 0.05, 0.05, 0.8]).log()
    clean, changed = compare(before, after, letters, count=2)
    assert [(top.token, top.id, round(top.probability, 4)) for top in clean] == [
        ("d", 3, 0.05),
        ("a", 0, 0.7),
        ("b", 1, 0.2),
    ]
    assert [(top.token, top.id, round(top.probability, 4)) for top in changed] == [
        ("d", 3, 0.8),
        ("a", 0, 0.1),
        ("b", 1, 0.05),
    ]
    assert (best(clean), best(changed)) == (clean[1], changed[0])


def test_logits_that_are_not_numbers_have_no_top_tokens() -> None:
    good, bad = torch.tensor([1.0, 0.0]), torch.tensor([NAN, 0.0])
    clean, changed = compare(good, bad, letters)
    assert [top.token for top in clean] == ["a", "b"]
    assert changed == ()
    assert compare(bad, good, letters) == ((), ())
    assert best(()) is None
