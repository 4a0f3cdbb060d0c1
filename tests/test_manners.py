"""A trace behaves as ordinary Python: in one line, in exec, in coroutines, under %timeit; and it keeps nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from torch import nn

import workbench as wb
from tests.nets import hooks_left, two_layers

X = torch.linspace(-1, 1, 10).reshape(2, 5)


@pytest.fixture
def model() -> Any:
    return wb.NNsight(two_layers())


def test_in_one_line_and_in_exec(model: Any) -> None:
    scope = {"model": model, "x": X}
    exec("with model.trace(x): out = model.layer1.output.save()", scope)
    torch.testing.assert_close(scope["out"], model.layer1.module(X))  # type: ignore[arg-type]


def test_in_coroutines_that_take_turns(model: Any) -> None:
    async def one(factor: float) -> Any:
        with model.trace(X):
            model.layer1.output = model.layer1.output * factor
            await asyncio.sleep(0)  # another trace is open meanwhile
            out = model.output.save()
            await asyncio.sleep(0)
        return out.value

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*[one(float(factor)) for factor in range(4)])

    net = model.module
    for factor, out in enumerate(asyncio.run(all_of_them())):
        torch.testing.assert_close(out, net.layer2(net.layer1(X) * float(factor)))


@pytest.mark.parametrize(
    "cell",
    [
        "%%time\nwith model.trace(x):\n    out = model.output.save()",
        "%%timeit -n 2 -r 1 -q\nwith model.trace(x):\n    kept = model.output.save()",
        "%timeit -n 2 -r 1 -q model.trace(x, trace=False)",
        "import asyncio\nawait asyncio.sleep(0)\nwith model.trace(x):\n    out = model.output.save()",
        "%load_ext autoreload\n%autoreload 2\nwith model.trace(x):\n    out = model.output.save()",
    ],
    ids=["time", "timeit", "line timeit", "async cell", "autoreload"],
)
def test_in_a_cell(model: Any, cell: str) -> None:
    shell = InteractiveShell.instance()
    shell.user_ns.update(model=model, x=X)
    try:
        result = shell.run_cell(cell)
        result.raise_error()
        if "out =" in cell:
            torch.testing.assert_close(shell.user_ns["out"].value, model.module(X))
    finally:
        shell.reset(new_session=False)
        InteractiveShell.clear_instance()


def session(model: Any) -> None:
    with model.session() as opened:
        with opened.iter([1, 2]) as item:
            with model.trace(X):
                model.layer1.output = model.layer1.output * item
                model.output.sum().save()


def gradient(model: Any) -> None:
    with model.trace(X) as tracer, tracer.cond(True):
        model.layer1.output.grad.save()
        model.output.sum().backward()


def inside(model: Any) -> None:
    with model.trace(X):
        _ = model.layer1.output.shape
        model.layer1.source.F_linear.output[:] = 0
        model.layer2.skip(torch.zeros(2, 2))


@pytest.mark.parametrize("program", [session, gradient, inside], ids=lambda program: program.__name__)
def test_many_traces_keep_nothing(model: Any, program: Any) -> None:
    for _ in range(20):
        program(model)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        program(model)
    gc.collect()
    assert len(gc.get_objects()) - before < 200  # less than one object a trace
    assert hooks_left(model.module) == 0


def test_a_value_dies_with_its_last_name_without_the_collector(model: Any) -> None:
    made: list[weakref.ref[Any]] = []

    class Watched(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = x * 2
            made.append(weakref.ref(out))
            return out

    watched: Any = wb.NNsight(nn.Sequential(Watched(), nn.Linear(5, 2)))
    gc.collect()
    gc.disable()
    try:
        with watched.session():
            with watched.trace(X):
                kept = watched[0].output.save()
                loss = watched.output.sum()
                loss.backward()
        assert made[0]() is kept.value
        del kept, loss
        assert made[0]() is None
    finally:
        gc.enable()
