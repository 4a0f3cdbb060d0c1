"""Axes: which axis of a value is the batch and which are positions, known from two scans at different sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from workbench.engine.scan import Scan
from workbench.engine.values import Where, placed
from workbench.site import Site


class Sizes(NamedTuple):
    """The batch's rows, the prompts' positions, and those of a decoder that answers them, of one scan."""

    batch: int
    length: int
    answer: int = 0


SMALL, LARGE = Sizes(3, 17, 7), Sizes(5, 30, 11)
"""Sizes of which no small multiple or sum is another's, so that each growing axis has one explanation."""


class Axes(NamedTuple):
    """What the axes of one tensor are.

    `batch` is the axis that holds the rows; with `merged`, each row's positions lie behind it in the same axis, as
    where a router looks at all tokens of all prompts. `positions` are the axes that hold a prompt's positions,
    `answers` those that hold the positions of a decoder that answers it.
    `mixed` are axes that grow with the input in another way, such as tokens sorted by expert. Each row is there
    `times` times, one after the other, as with beams.
    """

    batch: int | None
    positions: tuple[int, ...] = ()
    merged: bool = False
    mixed: tuple[int, ...] = ()
    times: int = 1
    answers: tuple[int, ...] = ()


class Known(NamedTuple):
    """The axes of each tensor of a value, by its place in it; `times` holds for tensors that are not in it too.

    `trim` cuts a part further, where only its numbers say how long it is.
    """

    axes: Mapping[Where, Axes]
    times: int = 1
    trim: Callable[[Tensor, Any], Tensor] | None = None


ScanAt = Callable[[Sizes, Site], Scan]
"""A scan at these sizes that looks at this site too."""


class Layout:
    """The axes of every value in one kind of pass; scans are made when the first is asked for.

    `scan` makes one at some sizes, `given` are axes that no scan can tell, `times` is how often each row is there;
    `known` is where what was found is kept for the next pass of this kind.
    """

    def __init__(
        self,
        scan: ScanAt,
        sizes: tuple[Sizes, Sizes] = (SMALL, LARGE),
        given: Mapping[Site, Known] | None = None,
        times: int = 1,
        known: dict[Site, Known] | None = None,
    ) -> None:
        self._scan, self._sizes, self._times = scan, sizes, times
        self._known = dict(given or {}) if known is None else known

    def of(self, site: Site) -> Known:
        """The axes of the tensors at a site; what the scans did not see is not in it."""
        found = self._known.get(site)
        if found is None:
            found = self._known[site] = self._compare(site)
        return found

    def _compare(self, site: Site) -> Known:
        small, large = (dict(placed(self._scan(size, site).values.get(site))) for size in self._sizes)
        axes = {
            where: compared(small[where], large[where], *self._sizes)._replace(times=self._times)
            for where in small
            if where in large and small[where].ndim == large[where].ndim
        }
        return Known(axes, self._times)


def compared(small: Tensor, large: Tensor, at: Sizes, then: Sizes) -> Axes:
    """What the axes of a tensor are that has these shapes at these sizes."""
    batch: int | None = None
    merged = False
    positions: list[int] = []
    mixed: list[int] = []
    answers: list[int] = []
    for axis, (a, b) in enumerate(zip(small.shape, large.shape, strict=True)):
        if a == b:
            continue
        if (a, b) == (at.length, then.length):
            positions.append(axis)
        elif (a, b) == (at.answer, then.answer):
            answers.append(axis)
        elif batch is None and (a, b) in ((at.batch, then.batch), (at.batch * at.length, then.batch * then.length)):
            batch, merged = axis, a != at.batch
        else:
            mixed.append(axis)
    return Axes(batch, tuple(positions), merged, tuple(mixed), answers=tuple(answers))
