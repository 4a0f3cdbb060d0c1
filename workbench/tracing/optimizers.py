"""Optimizers: one made inside a session on its parameters is made, and steps, when the session runs."""

from __future__ import annotations

import inspect
from functools import cache
from threading import RLock
from typing import Any

import torch
from torch.optim import Optimizer

from workbench.errors import DeferredError
from workbench.graph import operations as ops
from workbench.proxy import Proxy
from workbench.recorder import CURRENT, Recorder

_lock = RLock()
_open = 0
_original: Any = None


class RecordedOptimizers:
    """Meanwhile, in a thread that records, making an optimizer records it. Undone with the last session's block."""

    def __init__(self) -> None:
        self._entered = False

    def enter(self) -> None:
        """From here on."""
        global _open, _original
        with _lock:
            if not _open:
                _original = Optimizer.__init__
                Optimizer.__init__ = _init
            _open += 1
            self._entered = True

    def close(self) -> None:
        """Until here; closing again does nothing."""
        global _open
        with _lock:
            if not self._entered:
                return
            self._entered = False
            _open -= 1
            if not _open:
                Optimizer.__init__ = _original


def _init(self: Any, params: Any, defaults: dict[str, Any]) -> None:
    recorder = CURRENT.get()
    if recorder is None:
        _original(self, params, defaults)
        return
    kind = type(self)
    groups = [dict(each) if isinstance(each, dict) else each for each in params]
    for group in groups:
        if isinstance(group, dict):
            group["params"] = [group["params"]] if isinstance(group["params"], (Proxy, torch.Tensor)) else list(
                group["params"]
            )  # fmt: skip
    taken = inspect.signature(kind).parameters
    made = recorder.add(ops.OPTIMIZER, (kind, groups, {k: v for k, v in defaults.items() if k in taken}))
    # The constructor goes on behind this call: it finishes over a stand-in, which is then never used.
    _original(self, [torch.nn.Parameter(torch.zeros(1, 1))], defaults)
    self.__dict__["_recorded"] = made
    self.__class__ = _recorded(kind)


@cache
def _recorded(kind: type[Optimizer]) -> type[Optimizer]:
    """The optimizer's class with its methods recorded."""

    def method(name: str) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            proxy: Proxy = self.__dict__["_recorded"]
            if proxy._recorder.finished:
                raise DeferredError(
                    f"this {kind.__name__} was made in a session, where it took its steps; save what you need of it "
                    "inside the session, or make a new one here over the saved parameters"
                )
            return getattr(proxy, name)(*args, **kwargs)

        return call

    def ref_in(self: Any, recorder: Recorder) -> Any:
        return self.__dict__["_recorded"]._ref_in(recorder)

    names = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")
    methods: dict[str, Any] = {name: method(name) for name in names}
    return type(kind.__name__, (kind,), {**methods, "_ref_in": ref_in, "__module__": kind.__module__})
