"""Pictures and summaries of values, checked by arithmetic on numbers small enough to do by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from workbench.views.heatmap import heatmap
from workbench.views.summary import summary
from workbench.views.tokens import best, compare

NAN, INF = math.nan, math.inf


def drawn(value: Tensor, *labels: str) -> tuple[list[list[float]], list[str]]:
    """The picture's numbers and its rows' names."""
    found = heatmap(value, labels)
    assert found is not None
    header, data = found
    numbers = np.frombuffer(data, np.float32).reshape(header.rows, header.columns)
    return numbers.tolist(), list(header.row_labels)


THREE = torch.arange(6.0).reshape(1, 2, 3)

CASES = {
    "batch, position, feature": (THREE, ["The", " cat"], [[0, 1, 2], [3, 4, 5]], ["The", " cat"]),
    "tokens of another prompt": (THREE, ["a", "b", "c"], [[0, 1, 2], [3, 4, 5]], ["0", "1"]),
    "position, feature": (THREE[0], ["a", "b"], [[0, 1, 2], [3, 4, 5]], ["a", "b"]),
    "one axis": (torch.tensor([1.0, 2.0]), [], [[1, 2]], [""]),
    "a number": (torch.tensor(3.5), [], [[3.5]], [""]),
    "two of a batch": (
        THREE.reshape(2, 1, 3).repeat(1, 2, 1),
        ["a", " b"],
        [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]],
        ["0 a", "0 b", "1 a", "1 b"],
    ),
    "heads": (
        torch.arange(8.0).reshape(1, 2, 2, 2),
        ["a", "b"],
        [[0, 1], [2, 3], [4, 5], [6, 7]],
        ["0 a", "0 b", "1 a", "1 b"],
    ),
    "whole numbers": (torch.tensor([[7, 8]]), [], [[7, 8]], ["0"]),
    "truths": (torch.tensor([[True, False]]), [], [[1, 0]], ["0"]),
    "half precision": (torch.tensor([[0.5, 2]], dtype=torch.bfloat16), [], [[0.5, 2]], ["0"]),
    "complex numbers": (torch.tensor([[3 + 4j]]), [], [[5]], ["0"]),
    "with a gradient": (torch.ones(1, 1, requires_grad=True), [], [[1]], ["0"]),
    "not contiguous": (torch.arange(4.0).reshape(2, 2).T, [], [[0, 2], [1, 3]], ["0", "1"]),
}


@pytest.mark.parametrize(("value", "labels", "numbers", "names"), CASES.values(), ids=CASES)
def test_pictures(value: Tensor, labels: list[str], numbers: list[list[float]], names: list[str]) -> None:
    assert drawn(value, *labels) == (numbers, names)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(0, 3), torch.eye(2).to_sparse(), torch.zeros(2, device="meta")],
    ids=["empty", "sparse", "meta"],
)
def test_nothing_to_draw(value: Tensor) -> None:
    assert heatmap(value) is None


def test_many_features_are_merged_by_mean() -> None:
    value = torch.arange(2500.0).reshape(1, 1, 2500)
    found = heatmap(value)
    assert found is not None
    header, data = found
    assert (header.columns, header.stride, header.rows, header.row_stride) == (834, 3, 1, 1)
    numbers = np.frombuffer(data, np.float32)
    assert numbers[0] == (0 + 1 + 2) / 3
    assert numbers[-1] == 2499  # what is left over


def test_many_rows_are_merged_by_mean() -> None:
    value = torch.arange(2050.0).reshape(1, 2050, 1).repeat(1, 1, 2)
    found = heatmap(value, [str(index) for index in range(2050)])
    assert found is not None
    header, data = found
    assert (header.rows, header.row_stride, header.columns) == (684, 3, 2)
    assert header.row_labels[:2] == ("0 …2", "3 …5")
    assert header.row_labels[-1] == "2049"
    assert np.frombuffer(data, np.float32).reshape(684, 2)[1].tolist() == [4, 4]


def test_a_large_picture_stays_small() -> None:
    found = heatmap(torch.zeros(1, 3000, 5000))
    assert found is not None
    assert len(found[1]) <= 1024 * 1024 * 4


def test_colours_end_at_three_deviations_about_zero() -> None:
    value = torch.zeros(1, 1, 100)
    value[0, 0, 0] = 10
    found = heatmap(value)
    assert found is not None
    assert found[0].limit == pytest.approx(3 * math.sqrt(100 / 100))  # squares: 100 of one number, over 100 numbers
    assert found[0].clipped == 1


def test_colours_end_at_the_largest_number_when_it_is_nearer() -> None:
    found = heatmap(torch.tensor([[1.0, -2.0]]))
    assert found is not None
    assert (found[0].limit, found[0].clipped) == (2, 0)


def test_zeros_have_a_colour() -> None:
    found = heatmap(torch.zeros(2, 2))
    assert found is not None
    assert (found[0].limit, found[0].clipped) == (1, 0)


def test_numbers_that_are_none_are_counted_and_kept() -> None:
    found = heatmap(torch.tensor([[NAN, INF, -INF, 1.0]]))
    assert found is not None
    header, data = found
    assert (header.nan, header.infinite, header.clipped, header.limit) == (1, 2, 0, 1)
    numbers = np.frombuffer(data, np.float32).tolist()
    assert math.isnan(numbers[0])
    assert numbers[1:] == [INF, -INF, 1]


def test_nothing_but_nan() -> None:
    found = heatmap(torch.full((1, 2), NAN))
    assert found is not None
    assert (found[0].nan, found[0].limit) == (2, 1)


def test_numbers_whose_squares_are_too_large() -> None:
    found = heatmap(torch.tensor([[1e30, -1e30]]))
    assert found is not None
    assert found[0].limit == pytest.approx(1e30)


SUMMARIES = {
    "(1, 2) float32 · mean 2 · std 1 · 0 NaN": torch.tensor([[1.0, 3.0]]),
    "(3,) float16 · mean 1.5 · std 0.5 · 1 NaN": torch.tensor([1.0, 2.0, NAN]).half(),
    "(2,) float32 · mean 4 · std 0 · 0 NaN · 1 Inf": torch.tensor([4.0, INF]),
    "(1,) float32 · 1 NaN": torch.tensor([NAN]),
    "(1, 2) int64 · min -3 · max 511": torch.tensor([[511, -3]]),
    "(3,) bool · 2 of 3 true": torch.tensor([True, False, True]),
    "(1,) complex64 · mean magnitude 5": torch.tensor([3 + 4j]),
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
