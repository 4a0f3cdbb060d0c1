"""Forwards: another forward for a module, for one thread, while a pass runs; afterwards the module is as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_lock = RLock()
_placed: WeakKeyDictionary[nn.Module, _Place] = WeakKeyDictionary()


class _Place:
    """What stands in a module's `forward`: each thread's own, else the module's."""

    def __init__(self, module: nn.Module) -> None:
        self.had = module.__dict__.get("forward")
        self.original = module.forward
        self.by_thread: dict[int, list[Callable[..., Any]]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = self.by_thread.get(get_ident())
        return (own[-1] if own else self.original)(*args, **kwargs)


def original_forward(module: nn.Module) -> Callable[..., Any]:
    """The module's forward, whatever other threads have put in its place."""
    with _lock:
        place = _placed.get(module)
        return module.forward if place is None else place.original


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Meanwhile, in this thread, the module runs `forward`."""
    thread = get_ident()
    with _lock:
        place = _placed.get(module)
        if place is None:
            place = _placed[module] = _Place(module)
            module.__dict__["forward"] = place
        place.by_thread.setdefault(thread, []).append(forward)
    try:
        yield
    finally:
        with _lock:
            stack = place.by_thread[thread]
            stack.remove(forward)
            if not stack:
                del place.by_thread[thread]
            if not place.by_thread:
                del _placed[module]
                if place.had is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = place.had
