"""Laws, over nets, sites and programs drawn at random: a trace is its hooks, and a graph is its Python."""

from __future__ import annotations

import math
from threading import Thread
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import workbench as wb
from tests.nets import hooks_left, traced
from workbench.engine.execution import Execution
from workbench.engine.plan import plan
from workbench.graph.graph import Graph

WIDTH = 4


class Layer(nn.Module):
    """One of the shapes that modules come in."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        if self.kind == "residual":
            return x + self.inner(x).tanh()
        if self.kind == "tuple":
            return self.inner(x), x
        if self.kind == "same":
            return x
        return {"hidden": self.inner(x)}


class Net(nn.Module):
    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        torch.manual_seed(len(kinds))
        self.layers = nn.ModuleList([Layer(kind) for kind in kinds])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            out = layer(x)
            x = out[0] if isinstance(out, tuple) else out["hidden"] if isinstance(out, dict) else out
        return x


def tensor_of(kind: str, out: Any) -> Any:
    return out[0] if kind == "tuple" else out["hidden"] if kind == "dict" else out


def with_tensor(kind: str, out: Any, new: Any) -> Any:
    return (new, out[1]) if kind == "tuple" else {"hidden": new} if kind == "dict" else new


EDITS = {
    "zero a column": lambda t: torch.cat([torch.zeros_like(t[:, :1]), t[:, 1:]], 1),
    "scale": lambda t: t * 2,
    "replace": lambda t: torch.ones_like(t),
    "shift in place": lambda t: t + 1,
}


def by_trace(model: Any, kinds: list[str], x: Tensor, program: list[tuple[int, str]]) -> tuple[list[Any], Any]:
    """The program as a trace: each edit, then what every layer gives, read in an order of its own."""
    with model.trace(x) as tracer:
        for at, edit in program:
            layer, kind = model.layers[at], kinds[at]
            if edit == "zero a column":
                tensor_of(kind, layer.output)[:, 0] = 0
            elif edit == "scale":
                layer.output = with_tensor(kind, layer.output, tensor_of(kind, layer.output) * 2)
            elif edit == "replace":
                layer.output = with_tensor(kind, layer.output, torch.ones_like(tensor_of(kind, layer.output)))
            else:
                value = tensor_of(kind, layer.output)
                value += 1
        kept = [tensor_of(kinds[at], model.layers[at].output).save() for at in reversed(range(len(kinds)))]
        out = model.output.save()
    return [out.value, *[each.value for each in reversed(kept)]], tracer.graph


def by_hooks(net: Net, kinds: list[str], x: Tensor, program: list[tuple[int, str]]) -> list[Tensor]:
    """The same with hooks as one writes them by hand."""
    seen: dict[int, Tensor] = {}
    handles = []
    for at, layer in enumerate(net.layers):

        def hook(module: nn.Module, args: Any, out: Any, at: int = at) -> Any:
            tensor = tensor_of(kinds[at], out).clone()
            for where, edit in program:
                if where == at:
                    tensor = EDITS[edit](tensor)
            seen[at] = tensor
            return with_tensor(kinds[at], out, tensor)

        handles.append(layer.register_forward_hook(hook))
    with torch.no_grad():
        out = net(x)
    for handle in handles:
        handle.remove()
    return [out, *[seen[at] for at in range(len(kinds))]]


nets = st.lists(st.sampled_from(["residual", "tuple", "same", "dict"]), min_size=1, max_size=5)


@st.composite
def programs(draw: Any) -> tuple[list[str], list[tuple[int, str]]]:
    kinds = draw(nets)
    edit = st.tuples(st.integers(0, len(kinds) - 1), st.sampled_from(sorted(EDITS)))
    return kinds, draw(st.lists(edit, max_size=6))


@settings(max_examples=120, deadline=None)
@given(programs(), st.integers(1, 3))
def test_a_trace_is_its_hooks(drawn: tuple[list[str], list[tuple[int, str]]], rows: int) -> None:
    kinds, program = drawn
    net = Net(kinds)
    x = torch.linspace(-1, 1, rows * WIDTH).reshape(rows, WIDTH)
    before = x.clone()
    values, _ = by_trace(wb.NNsight(net), kinds, x, program)
    for ours, theirs in zip(values, by_hooks(net, kinds, x, program), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(x, before)
    assert hooks_left(net) == 0


@settings(max_examples=60, deadline=None)
@given(programs(), programs())
def test_invokes_of_one_pass_are_what_each_is_alone(one: Any, other: Any) -> None:
    kinds, first = one
    second = [(at % len(kinds), edit) for at, edit in other[1]]
    net = Net(kinds)
    model: Any = wb.NNsight(net)
    xs = torch.linspace(-1, 1, 2 * WIDTH).reshape(2, WIDTH), torch.linspace(2, 3, WIDTH).reshape(1, WIDTH)
    kept = []
    with model.trace() as tracer:
        for x, program in zip(xs, (first, second), strict=True):
            with tracer.invoke(x):
                for at, edit in program:
                    layer, kind = model.layers[at], kinds[at]
                    new = EDITS[edit](tensor_of(kind, layer.output))
                    layer.output = with_tensor(kind, layer.output, new)
                kept.append(
                    [
                        model.output.save(),
                        *[tensor_of(k, e.output).save() for k, e in zip(kinds, model.layers, strict=True)],
                    ]
                )
    for values, x, program in zip(kept, xs, (first, second), strict=True):
        for ours, theirs in zip(values, by_hooks(net, kinds, x, program), strict=True):
            torch.testing.assert_close(ours.value, theirs)


# ---- graphs


def same(one: Graph, other: Graph) -> None:
    """Equal but for the lines on which they were written."""
    for ours, theirs in zip(one.nodes, other.nodes, strict=True):
        ours, theirs = (
            each._replace(line=("", 0), op=(each.op.name, each.op.fn, each.op.writes, each.op.views))
            for each in (ours, theirs)
        )
        assert ours == theirs
    assert (one.saved, one.blocks) == (other.saved, other.blocks)


def again(graph: Graph, model: Any, x: Tensor, names: dict[str, Any]) -> Graph:
    """The graph that its Python makes when it is run."""
    scope = {"torch": torch, "wb": wb, "model": model, "input": x, **graph.functions, **names}
    code = graph.to_python()
    exec(compile(code, "printed", "exec"), scope)
    found = scope["session"] if "session" in scope else scope["tracer"]
    assert found.graph is not None, code
    return found.graph


@settings(max_examples=60, deadline=None)
@given(programs())
def test_a_graph_is_its_python(drawn: tuple[list[str], list[tuple[int, str]]]) -> None:
    kinds, program = drawn
    model = wb.NNsight(Net(kinds))
    x = torch.ones(2, WIDTH)
    _, graph = by_trace(model, kinds, x, program)
    same(again(graph, model, x, {}), graph)


def test_a_graph_of_every_kind_of_statement_is_its_python() -> None:
    model: Any = wb.NNsight(Net(["residual", "tuple", "dict"]))
    x, tensor_0 = torch.ones(2, WIDTH), torch.full((2, WIDTH), 0.5)
    with model.trace(x) as tracer:
        hidden = model.layers[0].output
        grad = hidden.grad
        grad[0] = 0
        hidden.grad = grad * 2
        with tracer.cond(hidden.sum() > 0):
            tracer.log("large", hidden.mean())
            with tracer.cond(hidden.max() > 1):
                model.layers[0].output = tensor_0
        after: Any = traced(-1 * model.layers[0].output).save()
        model.layers[1].inner.input = model.layers[1].inner.input + model.layers[1].inner.weight[0]
        model.layers[1].output[0][:, None, ..., 1:3] += 1
        out = torch.nn.functional.gelu(model.layers[2].inner(after), approximate="tanh")
        model.layers[2].output = {"hidden": out, "other": [out, (after, 1.5, None, "words", slice(1, None))]}
        model.output.sum().backward(retain_graph=True)
        model.output.shape_of = 3
        model.layers[0].next().output.save()
    same(again(tracer.graph, model, x, {"tensor_0": tensor_0}), tracer.graph)


def test_built_ins_and_functions_are_printed_as_they_are_written() -> None:
    model: Any = wb.NNsight(Net(["residual"]))
    x = torch.ones(2, WIDTH)

    def mine(value: Any) -> Any:
        return value.sum()

    with model.trace(x) as tracer:
        value = model.layers[0].output
        kept = wb.list([1, value]).save()
        kept.append(wb.apply(len, value))
        made = [wb.dict(a=1, b=value), wb.set(), wb.tuple([1]), wb.str("a"), wb.bytes(2), wb.bytearray(2)]
        numbers = [wb.int(3), wb.float(1.5), wb.complex(1, 2), wb.bool(value.sum() > 0)]
        kept.extend([wb.apply(mine, value), wb.apply(lambda v: v * 2, value), wb.apply(lambda v: v * 3, value)])
        kept.extend([wb.apply(math.sqrt, 2.0), wb.apply(sorted, [3, 1], reverse=True), made, numbers])
        kept.append(torch.nn.functional.max_pool1d(value, 2))
        cache = tracer.cache(["layers.0.inner"], dtype=torch.float64)
    graph = tracer.graph
    assert graph is not None
    text = graph.to_python()
    assert "wb.apply(len, v" in text
    assert "wb.apply(mine, v" in text
    assert "wb.list([1, v" in text
    assert "wb.apply(sorted, [3, 1], reverse=True)" in text
    assert set(graph.functions) == {"mine", "function", "function_", "sqrt", "keep"}
    same(again(graph, model, x, {}), graph)
    assert len(cache) == 1


def test_a_sessions_graph_is_its_python() -> None:
    model: Any = wb.NNsight(Net(["residual", "residual"]))
    x = torch.ones(1, WIDTH)
    with model.session() as session:
        total = torch.zeros(1, WIDTH)
        with model.trace(x):
            clean = model.layers[0].output
        with session.iter([1, 2, 3], return_context=True) as (item, loop):
            with model.trace(x * 1.0):
                model.layers[0].output = clean * item
                total += model.output
            with loop.cond(item == 2):
                loop.log("two")
                loop.exit()
        total.save()
    assert session.graph is not None
    names = {name: model if name.startswith("nnsight") else x.clone() for name in session.graph.arguments}
    printed = again(session.graph, model, x, names)
    same(printed, session.graph)


def test_a_graph_runs_again_with_other_values_and_in_two_threads() -> None:
    net = Net(["residual"] * 3)
    model: Any = wb.NNsight(net)
    with model.trace(torch.ones(1, WIDTH)) as tracer:
        model.layers[1].output *= 3
        model.output.save()
    graph = tracer.graph
    kept = graph.nodes[-1].id

    def run(x: Tensor) -> Tensor:
        execution = Execution(plan(graph), {})
        execution.run_pass(model._passing([((x,), {})], {}))
        return execution.saved[kept]

    def by_hand(x: Tensor) -> Tensor:
        return net.layers[2](net.layers[1](net.layers[0](x)) * 3)

    wrong: list[Any] = []

    def work(seed: int) -> None:
        for number in range(20):
            x = torch.full((2, WIDTH), float(seed + number))
            if not torch.allclose(run(x), by_hand(x)):
                wrong.append(x)

    threads = [Thread(target=work, args=(seed,)) for seed in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_printed_graph_shows_the_users_lines_and_a_plot_is_text() -> None:
    model: Any = wb.NNsight(Net(["residual"]))
    with model.trace(torch.ones(1, WIDTH)) as tracer:
        kept = model.layers[0].output[:, 1:].sum(dim=-1).save()
    printed = str(tracer.graph)
    assert "v1 = v0[:, 1:]" in printed
    assert "v2 = v1.sum(dim=-1).save()" in printed
    assert "# test_laws.py line" in printed
    assert kept.value.shape == (1,)
    assert tracer.graph.plot().text.startswith("flowchart TD\n  n0[")
    assert "n1 --> n2" in repr(tracer.graph.plot())
