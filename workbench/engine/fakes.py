"""Fakes: a trace's own statements on the scan's fake values, so that a shape or an error is known before the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from workbench.engine.plan import BlockPlan, Plan, sites_of
from workbench.engine.scan import Scan, quiet
from workbench.engine.values import map_tensors
from workbench.errors import DeferredError
from workbench.graph import operations as ops
from workbench.graph.modes import entered
from workbench.graph.node import Argument, Node, Ref
from workbench.site import Site

_NOTHING = frozenset(
    {
        ops.SWAP,
        ops.SKIP,
        ops.SWAP_GRAD,
        ops.STOP,
        ops.LOG,
        ops.BACKWARD,
        ops.GUARD,
        ops.TRACE,
        ops.LOOP,
        ops.STEPS,
        ops.EXIT,
    }
)
_RUN_ONLY = {ops.ITEM: "the item of a loop", ops.OPTIMIZER: "an optimizer"}


def evaluate(
    scan: Scan,
    nodes: list[Node],
    id: int,
    bindings: Mapping[str, Any],
    known: dict[int, Any],
    site_value: Callable[[Node], Any],
) -> Any:
    """A node's fake value; `known` keeps what was worked out before, `site_value` gives what a scan says of a site.

    Raises whatever the node itself raises on values of these shapes, and `DeferredError` for what only a run can tell.
    """
    wanted = _needed(nodes, id, known)
    with scan.faking(), quiet():
        for each in wanted:
            node = nodes[each]
            with entered(node.modes) if node.modes else nullcontext():
                known[each] = _fake_node(scan, node, bindings, known, site_value)
    return known[id]


def _needed(nodes: list[Node], id: int, known: Mapping[int, Any]) -> list[int]:
    seen: set[int] = set()
    stack = [id]
    while stack:
        each = stack.pop()
        if each in seen or each in known:
            continue
        seen.add(each)
        stack.extend(nodes[each].refs)
    return sorted(seen)


def _fake_node(
    scan: Scan, node: Node, bindings: Mapping[str, Any], known: Mapping[int, Any], site_value: Callable[[Node], Any]
) -> Any:
    def resolve(value: Any) -> Any:
        kind = type(value)
        if kind is Ref:
            return known[value.id]
        if kind is Argument:
            return scan.fake(bindings[value.name])
        if kind is tuple or kind is list:
            return kind([resolve(item) for item in value])
        if kind is slice:
            return slice(resolve(value.start), resolve(value.stop), resolve(value.step))
        if kind is dict:
            return {name: resolve(item) for name, item in value.items()}
        return value

    op = node.op
    if op is ops.SITE:
        return map_tensors(_own, site_value(node))
    if op in _NOTHING:
        return None
    if op in _RUN_ONLY:
        raise DeferredError(f"{_RUN_ONLY[op]} is known only in the run; save what you need and ask after it")
    args = [resolve(arg) for arg in node.args]
    kwargs = {name: resolve(value) for name, value in node.kwargs.items()}
    if op is ops.EITHER:
        return args[0]
    if op is ops.GRAD:
        return torch.empty_like(args[0])
    if op is ops.PARAMETER:
        return args[0].detach()
    if op is ops.MODULE or op is ops.HOOKED or op is ops.WEIGHT:
        if args[0] is not None:
            raise DeferredError("what another model's module gives is known only in the run")
        if op is ops.WEIGHT:
            return getattr(scan.module(args[1]), args[2])
        return scan.module(args[1])(*args[2:], **kwargs)
    return op.fn(*args, **kwargs)


def _own(tensor: Tensor) -> Tensor:
    """A fake of the scan that is open, whichever scan the given one is of."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def late_writes(scan: Scan, plan: Plan, block: BlockPlan) -> list[tuple[Node, Site, list[Site]]]:
    """Writes that need a site which the scan saw only after the one they write to: (node, written, needed)."""
    found = []
    for site, here in block.sites.items():
        if site not in scan.order:
            continue
        for _, id in here.late:
            after = [
                each
                for each in sites_of(plan, id)
                if isinstance(each, Site) and scan.order.get(each, -1) > scan.order[site]
            ]
            if after:
                found.append((plan.graph.nodes[id], site, after))
    return found
