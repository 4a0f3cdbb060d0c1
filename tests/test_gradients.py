"""Gradients inside a trace are those of plain PyTorch, and only the ones that were asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.nets import hooks_left, traced
from workbench.errors import InputError, NotSetError


def net(grad: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    return made.requires_grad_(grad)


X = torch.linspace(-1, 1, 10).reshape(2, 5)


def by_hand(module: nn.Sequential, x: Tensor, at: int, edit: Any = None) -> tuple[Tensor, dict[int, Tensor]]:
    """Output and gradients of the sum of squares at each layer's output, written as plain PyTorch."""
    values = []
    for index, layer in enumerate(module):
        x = layer(x)
        if not x.requires_grad:
            x.requires_grad_()
        if index == at and edit is not None:
            x.register_hook(edit)
        x.retain_grad()
        values.append(x)
    x.pow(2).sum().backward()
    return x, {index: value.grad for index, value in enumerate(values) if value.grad is not None}


@pytest.mark.parametrize("trainable", [True, False])
def test_gradients_of_every_layer_are_those_of_pytorch(trainable: bool) -> None:
    plain = net(trainable)
    _, expected = by_hand(net(trainable), X, -1)
    model = wb.NNsight(plain)
    with model.trace(X):
        grads = [layer.output.grad.save() for layer in model]
        model.output.pow(2).sum().backward()
    for index, grad in enumerate(grads):
        torch.testing.assert_close(grad.value, expected[index])
    assert all(p.grad is None for p in plain.parameters())
    assert hooks_left(plain) == 0


def test_an_edited_gradient_flows_on() -> None:
    _, expected = by_hand(net(), X, 2, lambda g: g * 3)
    model = wb.NNsight(net())
    with model.trace(X):
        model[2].output.grad = model[2].output.grad * 3
        after, before = model[2].output.grad.save(), model[0].output.grad.save()
        model.output.pow(2).sum().backward()
    torch.testing.assert_close(after.value, expected[2])
    torch.testing.assert_close(before.value, expected[0])


def test_a_gradient_edited_in_place_flows_on_and_a_clone_keeps_what_was() -> None:
    def zeroed(grad: Tensor) -> Tensor:
        grad = grad.clone()
        grad[0] = 0
        return grad

    _, plain = by_hand(net(), X, -1)
    _, expected = by_hand(net(), X, 2, zeroed)
    model = wb.NNsight(net())
    with model.trace(X):
        before = model[2].output.grad.clone().save()
        model[2].output.grad[0] = 0
        first = model[0].output.grad.save()
        model.output.pow(2).sum().backward()
    torch.testing.assert_close(before.value, plain[2])
    torch.testing.assert_close(first.value, expected[0])


def test_a_residual_branch_keeps_its_own_gradient_when_the_other_is_edited() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    plain = Residual()
    x = torch.ones(1, 4, requires_grad=True)
    model = wb.NNsight(plain)
    with model.trace(x):
        model.inner.output.grad[:] = 0
        into = model.input.grad.save()
        model.output.sum().backward()
    torch.testing.assert_close(into.value, torch.ones(1, 4))  # the residual path alone


def test_gradients_of_values_made_in_the_trace() -> None:
    plain = net()
    model = wb.NNsight(plain)
    with model.trace(X):
        doubled = model[0].output * 2
        model[0].output = doubled
        grad = doubled.grad.save()
        model.output.sum().backward()
    value = (plain[0](X) * 2).detach().requires_grad_()
    plain[1:](value).sum().backward()
    torch.testing.assert_close(grad.value, value.grad)


def test_two_backward_calls_each_give_their_own_gradients() -> None:
    plain = net()
    model = wb.NNsight(plain)
    with model.trace(X):
        hidden, out = model[0].output, model.output
        first = hidden.grad.save()
        out.sum().backward(retain_graph=True)
        second = hidden.grad.save()
        (out * 2).sum().backward()
    value = plain[0](X).detach().requires_grad_()
    plain[1:](value).sum().backward()
    torch.testing.assert_close(first.value, value.grad)
    torch.testing.assert_close(second.value, 2 * first.value)


def test_a_gradient_may_be_read_after_its_backward_as_in_pytorch() -> None:
    plain = net()
    model = wb.NNsight(plain)
    with model.trace(X):
        model.output.sum().backward()
        grad = model[0].output.grad
        norm = (grad.norm() * 2).save()
    value = plain[0](X).detach().requires_grad_()
    plain[1:](value).sum().backward()
    assert value.grad is not None
    torch.testing.assert_close(norm.value, value.grad.norm() * 2)


