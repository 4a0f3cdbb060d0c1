"""Fakes: a trace's own statements on the scan's fake values, so that a shape or an error is known before the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workbench.engine.plan import Plan, sites_of
from workbench.engine.scan import Scan
from workbench.engine.values import map_tensors
from workbench.graph import operations as ops
from workbench.graph.node import Argument, Node, Ref
from workbench.site import Site


def evaluate(scan: Scan, nodes: list[Node], id: int, bindings: Mapping[str, Any], known: dict[int, Any]) -> Any:
    """A node's fake value, from the scan's site values; `known` keeps what was worked out before.

    Raises whatever the node itself raises on values of these shapes.
    """
    wanted = _needed(nodes, id, known)
    with scan.faking():
        for each in wanted:
            node = nodes[each]
            known[each] = _fake_node(scan, node, bindings, known)
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


def _fake_node(scan: Scan, node: Node, bindings: Mapping[str, Any], known: Mapping[int, Any]) -> Any:
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
        site = node.args[0]
        if site not in scan.values:
            raise KeyError(f"{site} is not reached")
        return map_tensors(Tensor.clone, scan.values[site])
    if op in (ops.SWAP, ops.STOP, ops.LOG):
        return None
    args = [resolve(arg) for arg in node.args]
    kwargs = {name: resolve(value) for name, value in node.kwargs.items()}
    if op is ops.MODULE:
        return scan.module(args[0])(*args[1:], **kwargs)
    return op.fn(*args, **kwargs)


def late_writes(scan: Scan, plan: Plan) -> list[tuple[Node, Site, list[Site]]]:
    """Writes that need a site which the scan saw only after the one they write to: (node, written, needed)."""
    found = []
    for here in plan.sites.values():
        if here.site not in scan.order:
            continue
        for _, id in here.late:
            after = [site for site in sites_of(plan, id) if scan.order.get(site, -1) > scan.order[here.site]]
            if after:
                found.append((plan.graph.nodes[id], here.site, after))
    return found
