"""Steps: which steps of a generation a block is run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from workbench.errors import InputError
from workbench.recorder import Recorder


class StepsOf:
    """`tracer.iter`: steps are chosen by index, `iter[2]`, or by slice, `iter[1:]`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getitem__(self, steps: int | slice) -> Steps:
        if not isinstance(steps, slice):
            steps = slice(steps, steps + 1 if isinstance(steps, int) else steps)
        numbers = [steps.start, steps.stop, steps.step]
        if any(each is not None and (not isinstance(each, int) or each < 0) for each in numbers) or numbers[-1] == 0:
            raise InputError(
                "steps are chosen by a number or a slice of numbers from 0, as iter[2] or iter[1:3]; how many there "
                "will be is not known before, so none is counted from the end"
            )
        return Steps(self._recorder, steps)


class Steps:
    """A block of steps, `with tracer.iter[1:3] as step:`, recorded once; or, by `for step in tracer.iter[1:3]:`, the
    same written down for each step."""

    def __init__(self, recorder: Recorder, steps: slice) -> None:
        self._recorder = recorder
        self._start, self._stop, self._stride = steps.start or 0, steps.stop, steps.step or 1
        self._context: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Any:
        self._context = self._recorder.in_steps(self._start, self._stop, self._stride)
        return self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._context is not None
        self._context.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[int]:
        if self._stop is None:
            raise InputError(
                "how many steps there will be is not known before the run: write `with tracer.iter[:]:`, which is "
                "run in each of them, or give an end, iter[:3]"
            )
        for step in range(self._start, self._stop, self._stride):
            with self._recorder.at_step(step):
                yield step
