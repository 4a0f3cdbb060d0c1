"""An interrupt at a chosen moment: after any instruction at which Python looks whether one has come."""

from __future__ import annotations

import contextlib
import dis
import os
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any

import workbench

OURS = os.path.dirname(workbench.__file__)


class Everywhere:
    """Calls a function, and interrupts it at the `at`-th moment inside our own code; `met` is how many there were.

    `place` says where the interrupt came, or is None where the function ended before.
    """

    def __init__(self, function: Callable[[], Any], at: int) -> None:
        self.at = at
        self.met = 0
        self.place: str | None = None
        self._after: FrameType | None = None
        sys.settrace(self._called)
        try:
            function()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
            self._after = None

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        file, by = frame.f_code.co_filename, frame.f_back
        called_by_us = by is not None and by.f_code.co_filename.startswith(OURS)
        if not (file.startswith(OURS) or (called_by_us and file == contextlib.__file__)):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines, self._after = True, False, None
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, arg: Any) -> Any:
        before, self._after = self._after, None
        if event == "opcode":
            if before is frame:
                self.met += 1
                if self.met == self.at:
                    self.place = f"{os.path.relpath(frame.f_code.co_filename, OURS)}, line {frame.f_lineno}"
                    sys.settrace(None)
                    raise KeyboardInterrupt
            if frame.f_lasti in _looking(frame.f_code):
                self._after = frame
        return self._stepped


@cache
def _looking(code: CodeType) -> frozenset[int]:
    """Where in its code Python looks whether an interrupt has come."""
    names = ("RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD")
    return frozenset(each.offset for each in dis.get_instructions(code) if each.opname in names)
