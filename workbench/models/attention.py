"""Attention: passes in which it is computed step by step ("eager"), whatever the model computes it with otherwise.

Fused attention (sdpa, flash) never makes the pattern of who attends to whom. A pass that looks at patterns is run with
eager attention, in its own thread; other threads run the same model as it is meanwhile, and afterwards nothing of it
has changed. Masks are made by the same setting as attention is computed with, so both always agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock
from typing import Any

from torch import nn

PATTERN = "attention_interface.nn_functional_dropout"
"""The call inside an attention module's forward that the finished pattern passes through."""

_SETTING = "_attn_implementation"
_eager: ContextVar[frozenset[int]] = ContextVar("configurations that say eager", default=frozenset())
_lock = Lock()
_open: dict[int, list[Any]] = {}  # id of a configuration → it, its own class, how many passes are open


@contextmanager
def eager(module: nn.Module) -> Iterator[None]:
    """Meanwhile, in this thread, the model's configurations say that attention is eager."""
    chosen = [each for each in _configurations(module) if getattr(each, _SETTING, None) not in ("eager", None)]
    if not chosen:
        yield
        return
    for each in chosen:
        _answer(each)
    token = _eager.set(_eager.get() | {id(each) for each in chosen})
    try:
        yield
    finally:
        _eager.reset(token)
        for each in chosen:
            _restore(each)


def can_be_eager(module: nn.Module) -> bool:
    """Whether a model looks at its setting in each pass; some of transformers' choose once, when they are made."""
    said = getattr(module, "_can_set_attn_implementation", None)
    return bool(said()) if callable(said) else True


def _configurations(module: nn.Module) -> list[Any]:
    found: dict[int, Any] = {}
    for each in module.modules():
        config = each.__dict__.get("config")
        for one in (config, *_below(config)):
            if hasattr(type(one), _SETTING):
                found[id(one)] = one
    return [*found.values()]


def _below(config: Any) -> list[Any]:
    return [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]


def _answer(config: Any) -> None:
    with _lock:
        kept = _open.setdefault(id(config), [config, type(config), 0])
        if not kept[2]:
            object.__setattr__(config, "__class__", _answering(kept[1]))  # some check all that is set on them
        kept[2] += 1


def _restore(config: Any) -> None:
    with _lock:
        kept = _open[id(config)]
        kept[2] -= 1
        if not kept[2]:
            object.__setattr__(config, "__class__", kept[1])
            del _open[id(config)]


@cache
def _answering(kind: type) -> type:
    """A configuration's class whose setting is each thread's own."""
    setting: Any = getattr(kind, _SETTING)

    def get(self: Any) -> Any:
        return "eager" if id(self) in _eager.get() else setting.fget(self)

    def put(self: Any, value: Any) -> None:
        setting.fset(self, value)

    names = {_SETTING: property(get, put), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), names)
