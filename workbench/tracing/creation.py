"""Creation: `torch.randn(...)` in a trace makes a traced tensor: it is made where and when the graph runs."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from importlib import import_module
from typing import Any

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
        super().__init__()
        if "einops._backends" in sys.modules:
            import_module("workbench.tracing.einops_backend")

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FACTORIES:
            recorder = CURRENT.get()
            if recorder is not None and not _library(sys._getframe(1).f_code.co_filename):
                return recorder.add(ops.of(func), args, kwargs)
        if func in _INDEXING:  # a real tensor indexed by a traced value, or given one
            recorder = CURRENT.get()
            if recorder is not None and any(map(_traced, args[1:])):
                return recorder.add(_INDEXING[func], args, kwargs)
        return func(*args, **(kwargs or {}))


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
