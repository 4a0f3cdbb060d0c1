"""The tree of modules: names, attached modules, weights, calls out of place, several calls in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

import workbench as wb
from tests.nets import TwoLayers, hooked, hooks_left, traced, two_layers
from workbench.errors import InputError, PathError

X = torch.linspace(-1, 1, 10).reshape(2, 5)


@pytest.fixture
def net() -> TwoLayers:
    return two_layers()


@pytest.fixture
def model(net: TwoLayers) -> wb.NNsight:
    return wb.NNsight(net)


# ---- names


def test_other_names_stand_beside_their_own() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2)))
    model: Any = wb.NNsight(net, rename={"0.1": "act", "0": "first"})
    assert model.act is model[0][1]
    assert model.first is model[0]
    assert model.first.first is model[0][0]
    with model.trace(torch.ones(1, 2)):
        out = model.act.output.save()
    torch.testing.assert_close(out.value, net[0](torch.ones(1, 2)))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"layer9": "last"}, "'layer9' cannot be renamed: no module at 'layer9'; near: layer"),
        ({"layer1": "layer2"}, "already has 'layer2'"),
        ({"layer1": "output"}, "no Python name, or one of ours"),
        ({"layer1": "not a name"}, "no Python name, or one of ours"),
    ],
)
def test_names_that_cannot_be(net: TwoLayers, names: dict[str, str], words: str) -> None:
    with pytest.raises((InputError, PathError), match=words):
        wb.NNsight(net, rename=names)


# ---- weights


def test_a_weight_read_in_a_trace_is_the_models(net: TwoLayers, model: Any) -> None:
    with model.trace(X):
        out = (model.layer1.input @ model.layer1.weight.T + model.layer1.bias).save()
        shape = model.layer1.weight.shape
    torch.testing.assert_close(out.value, net.layer1(X))
    assert shape == (10, 5)
    assert model.layer1.weight is net.layer1.weight


def test_writing_to_a_weight_never_changes_the_model(net: TwoLayers, model: Any) -> None:
    before = net.layer1.weight.clone()
    with model.trace(X):
        weight = model.layer1.weight
        weight[0] = 0
        weight += 1
        changed = weight.save()
        out = model.output.save()
    expected = before.clone()
    expected[0] = 0
    assert torch.equal(changed.value, expected + 1)
    assert torch.equal(net.layer1.weight, before)
    assert torch.equal(out.value, net(X))


# ---- modules out of place, and modules of the user's


def test_a_module_called_out_of_place(net: TwoLayers, model: Any) -> None:
    with model.trace(X):
        again = model.layer2(model.layer1.output * 2).save()
        out = model.output.save()
    torch.testing.assert_close(again.value, net.layer2(net.layer1(X) * 2))
    torch.testing.assert_close(out.value, net(X))


def test_an_attached_module_and_its_inside(net: TwoLayers, model: Any) -> None:
    torch.manual_seed(6)
    sae = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 10))
    model.layer1.sae = sae
    attached = traced(model.layer1).sae
    with model.trace(X):
        model.layer1.output = attached(model.layer1.output, hook=True)
        features = attached[1].output.save()
        attached[1].output[:, 0] = 0
        out = model.output.save()
    hidden = sae[1](sae[0](net.layer1(X)))
    edited = hidden.clone()
    edited[:, 0] = 0
    torch.testing.assert_close(features.value, edited)
    torch.testing.assert_close(out.value, net.layer2(sae[2](edited)))
    assert "layer1.sae.1" in dict(net.named_modules())
    assert hooks_left(net) == 0


def test_an_attached_module_is_trained_and_the_model_is_not(model: Any, net: TwoLayers) -> None:
    net.requires_grad_(True)
    model.layer1.probe = nn.Linear(10, 1)
    with model.trace(X):
        model.layer1.probe(model.layer1.output).sum().backward()
    assert traced(model.layer1).probe.module.weight.grad is not None
    assert net.layer1.weight.grad is None


def test_a_name_that_is_taken_cannot_be_attached(model: Any) -> None:
    with pytest.raises(InputError, match="already has a 'layer1'"):
        model.layer1 = nn.Identity()


# ---- several calls


class Thrice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.step = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.step(x)
        return x


def test_each_call_of_a_module_has_its_own_site() -> None:
    net = Thrice()
    model: Any = wb.NNsight(net)
    with model.trace(X):
        first = model.step.output.save()
        model.step.next().output = model.step.output * 2
        third = model.step.next().output.save()
        into = model.step.input.save()
    one = net.step(X)
    two = one * 2
    torch.testing.assert_close(first.value, one)
    torch.testing.assert_close(into.value, two)
    torch.testing.assert_close(third.value, net.step(two))


def test_a_shared_module_is_one_envoy_under_both_names() -> None:
    shared = nn.Linear(5, 5)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    model: Any = wb.NNsight(net)
    assert model[0] is model[2]
    with model.trace(X):
        first = model[0].output.save()
        second = model[2].next().output.save()
    torch.testing.assert_close(first.value, shared(X))
    torch.testing.assert_close(second.value, net(X))


# ---- containers


@dataclass
class Made:
    hidden: Tensor
    logits: Tensor


class Dataclassed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Made:
        return Made(x, self.inner(x))


class After(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.made = Dataclassed()

    def forward(self, x: Tensor) -> Tensor:
        made = self.made(x)
        return made.hidden + made.logits


def test_dataclass_outputs_are_read_and_edited_and_the_users_input_is_left() -> None:
    net, x = After(), X.clone()
    model: Any = wb.NNsight(net)
    with model.trace(x):
        logits = model.made.output.logits.clone().save()
        model.made.output.hidden[:] = 0
        model.made.output.logits = model.made.output.logits * 2
        out = model.output.save()
    torch.testing.assert_close(logits.value, net.made.inner(X))
    torch.testing.assert_close(out.value, net.made.inner(X) * 2)
    assert torch.equal(x, X)


# ---- edits


def test_a_dataclass_of_traced_values_is_put_in_place_of_an_output() -> None:
    net = After()
    model: Any = wb.NNsight(net)
    with model.trace(X):
        model.made.output = Made(model.made.output.hidden * 0, model.made.output.logits * 2)
        out = model.output.save()
    torch.testing.assert_close(out.value, net.made.inner(X) * 2)
    language: Any = wb.demo("gpt2")
    with language.trace("The Eiffel Tower"):
        language.output = CausalLMOutputWithCrossAttentions(logits=language.output.logits * 0)
        out = traced(language.output).save()
    assert isinstance(out.value, CausalLMOutputWithCrossAttentions)
    assert out.value.logits is not None
    assert not out.value.logits.any()


def test_edits_stack_and_leave_the_original(net: TwoLayers, model: Any) -> None:
    with model.edit() as zeroed:
        model.layer1.output[:, 0] = 0
    with zeroed.edit() as both:
        zeroed.layer1.output[:, 1] = 0
    results = [each.trace(X, trace=False) for each in (model, zeroed, both)]
    for columns, result in zip(([], [0], [0, 1]), results, strict=True):
        hidden = net.layer1(X)
        hidden[:, columns] = 0
        torch.testing.assert_close(result, net.layer2(hidden))
    assert hooks_left(net) == 0


def test_an_edit_in_place_is_taken_back(net: TwoLayers, model: Any) -> None:
    with model.edit(inplace=True):
        model.layer1.output = model.layer1.output * 2
    with model.trace(X):
        hidden, out = model.layer1.output.save(), model.output.save()
    torch.testing.assert_close(hidden.value, net.layer1(X) * 2)
    torch.testing.assert_close(out.value, net.layer2(net.layer1(X) * 2))
    model.clear_edits()
    torch.testing.assert_close(model.trace(X, trace=False), net(X))


def test_an_edit_with_a_saved_value_in_several_invokes(net: TwoLayers, model: Any) -> None:
    with model.trace(X):
        saved = model.layer1.output.save()
    with model.edit() as edited:
        model.layer1.output = saved
    with edited.trace() as tracer:
        with tracer.invoke(-X):
            first = model.output.save()
        with tracer.invoke(X * 3):
            model.layer1.output *= 2
            second = model.output.save()
    torch.testing.assert_close(first.value, net(X))
    torch.testing.assert_close(second.value, net.layer2(net.layer1(X) * 2))


# ---- keeping many


def test_a_cache_keeps_every_module(net: TwoLayers, model: Any) -> None:
    with model.trace(X) as tracer:
        cache = tracer.cache(inputs=True)
        some = tracer.cache([model.layer1, "layer2"], dtype=torch.float16)
    assert list(cache) == ["", "layer1", "layer2"]
    torch.testing.assert_close(cache["layer2"].output, net(X))
    torch.testing.assert_close(cache["layer2"].inputs[0][0], net.layer1(X))
    assert cache["layer1"].inputs[1] == {}
    assert some["layer2"].output.dtype == torch.float16
    with pytest.raises(KeyError, match="made for 'layer1', 'layer2'"):
        _ = some["layer3"]


def test_a_cache_after_a_stop_has_what_was_reached(model: Any) -> None:
    with model.trace(X) as tracer:
        cache = tracer.cache()
        model.layer1.output.stop()
    assert list(cache) == ["layer1"]


def test_the_result_of_a_trace(net: TwoLayers, model: Any) -> None:
    with model.trace(X) as tracer:
        result = tracer.result.save()
    assert torch.equal(result.value, net(X))


def test_moving_and_converting() -> None:
    net = two_layers()
    model: Any = wb.NNsight(net)
    assert model.to(torch.float64) is model
    assert net.layer1.weight.dtype == torch.float64
    assert model.cpu().devices == [torch.device("cpu")]
    assert [name for name, _ in model.named_modules()] == ["", "layer1", "layer2"]


def test_hooks_of_the_users_own_see_the_edits(net: TwoLayers, model: Any) -> None:
    seen: list[Any] = []

    def note(value: Tensor) -> Tensor:
        seen.append(value.clone())
        return value

    with hooked(net.layer1, note):
        with model.trace(X):
            model.layer1.output[:] = 1
    assert torch.equal(seen[0], torch.ones(2, 10))
