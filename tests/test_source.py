"""The inside of a forward: its calls are listed, read and edited, and the model is as it was afterwards."""

from __future__ import annotations

import functools
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import workbench as wb
from tests.families import FAMILIES, family
from tests.nets import hooks_left
from workbench.errors import NotSetError, PathError, SourceError


def doubled(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs) * 2

    return wrapper


class Base(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class Awkward(Base):
    """A forward with all that makes compiling it again hard."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 4)
        self.__secret = 3.0

    @doubled
    def forward(self, x: Tensor, *, times: int = 2, shift: Any = None) -> Tensor:
        for number in range(times):
            x = torch.tanh(self.inner(x))
            if number == 1:
                x = F.relu(x - 0.1)
        parts = [part.exp() for part in x.split(2, -1)]
        x = super().forward(torch.cat(parts, -1)) * self.__secret
        return self.scaled(x)

    def scaled(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) @ torch.eye(4)


class Hidden(nn.Module):
    forward = torch.relu


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.awkward = Awkward()

    def forward(self, x: Tensor) -> Tensor:
        return self.awkward(x).sum(-1)


X = torch.linspace(-1, 1, 8).reshape(2, 4)


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def model(net: Net) -> Any:
    return wb.NNsight(net)


def test_calls_have_names_and_the_source_shows_them(model: Any) -> None:
    source = model.awkward.source
    assert source.names == [
        "inner", "torch_tanh", "sub", "F_relu", "split", "exp", "torch_cat", "forward", "mul", "scaled"
    ]  # fmt: skip
    shown = str(source)
    assert "x = torch.tanh(self.inner(x))" in shown
    assert "← inner, torch_tanh" in shown
    assert source.scaled.source.names == ["torch_sigmoid", "torch_eye", "matmul"]


def test_calls_are_read(net: Net, model: Any) -> None:
    with model.trace(X):
        first = model.awkward.source.torch_tanh.output.save()
        second = model.awkward.source.torch_tanh.next().output.save()
        into = model.awkward.source.F_relu.input.save()
        out = model.output.save()
    one = net.awkward.inner(X).tanh()
    two = net.awkward.inner(one).tanh()
    torch.testing.assert_close(first.value, one)
    torch.testing.assert_close(second.value, two)
    torch.testing.assert_close(into.value, two - 0.1)
    torch.testing.assert_close(out.value, net(X))


def test_calls_are_edited_also_inside_a_called_function(net: Net, model: Any) -> None:
    with model.trace(X):
        model.awkward.source.scaled.source.torch_sigmoid.output[:, 0] = 0
        model.awkward.source.inner.input = model.awkward.source.inner.input * 0
        out = model.awkward.output.save()
    x = (X * 0) @ net.awkward.inner.weight.T + net.awkward.inner.bias
    x = F.relu(net.awkward.inner(x.tanh()).tanh() - 0.1)
    x = torch.sigmoid((x.exp() + 1) * 3)
    x[:, 0] = 0
    torch.testing.assert_close(out.value, x * 2)
    assert "forward" not in net.awkward.__dict__
    assert hooks_left(net) == 0


def test_an_error_leaves_the_forward_as_it_was(net: Net, model: Any) -> None:
    with pytest.raises(IndexError, match=r"awkward\.source\.torch_cat\.output"):
        with model.trace(X):
            model.awkward.source.torch_cat.output[:, 9] = 0
    assert "forward" not in net.awkward.__dict__


def test_a_call_that_is_not_come_to(model: Any) -> None:
    with model.trace(X):
        never = model.awkward.source.torch_tanh.next(5).output.save()
    with pytest.raises(NotSetError, match="did not come to this call"):
        _ = never.value


class Typed(nn.Module):
    """Its forward was never in a file."""

    exec("def forward(self, x): return x.exp()")


class Stepwise(nn.Module):
    def forward(self, x: Tensor) -> Any:
        yield x


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Hidden(), "Hidden.forward cannot be opened: it is a builtin_function_or_method, which has no Python source"),
        (Typed(), "Typed.forward cannot be opened: its source cannot be read"),
        (Stepwise(), "Stepwise.forward cannot be opened: it is a generator"),
    ],
)
def test_what_cannot_be_opened_says_so(module: nn.Module, words: str) -> None:
    model = wb.NNsight(nn.Sequential(module))
    with pytest.raises(SourceError, match=words):
        _ = model[0].source


def test_a_name_that_is_not_there(model: Any) -> None:
    with pytest.raises(PathError, match="makes no call named 'torch_tan'; it has torch_tanh"):
        _ = model.awkward.source.torch_tan


def test_four_threads_do_not_see_each_others(net: Net, model: Any) -> None:
    wrong: list[Any] = []
    plain = net(X)

    def work(factor: float) -> None:
        for _ in range(20):
            with model.trace(X):
                model.awkward.source.scaled.output = model.awkward.source.scaled.output * factor
                out = model.output.save()
            if not torch.allclose(out.value, plain * factor):
                wrong.append(factor)

    threads = [Thread(target=work, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert "forward" not in net.awkward.__dict__


# ---- models of transformers


@pytest.mark.parametrize("name", FAMILIES)
def test_every_forward_compiled_again_gives_the_same(name: str) -> None:
    net, kwargs = family(name)
    model: Any = wb.NNsight(net)
    with torch.no_grad():
        expected = net(**kwargs)[0]
    opened = 0
    for envoy in model.walk():
        if type(envoy.module).__module__.startswith("torch.") or envoy.module.__class__.forward is nn.Module.forward:
            continue
        with _trace(model, kwargs):
            for call in envoy.source.names[:40]:
                getattr(envoy.source, call).output.save()
            out = model.output[0].save()
        assert torch.equal(out.value, expected), envoy.path
        opened += 1
    assert opened > 8
    assert all("forward" not in module.__dict__ for module in net.modules())


def _trace(model: Any, kwargs: dict[str, Any]) -> Any:
    first, *rest = kwargs.items()
    return model.trace(first[1], **dict(rest))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gemma2", "bert"])
def test_attention_patterns_inside_the_attention_function(name: str) -> None:
    net, kwargs = family(name)
    net.set_attn_implementation("eager")  # type: ignore[operator]
    with torch.no_grad():
        expected = net(**kwargs, output_attentions=True).attentions[1]
    model: Any = wb.NNsight(net)
    attention = next(
        each for each in model.walk() if "attention_interface" in _names(each) and ".1." in f".{each.path}."
    )
    with _trace(model, kwargs):
        softmax = attention.source.attention_interface.source.nn_functional_softmax.output.save()
    torch.testing.assert_close(softmax.value, expected)


def _names(envoy: Any) -> list[str]:
    try:
        return envoy.source.names
    except SourceError:
        return []


# ---- modules left out


def test_a_module_left_out_gives_the_value(net: Net, model: Any) -> None:
    calls: list[int] = []
    handle = net.awkward.inner.register_forward_hook(lambda *args: calls.append(1))
    with model.trace(X):
        model.awkward.skip(model.awkward.input * 3)
        inner = model.awkward.inner.output.save()
        out = model.output.save()
    handle.remove()
    torch.testing.assert_close(out.value, (X * 3).sum(-1))
    assert calls == []
    assert "forward" not in net.awkward.__dict__
    with pytest.raises(NotSetError, match="its module was not called"):
        _ = inner.value


def test_a_module_left_out_in_every_invoke_or_in_none(net: Net, model: Any) -> None:
    with model.trace() as tracer:
        for factor in (2, 3):
            with tracer.invoke(X):
                model.awkward.skip(model.awkward.input * factor)
                out = model.output.save()
    torch.testing.assert_close(out.value, (X * 3).sum(-1))
    with pytest.raises(ValueError, match="left out in some invokes only"):
        with model.trace() as tracer:
            with tracer.invoke(X):
                model.awkward.skip(model.awkward.input)
            with tracer.invoke(X):
                pass
    assert "forward" not in net.awkward.__dict__
