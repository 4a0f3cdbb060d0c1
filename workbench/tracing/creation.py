"""Creation: `torch.randn(...)` in a trace makes a traced tensor: it is made where and when the graph runs."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from importlib import import_module
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from workbench.graph import operations as ops
from workbench.proxy import Proxy
from workbench.recorder import CURRENT

FACTORIES = frozenset(getattr(torch, name) for name in ops.FACTORIES)


class Creation(TorchFunctionMode):
    """Records factory calls that the user's own code makes; a library's pass, since it needs its tensors now."""

    def __init__(self) -> None:
        self._asked: dict[int, bool | None] = {}  # a `torch.no_grad()` that is entered → what was asked around it
        if _EINOPS not in sys.modules and "einops._backends" in sys.modules:
            import_module(_EINOPS)

    def __enter__(self) -> Self:
        try:
            _push(self)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave, if it was entered, wherever it stands: coroutines that take turns do not leave in order."""
        if not any(_at(index) is self for index in range(_count())):
            return
        above: list[Any] = []
        while (top := _pop()) is not self:
            above.append(top)
        for mode in reversed(above):
            _push(mode)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FACTORIES:
            recorder = CURRENT.get()
            if recorder is not None and not _library(sys._getframe(1).f_code.co_filename):
                return recorder.add(ops.of(func), args, kwargs)
        if func is _set_grad_enabled:
            func(*args)  # first of all: should an interrupt come, it is set
            return self._gradients_set(args[0], sys._getframe(1))
        if func in _INDEXING:  # a real tensor indexed by a traced value, or given one
            recorder = CURRENT.get()
            if recorder is not None and any(map(_traced, args[1:])):
                return recorder.add(_INDEXING[func], args, kwargs)
        return func(*args, **(kwargs or {}))

    def _gradients_set(self, on: bool, frame: FrameType | None) -> None:
        """`torch.enable_grad()` where they are enabled already changes nothing that can be seen: note that it is asked
        for, since a trace runs without."""
        recorder = CURRENT.get()
        if recorder is None or frame is None:
            return
        while frame.f_back is not None and frame.f_back.f_code.co_filename == _GRAD_MODE:
            frame = frame.f_back
        context = frame.f_locals.get("self")
        if frame.f_code.co_filename != _GRAD_MODE or context is None:
            return
        if frame.f_code.co_name in ("__init__", "__enter__"):
            entered_before = frame.f_code.co_name == "__enter__" and isinstance(context, torch.set_grad_enabled)
            if not entered_before or id(context) not in self._asked:
                self._asked[id(context)] = recorder.asked_grad
            recorder.asked_grad = on
        else:
            recorder.asked_grad = self._asked.pop(id(context), None)


_push: Any = torch._C._push_on_torch_function_stack
_pop: Any = torch._C._pop_torch_function_stack
_at: Any = torch._C._get_function_stack_at
_count: Any = torch._C._len_torch_function_stack
_EINOPS = "workbench.tracing.einops_backend"
_set_grad_enabled = torch._C._set_grad_enabled
_GRAD_MODE = torch.autograd.grad_mode.__file__
_INDEXING = {Tensor.__getitem__: ops.GETITEM, Tensor.__setitem__: ops.SETITEM}


def _traced(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_traced, value))
    if isinstance(value, slice):
        return any(map(_traced, (value.start, value.stop, value.step)))
    return issubclass(type(value), Proxy) and value._recording()


@cache
def _library(file: str) -> bool:
    """Whether a file is installed rather than the user's own."""
    return file.startswith(_INSTALLED)


_INSTALLED = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    | {os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep}
)
