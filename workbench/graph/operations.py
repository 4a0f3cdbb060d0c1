"""Operations: the callables a node may name, and what the planner must know of each.

An operation is interned, one object a callable, so a node costs one dictionary look-up to record and its name is
worked out only when something prints it or sends it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

# Names of functions and methods whose result may share memory with their first argument.
VIEWS = frozenset(
    """as_strided bfloat16 chunk contiguous cpu cuda data detach diagonal double expand expand_as flatten float
    getattr getitem H half hsplit imag items keys get mH movedim moveaxis mT narrow numpy permute ravel real rearrange
    requires_grad_ reshape reshape_as select split squeeze swapaxes swapdims T t tensor_split to transpose type type_as
    unbind unflatten unfold unsqueeze values view view_as view_as_complex view_as_real vsplit""".split()
)


def _marker(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("the interleaver runs this operation itself")


class Operation:
    """A callable with a name. `writes`: it changes its first argument. `views`: its result may share memory with it.

    `marker`: it is no computation of its own, but something that the run itself does. `shared`: there is one of it in
    the process; that of a function that `apply` was given is not.
    """

    __slots__ = ("fn", "marker", "name", "shared", "symbol", "views", "writes")

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        writes: bool = False,
        views: bool = False,
        symbol: str = "",
        shared: bool = True,
    ) -> None:
        self.name = name
        self.fn = fn
        self.writes = writes
        self.views = views or writes
        self.symbol = symbol
        self.marker = fn is _marker
        self.shared = shared

    def __repr__(self) -> str:
        return self.name


_interned: dict[Any, Operation] = {}
_registered: dict[str, Operation] = {}

FACTORIES = tuple(
    """arange bernoulli empty empty_strided eye full linspace logspace multinomial normal ones rand randint randn
    randperm tensor zeros""".split()
)
"""torch's functions that make tensors from nothing."""


def register(operation: Operation) -> Operation:
    """Let an operation of our own stand in a file, by its name."""
    if _registered.setdefault(operation.name, operation) is not operation:
        raise ValueError(f"two operations are called {operation.name}")
    _interned.setdefault(operation.fn, operation)
    return operation


def is_registered(fn: Any) -> bool:
    """Whether a function is that of an operation of our own."""
    found = _interned.get(fn)
    return found is not None and _registered.get(found.name) is found


BUILT_IN = (bool, bytes, int, float, str, complex, bytearray, tuple, list, set, dict)
"""Python's own types that a trace makes by `workbench.list(...)` and the like."""


def registered() -> dict[str, Operation]:
    """Operations of our own, by name: those of this room, and those that others have registered."""
    own = [value for value in globals().values() if isinstance(value, Operation)]
    return {each.name: each for each in (*own, *OPERATORS.values(), *_registered.values())}


def of(fn: Callable[..., Any]) -> Operation:
    """The operation of a torch function, an operator, or a method descriptor."""
    found = _interned.get(fn)
    if found is None:
        name = name_of(fn)
        last = name.rpartition(".")[2]
        writes = last == "__setitem__" or (last.endswith("_") and not last.endswith("__")) or last in _WRITING_DUNDERS
        found = _interned[fn] = Operation(name, fn, writes=writes, views=last.strip("_") in VIEWS)
    return found


_WRITING_DUNDERS = {f"__i{name}__" for name in "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()}


def name_of(fn: Any) -> str:
    """A readable, importable name: `torch.argmax`, `torch.Tensor.sum`, `torch.nn.functional.gelu`, `operator.add`."""
    name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None) or type(fn).__name__
    module = getattr(fn, "__module__", None)
    owner = getattr(fn, "__objclass__", None)
    if owner is not None:  # a method descriptor, such as torch.Tensor.sum
        return f"torch.Tensor.{fn.__name__}" if owner.__name__ == "TensorBase" else f"{owner.__name__}.{fn.__name__}"
    if "<locals>" in name and (module or "").startswith("torch."):  # torch.nn.functional.max_pool2d and its like
        name = fn.__name__
    if name.startswith("_VariableFunctionsClass."):
        return f"torch.{name.rpartition('.')[2]}"
    if module == "torch._tensor" or name.startswith("Tensor."):
        return f"torch.Tensor.{name.rpartition('.')[2]}"
    if module is None:
        return f"torch.{name.rpartition('.')[2]}"
    return f"{module.lstrip('_')}.{name}"


