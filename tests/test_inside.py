"""The inside of a forward, without the engine: listings, functions told from the source, forwards compiled again."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier, Thread
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn
from torch.nn import functional as F

from tests.families import FAMILIES, family
from workbench.engine.values import tensors
from workbench.errors import SourceError
from workbench.inside.forwards import replaced
from workbench.inside.instrument import instrumented
from workbench.inside.listing import inside

if TYPE_CHECKING:
    from torch import NotThere  # type: ignore[attr-defined]

X = torch.linspace(0.1, 1, 8).reshape(2, 4)


@contextmanager
def seen(module: nn.Module, *wanted: str, change: Callable[[Any], Any] = lambda v: v) -> Iterator[list[Any]]:
    """What the wanted calls gave, in the order in which they were made."""
    values: list[Any] = []

    def hook(name: str, port: str, value: Any) -> Any:
        if port == "input":
            return value
        values.append(value)
        return change(value)

    with replaced(module, instrumented(module, wanted, hook)):
        yield values


def names(module: nn.Module, *path: str) -> list[str]:
    return [call.name for call in inside(module, path).calls]


# ---- listings


class Ordered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.table = {"a": torch.tanh}
        self.view_1 = torch.neg

    def forward(self, x: Tensor, *, key: str = "a") -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"not a tensor: {self.inner(x)}")
        with torch.no_grad():
            x = (
                self.inner(x)
                .view(-1)
                .view(2, 4)
            )  # fmt: skip
        out = {"y": x @ x.T, "z": -self.view_1(x)}
        parts = [part.exp() for part in out["y"].split(1)]
        for part in reversed(parts):
            out["z"] += part.sum()
        out["y"] *= 2
        z = self.table[key](out["z"])
        z -= len(parts) + 1
        return z


def test_calls_are_listed_in_the_order_in_which_they_are_made() -> None:
    # `exp` comes after what it goes over; no_grad, isinstance, errors and edits of an item are no sites.
    assert names(Ordered()) == [
        "inner", "view_0", "view_1_", "matmul", "view_1", "split", "exp", "sum", "add", "isub"
    ]  # fmt: skip


def test_a_call_in_a_chain_has_its_own_line_of_the_file() -> None:
    listing = inside(Ordered(), ())
    lines = Path(__file__).read_text().splitlines()
    for call in listing.calls:
        word = {"view_1_": "view", "view_0": "view", "matmul": "@", "add": "+", "isub": "-="}.get(call.name, call.name)
        assert word in lines[call.line - 1], call


def test_printed_source_keeps_the_lines_and_shows_the_names() -> None:
    shown = str(inside(Ordered(), ())).splitlines()
    assert shown[0] == 'def forward(self, x: Tensor, *, key: str = "a") -> Tensor:'
    assert any(line.startswith("            self.inner(x)") and line.endswith("← inner") for line in shown)


class Text(nn.Module):
    def forward(self, x: Tensor) -> Any:
        words = """first
