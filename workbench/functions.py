"""Functions of a trace: any function at all, and Python's own types, called when the run has the values."""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Hashable
from typing import Any

from workbench.graph.operations import Operation, is_registered, of, register
from workbench.recorder import require


def apply(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function on traced values, in the run, and give its result as a traced value.

    Args:
        fn: any function; it gets the values themselves. A value it changes in place is changed for the model too when
            the value is a part of it.
        args: for the function, as are `kwargs`.

    Raises:
        NotTracingError: outside a trace.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Identity())
        >>> with model.trace(torch.tensor([1.0, 2.0])):
        ...     total = wb.apply(lambda tensor: sum(tensor.tolist()), model.output).save()
        >>> total
        3.0
    """
    recorder = require("apply(...)")
    if not callable(fn):
        raise TypeError(f"apply(fn, ...) takes a function first; this is a {builtins.type(fn).__name__}")
    return recorder.add(of(fn) if _known(fn) else _given(fn), args, kwargs)


def _known(fn: Callable[..., Any]) -> Any:
    """Whether a function is torch's, Python's own or ours, whose name says what it does to its arguments."""
    own = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
    if isinstance(fn, own) or (getattr(fn, "__module__", None) or "").partition(".")[0] == "torch":
        return True
    return isinstance(fn, Hashable) and is_registered(fn)


def _given(fn: Callable[..., Any]) -> Operation:
    """The user's function. It may write into its first argument, so what it gives may share memory with it."""
    return Operation(getattr(fn, "__name__", builtins.type(fn).__name__), fn, views=True, shared=False)


def _constructor(kind: builtins.type) -> Callable[..., Any]:
    operation = register(Operation(kind.__name__, kind))

    def make(*args: Any, **kwargs: Any) -> Any:
        return require(f"{kind.__name__}(...)").add(operation, args, kwargs)

    make.__name__ = make.__qualname__ = kind.__name__
    make.__doc__ = f"A traced `{kind.__name__}`: Python's own, made when the run has the values."
    return make


bool = _constructor(builtins.bool)
bytes = _constructor(builtins.bytes)
int = _constructor(builtins.int)
float = _constructor(builtins.float)
str = _constructor(builtins.str)
complex = _constructor(builtins.complex)
bytearray = _constructor(builtins.bytearray)
tuple = _constructor(builtins.tuple)
list = _constructor(builtins.list)
set = _constructor(builtins.set)
dict = _constructor(builtins.dict)