def _call_method(target: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(target, name)(*args, **kwargs)


def _call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


def _first_input(inputs: tuple[tuple[Any, ...], Mapping[str, Any]]) -> torch.Tensor:
    for value in (*inputs[0], *inputs[1].values()):
        if isinstance(value, torch.Tensor) or hasattr(type(value), "__torch_function__"):
            return value
    raise ValueError("this call has no tensor among its inputs; read .inputs for all of them")


def _with_first_input(
    inputs: tuple[tuple[Any, ...], dict[str, Any]], new: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = inputs
    for index, value in enumerate(args):
        if isinstance(value, torch.Tensor):
            return (*args[:index], new, *args[index + 1 :]), kwargs
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor):
            return args, {**kwargs, name: new}
    raise ValueError("this call has no tensor among its inputs; assign .inputs to replace all of them")


def _same(value: Any) -> Any:
    return value


def _parameter(data: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(data.detach(), requires_grad=data.requires_grad)


def _optimizer(kind: Callable[..., Any], params: Any, settings: dict[str, Any]) -> Any:
    return kind(params, **settings)


_methods: dict[str, Operation] = {}
_CONTAINER_WRITES = frozenset(
    {"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}
)


def method(name: str) -> Operation:
    """Calling a method by name; one whose name ends in an underscore, as `zero_`, changes its object."""
    found = _methods.get(name)
    if found is None:
        writes = name.endswith("_") or name in _CONTAINER_WRITES
        found = _methods[name] = Operation("method", _call_method, writes=writes, views=name in VIEWS)
    return found


# What the interleaver does itself, since it concerns the run rather than a value.
SITE = Operation("site", _marker)
SWAP = Operation("swap", _marker)
SKIP = Operation("skip", _marker)
"""A module is not run: (its input site, the value it gives instead)."""
STOP = Operation("stop", _marker)
LOG = Operation("log", _marker)
MODULE = Operation("module", _marker)
"""A module called on values of the trace: (path, *args); `HOOKED` also lets its inside be read."""
HOOKED = Operation("hooked module", _marker)
WEIGHT = Operation("weight", _marker)
"""A parameter or buffer of the model: (path, name)."""
GRAD = Operation("grad", _marker)
"""The gradient of a value: (value, how many backward calls were written before)."""
SWAP_GRAD = Operation("swap_grad", _marker)
BACKWARD = Operation("backward", _marker)
GUARD = Operation("cond", _marker)
"""The truth of a condition: (value, the condition around it)."""
EITHER = Operation("either", _marker)
"""(new, old): the first unless it was skipped."""
TRACE = Operation("trace", _marker)
"""A block that is a forward pass: (block, model, invokes' inputs, further arguments)."""
LOOP = Operation("loop", _marker)
"""A block that is run for each item: (block, items)."""
STEPS = Operation("steps", _marker)
"""A block that is run in each of these steps of a generation: (block, start, stop or None, stride)."""
ITEM = Operation("item", _marker)
EXIT = Operation("exit", _marker)
"""Leave a block: (block)."""

# What a value can be asked to do.
GETATTR = Operation("getattr", getattr, views=True)
SETATTR = Operation("setattr", setattr, writes=True)
GETITEM = Operation("getitem", operator.getitem, views=True)
SETITEM = Operation("setitem", operator.setitem, writes=True)
DELITEM = Operation("delitem", operator.delitem, writes=True)
CALL = Operation("call", _call)
CONSTANT = Operation("constant", _same)
PARAMETER = Operation("parameter", _parameter)
OPTIMIZER = Operation("optimizer", _optimizer)
FIRST_INPUT = Operation("first_input", _first_input, views=True)
WITH_FIRST_INPUT = Operation("with_first_input", _with_first_input)

BINARY = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@",
    "and_": "&", "or_": "|", "xor": "^", "lshift": "<<", "rshift": ">>",
}  # fmt: skip
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNARY = {"neg": "-", "pos": "+", "invert": "~", "abs": "abs "}

OPERATORS: dict[str, Operation] = {
    name: Operation(f"operator.{name}", getattr(operator, name), symbol=symbol)
    for name, symbol in {**BINARY, **COMPARE, **UNARY}.items()
} | {
    f"i{name.rstrip('_')}": Operation(
        f"operator.i{name.rstrip('_')}", getattr(operator, f"i{name.rstrip('_')}"), writes=True, symbol=symbol + "="
    )
    for name, symbol in BINARY.items()
}