second
    third"""
        return x.exp(), words


def test_a_string_over_several_lines_stays_as_it_is() -> None:
    module = Text()
    with seen(module, "exp") as values:
        assert module(X)[1] == "first\nsecond\n    third"
    torch.testing.assert_close(values, [X.exp()])


# ---- compiled again


class Awkward(Ordered):
    """All that makes a function hard to compile outside its place."""

    def __init__(self) -> None:
        super().__init__()
        self.__secret = 2.0

    def forward(self, x: Tensor, *, key: str = "a", times: int = 2) -> Tensor:
        def inner(y: NotThere, *, __hidden: float = 1.0) -> NotThere:
            return y.exp() + __hidden

        def parts() -> Any:
            yield from (y.tanh() for y in x.split(2, -1))

        self.said = inner.__qualname__
        for _ in range(times):
            x = inner(x) / self.__secret
        return super().forward(torch.cat(list(parts()), dim=-1), key=key) + self.helped(x)

    def helped(self, x: Tensor) -> Tensor:
        return hidden(self) * x


def hidden(module: Any) -> Any:
    return module.__secret


def torch_recursive(x: Tensor, times: int) -> Tensor:
    return torch_recursive(x + 1, times - 1) if times else x


class Recursive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch_recursive(x, 3)


@pytest.fixture
def awkward() -> Awkward:
    torch.manual_seed(0)
    module = Awkward()
    module.__secret = 4.0  # not that of the class: this name stands outside it
    return module


def test_an_awkward_forward_gives_the_same_with_every_call_seen(awkward: Awkward) -> None:
    plain = awkward(X)
    said = awkward.said
    before = dict(awkward.__dict__)
    with seen(awkward, *names(awkward), "helped.mul", "forward.inner") as values:
        assert torch.equal(awkward(X), plain)
        assert awkward.said == said
        assert inspect.signature(awkward.forward) == inspect.signature(Awkward().forward)
    assert len(values) > 12
    assert awkward.__dict__ == before


def test_a_call_in_a_loop_and_in_a_generator_is_seen_each_time(awkward: Awkward) -> None:
    with seen(awkward, "exp", "tanh") as values:
        awkward(X)
    first = X.exp()
    second = ((first + 1) / 2).exp()
    last = (second + 1) / 2
    torch.testing.assert_close(values, [first, second, last[:, :2].tanh(), last[:, 2:].tanh()])


def test_a_function_that_calls_itself_by_its_own_name() -> None:
    module = Recursive()
    with seen(module, "torch_recursive.add") as values:
        torch.testing.assert_close(module(X), X + 3)
    torch.testing.assert_close(values, [X + 1])  # the name inside it is the file's, which is not opened


class Keyed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x /= x.sum(dim=-1, keepdim=True)
        return keyed(name=x, target=torch.ones(4))


def keyed(*, name: Tensor, target: Tensor) -> Tensor:
    return name * target


def test_inputs_are_seen_and_changed_also_by_keyword_and_in_place() -> None:
    module = Keyed()
    inputs: list[Any] = []

    def hook(name: str, port: str, value: Any) -> Any:
        if port == "output":
            return value
        inputs.append((name, value))
        if name == "keyed":
            return value[0], {**value[1], "target": torch.full((4,), 3.0)}
        return value

    with replaced(module, instrumented(module, ["keyed", "itruediv"], hook)):
        out = module(X)
    share = X / X.sum(-1, keepdim=True)
    torch.testing.assert_close(out, share * 3)
    assert [name for name, _ in inputs] == ["itruediv", "keyed"]
    torch.testing.assert_close(inputs[1][1], ((), {"name": share, "target": torch.ones(4)}))


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (
            x.exp()
            + torch.ones(3)
        )  # fmt: skip


def test_a_traceback_shows_the_file_and_its_line() -> None:
    module = Failing()
    with seen(module, "exp"):
        with pytest.raises(RuntimeError) as caught:
            module(X)
    frame = next(each for each in traceback.extract_tb(caught.value.__traceback__) if each.name == "forward")
    assert frame.filename == __file__
    assert Path(__file__).read_text().splitlines()[(frame.lineno or 0) - 1].strip() in ("x.exp()", "+ torch.ones(3)")


# ---- what is called, told from the source


def one(x: Tensor) -> Tensor:
    return x.exp()


def two(x: Tensor) -> Tensor:
    return x.tanh()


class Helper:
    def run(self, x: Tensor) -> Tensor:
        return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        return x.sinh()


class Chosen(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.helper = Helper()
        self.table = {"one": one, "two": two}

    def step(self, x: Tensor) -> Tensor:
        return x.cosh()

    def forward(self, x: Tensor) -> Tensor:
        chosen: Any = one
        if self.kind != "one":
            chosen = self.table[self.kind]
        either = self.table.get(self.kind, one) if self.kind is not None else two
        for known in (one, two):
            x = known(x)
        return chosen(x) + either(x) + self.helper.run(x) + passed(self, x)


def passed(owner: Chosen, x: Tensor) -> Tensor:
    return owner.step(x)


@pytest.mark.parametrize(("kind", "method"), [("one", "exp"), ("two", "tanh")])
def test_the_function_called_is_told_from_the_source(kind: str, method: str) -> None:
    module = Chosen(kind)
    assert names(module, "chosen") == [method]
    assert names(module, "either") == [method]
    assert names(module, "helper_run", "step") == ["sinh"]  # its own self, not the module
    assert names(module, "passed", "step") == ["cosh"]  # the module, as an argument
    with pytest.raises(SourceError, match="known cannot be opened: which function it calls is known only in the run"):
        inside(module, ("known",))


def test_a_call_inside_is_the_one_of_the_function_that_runs() -> None:
    module = Chosen("two")
    with seen(module, "chosen.tanh", "helper_run.step.sinh") as values:
        module(X)
    x = X.exp().tanh()
    torch.testing.assert_close(values, [x.tanh(), x.sinh()])
    with pytest.raises(SourceError, match=r"Chosen.forward, chosen runs two here, which makes no call named exp; it"):
        with seen(module, "chosen.exp"):
            module(X)
    assert "forward" not in module.__dict__


# ---- decorators, wrappers, other forwards


def doubled(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs) * 2

    return wrapper


def choosing(function: Any) -> Any:
    """As transformers' own for a mixture's experts: the wrapped function is only one among several."""
    table = {"other": lambda self, x: other(self, x)}

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        run: Any = table.get(self.kind, function)
        return run(self, *args, **kwargs)

    return wrapper


def other(module: nn.Module, x: Tensor) -> Tensor:
    return x.tanh()


class Decorated(nn.Module):
    kind = "own"

    @torch.no_grad()
    @doubled
    @doubled
    def forward(self, x: Tensor, by: float = 1.0) -> Tensor:
        return x.exp() * by


class Choosing(nn.Module):
    kind = "own"

    @choosing
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def test_decorators_stay_around_what_is_compiled_again() -> None:
    module = Decorated()
    x = X.clone().requires_grad_()
    with seen(module, "exp", change=lambda value: value + 1):
        out = module(x, by=2.0)
    torch.testing.assert_close(out, (X.exp() + 1) * 2 * 4)
    assert not out.requires_grad
    torch.testing.assert_close(Decorated()(X), X.exp() * 4)


def test_a_wrapper_that_chooses_is_opened_itself() -> None:
    module = Choosing()
    assert names(module) == ["get", "run"]
    assert names(module, "run") == ["exp"]
    module.kind = "other"
    with seen(module, "run") as values:
        module(X)
    torch.testing.assert_close(values, [X.tanh()])


def test_a_forward_of_the_instance_is_opened_and_put_back() -> None:
    def swapped(self: Any, x: Tensor) -> Tensor:
        return x.sinh()

    for forward in (MethodType(swapped, nn.Identity()), functools.partial(swapped, None)):
        module = Text()
        module.forward = forward
        with seen(module, "sinh") as values:
            module(X)
        torch.testing.assert_close(values, [X.sinh()])
        assert module.__dict__["forward"] is forward


def test_a_forward_put_aside_by_accelerate_is_opened_below_its_hook() -> None:
    class Doubling(ModelHook):
        def post_forward(self, module: nn.Module, output: Any) -> Any:
            return output * 2

    module: nn.Module = Decorated()
    add_hook_to_module(module, Doubling())
    before = dict(module.__dict__)
    assert names(module) == ["exp", "mul"]
    with seen(module, "exp", change=lambda value: value + 1) as values:
        torch.testing.assert_close(module(X), (X.exp() + 1) * 4 * 2)
    torch.testing.assert_close(values, [X.exp()])
    assert module.__dict__ == before
    remove_hook_from_module(module)
    torch.testing.assert_close(module(X), X.exp() * 4)


# ---- what cannot be opened


class Lambda(nn.Module):
    forward = lambda self, x: x.exp()  # noqa: E731


class Scripted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def compiled() -> nn.Module:
    module = Text()
    module._compiled_call_impl = module._call_impl  # what module.compile() sets
    return module


class Calling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return torch.exp(self.inner(x)), dict(x=x), Helper()


@pytest.mark.parametrize(
    ("module", "path", "words"),
    [
        (Lambda(), (), "Lambda.forward cannot be opened: it is a lambda"),
        (compiled(), (), "Text.forward cannot be opened: it is compiled, and no longer runs as Python"),
        (Calling(), ("inner",), r"Calling.forward, inner cannot be opened here: it is a module \(Linear\)"),
        (Calling(), ("torch_exp",), "Calling.forward, torch_exp cannot be opened: it is a builtin_function_or_method"),
        (Calling(), ("Helper",), "Calling.forward, Helper cannot be opened: it is a class"),
        (Decorated(), ("mul",), "Decorated.forward, mul cannot be opened: it is an operator"),
        (Decorated(), ("sin",), "Decorated.forward, sin: there is no such call; it has exp, mul"),
    ],
)
def test_what_cannot_be_opened_says_why(module: nn.Module, path: tuple[str, ...], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        inside(module, path)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_scripted_module_says_so() -> None:
    with pytest.raises(SourceError, match=r"forward cannot be opened: it is scripted; load the model as plain Python"):
        inside(torch.jit.script(Scripted()), ())


FIRST = "from torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n        return x.exp() * 2\n"


@pytest.mark.parametrize("edit", ["x.exp() * 3", "x.tanh() * 2", "x.exp(), 2"])
def test_a_file_edited_since_it_was_loaded_is_not_taken_for_what_runs(
    edit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edited_net.py"
    path.write_text(FIRST)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "edited_net", raising=False)
    loaded: ModuleType = importlib.import_module("edited_net")
    path.write_text(FIRST.replace("x.exp() * 2", edit))
    os.utime(path, (1e9, 2e9))
    with pytest.raises(SourceError, match=r"Net.forward cannot be opened: its source in .* is not what runs"):
        inside(loaded.Net(), ())


# ---- side by side


def test_threads_come_and_go_in_any_order() -> None:
    module = Text()
    got: dict[int, Any] = {}
    both = Barrier(2, timeout=30)

    def work(number: int) -> None:
        with seen(module, "exp", change=lambda value: value * number) as values:
            both.wait()  # both stand in the module
            first = module(X)[0]
            if number == 2:
                both.wait()
        if number == 3:
            both.wait()  # the first to come leaves last, the last to come first, or the other way round
        got[number] = first, values

    threads = [Thread(target=work, args=(number,)) for number in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (2, 3):
        torch.testing.assert_close(got[number], (X.exp() * number, [X.exp()]))
    assert "forward" not in module.__dict__


def test_a_copy_made_meanwhile_is_a_plain_module() -> None:
    module = Text()
    with seen(module, "exp") as values:
        copied = copy.deepcopy(module)
        copied(X)
    assert values == []
    assert copied.forward.__self__ is copied
    assert "forward" not in module.__dict__


def test_a_forward_given_meanwhile_is_kept() -> None:
    module = Text()
    with seen(module, "exp"):
        module.forward = one
    assert module.__dict__["forward"] is one


# ---- models of transformers


def everything(module: nn.Module, path: tuple[str, ...] = ()) -> list[str]:
    """All names, also those inside functions that can be opened, three deep."""
    listing = inside(module, path)
    found = []
    for call in listing.calls:
        here = (*path, call.name)
        found.append(".".join(here))
        if len(here) < 3:
            try:
                found += everything(module, here)
            except SourceError:
                continue
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_call_of_every_forward_seen_at_once_changes_nothing(name: str, attention: str) -> None:
    net, kwargs = family(name)
    if attention == "eager" or getattr(net, "_supports_sdpa", False):
        net.set_attn_implementation(attention)  # type: ignore[operator]
    with torch.no_grad():
        expected = net(**kwargs)
    before = [dict(module.__dict__) for module in net.modules()]  # a first pass may leave transformers' own hooks
    with torch.no_grad():
        sites = 0
        with ExitStack() as stack:
            for module in net.modules():
                if type(module).forward is not nn.Module.forward and not type(module).__module__.startswith("torch."):
                    wanted = everything(module)
                    sites += len(wanted)
                    stack.enter_context(seen(module, *wanted))
            again = net(**kwargs)
    assert len([*tensors(again)]) > 0
    torch.testing.assert_close([*tensors(again)], [*tensors(expected)], rtol=0, atol=0)
    assert sites > 100
    assert [dict(module.__dict__) for module in net.modules()] == before


def attentions(net: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in net.modules()
        if "attention_interface" in (names(module) if type(module).__name__.endswith("Attention") else ())
    ]


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "qwen3", "gemma2", "bert", "t5", "vit"])
def test_attention_probabilities_are_those_the_model_gives_and_are_replaced_as_by_hand(name: str) -> None:
    net, kwargs = family(name)
    net.set_attn_implementation("eager")  # type: ignore[operator]
    module = attentions(net)[1]
    site = "attention_interface.nn_functional_softmax"
    with torch.no_grad():
        outputs = net(**kwargs, output_attentions=True)
        with seen(module, site) as values:
            net(**kwargs)
        given = outputs.encoder_attentions if hasattr(outputs, "encoder_attentions") else outputs.attentions
        assert torch.equal(values[0], given[1])
        with seen(module, site, change=torch.zeros_like):
            out = net(**kwargs)[0]
        # By hand: attention of zero gives zero, whatever else the attention function does.
        owner = sys.modules[type(module).__module__]
        whole = owner.eager_attention_forward

        def zero(attention: nn.Module, *args: Any, **more: Any) -> Any:
            result, weights = whole(attention, *args, **more)
            return (torch.zeros_like(result) if attention is module else result), weights

        owner.eager_attention_forward = zero  # type: ignore[attr-defined]
        try:
            expected = net(**kwargs)[0]
        finally:
            owner.eager_attention_forward = whole  # type: ignore[attr-defined]
    assert not torch.equal(out, outputs[0])
    assert torch.equal(out, expected)


def test_gate_values_of_a_gated_mlp() -> None:
    net, kwargs = family("llama")
    mlp: Any = net.model.layers[1].mlp  # type: ignore[union-attr, index]
    into: list[Tensor] = []
    handle = mlp.register_forward_pre_hook(lambda module, args: into.append(args[0]))
    with torch.no_grad(), seen(mlp, "act_fn", "mul") as values:
        net(**kwargs)
    handle.remove()
    gate = F.silu(mlp.gate_proj(into[0]))
    torch.testing.assert_close(values, [gate, gate * mlp.up_proj(into[0])])


def test_the_experts_of_a_mixture_are_those_that_run() -> None:
    net, kwargs = family("mixtral")
    experts: Any = next(module for module in net.modules() if type(module).__name__.endswith("Experts"))
    for kind, call in (("batched_mm", "_batched_linear_0"), ("eager", "nn_functional_linear_0")):
        net.set_experts_implementation(kind)  # type: ignore[operator]
        assert call in names(experts, "experts_forward")
        with torch.no_grad(), seen(experts, f"experts_forward.{call}") as values:
            net(**kwargs)
        assert values


def test_generation_takes_the_inputs_it_takes_without() -> None:
    net: Any = family("gpt2")[0]
    ids = torch.tensor([[0, 0, 5, 6], [3, 4, 5, 6]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    kwargs = {"attention_mask": mask, "max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    positions: list[Tensor] = []

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        positions.append(kwargs["position_ids"])

    handle = net.transformer.register_forward_pre_hook(note, with_kwargs=True)
    plain = net.generate(ids, **kwargs)
    count = len(positions)
    with seen(net, "lm_head") as values:
        assert torch.equal(net.generate(ids, **kwargs), plain)
    handle.remove()
    assert len(values) == 3
    for before, after in zip(positions[:count], positions[count:], strict=True):
        assert torch.equal(before, after)
