"""A trace behaves as ordinary Python: in one line, in exec, in coroutines, under %timeit; and it keeps nothing."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from torch import nn

import workbench as wb
from tests.everywhere import Everywhere
from tests.nets import hooks_left, two_layers
from workbench.graph.wire import from_wire, to_wire
from workbench.recorder import CURRENT

X = torch.linspace(-1, 1, 10).reshape(2, 5)


@pytest.fixture
def model() -> Any:
    return wb.NNsight(two_layers())


def test_in_one_line_and_in_exec(model: Any) -> None:
    scope = {"model": model, "x": X}
    exec("with model.trace(x): out = model.layer1.output.save()", scope)
    torch.testing.assert_close(scope["out"], model.layer1.module(X))


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


# ---- stopped from outside


class Slow(nn.Module):
    """Takes its time, in small pieces that Python can be interrupted between."""

    def __init__(self, seen: list[int], number: int) -> None:
        super().__init__()
        self.seen, self.number = seen, number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.number)
        time.sleep(0.03)
        return x + 1


@pytest.mark.parametrize("how", ["interrupt", "cancel"])
def test_stopped_within_one_module_call(how: str) -> None:
    seen: list[int] = []
    net = nn.Sequential(*[Slow(seen, number) for number in range(100)])
    model: Any = wb.NNsight(net)
    started, error = threading.Event(), KeyboardInterrupt if how == "interrupt" else wb.errors.Cancelled
    at: list[int] = []
    first: Any = None
    main = threading.get_ident()

    def stop() -> None:
        started.wait(5)
        time.sleep(0.07)
        at.append(len(seen))
        if how == "interrupt":
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C, and a notebook's stop button
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(error))

    threading.Thread(target=stop).start()
    with pytest.raises(error):
        with model.trace(X):
            started.set()
            first = model[0].output.save()
            model[99].output[:] = 0
    assert len(seen) <= at[0] + 1, "it ended in the module call during which it was stopped"
    assert hooks_left(net) == 0
    with pytest.raises(wb.errors.NotSetError, match=f"the run ended in {error.__name__}"):
        print(first)


def plain(model: Any) -> None:
    with model.trace(X) as tracer, tracer.cond(model.layer1.output.sum() < 1e9), torch.no_grad():
        model.layer1.output[:, 0] = 0
        model.output.save()


def invokes(model: Any) -> None:
    with model.trace() as tracer:
        with tracer.invoke(X):
            first = model.layer1.output
        with tracer.invoke(X):
            model.layer1.output = first
            model.output.save()


def optimized(model: Any) -> None:
    with model.session() as opened:
        weight = nn.Parameter(torch.zeros(10))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        with opened.iter([1, 2]) as item, model.trace(X):
            model.layer1.output = model.layer1.output * item + weight
            model.output.sum().backward()
        optimizer.step()


def edited(model: Any) -> None:
    with model.edit() as other:
        model.layer1.output[:] = 0
    other.trace(X, trace=False)


MANY = [plain, invokes, optimized, inside, edited, gradient]


@pytest.mark.parametrize("program", MANY, ids=lambda program: program.__name__)
def test_interrupted_at_any_moment_nothing_is_left(program: Any) -> None:
    """One in so many of the moments, since there are up to a thousand."""
    net = two_layers()
    model, weights = wb.NNsight(net), [weight.clone() for weight in net.parameters()]
    program(model)
    clean, init = model.trace(X, trace=False), torch.optim.Optimizer.__init__
    moments = Everywhere(lambda: program(model), -1).met
    assert moments > 100
    places = set()
    for at in range(1, moments, 1 + moments // 60):
        places.add(Everywhere(lambda: program(model), at).place)
        assert hooks_left(net) == 0
        assert all("forward" not in module.__dict__ for module in net.modules())
        assert torch.is_grad_enabled()
        assert CURRENT.get() is None
        assert torch._C._len_torch_function_stack() == 0
        assert torch.optim.Optimizer.__init__ is init
        assert all(map(torch.equal, net.parameters(), weights))
        assert torch.equal(model.trace(X, trace=False), clean)
    assert len(places) > 10


# ---- much


def test_ten_thousand_operations_in_a_chain(model: Any) -> None:
    limit = sys.getrecursionlimit()
    with model.trace(X) as tracer:
        value = model.layer1.output
        for _ in range(10_000):
            value = value + 1
        shape = value.shape
        value.save()
    assert sys.getrecursionlimit() == limit
    assert shape == (2, 10)
    torch.testing.assert_close(value.value, model.module.layer1(X) + 10_000)
    graph = tracer.graph
    text = graph.to_python()
    assert text.count(" + 1") == 10_000
    assert len(graph.plot().text.splitlines()) > 20_000
    sent, tensors = to_wire(graph, {})
    again, _ = from_wire(json.loads(json.dumps(sent)), tensors)
    assert again.to_python() == text
    scope = {"model": model, "input": X}
    exec(compile(text, "printed", "exec"), scope)
    torch.testing.assert_close(scope["v10000"].value, value.value)
    with model.trace(X):
        never = model.layer1.next().output
        for _ in range(10_000):
            never = never + 1
        never.save()
    with pytest.raises(wb.errors.NotSetError, match="the module was called fewer than 2 times"):
        _ = never.value


def test_two_thousand_traces_take_no_memory() -> None:
    """In a process of its own, whose memory is asked of the system; programs of many shapes are among them."""
    code = """
import torch, resource, workbench as wb
model = wb.NNsight(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)))
x = torch.ones(256, 64)
def now():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
def one(number):
    with model.trace(x * number) as tracer:
        hidden = model[0].output
        for _ in range(number % 40):
            hidden = hidden * 1.0
        model[1].output = hidden + wb.apply(lambda value: value * number, hidden)
        kept = model.output.save()
    return kept.sum().item()
for number in range(300):
    one(number)
before = now()
for number in range(2000):
    one(number)
print(now() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert float(done.stdout) < 2  # MiB; each pass makes 64 KiB of every value
