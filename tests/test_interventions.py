"""Interventions against the same thing done by plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.errors import InputError, NotTracingError


class Named(nn.Module):
    """Takes a keyword, returns a tuple with a dict in it."""

    def forward(self, *, x: Tensor) -> tuple[None, dict[str, Tensor], Tensor]:
        return None, {"first": x + 1}, x + 2


class Net(nn.Module):
    """A tensor, then a container, then their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.named = Named()
        self.sum = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        _, first, second = self.named(x=self.linear(x))
        return self.sum(first["first"] + 10 * second)


@pytest.fixture
def model() -> wb.NNsight:
    torch.manual_seed(0)
    return wb.NNsight(Net().requires_grad_(False))


X = torch.arange(12.0).reshape(1, 4, 3)  # (batch, position, feature)


def linear(model: wb.NNsight) -> Tensor:
    return model.module.get_submodule("linear")(X)


def rest(hidden: Tensor) -> Tensor:
    """What the net makes of the linear layer's output."""
    return (hidden + 1) + 10 * (hidden + 2)


def test_zero_everywhere(model: wb.NNsight) -> None:
    with model.trace(X):
        wb.ablate(model.linear)
        out = model.output.save()
    assert torch.equal(out.value, rest(torch.zeros(1, 4, 3)))


@pytest.mark.parametrize("positions", [-1, [3], (-1,), range(3, 4)])
def test_zero_at_the_last_position(model: wb.NNsight, positions: int | list[int]) -> None:
    with model.trace(X):
        wb.ablate(model.linear, positions=positions)
        out = model.output.save()
    hidden = linear(model)
    hidden[0, 3] = 0
    assert torch.equal(out.value, rest(hidden))


def test_mean_over_positions(model: wb.NNsight) -> None:
    with model.trace(X):
        wb.ablate(model.linear, mode="mean")
        out = model.linear.output.save()
    mean = (linear(model)[:, 0] + linear(model)[:, 1] + linear(model)[:, 2] + linear(model)[:, 3]) / 4
    torch.testing.assert_close(out.value, torch.stack([mean] * 4, dim=1))


def test_mean_at_some_positions_is_the_mean_over_all(model: wb.NNsight) -> None:
    with model.trace(X):
        wb.ablate(model.linear, positions=[0, -1], mode="mean")
        out = model.linear.output.save()
    expected = linear(model)
    expected[:, [0, 3]] = expected.mean(1, keepdim=True)
    torch.testing.assert_close(out.value, expected)


def test_an_input_and_the_callers_tensor_stays_as_it_was(model: wb.NNsight) -> None:
    before = X.clone()
    with model.trace(X):
        wb.ablate(model.linear.input, positions=0)
        out = model.linear.output.save()
    changed = X.clone()
    changed[:, 0] = 0
    assert torch.equal(out.value, model.module.get_submodule("linear")(changed))
    assert torch.equal(before, X)


def test_an_input_given_by_keyword(model: wb.NNsight) -> None:
    with model.trace(X):
        wb.ablate(model.named.input)
        out = model.output.save()
    assert torch.equal(out.value, rest(torch.zeros(1, 4, 3)))


def test_of_a_container_the_first_tensor(model: wb.NNsight) -> None:
    with model.trace(X):
        wb.ablate(model.named)
        out = model.output.save()
    assert torch.equal(out.value, 10 * (linear(model) + 2))


def test_one_part_of_a_container(model: wb.NNsight) -> None:
    with model.trace(X):
        wb.ablate(model.named.output[2], positions=[1])
        out = model.output.save()
    second = linear(model) + 2
    second[:, 1] = 0
    assert torch.equal(out.value, linear(model) + 1 + 10 * second)


def test_two_prompts_of_one_pass_are_their_own(model: wb.NNsight) -> None:
    with model.trace() as tracer:
        with tracer.invoke(X):
            wb.ablate(model.linear, mode="mean")
            first = model.linear.output.save()
        with tracer.invoke(X + 1):
            second = model.linear.output.save()
    torch.testing.assert_close(first.value, linear(model).mean(1, keepdim=True).expand(1, 4, 3))
    torch.testing.assert_close(second.value, model.module.get_submodule("linear")(X + 1))


def test_a_position_that_is_not_there_names_the_line(model: wb.NNsight) -> None:
    with (
        pytest.raises(IndexError, match=r"index 9 is out of bounds.*\n.*wb\.ablate\(model\.linear, positions=9\)"),
        model.trace(X),
    ):
        wb.ablate(model.linear, positions=9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"positions": []}, "positions is empty; leave it out for all positions"),
        ({"positions": [0.5]}, "positions are whole numbers"),
        ({"positions": [True]}, "True is none"),
        ({"mode": "zap"}, "ablate(mode='zap'): one of 'zero', 'mean'"),
    ],
)
def test_arguments_that_mean_nothing(model: wb.NNsight, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as error, model.trace(X):
        wb.ablate(model.linear, **arguments)  # pyright: ignore[reportArgumentType]
    assert words in str(error.value)


def test_something_else_than_a_module(model: wb.NNsight) -> None:
    with pytest.raises(InputError, match=r"such as model\.h"), model.trace(X):
        wb.ablate(model.module)  # pyright: ignore[reportArgumentType]


def test_a_module_without_a_tensor() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    model = wb.NNsight(Silent())
    with pytest.raises(ValueError, match=r"no tensor here to change, only a NoneType"), model.trace(X):
        wb.ablate(model)


def test_outside_a_trace(model: wb.NNsight) -> None:
    with pytest.raises(NotTracingError, match=r"linear\.output only means something inside a trace"):
        wb.ablate(model.linear)
