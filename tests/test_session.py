"""Sessions, loops and conditions do what the same Python does when it is run at once."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import workbench as wb
from tests.nets import TwoLayers, hooks_left, traced, two_layers
from workbench.errors import DeferredError, InputError, NotSetError, NotTracingError
from workbench.tracing import progress

X = torch.linspace(-1, 1, 10).reshape(2, 5)


@pytest.fixture
def net() -> TwoLayers:
    return two_layers()


@pytest.fixture
def model(net: TwoLayers) -> wb.NNsight:
    return wb.NNsight(net)


# ---- conditions


@pytest.mark.parametrize("sign", [1, -1])
def test_two_opposite_conditions_are_an_if_and_an_else(net: TwoLayers, model: wb.NNsight, sign: int) -> None:
    with model.trace(X) as tracer:
        total = model.layer1.output.sum() * 0 + sign
        with tracer.cond(total > 0):
            model.layer1.output[:] = 1
            tracer.log("positive")
        with tracer.cond(total <= 0):
            model.layer1.output = model.layer1.output * 2
            tracer.log("negative")
        out = model.output.save()
    hidden = torch.ones(2, 10) if sign > 0 else net.layer1(X) * 2
    torch.testing.assert_close(out.value, net.layer2(hidden))
    assert tracer.logs == ["positive" if sign > 0 else "negative"]


@pytest.mark.parametrize(("outer", "inner"), [(True, True), (True, False), (False, True), (False, False)])
def test_nested_conditions(model: wb.NNsight, outer: bool, inner: bool) -> None:
    with model.trace(X) as tracer:
        one = model.layer1.output.sum() * 0 + 1
        with tracer.cond(one > 0 if outer else one < 0):
            tracer.log("outer")
            with tracer.cond(inner):
                tracer.log("inner")
    assert tracer.logs == ["outer", "inner"][: int(outer) + int(outer and inner)]


def test_a_value_read_after_a_condition_that_replaced_it(net: TwoLayers, model: wb.NNsight) -> None:
    for true in (True, False):
        with model.trace(X) as tracer:
            with tracer.cond(true):
                model.layer1.output = torch.zeros(2, 10)
            after = traced(model.layer1.output).save()
        expected = torch.zeros(2, 10) if true else net.layer1(X)
        assert torch.equal(after.value, expected)


def test_what_was_skipped_says_so(model: wb.NNsight) -> None:
    with model.trace(X) as tracer:
        with tracer.cond(model.layer1.output.sum() > 1e9):
            doubled = (model.layer1.output * 2).save()
        more = (doubled + 1).save()
    for value in (doubled, more):
        with pytest.raises(NotSetError, match=r"was skipped: the condition on test_session\.py line \d+ was not true"):
            _ = value.value


def test_a_reading_inside_a_condition_is_a_reading_outside_too(net: TwoLayers, model: wb.NNsight) -> None:
    with model.trace(X) as tracer:
        with tracer.cond(model.layer1.output.sum() > 1e9):
            _ = model.layer2.input * 2
        into = model.layer2.input.save()
    assert torch.equal(into.value, net.layer1(X))


# ---- sessions


def test_values_flow_between_traces(net: TwoLayers, model: wb.NNsight) -> None:
    with model.session() as session:
        with model.trace(X):
            clean = model.layer1.output[:, :5]
        with model.trace(-X):
            model.layer1.output[:, :5] = clean
            out = model.output.save()
    hidden = torch.cat([net.layer1(X)[:, :5], net.layer1(-X)[:, 5:]], 1)
    torch.testing.assert_close(out.value, net.layer2(hidden))
    assert hooks_left(net) == 0
    assert session.graph is not None


def test_values_flow_between_models() -> None:
    torch.manual_seed(3)
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    one, two = wb.NNsight(first), wb.NNsight(nn.Sequential(second, nn.Tanh()))
    with one.session():
        with one.trace(X):
            hidden = one.output
        with two.trace(X):
            two[0].output = hidden
            out = two.output.save()
            other = one(two.input).save()  # another model's module, called here
    torch.testing.assert_close(out.value, first(X).tanh())
    torch.testing.assert_close(other.value, first(X))


def test_a_loop_is_recorded_once_and_run_for_each_item(net: TwoLayers, model: wb.NNsight) -> None:
    with model.session() as session:
        total = traced(torch.zeros(2, 2))
        seen = wb.NNsight(nn.Identity())  # no part of the session
        with session.iter([0.5, 1.0, 2.0]) as scale:
            with model.trace(X):
                model.layer1.output = model.layer1.output * scale
                total += model.output
        total.save()
    assert seen is not None
    assert session.graph is not None
    assert sum(node.op.name == "site" for node in session.graph.nodes) == 2
    torch.testing.assert_close(total.value, sum(net.layer2(net.layer1(X) * s) for s in (0.5, 1.0, 2.0)))


def test_nested_loops_and_the_last_value(model: wb.NNsight) -> None:
    with model.session() as session:
        with session.iter([[1, 2], [3]]) as row:
            with session.iter(row) as item:
                square = (item * item).save()
                session.log(square)
    assert session.logs == ["1", "4", "9"]
    assert square.value == 9


def test_a_loop_is_left_by_exit_and_its_inner_one_alone(model: wb.NNsight) -> None:
    with model.session() as session:
        with session.iter([10, 20], return_context=True) as (outer, _):
            with session.iter([1, 2, 3], return_context=True) as (inner, loop):
                loop.log(outer + inner)
                with loop.cond(inner == 2):
                    loop.exit()
        session.log("after")
        session.exit()
        never = traced(torch.zeros(1) + 1).save()
        session.log("never")
    assert session.logs == ["11", "12", "21", "22", "after"]
    with pytest.raises(NotSetError, match=r"\.exit\(\) on test_session\.py line \d+ came first"):
        _ = never.value


def test_a_loop_without_items(model: wb.NNsight) -> None:
    with model.session() as session:
        with session.iter([]) as item:
            value = (item + 1).save()
    with pytest.raises(NotSetError, match="its loop had no items"):
        _ = value.value


def test_a_traced_input_is_known_only_in_the_run(model: wb.NNsight) -> None:
    with model.session() as session:
        with session.iter([X]) as item:
            with model.trace(item):
                with pytest.raises(DeferredError, match="itself a traced value"):
                    _ = model.layer1.output.shape
                out = model.output.save()
    assert out.value.shape == (2, 2)


def test_shapes_inside_a_session(model: wb.NNsight) -> None:
    with model.session():
        assert torch.zeros(3, 4).shape == (3, 4)
        with model.trace(X):
            hidden = model.layer1.output
            assert hidden.shape == (2, 10)
        assert (hidden @ torch.zeros(10, 7)).shape == (2, 7)


def test_a_thousand_rounds_are_a_thousand_runs(net: TwoLayers, model: wb.NNsight) -> None:
    runs = 0

    def count(*args: Any) -> None:
        nonlocal runs
        runs += 1

    handle = net.register_forward_hook(count)
    try:
        with model.session() as session:
            total = traced(torch.zeros(()))
            with session.iter(range(1000)):
                with model.trace(X):
                    total += model.output.sum()
            total.save()
    finally:
        handle.remove()
    assert runs == 1000
    assert session.graph is not None
    assert len(session.graph.nodes) < 12
    torch.testing.assert_close(total.value, net(X).sum() * 1000, rtol=1e-4, atol=1e-3)


def test_a_loop_keeps_no_value_of_the_rounds_before(model: wb.NNsight) -> None:
    alive: list[int] = []
    kept: list[weakref.ref[Tensor]] = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made = x + 1
            kept.append(weakref.ref(made))
            alive.append(sum(reference() is not None for reference in kept))
            return made

    watched = wb.NNsight(nn.Sequential(Watch(), nn.Identity()))
    gc.disable()
    try:
        with watched.session() as session:
            with session.iter(range(10)):
                with watched.trace(X):
                    _ = watched[0].output * 2
    finally:
        gc.enable()
    assert max(alive) <= 2


def test_a_value_of_a_trace_is_changed_after_it_without_a_warning(net: TwoLayers, model: wb.NNsight) -> None:
    with model.session():
        with model.trace(X):
            hidden = model.layer1.output
        hidden[:, 0] = 7
        kept = hidden.save()
    assert torch.equal(kept.value[:, 0], torch.full((2,), 7.0))
    torch.testing.assert_close(kept.value[:, 1:], net.layer1(X)[:, 1:])


# ---- training


def test_an_adapter_trained_in_a_session_is_the_one_trained_by_hand(net: TwoLayers, model: wb.NNsight) -> None:
    torch.manual_seed(4)
    data: Any = [[torch.randn(5), index % 2] for index in range(40)]

    torch.manual_seed(5)
    a, b = nn.Parameter(torch.randn(10, 3)), nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.AdamW([a, b], lr=0.1)
    losses = []
    for x, y in DataLoader(data, batch_size=8):
        hidden = net.layer1(x)
        loss = nn.functional.cross_entropy(net.layer2(hidden) + hidden @ a @ b, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    torch.manual_seed(5)
    with model.session() as session:
        left = traced(nn.Parameter(torch.randn(10, 3))).save()
        right = traced(nn.Parameter(torch.zeros(3, 2))).save()
        steps = torch.optim.AdamW([left, right], lr=0.1)
        with session.iter(DataLoader(data, batch_size=8)) as batch:
            with model.trace(batch[0]):
                model.layer2.output = model.layer2.output + model.layer2.input @ left @ right
                loss = nn.functional.cross_entropy(model.output, batch[1])
                loss.backward()
            steps.step()
            steps.zero_grad()
            session.log(loss.item())
    assert isinstance(left.value, nn.Parameter)
    torch.testing.assert_close(left.value, a)
    torch.testing.assert_close(right.value, b)
    assert [float(line) for line in session.logs] == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < losses[0]
    assert all(p.grad is None for p in net.parameters())


OPTIMIZERS = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind not in (torch.optim.Optimizer, torch.optim.SparseAdam, torch.optim.LBFGS)  # the last two follow below
]


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_every_optimizer_steps_as_by_hand(model: wb.NNsight, kind: Any) -> None:
    by_hand = nn.Parameter(torch.ones(2, 2))
    plain = kind([by_hand], lr=0.01)
    (by_hand * 3).pow(2).sum().backward()
    plain.step()
    with model.session():
        left = traced(nn.Parameter(torch.ones(2, 2))).save()
        optimizer = kind([{"params": left}], lr=0.01)
        (left * 3).pow(2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(left.value, by_hand)


def test_an_optimizer_for_sparse_gradients(model: wb.NNsight) -> None:
    def stepped() -> tuple[Any, Any]:
        table = nn.Parameter(torch.ones(4, 2))
        optimizer = torch.optim.SparseAdam([table], lr=0.1)
        nn.functional.embedding(torch.tensor([1, 3]), table, sparse=True).pow(2).sum().backward()
        optimizer.step()
        return table, optimizer

    by_hand, _ = stepped()
    with model.session():
        table, _ = stepped()
        table.save()
    torch.testing.assert_close(table.value, by_hand)


def test_an_optimizer_with_a_closure(model: wb.NNsight) -> None:
    def fit(parameter: nn.Parameter) -> Any:
        def closure() -> Tensor:
            parameter.grad = None
            loss = (parameter - 3).pow(2).sum()
            loss.backward()
            return loss

        return closure

    by_hand = nn.Parameter(torch.ones(2))
    torch.optim.LBFGS([by_hand]).step(fit(by_hand))
    with model.session():
        left = traced(nn.Parameter(torch.ones(2))).save()
        optimizer = torch.optim.LBFGS([left])
        optimizer.step(wb.apply(fit, left))
    torch.testing.assert_close(left.value, by_hand)


def test_outside_a_session_optimizers_are_torchs_own() -> None:
    original = torch.optim.Optimizer.__init__
    model = wb.NNsight(two_layers())
    with pytest.raises(ZeroDivisionError):
        with model.session():
            assert torch.optim.Optimizer.__init__ is not original
            _ = 1 / 0
    assert torch.optim.Optimizer.__init__ is original


# ---- words


def test_sessions_do_not_stand_in_one_another(model: wb.NNsight) -> None:
    with pytest.raises(NotTracingError, match="cannot stand inside another"):
        with model.session():
            with model.session():
                pass


def test_a_loop_does_not_stand_in_a_trace(model: wb.NNsight) -> None:
    with pytest.raises(NotTracingError, match="a loop stands in a session"):
        with model.session() as session:
            with model.trace(X):
                with session.iter([1]):
                    pass


def test_a_site_outside_a_pass(model: wb.NNsight) -> None:
    with pytest.raises(NotTracingError, match="only means something inside a forward pass"):
        with model.session():
            _ = model.layer1.output


def test_a_trace_of_a_session_needs_an_input(model: wb.NNsight) -> None:
    with pytest.raises(InputError, match="given no input"):
        with model.session():
            with model.trace():
                pass


def test_an_optimizer_of_a_session_says_where_it_lived(model: wb.NNsight) -> None:
    with model.session():
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1)
    with pytest.raises(DeferredError, match="this SGD was made in a session"):
        optimizer.step()


def test_an_error_in_a_loop_says_its_line_and_leaves_nothing(net: TwoLayers, model: wb.NNsight) -> None:
    with pytest.raises(IndexError, match=r"test_session\.py line \d+: model\.layer1\.output\[:, 99\] = 0"):
        with model.session() as session:
            with session.iter([1]):
                with model.trace(X):
                    model.layer1.output[:, 99] = 0
    assert hooks_left(net) == 0


def test_a_long_loop_has_a_bar_that_makes_way_for_logs(
    model: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "AFTER", 0.05)

    def run(items: Any, seconds: float) -> tuple[list[str], str]:
        with model.session() as session:
            with session.iter(items, return_context=True) as (item, loop):
                wb.apply(time.sleep, seconds)
                with session.iter([1, 2]) as inner:
                    loop.log("item", item, inner)
        out, err = capfd.readouterr()
        assert session.logs == [f"item {item} {inner}" for item in items for inner in (1, 2)]
        return out.splitlines(), err

    lines, bar = run(range(6), 0.03)
    assert [line.split("\r")[-1] for line in lines] == [f"item {n} {m}" for n in range(6) for m in (1, 2)]
    assert "session:" in bar
    assert "5/6" in bar
    assert "1/2" not in bar  # the inner loop is a part of the outer one's items
    assert run(range(3), 0)[1] == ""


def test_an_error_inside_a_loop_is_of_its_own_line(model: Any) -> None:
    with pytest.raises(IndexError) as caught:
        with model.session() as session:
            with session.iter([X]) as item:
                with model.trace(item):
                    model.layer1.output[:, 99] = 0
    assert str(caught.value).count("While running") == 1
    assert "model.layer1.output[:, 99] = 0" in (caught.value.line or "")  # type: ignore[attr-defined]
