"""Instrument: a module's forward with some of the calls inside it passing through a hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from torch import nn

from workbench.errors import SourceError
from workbench.inside.forwards import forward_of
from workbench.inside.layers import around
from workbench.inside.listing import listing
from workbench.inside.recompiled import recompiled

Hook = Callable[[str, str, Any], Any]
"""`hook(name, "input", (args, kwargs))` and `hook(name, "output", value)`: the value to go on with."""


def instrumented(module: nn.Module, wanted: Iterable[str], hook: Hook) -> Callable[..., Any]:
    """The module's forward, bound, with the wanted calls passing through `hook`.

    A dotted name is of a call inside a called function, `attention_interface.softmax`; which function that is, the
    run tells. The module itself is not changed: see `forwards.replaced`.

    Raises:
        SourceError: the forward cannot be opened, or makes no call of that name.
    """
    return with_hooks(forward_of(module), tuple(wanted), hook, "", f"{type(module).__name__}.forward")


def with_hooks(target: Any, wanted: Iterable[str], hook: Hook, prefix: str, what: str) -> Any:
    """A callable, with the wanted calls of its innermost function passing through `hook`."""
    below: dict[str, list[str]] = {}
    own: dict[str, str] = {}
    for name in wanted:
        first, _, rest = name.partition(".")
        below.setdefault(first, []).extend([rest] if rest else [])
        if not rest:
            own[first] = prefix + first

    def call(name: str, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        full = own.get(name)
        if full is None:
            return opened(name, target)(*args, **kwargs)
        args, kwargs = hook(full, "input", (args, kwargs))
        if below[name]:
            target = opened(name, target)
        return hook(full, "output", target(*args, **kwargs))

    made: dict[tuple[str, int], tuple[Any, Any]] = {}  # in a loop the same function is opened once

    def opened(name: str, target: Any) -> Any:
        if not isinstance(target, FunctionType):  # a method is another object each time
            return with_hooks(target, below[name], hook, f"{prefix}{name}.", f"{what}, {name}")
        kept = made.get((name, id(target)))
        if kept is None:
            new = with_hooks(target, below[name], hook, f"{prefix}{name}.", f"{what}, {name}")
            kept = made[name, id(target)] = target, new
        return kept[1]

    def make(function: FunctionType) -> FunctionType:
        found = listing(function, what)
        unknown = below.keys() - found.nodes.keys()
        if unknown:
            raise SourceError(
                f"{what} runs {function.__name__} here, which makes no call named {', '.join(sorted(unknown))}; "
                f"it has {', '.join(found.nodes) or 'none'}"
            )
        return recompiled(function, found.places(below), call)

    return around(target, what, make)
