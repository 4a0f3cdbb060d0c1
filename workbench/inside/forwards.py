"""Forwards: another forward for a module, for one thread, while a pass runs; afterwards the module is as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from workbench.errors import SourceError

_lock = RLock()
_placed: WeakKeyDictionary[nn.Module, _Place] = WeakKeyDictionary()


class _Place:
    """What stands in a module's `forward`: each thread's own, else the module's."""

    def __init__(self, module: nn.Module) -> None:
        self.had = module.__dict__.get("forward")
        self.original = module.forward
        self.by_thread: dict[int, list[Callable[..., Any]]] = {}
        # Generation reads a forward's signature to know which inputs it takes; `inspect` follows this name to it.
        self.__wrapped__ = self.original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = self.by_thread.get(get_ident())
        return (own[-1] if own else self.original)(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.original, memo)  # a copy of the module runs its own forward, and no pass but its own


def original_forward(module: nn.Module) -> Callable[..., Any]:
    """The module's forward, whatever other threads have put in its place."""
    with _lock:
        place = _placed.get(module)
        return module.forward if place is None else place.original


def forward_of(module: nn.Module) -> Callable[..., Any]:
    """The module's forward, where it runs as Python.

    Raises:
        SourceError: it is scripted or compiled.
    """
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(f"{kind}.forward cannot be opened: it is scripted; load the model as plain Python")
    if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
        raise SourceError(
            f"{kind}.forward cannot be opened: it is compiled, and no longer runs as Python; use the model as it was "
            "before torch.compile"
        )
    return original_forward(module)


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Meanwhile, in this thread, the module runs `forward`."""
    try:
        place(module, forward)
        yield
    finally:
        try:
            take_away(module, forward)
        except BaseException:  # an interrupt: once more
            take_away(module, forward)
            raise


def place(module: nn.Module, forward: Callable[..., Any]) -> None:
    """From here on, in this thread, the module runs `forward`."""
    with _lock:
        here = _placed.get(module)
        if here is None:
            here = _placed[module] = _Place(module)
        module.__dict__["forward"] = here
        here.by_thread.setdefault(get_ident(), []).append(forward)


def take_away(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Until here. What is not there, or there no more, is left as it is."""
    thread = get_ident()
    with _lock:
        here = _placed.get(module)
        if here is None:
            return
        stack = here.by_thread.get(thread, [])
        if forward in stack:
            stack.remove(forward)
        if not stack:
            here.by_thread.pop(thread, None)
        if here.by_thread:
            return
        if module.__dict__.get("forward") is not here:
            pass  # someone gave the module another forward meanwhile, which is theirs to keep
        elif here.had is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = here.had
        _placed.pop(module, None)
