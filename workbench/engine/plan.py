"""Plan: from a graph to what runs when which site is reached.

Every node gets a mask with one bit for each site it depends on, through its inputs or through an earlier edit of
them. A node that depends on one site runs when that site is reached; one that depends on several (a join) runs at
the last of them, whichever that is in the run; one that depends on none runs first. Within one moment nodes run in
the order in which they were written. So any order of access is fine, and nothing has to be known of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.node import Node, Ref
from workbench.site import Site


@dataclass(slots=True)
class SitePlan:
    """What to do when one site is reached."""

    site: Site
    bit: int
    reads: list[tuple[int, int]] = field(default_factory=list)
    """(invoke, node) that take the site's value."""
    own: list[int] = field(default_factory=list)
    """Nodes that depend on this site alone, in written order."""
    joins: list[int] = field(default_factory=list)
    """Indices into `Plan.joins` of those that also wait for this site."""
    edited: bool = False
    """Something writes into the value, so it is copied on arrival: an edit reaches the model and nothing else."""
    swapped: bool = False
    """Something replaces the value."""
    late: list[tuple[int, int]] = field(default_factory=list)
    """(join, node) of writes here that need other sites: they must be ready when this site is reached."""


@dataclass(slots=True)
class Join:
    """Nodes that wait for the same several sites."""

    waits: int
    nodes: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """A graph sorted by moment. It belongs to the graph, holds no run state, and is never changed."""

    graph: Graph
    sites: dict[Site, SitePlan]
    first: list[int]
    """Nodes that need no site: they run before the forward pass."""
    joins: list[Join]
    masks: list[int]
    uses: list[int]
    """How many readers each value has; a kept value has one more, so that it is never dropped."""


def plan(graph: Graph) -> Plan:
    """The graph's plan, made once and kept with it."""
    if not graph._plan:
        graph._plan.append(_make(graph))
    return graph._plan[0]


def _make(graph: Graph) -> Plan:
    nodes = graph.nodes
    count = len(nodes)
    sites: dict[Site, SitePlan] = {}
    masks = [0] * count
    uses = [0] * count
    origin = list(range(count))  # the node whose memory a value may share
    written: dict[int, int] = {}  # origin → mask of the edits so far
    placed: dict[int, list[SitePlan]] = {}  # origin → sites that were given this value
    first: list[int] = []
    joins: dict[int, int] = {}
    join_list: list[Join] = []
    late: list[tuple[SitePlan, int]] = []

    def site_plan(site: Site) -> SitePlan:
        found = sites.get(site)
        if found is None:
            found = sites[site] = SitePlan(site, 1 << len(sites))
        return found

    for id, node in enumerate(nodes):
        op = node.op
        mask = 0
        for ref in node.refs:
            uses[ref] += 1
            mask |= masks[ref]
            if written:
                mask |= written.get(origin[ref], 0)
        if op is ops.SITE:
            here = site_plan(node.args[0])
            here.reads.append((node.invoke, id))
            masks[id] = here.bit
            continue
        if op is ops.SWAP:
            here = site_plan(node.args[0])
            here.swapped = True
            mask |= here.bit
            late.append((here, id))
            if node.refs:
                placed.setdefault(origin[node.refs[0]], []).append(here)
        else:
            target = write_target(node)
            if target is not None:
                root = origin[target]
                written[root] = written.get(root, 0) | mask
                if nodes[root].op is ops.SITE:
                    here = sites[nodes[root].args[0]]
                    here.edited = True
                    late.append((here, id))
                for here in placed.get(root, ()):
                    late.append((here, id))
            if op.views and node.refs:
                origin[id] = origin[target if target is not None else node.refs[0]]
        masks[id] = mask
        if mask == 0:
            first.append(id)
        elif mask & (mask - 1):
            index = joins.get(mask)
            if index is None:
                index = joins[mask] = len(join_list)
                join_list.append(Join(mask.bit_count()))
            join_list[index].nodes.append(id)

    by_bit = {here.bit: here for here in sites.values()}
    for id, node in enumerate(nodes):
        here = by_bit.get(masks[id])
        if here is not None and node.op is not ops.SITE:
            here.own.append(id)
    for mask, index in joins.items():
        for here in sites.values():
            if mask & here.bit:
                here.joins.append(index)
    for here, id in late:
        if masks[id] != here.bit:
            here.late.append((joins[masks[id]], id))
    for id in graph.saved:
        uses[id] += 1
    return Plan(graph, sites, first, join_list, masks, uses)


def write_target(node: Node) -> int | None:
    """The node whose value this one changes, if it changes any."""
    out = node.kwargs.get("out")
    if type(out) is Ref:
        return out.id
    if (node.op.writes or node.kwargs.get("inplace") is True) and node.args and type(node.args[0]) is Ref:
        return node.args[0].id
    return None


def sites_of(plan: Plan, id: int) -> list[Site]:
    """The sites a node waits for."""
    mask = plan.masks[id]
    return [here.site for here in plan.sites.values() if mask & here.bit]
