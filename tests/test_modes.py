"""`torch.no_grad()`, autocast and the like in a trace's body hold for what is written in them, and for nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import workbench as wb
from tests.nets import traced
from tests.test_laws import again, same
from workbench.errors import ModeError, WireError
from workbench.graph.wire import from_wire, to_wire

X = torch.linspace(-1, 1, 8).reshape(2, 4)


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def test_no_grad_cuts_the_gradient_where_it_is_written(net: Any) -> None:
    model: Any = wb.NNsight(net)
    with model.trace(X):
        hidden = model[0].output
        with torch.no_grad():
            cut = hidden * 2
            with torch.enable_grad():
                kept = hidden * 3
        grad = hidden.grad.save()
        (cut + kept).sum().backward()
    assert torch.equal(grad.value, torch.full((2, 4), 3.0))


def test_enable_grad_makes_a_probe_trainable_in_a_pass_without_gradients(net: Any) -> None:
    model: Any = wb.NNsight(net)
    probe = nn.Linear(4, 1)
    with model.trace(X):
        without = traced(probe(model[0].output)).save()
        with torch.enable_grad():
            loss = traced(probe(model[0].output)).sum().save()
    assert not without.value.requires_grad
    loss.backward()
    expected = torch.autograd.grad(probe(net[0](X).detach()).sum(), probe.weight)[0]
    torch.testing.assert_close(probe.weight.grad, expected)
    assert net[0].weight.grad is None


@pytest.mark.parametrize("write", ["set", "decorated", "called"])
def test_gradients_are_set_in_other_ways(net: Any, write: str) -> None:
    model: Any = wb.NNsight(net)

    @torch.enable_grad()
    def decorated(value: Any) -> Any:
        return value @ net[1].weight.T

    with model.trace(X):
        if write == "set":
            with torch.set_grad_enabled(True):
                out = (model[0].output @ net[1].weight.T).save()
        elif write == "decorated":
            out = decorated(model[0].output).save()
        else:
            torch.set_grad_enabled(True)
            out = (model[0].output @ net[1].weight.T).save()
        after = (model[0].output @ net[1].weight.T).save()
    assert out.value.requires_grad
    assert after.value.requires_grad == (write == "called")


def test_autocast_holds_for_operations_modules_and_shapes(net: Any) -> None:
    model: Any = wb.NNsight(net)
    with model.trace(X):
        with torch.autocast("cpu", torch.bfloat16):
            product = (model[0].output @ torch.ones(4, 3)).save()
            again_ = model[1](model[0].output).save()
            assert product.dtype is torch.bfloat16
        plain = (model[0].output @ torch.ones(4, 3)).save()
        assert plain.dtype is torch.float32
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = net[0](X).float() @ torch.ones(4, 3)
    assert product.value.dtype is torch.bfloat16
    assert again_.value.dtype is torch.bfloat16
    assert plain.value.dtype is torch.float32
    torch.testing.assert_close(product.value, expected, atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16), model.trace(X):  # around the trace it holds for all, as it always did
        with torch.autocast("cpu", enabled=False):
            off = (model[0].output.float() @ torch.ones(4, 3)).save()
        on = model.output.save()
    assert (off.value.dtype, on.value.dtype) == (torch.float32, torch.bfloat16)


def test_inference_mode(net: Any) -> None:
    model: Any = wb.NNsight(net)
    with model.trace(X):
        with torch.inference_mode():
            inside = (model[0].output * 2).save()
        outside = (model[0].output * 2).save()
    assert inside.value.is_inference()
    assert not outside.value.is_inference()


def test_a_pass_of_a_session_and_an_edit_run_under_their_modes(net: Any) -> None:
    model: Any = wb.NNsight(net)
    with model.session():
        with torch.autocast("cpu", torch.bfloat16):
            with model.trace(X):
                low = model.output.save()
        with model.trace(X):
            full = model.output.save()
    assert (low.value.dtype, full.value.dtype) == (torch.bfloat16, torch.float32)
    with model.edit() as edited:
        with torch.autocast("cpu", torch.bfloat16):
            model[1].output = model[0].output @ torch.ones(4, 3)
    assert edited.trace(X, trace=False).dtype is torch.bfloat16


def test_ways_of_attention_and_the_check_of_gradients(recwarn: Any) -> None:
    model: Any = wb.NNsight(nn.Identity())
    seen: list[tuple[bool, bool]] = []

    class Look(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((torch.backends.cuda.flash_sdp_enabled(), torch.is_anomaly_enabled()))
            return x * 1

    model.look = Look()
    with model.trace(X):
        with sdpa_kernel([SDPBackend.MATH]):
            model.look(model.output)
        model.look(model.output)
    assert seen == [(False, False), (True, False)]
    with pytest.raises(RuntimeError, match="returned nan values"):
        with model.trace(torch.zeros(1)):
            model.output.grad.save()
            with torch.autograd.detect_anomaly():
                (model.output.sqrt() * 0).sum().backward()


def test_they_are_printed_and_sent(net: Any) -> None:
    model: Any = wb.NNsight(net)
    with model.trace(X) as tracer:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            first = model[0].output * 2
            with tracer.cond(first.sum() > 0), torch.inference_mode():
                tracer.log(first.mean())
            first.save()
        with torch.enable_grad():
            (model[1].output @ torch.ones(2, 2)).save()
        with sdpa_kernel([SDPBackend.MATH]):
            torch.nn.functional.scaled_dot_product_attention(first, first, first).save()  # type: ignore[attr-defined]
    graph = tracer.graph
    assert graph is not None
    assert (
        '    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):\n' in graph.to_python()
    )
    same(again(graph, model, X, {}), graph)
    sent, tensors = to_wire(graph, {})
    same(from_wire(json.loads(json.dumps(sent)), tensors)[0], graph)
    for wrong in (
        ["grad", 1],
        ["autocast", "cpu", "int8", True, True],
        ["zap"],
        [],
        "grad",
        ["sdpa", "NONE"],
        [["grad"]],
    ):
        sent["nodes"][1]["modes"] = [wrong]
        with pytest.raises(WireError, match="node 1 runs under what is no mode of torch"):
            from_wire(sent, tensors)
    with model.session() as session:
        with torch.no_grad(), model.trace(X):
            with torch.enable_grad():
                model.output.sum().save()
    assert session.graph is not None
    same(again(session.graph, model, X, {"nnsight_0": model, "tensor_1": X}), session.graph)


def test_a_mode_that_would_see_nothing_is_refused(net: Any) -> None:
    model: Any = wb.NNsight(net)
    with pytest.raises(ModeError, match="FlopCounterMode was entered inside the trace, where operations are"):
        with model.trace(X), FlopCounterMode(display=False):
            _ = model[0].output * 2
    with FlopCounterMode(display=False) as counted, model.trace(X):
        (model[0].output @ torch.ones(4, 4)).save()
    assert counted.get_total_flops() == 2 * (2 * 4 * 4) * 2 + 2 * 2 * 4 * 2
