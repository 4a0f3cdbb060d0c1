"""A trace does what the same hooks written by hand do, and says so when it cannot."""

from __future__ import annotations

import copy
import linecache
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb
from tests.nets import Mixed, TwoLayers, hooked, hooks_left, traced, two_layers
from workbench.errors import DeferredError, InputError, NeverReachedWarning, NotSetError, NotTracingError, OrderError


@pytest.fixture
def net() -> TwoLayers:
    return two_layers()


@pytest.fixture
def model(net: TwoLayers) -> wb.NNsight:
    return wb.NNsight(net)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.linspace(-1, 1, 10).reshape(2, 5)


# ---- reading


def test_outputs_and_inputs_are_what_the_modules_see(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        hidden = model.layer1.output.save()
        into = model.layer2.input.save()
        args_kwargs = model.layer2.inputs.save()
        out = model.output.save()
        given = model.input.save()
    assert torch.equal(hidden.value, net.layer1(x))
    assert torch.equal(into.value, net.layer1(x))
    assert torch.equal(args_kwargs.value[0][0], net.layer1(x))
    assert args_kwargs.value[1] == {}
    assert torch.equal(out.value, net(x))
    assert given.value is x


def test_sites_may_be_read_in_any_order(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        late = model.layer2.output
        early = model.layer1.output
        both = (late.sum() + early.sum()).save()
        other = (early.sum() + late.sum()).save()
    expected = net.layer1(x).sum() + net(x).sum()
    torch.testing.assert_close(both.value, expected)
    torch.testing.assert_close(other.value, expected)


def test_without_tracing_the_output_comes_at_once(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    assert torch.equal(model.trace(x, trace=False), net(x))
    assert torch.equal(model._module(x), net(x))


def test_tuple_and_dict_outputs() -> None:
    net = Mixed()
    model = wb.NNsight(net)
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    with model.trace(x):
        left, right = model.pair.output
        left, right = left.save(), right.save()
        scale = model.pair.inputs[1]["scale"].save()
        logits = model.output["logits"].save()
    with torch.no_grad():
        hidden = net.act(net.first(x))
        mean = hidden.mean(-1, keepdim=True)
        assert torch.equal(left.value, hidden * mean)
        assert torch.equal(right.value, hidden + mean)
        assert torch.equal(scale.value, mean)
        assert torch.equal(logits.value, net(x)["logits"])


def test_torch_functions_methods_and_operators(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        h = model.layer1.output
        found = {
            "function": traced(torch.argmax(h, dim=1)).save(),
            "method": h.sum(dim=-1, keepdim=True).save(),
            "functional": traced(torch.nn.functional.gelu(h)).save(),
            "reflected": (1 - h).save(),
            "matmul": (h @ h.T).save(),
            "with tensor": (torch.ones(10) * h).save(),
            "compare": (h > 0).save(),
            "stack": traced(torch.stack([h, h * 2])).save(),
            "index by proxy": h[torch.argmax(h, dim=0) * 0].save(),
            "unary": (-h).abs().save(),
            "attribute": h.T.save(),
        }
    h = net.layer1(x)
    expected = {
        "function": h.argmax(1),
        "method": h.sum(-1, keepdim=True),
        "functional": nn.functional.gelu(h),
        "reflected": 1 - h,
        "matmul": h @ h.T,
        "with tensor": h,
        "compare": h > 0,
        "stack": torch.stack([h, h * 2]),
        "index by proxy": h[torch.zeros(10, dtype=torch.long)],
        "unary": h.abs(),
        "attribute": h.T,
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name].value, value, msg=name)


def test_creation_functions_are_deferred(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        torch.manual_seed(3)
        noise = traced(torch.randn(model.layer1.output.shape)).save()
        assert "traced" in repr(noise)
        zeros = (torch.zeros(2, 10) + model.layer1.output).save()
    assert noise.shape == (2, 10)
    assert torch.equal(zeros.value, net.layer1(x))


# ---- writing


def test_in_place_edit_equals_a_hook(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    def change(output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, 0] = 0
        output[:, 1:3] += 5
        return output

    with hooked(net.layer1, change):
        expected = net(x)
    with model.trace(x):
        before = model.layer1.output.clone().save()
        model.layer1.output[:, 0] = 0
        model.layer1.output[:, 1:3] += 5
        after = model.layer1.output.save()
        out = model.output.save()
    assert torch.equal(out.value, expected)
    assert torch.equal(before.value, net.layer1(x))
    assert torch.equal(after.value, change(net.layer1(x)))


def test_replacing_equals_a_hook(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with hooked(net.layer1, lambda output: output * 2 + 1):
        expected = net(x)
    with model.trace(x):
        before = model.layer1.output.save()
        model.layer1.output = model.layer1.output * 2 + 1
        after = model.layer1.output.save()
        out = model.output.save()
    assert torch.equal(out.value, expected)
    assert torch.equal(before.value, net.layer1(x))
    assert torch.equal(after.value, net.layer1(x) * 2 + 1)


def test_augmented_assignment_of_the_whole_site(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with hooked(net.layer1, lambda output: output + 1):
        expected = net(x)
    with model.trace(x):
        model.layer1.output += 1
        out = model.output.save()
    assert torch.equal(out.value, expected)


def test_edit_of_a_replacement_reaches_the_model(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        model.layer1.output = model.layer1.output * 0
        model.layer1.output[:, 3] = 2
        out = model.output.save()
    hidden = torch.zeros(2, 10)
    hidden[:, 3] = 2
    assert torch.equal(out.value, net.layer2(hidden))


def test_editing_an_input_changes_that_module_only() -> None:
    net = Mixed()
    model = wb.NNsight(net)
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    with model.trace(x):
        model.pair.input[:] = 1
        left = model.pair.output[0].save()
        hidden = model.output["hidden"].save()
        scale = model.pair.inputs[1]["scale"].save()
    with torch.no_grad():
        expected = net.act(net.first(x))
        assert torch.equal(hidden.value, expected)  # the tensor that went in is not the one edited
        assert torch.equal(left.value, torch.ones(2, 4) * scale.value)
        assert torch.equal(scale.value, expected.mean(-1, keepdim=True))


def test_assigning_input_and_inputs(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        model.layer2.input = model.layer2.input * 3
        three = model.output.save()
    with model.trace(x):
        model.layer2.inputs = ((torch.ones(2, 10),), {})
        ones = model.output.save()
    assert torch.equal(three.value, net.layer2(net.layer1(x) * 3))
    assert torch.equal(ones.value, net.layer2(torch.ones(2, 10)))


def test_edit_inside_a_tuple_output() -> None:
    net = Mixed()
    model = wb.NNsight(net)
    x = torch.linspace(-1, 1, 8).reshape(2, 4)

    def change(output: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return output[0] * 0, output[1]

    with torch.no_grad(), hooked(net.pair, change):
        expected = net(x)["logits"]
    with model.trace(x):
        model.pair.output[0][:] = 0
        logits = model.output["logits"].save()
    assert torch.equal(logits.value, expected)


def test_edits_never_reach_the_users_input_or_a_neighbour() -> None:
    net = Mixed()
    model = wb.NNsight(nn.Sequential(nn.Identity(), net))
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    kept = x.clone()
    with model.trace(x):
        into = model[0].input.save()
        model[0].output[:] = 7  # an identity returns its own input
        out = model[0].output.save()
    assert torch.equal(x, kept)
    assert torch.equal(into.value, kept)
    assert torch.equal(out.value, torch.full((2, 4), 7.0))


def test_a_module_called_on_values_of_the_trace(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        early = model.layer2(model.layer1.output * 2).save()
        out = model.layer2.output.save()
    assert torch.equal(early.value, net.layer2(net.layer1(x) * 2))
    assert torch.equal(out.value, net(x))


# ---- several invokes


def test_each_invoke_sees_and_changes_its_own_rows(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    y = x * 2 + 1
    with model.trace() as tracer:
        with tracer.invoke(x):
            model.layer1.output[:, 0] = 0
            first = model.output.save()
        with tracer.invoke(y):
            second = model.output.save()
            hidden = model.layer1.output.save()
        with tracer.invoke(y[:1]):
            before = model.layer1.output.save()
            model.layer1.output = before * 2
            third = model.output.save()
    edited = net.layer1(x)
    edited[:, 0] = 0
    torch.testing.assert_close(first.value, net.layer2(edited))
    torch.testing.assert_close(second.value, net(y))
    torch.testing.assert_close(hidden.value, net.layer1(y))
    torch.testing.assert_close(before.value, net.layer1(y[:1]))
    torch.testing.assert_close(third.value, net.layer2(net.layer1(y[:1]) * 2))


def test_a_value_crosses_from_one_invoke_to_another(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace() as tracer:
        with tracer.invoke(x * 0):
            here = model.layer1.output
        with tracer.invoke(x):
            there = model.layer1.output
            model.layer1.output = here
            patched = model.output.save()
        with tracer.invoke(x * 0):
            model.layer1.output = there
            back = model.output.save()
    torch.testing.assert_close(patched.value, net(x * 0))
    torch.testing.assert_close(back.value, net(x))


def test_an_invoke_cannot_be_given_another_shape(model: wb.NNsight, x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"this invoke has \(1, 10\), the replacement has \(2, 10\)"):
        with model.trace() as tracer:
            with tracer.invoke(x):
                big = model.layer1.output
            with tracer.invoke(x[:1]):
                model.layer1.output = big


# ---- values


def test_after_the_run_a_saved_proxy_is_its_value(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        saved = model.layer1.output.save()
    value = net.layer1(x)
    assert str(saved) == str(value)
    assert repr(saved) == repr(value)
    assert torch.equal(saved[0], value[0])
    assert torch.equal(saved + 1, value + 1)
    assert torch.equal(1 + saved, value + 1)
    assert torch.equal(value + saved, value + value)
    assert torch.equal(torch.relu(saved), torch.relu(value))
    assert torch.equal(saved.T, value.T)
    assert torch.equal(saved.sum(0), value.sum(0))
    assert len(saved) == 2
    assert [row.shape for row in saved] == [(10,), (10,)]
    assert np.allclose(np.asarray(saved), value.numpy())
    assert f"{saved.sum():.3f}" == f"{value.sum():.3f}"
    assert float(saved.sum()) == float(value.sum())
    assert isinstance(saved.value, torch.Tensor)
    assert torch.equal(pickle.loads(pickle.dumps(saved)), value)
    assert torch.equal(copy.deepcopy(saved), value)
    assert bool((saved == value).all())


def test_values_that_are_not_there_say_why(model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        unsaved = model.layer1.output
        with pytest.raises(NotSetError, match="the trace has not run yet"):
            _ = unsaved.value
    with pytest.raises(ValueError, match=r"Accessing value before it's been set\..*layer1.output.*was not saved"):
        _ = unsaved.value
    with model.trace(x):
        unreached = model.layer2.output.save()
        reached = model.layer1.output.save()
        model.layer1.output.stop()
    assert reached.shape == (2, 10)
    with pytest.raises(NotSetError, match=r"layer2.output was never reached: the run was stopped by \.stop\(\)"):
        print(unreached)


def test_a_value_dies_with_its_last_name(model: wb.NNsight, x: torch.Tensor) -> None:
    import gc
    import weakref

    gc.disable()
    try:
        with model.trace(x) as tracer:
            saved = model.layer1.output.save()
            other = model.layer2.output.save()
        gone = weakref.ref(saved.value)
        del saved
        assert gone() is None
        assert other.shape == (2, 2)
        assert tracer.graph is not None
    finally:
        gc.enable()


def test_a_finished_value_is_a_constant_of_the_next_trace(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        saved = model.layer1.output.save()
    with model.trace(x * 0):
        model.layer1.output = saved
        out = model.output.save()
    assert torch.equal(out.value, net(x))


# ---- what only a run can answer


@pytest.mark.parametrize(
    ("ask", "cure"),
    [
        (lambda h: bool(h), "tracer.cond"),
        (lambda h: [row for row in h], "session.iter"),
        (lambda h: 1.0 in h, "any()"),
        (lambda h: float(h), "workbench.apply"),
        (lambda h: np.asarray(h), "workbench.apply"),
        (lambda h: [1, 2][h], "workbench.apply"),
    ],
)
def test_a_traced_value_refuses_what_it_cannot_know(model: wb.NNsight, x: torch.Tensor, ask: object, cure: str) -> None:
    with model.trace(x):
        with pytest.raises(DeferredError, match=r"test_tracer\.py line") as caught:
            ask(model.layer1.output)  # type: ignore[operator]
        assert cure in str(caught.value)


def test_shapes_are_known_inside_the_trace(model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        assert model.layer1.output.shape == (2, 10)
        assert model.layer1.output.dtype is torch.float32
        assert model.layer1.output.size(-1) == 10
        assert (model.layer1.output @ torch.ones(10, 7)).ndim == 2
        assert model.layer1.output[:, :3].shape == (2, 3)
        assert len(model.layer1.output) == 2
        assert model.output.argmax(-1).dtype is torch.int64
    with model.scan(x):
        width = model.layer1.output.shape[-1]
    assert width == 10


def test_a_scan_runs_nothing(model: wb.NNsight, x: torch.Tensor) -> None:
    with model.scan(x):
        saved = model.layer1.output.save()
    with pytest.raises(NotSetError, match="a scan, which runs nothing"):
        _ = saved.value


# ---- errors


def test_an_error_in_the_run_names_node_line_and_shape(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with pytest.raises(IndexError) as caught:
        with model.trace(x):
            model.layer1.output[:, 10] = 0
    message = str(caught.value)
    assert "index 10 is out of bounds for dimension 1 with size 10" in message
    assert "While running %1 = setitem(%0, [:, 10], 0)" in message
    assert "test_tracer.py line" in message
    assert "model.layer1.output[:, 10] = 0" in message
    assert "layer1.output has shape (2, 10)" in message
    assert hooks_left(net) == 0


def test_what_time_forbids_is_refused_before_anything_runs(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    ran = []
    handle = net.layer1.register_forward_hook(lambda *args: ran.append(args))
    try:
        with pytest.raises(OrderError, match=r"layer1.output cannot be set from layer2.output.*line \d+"):
            with model.trace(x):
                model.layer1.output = model.layer1.output + model.layer2.output.sum()
        with pytest.raises(OrderError):
            with model.trace(x):
                model.layer1.output[:, 0] = model.layer2.output[:, 0]
        assert not ran
    finally:
        handle.remove()
    with model.trace(x):  # the other way round is fine
        model.layer2.output[:, 0] = model.layer1.output[:, 0]
        out = model.output.save()
    assert torch.equal(out[:, 0], net.layer1(x)[:, 0])


def test_an_edit_that_reached_nothing_says_so() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = wb.NNsight(Half())
    with pytest.warns(NeverReachedWarning, match=r"unused.output was never reached, so this did nothing"):
        with model.trace(torch.ones(1, 2)):
            model.unused.output = torch.zeros(1, 2)
    with pytest.warns(NeverReachedWarning, match=r"unused.output was never reached, so this did nothing"):
        with model.trace(torch.ones(1, 2)):
            model.unused.output[:] = 0
    with pytest.raises(NotSetError, match="its module was not called"):
        with model.trace(torch.ones(1, 2)):
            never = traced(model.unused.output).save()
        print(never)


def test_wrong_uses_are_told_in_words(model: wb.NNsight, x: torch.Tensor) -> None:
    with pytest.raises(NotTracingError, match=r"layer1\.output only means something inside a trace"):
        _ = model.layer1.output
    with pytest.raises(InputError, match="given no input"):
        with model.trace():
            pass
    with pytest.raises(NotTracingError, match="already open"):
        with model.trace(x):
            with model.trace(x):
                pass
    with pytest.raises(InputError, match="belongs to another model"):
        with model.trace(x):
            _ = wb.NNsight(two_layers()).layer1.output
    with pytest.raises(AttributeError, match=r"has no submodule or attribute .layer.; near: layer2, layer1"):
        _ = model.layer
    with pytest.raises(InputError, match=r"torch.nn.Module is wrapped here, not a dict"):
        wb.NNsight({})  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, wb.errors.Cancelled])
def test_nothing_is_left_behind(net: TwoLayers, model: wb.NNsight, x: torch.Tensor, error: type[BaseException]) -> None:
    def fail(*args: object) -> None:
        raise error("on the way")

    before = {name: value.clone() for name, value in net.state_dict().items()}
    handle = net.layer2.register_forward_pre_hook(fail)
    saved = early = None
    with pytest.raises(error, match="on the way"):
        with model.trace(x):
            saved = model.layer1.output.save()
            model.layer1.output[:] = 0
            model.layer2.input = model.layer2.input + 1
    handle.remove()
    assert hooks_left(net) == 0
    assert saved is not None
    with pytest.raises(NotSetError, match=f"the run ended in {error.__name__}"):
        _ = saved.value
    with pytest.raises(ZeroDivisionError):
        with model.trace(x):
            early = model.layer1.output.save()
            _ = 1 / 0
    assert early is not None
    with pytest.raises(NotSetError, match="left by ZeroDivisionError"):
        _ = early.value
    assert isinstance(torch.randn(2), torch.Tensor)  # no mode is left on
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with model.trace(x):
        out = model.output.save()
    assert torch.equal(out.value, net(x))


def test_four_threads_trace_one_model(net: TwoLayers, model: wb.NNsight) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        x = torch.full((2, 5), float(seed))
        for step in range(50):
            with model.trace(x):
                model.layer1.output[:, step % 10] = seed
                hidden = model.layer1.output.save()
                out = model.output.save()
            expected = net.layer1(x)
            expected[:, step % 10] = seed
            if not torch.allclose(hidden.value, expected) or not torch.allclose(out.value, net.layer2(expected)):
                wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert hooks_left(net) == 0


# ---- log, print


def test_log_prints_in_the_run(
    net: TwoLayers, model: wb.NNsight, x: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    with model.trace(x) as tracer:
        tracer.log("sum", model.layer1.output.sum())
        assert capsys.readouterr().out == ""
    expected = f"sum {net.layer1(x).sum()!r}"
    assert capsys.readouterr().out == expected + "\n"
    assert tracer.logs == [expected]


def test_the_graph_prints_as_readable_lines(model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x) as tracer:
        model.layer1.output[:, 0] = 0
        (model.layer2.output + 1).save()
    lines = str(tracer.graph).splitlines()
    assert [line.partition("  #")[0].strip() for line in lines] == [
        "with model.trace(input) as tracer:",
        "v0 = model.layer1.output",
        "v0[:, 0] = 0",
        "v2 = model.layer2.output",
        "v3 = (v2 + 1).save()",
    ]
    assert all("test_tracer.py line" in line for line in lines[1:])


def test_ten_thousand_chained_operations(model: wb.NNsight, x: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.trace(x):
            value = model.layer1.output.sum() * 0
            for _ in range(10_000):
                value = value + 1
            value = value.save()
    assert value == 10_000


# ---- validation


def test_validation_raises_on_the_users_own_line(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with pytest.raises(IndexError, match=r"While validating .* — test_tracer\.py line \d+: .*\[:, 10\] = 0"):
        with model.trace(x, scan=True, validate=True):
            model.layer1.output[:, 9] = 0
            model.layer1.output[:, 10] = 0
            raise AssertionError("not reached")
    assert hooks_left(net) == 0


def test_validation_knows_conditions_gradients_and_several_invokes(model: wb.NNsight, x: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"While validating .* @ "), model.trace(validate=True) as tracer:
        with tracer.invoke(x):
            hidden = model.layer1.output
            hidden.grad[:, 0] = 0
            model.output.sum().backward()
            with tracer.cond(hidden.sum() > 0):
                model.layer2.output = hidden @ torch.zeros(10, 2)
        with tracer.invoke(x):
            model.layer1.output = hidden
            _ = hidden @ torch.zeros(9, 2)


def test_a_saved_value_is_taken_for_what_it_is(net: TwoLayers, model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        out = model.output.save()
        number = model.output.shape[0]
        pair = wb.dict(a=1).save()
        assert not isinstance(pair, dict)
    assert isinstance(out.value, torch.Tensor)
    assert isinstance(pair, dict)
    assert number == 2
    torch.testing.assert_close(out, net(x))
    assert torch.equal(pickle.loads(pickle.dumps(out)), net(x))
    assert type(pickle.loads(pickle.dumps(out))) is torch.Tensor


ONLY_TENSORS: dict[str, Callable[[Any], Any]] = {
    "tensor": torch.tensor,
    "as_tensor": torch.as_tensor,
    "new_tensor": torch.ones(2).new_tensor,
    "Tensor": torch.Tensor,
    "where": lambda out: torch.where(out > 0, out, 0),
    "Parameter": nn.Parameter,
    "grad": lambda out: setattr(torch.ones(2, 2, requires_grad=True), "grad", out),
    "data": lambda out: setattr(torch.ones(2, 2), "data", out),
    "vmap": lambda out: torch.vmap(torch.sin)(out),
    "functional grad": lambda out: torch.func.grad(torch.sum)(out),
    "optimizer": lambda out: torch.optim.SGD([out], lr=1),
    "buffer": lambda out: nn.Module().register_buffer("buffer", out),
    "load": lambda out: nn.Bilinear(1, 2, 2).load_state_dict({"weight": out, "bias": out}),
    "list": lambda out: torch.tensor([out.sum(), out.sum()]),
}
"""What takes real tensors, in C++ or by a check: a saved value is taken, or refused in words; it never ends Python."""


def test_a_saved_value_where_only_tensors_will_do(model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        out = model.output.save()
    for name, take in ONLY_TENSORS.items():
        said = ""
        try:
            made = take(out)
        except (TypeError, ValueError, RuntimeError) as error:
            made, said = None, str(error)
        assert not said or "Proxy" in said or "size mismatch" in said, name
        assert made is None or made.shape in (out.shape, (2,)), name
    with model.trace(x):
        total = model.output.sum().save()
    with pytest.raises(TypeError, match=r"give x\.value of each"):
        torch.tensor([total])


def test_a_saved_value_is_the_input_of_a_trace(net: TwoLayers, model: Any, x: torch.Tensor) -> None:
    with model.trace(x):
        hidden = model.layer1.output.save()
    last = wb.NNsight(net.layer2)
    assert torch.equal(last.trace(hidden, trace=False), net(x))
    with last.trace(input=hidden):
        out = last.output.save()
    assert torch.equal(out, net(x))
    language = wb.demo()
    with language.trace("The Eiffel Tower"):
        ids = language.inputs[1]["input_ids"].save()
        mask = traced(torch.ones_like(ids)).save()
        logits = language.output.logits.save()
    given = language.trace(ids, attention_mask=mask, trace=False).logits
    named = language.trace(input_ids=ids, attention_mask=mask, trace=False).logits
    torch.testing.assert_close((given, named), (logits.value, logits.value))


def test_a_saved_value_is_kept_in_a_file(model: wb.NNsight, x: torch.Tensor, tmp_path: Path) -> None:
    with model.trace(x):
        out = model.output.save()
    torch.save({"out": out}, tmp_path / "out.pt")
    assert torch.equal(torch.load(tmp_path / "out.pt", weights_only=True)["out"], out)


def test_a_saved_token_is_decoded() -> None:
    language = wb.demo()
    with language.trace("The Eiffel Tower is in the city of"):
        token = language.lm_head.output[0, -1].argmax().save()
    assert language.tokenizer.decode(token) == " Paris"


def test_an_unset_value_has_a_repr_that_says_why(model: wb.NNsight, x: torch.Tensor) -> None:
    with model.trace(x):
        out = model.output
    assert "was not saved" in repr(out)
    with pytest.raises(NotSetError, match="was not saved"):
        str(out)


def test_the_line_to_blame_is_data_too(model: wb.NNsight, x: torch.Tensor) -> None:
    def line_of(program: Callable[[], None]) -> wb.errors.Location:
        with pytest.raises(wb.errors.WorkbenchError) as caught:
            program()
        found = caught.value.location
        assert found is not None
        assert caught.value.line == found.text
        assert linecache.getline(found.file, found.number).strip() == found.text.partition(": ")[2]
        return found

    def fails() -> None:
        with model.trace(x):
            model.layer1.output[:, 10] = 0

    def branches() -> None:
        with model.trace(x):
            assert model.layer1.output.sum() > 0

    def too_late() -> None:
        with model.trace(x):
            model.layer1.output[:, :2] = model.layer2.output

    def without_backward() -> None:
        with model.trace(x):
            model.layer1.output.grad.save()

    def no_shape() -> None:
        with model.trace(x):
            assert (model.layer1.output @ model.layer1.output).shape

    first = fails.__code__.co_firstlineno
    for program in (fails, branches, too_late, without_backward, no_shape):
        found = line_of(program)
        assert (found.file, found.number) == (__file__, program.__code__.co_firstlineno + 2)
    assert line_of(fails) == (__file__, first + 2, f"test_tracer.py line {first + 2}: model.layer1.output[:, 10] = 0")
