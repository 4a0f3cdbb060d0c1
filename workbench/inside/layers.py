"""Layers: what stands around the function that does the work: a binding, a partial, decorators, a library's wrapper."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn

from workbench.errors import SourceError
from workbench.inside.recompiled import recompiled, updated
from workbench.inside.scope import Scope
from workbench.inside.written import written


def innermost(target: Any, what: str) -> tuple[FunctionType, tuple[Any, ...]]:
    """The function that does a callable's work, and the first of its arguments as far as the layers give them.

    Raises:
        SourceError: it is no Python function.
    """
    given: tuple[Any, ...] = ()
    while True:
        if isinstance(target, MethodType):
            target, given = target.__func__, (target.__self__, *given)
        elif isinstance(target, functools.partial):
            wrapped, _ = _wrapped_by_partial(target)
            if wrapped is not None:
                target = wrapped
            else:
                target, given = target.func, (*target.args, *given)
        elif isinstance(target, FunctionType):
            wrapped = _wrapped(target)
            if wrapped is None:
                return target, given
            target = wrapped
        else:
            target = _called(target, what)


def around(target: Any, what: str, make: Callable[[FunctionType], FunctionType]) -> Any:
    """The same callable with `make` of its innermost function in that one's place; `target` itself stays as it is."""
    if isinstance(target, MethodType):
        return MethodType(around(target.__func__, what, make), target.__self__)
    if isinstance(target, functools.partial):
        wrapped, calls = _wrapped_by_partial(target)
        if wrapped is None:
            function = around(target.func, what, make)
        else:
            below = around(wrapped, what, make)
            function = recompiled(target.func, calls, lambda name, old, /, *args, **kwargs: below(*args, **kwargs))
        new: Any = functools.partial(function, *target.args, **target.keywords)
        new.__dict__.update(target.__dict__)
        return new
    if isinstance(target, FunctionType):
        wrapped = _wrapped(target)
        if wrapped is None:
            return make(target)
        below = around(wrapped, what, make)
        cells = [CellType(below) if _holds(cell, wrapped) else cell for cell in target.__closure__ or ()]
        wrapper = updated(FunctionType(target.__code__, target.__globals__, closure=tuple(cells)), target)
        wrapper.__dict__["__wrapped__"] = below
        return wrapper
    return around(_called(target, what), what, make)


def _called(target: Any, what: str) -> Any:
    """What runs when an object is called that is no function."""
    kind = type(target).__name__
    if isinstance(target, nn.Module):
        raise SourceError(f"{what} cannot be opened here: it is a module ({kind}), which has a source of its own")
    if isinstance(target, type):
        raise SourceError(f"{what} cannot be opened: it is a class; read its output instead")
    method = getattr(type(target), "__call__", None)  # noqa: B004
    if not isinstance(method, FunctionType):
        raise SourceError(
            f"{what} cannot be opened: it is a {kind}, which has no Python source; read its output instead"
        )
    return MethodType(method, target)


def _wrapped(function: FunctionType) -> Any:
    """What a decorated function wraps; None where it does the work itself.

    A wrapper that only hands the wrapped function to something else, which chooses among several, is not passed by.
    """
    wrapped = function.__dict__.get("__wrapped__")
    if wrapped is None or not any(_holds(cell, wrapped) for cell in function.__closure__ or ()):
        return None
    try:
        return wrapped if _calls_of(wrapped, function, ()) else None
    except SourceError:
        return wrapped  # a compiled wrapper: there is nothing else to open


def _wrapped_by_partial(target: functools.partial[Any]) -> tuple[Any, dict[int, str]]:
    """What accelerate's wrapper runs, a forward that it has put aside on the module, and where it calls it."""
    wrapped = target.__dict__.get("__wrapped__")
    if wrapped is None or not isinstance(target.func, FunctionType):
        return None, {}
    calls = _calls_of(wrapped, target.func, target.args)
    return (wrapped if calls else None), calls


def _calls_of(wrapped: Any, function: FunctionType, given: tuple[Any, ...]) -> dict[int, str]:
    """Where a function calls what it wraps: places in its tree."""
    calls = written(function.__code__, function.__name__).places
    scope = Scope(function, given, {})
    return {
        place: "wrapped"
        for place, node in calls
        if isinstance(node.func, (ast.Name, ast.Attribute)) and scope.value(node.func) == wrapped
    }


def _holds(cell: CellType, wrapped: Any) -> bool:
    try:
        return cell.cell_contents is wrapped
    except ValueError:  # an empty cell
        return False
