"""Progress: bars for what takes more than a second; a session's makes way for what is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, Self

AFTER = 1.0
"""Seconds that a loop may take without a bar."""


class Bar:
    """A bar that is made once its work has taken a second: in a notebook, even a hidden one stays in the file."""

    def __init__(self, total: int | None, what: str, unit: str) -> None:
        self._settings = {"total": total, "desc": what, "unit": unit, "leave": False}
        self._began, self._done = monotonic(), 0
        self._bar: Any = None

    def update(self, count: int = 1) -> None:
        """So much more is done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif monotonic() - self._began > AFTER and self._done != self._settings["total"]:
            from tqdm.auto import tqdm

            self._bar = tqdm(initial=self._done, **self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Progress:
    """The bar of one run. The outermost loop has it; what is inside is a part of its items."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._loops = 0

    def follow(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, with the bar moving on behind each."""
        self._loops += 1
        try:
            yield from items if self._loops > 1 else self._shown(items)
        finally:
            self._loops -= 1

    def _shown(self, items: Iterable[Any]) -> Iterator[Any]:
        began, done = monotonic(), 0
        total = len(items) if hasattr(items, "__len__") else None  # pyright: ignore[reportArgumentType]
        try:
            for item in items:
                yield item
                done += 1
                if self._bar is not None:
                    self._bar.update()
                elif monotonic() - began > AFTER and done != total:
                    from tqdm.auto import tqdm  # here, since most loops are over sooner

                    self._bar = tqdm(total=total, initial=done, desc="session", leave=False)
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def aside(self, show: Callable[[str], None], line: str) -> None:
        """Show a line with the bar out of its way."""
        if self._bar is not None:
            self._bar.clear()
        show(line)
        if self._bar is not None:
            self._bar.refresh()
