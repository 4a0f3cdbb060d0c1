"""Scope: what every context offers that records: logging, and conditions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from workbench.errors import NotTracingError
from workbench.graph import operations as ops
from workbench.recorder import CURRENT, Recorder

SHOW_LOG: ContextVar[Callable[[str], None]] = ContextVar("workbench.show_log", default=print)
"""What shows a log line as it is written: `print`, unless a panel that shows its own runs' lines has taken over."""


class Scope:
    """A context that is being recorded."""

    _recorder: Recorder

    def _open(self, what: str) -> Recorder:
        """The recorder, while this context is open."""
        recorder = self._recorder
        if recorder.finished or CURRENT.get() is not recorder:
            raise NotTracingError(f"{what} only means something inside its own `with` block, which is not open here")
        return recorder

    def log(self, *values: Any) -> None:
        """Print values, traced or not, at the moment of the run when all of them exist."""
        self._open("log").add(ops.LOG, values)

    def cond(self, condition: Any) -> AbstractContextManager[None]:
        """A block that runs only if the condition, traced or not, is true; blocks can stand in one another.

        What is read from it when it was skipped has no value, and says so.

        Example:
            >>> import torch, workbench as wb
            >>> model = wb.NNsight(torch.nn.Identity())
            >>> with model.trace(torch.tensor([3.0])) as tracer:
            ...     with tracer.cond(model.output.sum() > 2):
            ...         tracer.log("large")
            large
        """
        return self._open("cond").guarded(condition)