def test_gradients_of_invokes_are_their_own_rows() -> None:
    model = wb.NNsight(net())
    grads = []
    with model.trace() as tracer:
        for x in (X, -X[:1]):
            with tracer.invoke(x):
                grads.append(model[2].output.grad.save())
                model.output.pow(2).sum().backward(retain_graph=True)
    for grad, x in zip(grads, (X, -X[:1]), strict=True):
        torch.testing.assert_close(grad.value, by_hand(net(), x, -1)[1][2])


def test_an_edit_of_one_invokes_gradient_leaves_the_others() -> None:
    model = wb.NNsight(net())
    with model.trace() as tracer:
        with tracer.invoke(X):
            model[2].output.grad[:] = 0
            first = model[0].output.grad.save()
            one = model.output.sum()
        with tracer.invoke(X):
            second = model[0].output.grad.save()
            (one + model.output.sum()).backward()
    value = net()[0](X).detach().requires_grad_()
    net()[1:](value).sum().backward()
    assert torch.count_nonzero(first.value) == 0
    torch.testing.assert_close(second.value, value.grad)


def test_backward_that_nothing_asks_of_is_pytorchs_own() -> None:
    plain, other = net(), net()
    model = wb.NNsight(plain)
    with model.trace(X):
        model.output.sum().backward()
    other(X).sum().backward()
    for ours, theirs in zip(plain.parameters(), other.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_parameters_gradient_when_asked_for() -> None:
    plain, other = net(), net()
    model = wb.NNsight(plain)
    with model.trace(X):
        grad = model[2].weight.grad.save()
        model.output.sum().backward()
    other(X).sum().backward()
    torch.testing.assert_close(grad.value, other[2].weight.grad)
    assert all(p.grad is None for p in plain.parameters())


def test_a_users_own_module_is_trained() -> None:
    torch.manual_seed(2)
    probe, twin = nn.Linear(8, 1), nn.Linear(8, 1)
    twin.load_state_dict(probe.state_dict())
    plain = net()
    model = wb.NNsight(plain)
    with model.trace(X):
        probe(model[0].output).sum().backward()
    assert all(p.grad is None for p in plain.parameters())
    twin(plain[0](X)).sum().backward()
    torch.testing.assert_close(probe.weight.grad, twin.weight.grad)


def test_an_input_that_requires_grad_has_its_gradient_summed() -> None:
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    model = wb.NNsight(net())
    with model.trace(x):
        model.output.pow(2).sum().backward()
    net()(y).pow(2).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_autograd_grad_is_recorded() -> None:
    plain = net()
    model = wb.NNsight(plain)
    with model.trace(X):
        grads = traced(torch.autograd.grad(model.output.sum(), [model[0].output])).save()
    value = plain[0](X).detach().requires_grad_()
    plain[1:](value).sum().backward()
    torch.testing.assert_close(grads.value[0], value.grad)


def test_after_a_run_without_backward_nothing_requires_grad() -> None:
    model = wb.NNsight(net())
    with model.trace(X):
        out = model.output.save()
    assert not out.value.requires_grad
    assert torch.is_grad_enabled()


# ---- words


def test_a_gradient_that_nothing_makes() -> None:
    model = wb.NNsight(net())
    with pytest.raises(InputError, match=r"nothing calls \.backward\(\) to make it: \S+ line \d+: .*grad"):
        with model.trace(X):
            model[0].output.grad.save()


def test_a_loss_that_does_not_depend_on_the_value() -> None:
    model = wb.NNsight(net())
    with model.trace(X):
        late = model[4].output.grad.save()
        model[2].output.sum().backward()
    with pytest.raises(NotSetError, match="gave it no gradient: the loss does not depend on it"):
        _ = late.value


def test_a_loss_without_gradient() -> None:
    model = wb.NNsight(net(False))
    with pytest.raises(RuntimeError, match="nothing it was computed from requires one"):
        with model.trace(X):
            model[4].output.grad.save()
            model[2].output.sum().backward()


def test_the_gradient_of_what_is_no_tensor() -> None:
    model = wb.NNsight(net())
    with pytest.raises(TypeError, match="only a tensor has a gradient"):
        with model.trace(X):
            model[2].inputs.grad.save()
            model.output.sum().backward()
