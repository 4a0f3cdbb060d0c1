"""Frame: one run of one block, which says what is to be done when one of its sites is reached."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workbench.engine.plan import BlockPlan, GradSite, SitePlan, sites_of
from workbench.errors import OrderError
from workbench.graph.node import Node
from workbench.graph.source import Line, location
from workbench.site import Site

if TYPE_CHECKING:
    from workbench.engine.execution import Execution
    from workbench.engine.interleaver import Interleaver


class _Missing:
    """No value."""

    __slots__ = ()


MISSING: Any = _Missing()

Swapped = dict[int, tuple[Any, Node]]
"""What is to be put in a place: invoke → replacement, and the node that gave it."""


class Stopped(BaseException):
    """Ends a forward pass early; never seen by the user."""


class Frame:
    """One run of a block: which of its sites were met, what waits, what is to be put in place of a site's value.

    `around` is the pass it is a part of; None for a session's or loop's block.
    """

    def __init__(self, run: Execution, plan: BlockPlan, around: Interleaver | None = None) -> None:
        self.execution = run
        self.plan = plan
        self.around = around
        self.stopped: Line | None = None
        self.swapped: dict[Any, Swapped] = {}  # by site
        self._waits = [join.waits for join in plan.joins]
        self._reached = run.reached[plan.id]

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The pass's modules by path."""
        return self.around.modules if self.around is not None else {}

    def unseen(self) -> AbstractContextManager[None]:
        """Modules called meanwhile are not part of the pass."""
        return self.around.unseen() if self.around is not None else nullcontext()

    def run(self) -> None:
        """Run what needs no site: all of a session's or loop's block."""
        self.execution.execute_all(self.plan.first, self)

    # ---- sites

    def arrive(self, here: SitePlan) -> list[int]:
        """A site is reached: the nodes that have waited for it, in written order."""
        self._reached.add(here.site)
        return self._ready(here) if here.joins else here.own

    def leave(self, here: SitePlan) -> None:
        """What is written to a site must be there before the model goes on."""
        for join, id in here.late:
            if self._waits[join]:
                raise self._too_late(here.site, id)
        if self.stopped is not None:
            raise Stopped

    def reach_gradient(self, here: SitePlan, grad: Tensor) -> Tensor | None:
        """A gradient exists; returns what is to flow on in its place, or None."""
        if here.edited:
            grad = grad.clone()
        run = self.execution
        for _, id in here.reads:
            if run.uses[id]:
                run.env[id] = grad
        run.execute_all(self.arrive(here), self)
        self.leave(here)
        assert isinstance(here.site, GradSite)
        swapped = self.swapped.pop((here.site.node, here.site.epoch), None)
        if swapped is not None:
            return swapped[0][0]
        return grad if here.edited else None

    def _ready(self, here: SitePlan) -> list[int]:
        waits = self._waits
        ready = [here.own] if here.own else []
        for index in here.joins:
            waits[index] -= 1
            if not waits[index]:
                ready.append(self.plan.joins[index].nodes)
        if len(ready) == 1:
            return ready[0]
        return sorted(id for nodes in ready for id in nodes)

    def _too_late(self, site: Site | GradSite, id: int) -> OrderError:
        plan = self.execution.plan
        missing = [str(other) for other in sites_of(plan, id) if other not in self._reached]
        return too_late(plan.graph.nodes[id], site, " and ".join(missing))


def too_late(node: Node, site: Site | GradSite, missing: str) -> OrderError:
    """The error for setting a site from what is computed after it."""
    line = location(node.line)
    return OrderError(
        f"{site} cannot be set from {missing}, which is computed after it in the same forward pass "
        f"({line.text}). Save {missing} in one trace and set {site} in a second one."
    ).at(line)
