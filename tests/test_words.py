"""Wrong programs, and the words each of them gets: what was found, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb
from tests.nets import hooks_left, two_layers
from workbench.errors import WorkbenchError

X = torch.linspace(-1, 1, 10).reshape(2, 5)
Program = Callable[[Any], Any]
CASES: dict[str, tuple[Program, type[Exception], str]] = {}


def case(error: type[Exception], words: str) -> Callable[[Program], Program]:
    """A program that raises `error` with exactly these words somewhere in its message."""

    def add(program: Program) -> Program:
        CASES[program.__name__] = program, error, words
        return program

    return add


def traced(body: Callable[[Any, Any], Any]) -> Program:
    """A program whose body stands in a trace, and is given the model and the tracer."""

    def program(model: Any) -> None:
        with model.trace(X) as tracer:
            body(model, tracer)

    program.__name__ = body.__name__
    return program


# ---- asking a value before the run


def before(name: str, use: Callable[[Any], Any], words: str, error: type[Exception] = TypeError) -> None:
    def body(model: Any, tracer: Any) -> None:
        use(model.layer1.output)

    body.__name__ = name
    case(error, words)(traced(body))


BRANCH = (
    "a traced value has no truth value before the run; use tracer.cond(value), or save it and branch after the trace"
)
ITERATE = (
    "a traced value cannot be iterated before the run; index it (x[0], x[1]), loop with session.iter(x), "
    "or hand it to a function with workbench.apply(fn, x)"
)
NUMBER = (
    "a traced value is not a number before the run; hand it to a function with workbench.apply(fn, x), "
    "or save it and convert it after the trace"
)
ARRAY = "a traced value cannot become a numpy array before the run; use torch functions on it"

before("if_", lambda v: 1 if v else 0, BRANCH)
before("while_", lambda v: next(iter([1])) if not v else 0, BRANCH)
before("and_", lambda v: v and 1, BRANCH)
before("assert_", lambda v: bool(v.sum() > 0), BRANCH)
before("chained_comparison", lambda v: 0 < v < 1, BRANCH)
before("sorted_", lambda v: sorted([v, v]), BRANCH)
before("max_", lambda v: max(v, v), BRANCH)
before("for_", lambda v: [each for each in v], ITERATE)
before("list_", list, ITERATE)
before("sum_", lambda v: sum(v), ITERATE)
before("star", lambda v: print(*v), ITERATE)
before("zip_", lambda v: list(zip(v, v, strict=True)), ITERATE)
before("unpack", lambda v: (lambda a, b: a)(*v), ITERATE)
before("in_", lambda v: 1 in v, "`in` needs the values, which exist only in the run; use (x == value).any()")
before("int_", int, NUMBER)
before("float_", float, NUMBER)
before("complex_", complex, NUMBER)
before("range_", lambda v: range(v), NUMBER)
before("list_index", lambda v: [1, 2][v], NUMBER)
before("math_", math.sqrt, NUMBER)
before("round_", lambda v: math.floor(v), NUMBER)
before("numpy_", np.asarray, ARRAY)
before("numpy_function", np.mean, ARRAY)
before("value", lambda v: v.value, "Accessing value before it's been set.", ValueError)
before(
    "value_says_when", lambda v: v.value, "the trace has not run yet; it runs when its `with` block ends", ValueError
)
before("private", lambda v: v._version, "private attributes are never recorded", AttributeError)


# ---- asking a value after the run


def after(name: str, keep: Callable[[Any, Any], Any], words: str, use: Callable[[Any], Any] = str) -> None:
    def program(model: Any) -> None:
        with model.trace(X) as tracer:
            kept = keep(model, tracer)
        use(kept)

    program.__name__ = name
    case(ValueError, words)(program)


def skipped(model: Any, tracer: Any) -> Any:
    with tracer.cond(model.layer1.output.sum() > 1e9):
        return (model.layer1.output * 2).save()


def stopped(model: Any, tracer: Any) -> Any:
    model.layer1.output.stop()
    return model.layer2.output.save()


UNSAVED = "was not saved: write .save() behind it inside the trace"
after("unsaved_print", lambda m, t: m.layer1.output, UNSAVED)
after("unsaved_index", lambda m, t: m.layer1.output, UNSAVED, lambda v: v[0])
after("unsaved_arithmetic", lambda m, t: m.layer1.output, UNSAVED, lambda v: v + 1)
after("unsaved_function", lambda m, t: m.layer1.output, UNSAVED, torch.sum)
after("unsaved_save_after", lambda m, t: m.layer1.output, UNSAVED, lambda v: v.save())
after("unsaved_format", lambda m, t: m.layer1.output, UNSAVED, lambda v: f"{v}")
after("unsaved_attribute", lambda m, t: m.layer1.output, UNSAVED, lambda v: v.shape)
after(
    "unsaved_says_which", lambda m, t: m.layer1.output * 2, "Accessing value before it's been set. %0 * 2 (test_words"
)
after("skipped_by_cond", skipped, "it was skipped: the condition on test_words.py line")
after(
    "stopped_before", stopped, "layer2.output was never reached: the run was stopped by .stop() on test_words.py line"
)
after(
    "second_call",
    lambda m, t: m.layer1.next().output.save(),
    "layer1.output (call 1) was never reached: the module was called fewer than 2 times in this forward pass",
)


# ---- what stands where it cannot


@case(RuntimeError, "model.output only means something inside a trace: write `with model.trace(...):` around it")
def output_outside(model: Any) -> None:
    _ = model.output


@case(RuntimeError, "layer1.input only means something inside a trace")
def input_outside(model: Any) -> None:
    model.layer1.input = X


@case(RuntimeError, "apply(...) only means something inside a trace")
def apply_outside(model: Any) -> None:
    wb.apply(len, [1])


@case(RuntimeError, "an intervention only means something inside a trace")
def ablate_outside(model: Any) -> None:
    with model.trace(X):
        output = model.layer1.output.save()
    wb.ablate(output)


@case(RuntimeError, "calling layer1 only means something inside a trace")
def call_outside(model: Any) -> None:
    model.layer1(X)


@case(RuntimeError, "a trace is already open here; open the next one after it, or use tracer.invoke(...)")
def trace_in_trace(model: Any) -> None:
    with model.trace(X), model.trace(X):
        pass


@case(RuntimeError, "a trace or session is already open here; a session cannot stand inside another")
def session_in_trace(model: Any) -> None:
    with model.trace(X), model.session():
        pass


@case(RuntimeError, "a loop stands in a session, around traces, not inside one")
def loop_in_trace(model: Any) -> None:
    with model.session() as session, model.trace(X), session.iter([1]):
        pass


@case(RuntimeError, "a trace is open here; an edit is written outside of traces")
def edit_in_trace(model: Any) -> None:
    with model.trace(X), model.edit():
        pass


@case(
    RuntimeError, "layer1.output only means something inside a forward pass: write `with model.trace(...):` around it"
)
def site_in_session(model: Any) -> None:
    with model.session():
        _ = model.layer1.output


@case(RuntimeError, "this trace was used already; call .trace(...) again")
def trace_twice(model: Any) -> None:
    tracer = model.trace(X)
    for _ in range(2):
        with tracer:
            pass


@case(RuntimeError, "this session was used already; call .session() again")
def session_twice(model: Any) -> None:
    session = model.session()
    for _ in range(2):
        with session:
            pass


@case(RuntimeError, "this edit was written already; call .edit() again")
def edit_twice(model: Any) -> None:
    edit = model.edit()
    for _ in range(2):
        with edit:
            pass


@case(RuntimeError, "log only means something inside its own `with` block, which is not open here")
def log_after(model: Any) -> None:
    with model.trace(X) as tracer:
        pass
    tracer.log("late")


@case(RuntimeError, "cond only means something inside its own `with` block, which is not open here")
def cond_after(model: Any) -> None:
    with model.trace(X) as tracer:
        pass
    with tracer.cond(True):
        pass


# ---- inputs


@case(ValueError, "this trace was given no input (test_words.py line")
def no_input(model: Any) -> None:
    with model.trace():
        pass


@case(ValueError, "an invoke needs an input: tracer.invoke(input)")
def invoke_nothing(model: Any) -> None:
    with model.trace() as tracer, tracer.invoke():
        pass


@case(ValueError, "this trace was given an input already; for several, write `with model.trace() as tracer:`")
def invoke_beside_input(model: Any) -> None:
    with model.trace(X) as tracer, tracer.invoke(X):
        pass


@case(ValueError, "an invoke is already open; close it before the next one")
def invoke_in_invoke(model: Any) -> None:
    with model.trace() as tracer, tracer.invoke(X), tracer.invoke(X):
        pass


@case(ValueError, "must agree in all axes but the first; here they have shapes (2, 5), (2, 4)")
def invokes_of_unlike_shapes(model: Any) -> None:
    with model.trace() as tracer:
        for x in (X, X[:, :4]):
            with tracer.invoke(x):
                pass


@case(ValueError, "a torch.nn.Module is wrapped here, not a int")
def wrap_a_number(model: Any) -> None:
    wb.NNsight(3)  # type: ignore[arg-type]


# ---- names


@case(AttributeError, "the model (TwoLayers) has no submodule or attribute 'layer3'; near: layer")
def no_such_module(model: Any) -> None:
    _ = model.layer3


@case(AttributeError, "no module at 'layer9'; near: layer")
def no_such_path(model: Any) -> None:
    model.find("layer9")


@case(AttributeError, "layer1.outputs cannot be assigned; inside a trace assign .output, .input or .inputs")
def misspelt_assignment(model: Any) -> None:
    with model.trace(X):
        model.layer1.outputs = 0


@case(ValueError, "already has a 'layer1'; attach the module under another name")
def attach_over(model: Any) -> None:
    model.layer1 = nn.Identity()


@case(ValueError, "layer1.output belongs to another model than this trace; use the model that .trace() was called on")
def another_models_site(model: Any) -> None:
    other: Any = wb.NNsight(two_layers())
    with model.trace(X):
        _ = other.layer1.output


# ---- while running


@case(IndexError, "layer1.output has shape (2, 10)")
def index_out_of_range(model: Any) -> None:
    with model.trace(X):
        model.layer1.output[:, 10] = 0


@case(IndexError, "layer1.output is a tensor, not a tuple, so its [0] is the first row: leave [0] out")
def tuple_of_an_older_transformers(model: Any) -> None:
    with model.trace(X):
        model.layer1.output[0][:, -1].save()


@case(IndexError, "test_words.py line")
def index_says_its_line(model: Any) -> None:
    with model.trace(X):
        model.layer1.output[:, 10] = 0


@case(RuntimeError, "layer1.output has shape (2, 10), layer2.output has shape (2, 2)")
def shapes_that_do_not_fit(model: Any) -> None:
    with model.trace(X):
        (model.layer1.output + model.layer2.output).save()


@case(AttributeError, "'Tensor' object has no attribute 'maen'")
def misspelt_method(model: Any) -> None:
    with model.trace(X):
        model.layer1.output.maen().save()


@case(ValueError, "layer1.output cannot be set from layer2.output, which is computed after it in the same forward pass")
def back_in_time(model: Any) -> None:
    with model.trace(X):
        model.layer1.output[:, :2] = model.layer2.output


@case(ValueError, "an invoke's rows can only be replaced by a value of the same shape: this invoke has (2, 10)")
def invoke_of_another_shape(model: Any) -> None:
    with model.trace() as tracer:
        with tracer.invoke(X):
            model.layer1.output = torch.zeros(2, 9)
        with tracer.invoke(X):
            pass


@case(ValueError, "layer1 is left out in some invokes only, and all of them share one pass")
def skip_in_one_invoke(model: Any) -> None:
    with model.trace() as tracer:
        with tracer.invoke(X):
            model.layer1.skip(torch.zeros(2, 10))
        with tracer.invoke(X):
            pass


@case(ValueError, "a gradient is asked for, and nothing calls .backward() to make it")
def grad_without_backward(model: Any) -> None:
    with model.trace(X):
        model.layer1.output.grad.save()


@case(RuntimeError, "this has no gradient: nothing it was computed from requires one")
def backward_of_a_constant(model: Any) -> None:
    with model.trace(X):
        model.layer2.output.grad.save()
        model.layer1.output.sum().backward()


@case(TypeError, "only a tensor has a gradient")
def grad_of_a_tuple(model: Any) -> None:
    model.layer1.module.requires_grad_(True)
    with model.trace(X):
        model.layer2.inputs.grad.save()
        model.output.sum().backward()


# ---- interventions


@case(ValueError, "ablate(mode='zap'): one of 'zero', 'mean'")
def ablate_by_what(model: Any) -> None:
    with model.trace(X):
        wb.ablate(model.layer1, mode="zap")  # type: ignore[arg-type]


@case(ValueError, "positions is empty; leave it out for all positions")
def ablate_nowhere(model: Any) -> None:
    with model.trace(X):
        wb.ablate(model.layer1, positions=[])


@case(ValueError, "positions are whole numbers, as in positions=[0, -1]; 1.5 is none")
def ablate_between(model: Any) -> None:
    with model.trace(X):
        wb.ablate(model.layer1, positions=[1.5])  # type: ignore[list-item]


@case(ValueError, "an intervention is made at a module or a value of it")
def ablate_a_name(model: Any) -> None:
    with model.trace(X):
        wb.ablate("layer1")  # type: ignore[arg-type]


# ---- inside a forward, optimizers


@case(AttributeError, "layer1.source makes no call named 'softmax'; it has F_linear")
def misspelt_call(model: Any) -> None:
    _ = model.layer1.source.softmax


@case(TypeError, "this SGD was made in a session, where it took its steps")
def optimizer_after_its_session(model: Any) -> None:
    with model.session():
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1)
    optimizer.step()


@case(TypeError, "shapes are known only in the run here: the input of this trace is itself a traced value")
def shape_of_a_loops_trace(model: Any) -> None:
    with model.session() as session, session.iter([X]) as item, model.trace(item):
        _ = model.layer1.output.shape


@case(ValueError, "'layer9' cannot be renamed: no module at 'layer9'")
def rename_nothing(model: Any) -> None:
    wb.NNsight(two_layers(), rename={"layer9": "last"})


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_program_is_told_what_is_wrong(name: str) -> None:
    program, error, words = CASES[name]
    net = two_layers()
    with pytest.raises(error) as caught:
        program(wb.NNsight(net))
    assert words in str(caught.value)
    assert hooks_left(net) == 0
    assert all("forward" not in module.__dict__ for module in net.modules())


def test_there_are_many() -> None:
    assert len(CASES) >= 60


def test_our_own_errors_are_one_tree() -> None:
    for name in ("trace_twice", "no_input", "if_", "no_such_module", "unsaved_print", "back_in_time"):
        program, _, _ = CASES[name]
        with pytest.raises(WorkbenchError):
            program(wb.NNsight(two_layers()))
