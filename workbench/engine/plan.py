"""Plan: from a graph to what runs when which site is reached.

Every node gets a mask with one bit for each site of its block that it depends on, through its inputs or through an
earlier edit of them. A node that depends on one site runs when that site is reached; one that depends on several (a
join) runs at the last of them, whichever that is in the run; one that depends on none runs first. Within one moment
nodes run in the order in which they were written. So any order of access is fine, and nothing has to be known of the
model.

A gradient is a site too: it is reached while the backward call it belongs to runs. A block inside a block is one node
of the outer one; it holds what the inner nodes take from outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.node import Node, Ref
from workbench.graph.operations import Operation
from workbench.graph.source import location
from workbench.site import Port, Site


class GradSite(NamedTuple):
    """The gradient of a node's value in one backward call."""

    node: int
    backward: int
    epoch: int


END = Site("", "output", -1)
"""Where a generation is over: what reads the whole of a block of steps waits for it."""


@dataclass(slots=True)
class SitePlan:
    """What to do when one site is reached."""

    site: Site | GradSite
    bit: int
    reads: list[tuple[int, int]] = field(default_factory=list)
    """(invoke, node) that take the site's value."""
    own: list[int] = field(default_factory=list)
    """Nodes that depend on this site alone, in written order."""
    joins: list[int] = field(default_factory=list)
    """Indices into `BlockPlan.joins` of those that also wait for this site."""
    edited: bool = False
    """Something writes into the value, so it is copied on arrival: an edit reaches the model and nothing else."""
    swapped: bool = False
    """Something replaces the value."""
    skipped: bool = False
    """It is the input of a module that may be left out."""
    graded: bool = False
    """A gradient of the value is asked for, so it must be one that has gradients."""
    late: list[tuple[int, int]] = field(default_factory=list)
    """(join, node) of writes here that need other sites: they must be ready when this site is reached."""


Calls = dict[tuple[int, int], SitePlan]
"""A block's sites at one port of one module, by step and call."""


@dataclass(slots=True)
class Join:
    """Nodes that wait for the same several sites."""

    waits: int
    nodes: list[int] = field(default_factory=list)


@dataclass(slots=True)
class BlockPlan:
    """One block's nodes, sorted by moment."""

    id: int
    kind: str
    parent: int | None = None
    first: list[int] = field(default_factory=list)
    """Nodes that need no site: they run before the forward pass, or are all of a session or loop."""
    sites: dict[Site, SitePlan] = field(default_factory=dict)
    grads: dict[GradSite, SitePlan] = field(default_factory=dict)
    joins: list[Join] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    hooks: dict[tuple[str, bool], Calls] = field(default_factory=dict)
    """(module's path, before it rather than after) → the sites met there."""
    inside: dict[str, dict[tuple[str, Port], Calls]] = field(default_factory=dict)
    """Path of a module that runs another forward → (call inside it, port) → the sites met there."""
    late: bool = False
    """Something is written to a site from what is known at others."""
    steps: list[int] = field(default_factory=list)
    """Blocks of steps that stand in this one."""


@dataclass(slots=True)
class Plan:
    """A graph sorted by moment. It holds no run state, and is never changed.

    Graphs of the same shape, that differ in numbers and lines alone, share all of it but the graph.
    """

    graph: Graph
    blocks: list[BlockPlan]
    home: list[int]
    """The block in which each node runs."""
    masks: list[int]
    uses: list[int]
    """How many readers each value has; a kept value has one more, so that it is never dropped."""
    drops: list[tuple[int, ...]]
    """Which values each node is a reader of; a block's node reads for all that stand in it."""
    edits: list[tuple[int, Site, int]]
    """(the site's block, site, node) of all that writes to a site, replaces its value, or leaves its module out."""
    copies: frozenset[int]
    """Nodes whose value is copied, since it is the model's or the user's own and something writes into it."""
    leaves: frozenset[int]
    """Nodes whose gradient is asked for, and which are no part of a site's value."""
    grad: bool
    """Whether the passes run with gradients."""
    careful: bool
    """Whether some node may be without a value, so that each look-up must be checked."""

    def over(self, graph: Graph) -> Plan:
        """The same plan of another graph of the same shape."""
        return Plan(
            graph, self.blocks, self.home, self.masks, self.uses, self.drops, self.edits, self.copies, self.leaves,
            self.grad, self.careful,
        )  # fmt: skip


def plan(graph: Graph) -> Plan:
    """The graph's plan, made once and kept with it; one of the same shape may have been planned before."""
    if not graph._plan:
        shape = _shape(graph)
        known = _plans.get(shape)
        if known is None:
            known = _Planner(graph).make()
            with _plans_lock:
                if len(_plans) >= _KEPT:
                    del _plans[next(iter(_plans))]
                known = _plans[shape] = known.over(_NO_GRAPH)  # a plan that is kept holds nothing of the user's
        graph._plan.append(known)
    return graph._plan[0].over(graph)


_KEPT = 256
_plans: dict[Any, Plan] = {}
_plans_lock = Lock()
_NO_GRAPH = Graph((), frozenset())


def _shape(graph: Graph) -> Any:
    """What a plan depends on: of each node the operation and what it reads, and where it stands."""
    shape: list[Any] = [graph.saved, graph.blocks]
    add = shape.append
    for _, op, args, kwargs, refs, _, invoke, block, guard, _ in graph.nodes:
        add(op if op.shared else op.views)
        add(refs)
        if op in _NAMING or (op.writes and args and type(args[0]) is not Ref):
            add(("of", *[arg.id if type(arg) is Ref else arg for arg in args[:2] if type(arg) in _NAMES]))
        if kwargs and ("out" in kwargs or "inplace" in kwargs):
            out = kwargs.get("out")
            add(("out", out.id if type(out) is Ref else None, kwargs.get("inplace") is True))
        if invoke or block or guard is not None:
            add(("in", invoke, block, guard))
    return tuple(shape)


_GRADS = frozenset({ops.GRAD, ops.SWAP_GRAD})
_OPENING = frozenset({ops.TRACE, ops.LOOP, ops.STEPS})
_NAMING = frozenset({*_OPENING, *_GRADS, ops.SITE, ops.SWAP, ops.SKIP, ops.SETATTR, ops.EITHER})
"""Operations whose arguments, and not only what they read, decide when they run."""
_NAMES = frozenset({Ref, Site, int, str})


class _Planner:
    """The plan while it is made."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        count = len(graph.nodes)
        self.blocks = [BlockPlan(id, block.kind, block.parent) for id, block in enumerate(graph.blocks)]
        self.home = [node.block for node in graph.nodes]
        self.masks = [0] * count
        self.origin = list(range(count))  # the node whose memory a value may share
        self.written: dict[tuple[int, int], int] = {}  # (origin, block) → mask of the edits made there so far
        self.placed: dict[int, list[SitePlan]] = {}  # origin → sites that were given this value
        self.late: list[tuple[BlockPlan, SitePlan, int]] = []
        self.edits: list[tuple[int, Site, int]] = []
        self.copies: set[int] = set()
        self.leaves: set[int] = set()
        self.backwards = [node.id for node in graph.nodes if node.op is ops.BACKWARD]
        self.graded: dict[int, list[int]] = {}  # backward → the values whose gradients it gives
        self.steps = {id for id, block in enumerate(graph.blocks) if block.kind == "steps"}
        self.opener = {node.args[0]: node.id for node in graph.nodes if node.op in _OPENING}
        self.nested = len(graph.blocks) > 1

    def make(self) -> Plan:
        present = {node.op for node in self.nodes}
        grads = not present.isdisjoint(_GRADS)
        if grads:
            self._find_gradients()
        for node in self.nodes:
            self._place(node)
        self._sort()
        uses, drops = self._count()
        return Plan(
            self.graph, self.blocks, self.home, self.masks, uses, drops, self.edits, frozenset(self.copies),
            frozenset(self.leaves), self._wants_grad(present),
            grads or self.nested or ops.GUARD in present or self.blocks[0].kind == "generate",
        )  # fmt: skip

    def _wants_grad(self, present: set[Operation]) -> bool:
        if any(map(_needs_grad, present)):
            return True
        return not present.isdisjoint(_SETTERS) and any(map(_sets_grad, self.nodes))

    # ---- gradients

    def _find_gradients(self) -> None:
        """Which backward call each gradient belongs to, and in which block it is therefore met."""
        for node in self.nodes:
            if node.op in _GRADS:
                backward = self._backward_of(node)
                target = node.args[0].id
                self.graded.setdefault(backward, []).append(target)
                self.home[node.id] = self.home[backward]
        for node in self.nodes:  # what is made of a gradient is made where the gradient is met
            for ref in node.refs:
                home = self.home[ref]
                moved = self.nodes[ref].op in _GRADS or home != self.nodes[ref].block
                if moved and home in self._around(node.block):
                    self.home[node.id] = min(self.home[node.id], home)

    def _backward_of(self, node: Node) -> int:
        epoch = node.args[1]
        around = self._around(node.block)
        for index in (epoch, epoch - 1):
            if 0 <= index < len(self.backwards):
                backward = self.backwards[index]
                if self.nodes[backward].block in around:
                    return backward
        line = location(node.line)
        raise InputError(
            f"a gradient is asked for, and nothing calls .backward() to make it: {line.text}. "
            "Call loss.backward() in the same trace, or in the session around it"
        ).at(line)

    def _around(self, block: int | None) -> list[int]:
        found = []
        while block is not None:
            found.append(block)
            block = self.graph.blocks[block].parent
        return found

    # ---- one node after the other

    def _place(self, node: Node) -> None:
        id, op = node.id, node.op
        block = self.blocks[self.home[id]]
        if op is ops.SITE:
            here = self._site(block, node.args[0])
            here.reads.append((node.invoke, id))
            self.masks[id] = here.bit
            return
        mask = self._mask(node)
        if op is ops.GRAD:
            here = self._grad_site(block, node)
            here.reads.append((node.invoke, id))
            self.masks[id] = here.bit
            return
        if op is ops.SWAP or op is ops.SWAP_GRAD:
            if op is ops.SWAP or self._backward_of(node) > id:
                here = self._site(block, node.args[0]) if op is ops.SWAP else self._grad_site(block, node)
                here.swapped = True
                if op is ops.SWAP:
                    self.edits.append((block.id, node.args[0], id))
                mask |= here.bit
                self.late.append((block, here, id))
                for ref in node.refs[op is ops.SWAP_GRAD :]:
                    if ref != node.guard:
                        self.placed.setdefault(self.origin[ref], []).append(here)
        elif op is ops.SKIP:
            here = self._site(block, node.args[0])
            here.skipped = True
            self.edits.append((block.id, node.args[0], id))
            mask |= here.bit
            self.late.append((block, here, id))
        else:
            self._writes(node, block, mask)
            if op.views and node.refs:
                target = write_target(node)
                self.origin[id] = self.origin[target if target is not None else node.refs[0]]
            elif op is ops.EITHER:
                self.origin[id] = self.origin[node.args[1].id]
        self.masks[id] = mask

    def _mask(self, node: Node) -> int:
        home, masks, written = self.home, self.masks, self.written
        here = home[node.id]
        mask = 0
        refs = node.refs
        if node.op is ops.BACKWARD:
            refs = (*refs, *self.graded.get(node.id, ()))
        elif node.op in _OPENING:
            refs = (*refs, *self._taken(node.args[0]))
        for ref in refs:
            if home[ref] == here:
                mask |= masks[ref]
            elif home[ref] in self.steps and self.graph.blocks[home[ref]].parent == here:
                mask |= self._site(self.blocks[here], END).bit
            if written:
                mask |= written.get((self.origin[ref], here), 0)
        if node.op is ops.STEPS and END in self.blocks[here].sites:
            mask &= ~self.blocks[here].sites[END].bit  # steps fill a list that is whole at the end
        if mask and self.graded and node.op not in _GRADS:
            return self._after_backward(node, mask)
        return mask

    def _after_backward(self, node: Node, mask: int) -> int:
        """A gradient whose backward call was written before the node is there already: wait for the call instead."""
        target = write_target(node)
        source = self.nodes[self.origin[target]] if target is not None else node
        if source.op is ops.GRAD and self._backward_of(source) > source.id:
            return mask  # it edits what flows
        for site, here in self.blocks[self.home[node.id]].grads.items():
            if site.backward < node.id and mask & here.bit:
                mask = mask & ~here.bit | self.masks[site.backward]
        return mask

    def _taken(self, block: int) -> set[int]:
        """What the nodes of a block take from outside it."""
        inside = {id for id, home in enumerate(self.home) if block in self._around(home)}
        return {ref for id in inside for ref in self.nodes[id].refs if ref not in inside}

    def _writes(self, node: Node, block: BlockPlan, mask: int) -> None:
        target = write_target(node)
        if target is None:
            return
        root = self.origin[target]
        edits = root, block.id
        self.written[edits] = self.written.get(edits, 0) | mask
        home = self.blocks[self.home[root]]
        if block.id in self.steps and home is not block and self.nodes[root].op is not ops.SITE:
            around = self.blocks[self.graph.blocks[block.id].parent or 0]
            edits = root, around.id
            self.written[edits] = self.written.get(edits, 0) | self._site(around, END).bit
        source = self.nodes[root]
        if source.op is ops.SITE or source.op is ops.GRAD:
            home = self.blocks[self.home[root]]
            here = self._site(home, source.args[0]) if source.op is ops.SITE else self._grad_site(home, source)
            here.edited = True
            if source.op is ops.SITE:
                self.edits.append((home.id, source.args[0], node.id))
            if home is block:
                self.late.append((block, here, node.id))
        elif source.op is ops.WEIGHT or source.op is ops.CONSTANT:
            self.copies.add(root)
        for here in self.placed.get(root, ()):
            self.late.append((block, here, node.id))

    def _site(self, block: BlockPlan, site: Site) -> SitePlan:
        found = block.sites.get(site)
        if found is None:
            found = block.sites[site] = SitePlan(site, 1 << (len(block.sites) + len(block.grads)))
        return found

    def _grad_site(self, block: BlockPlan, node: Node) -> SitePlan:
        target = node.args[0].id
        site = GradSite(target, self._backward_of(node), node.args[1])
        found = block.grads.get(site)
        if found is None:
            found = block.grads[site] = SitePlan(site, 1 << (len(block.sites) + len(block.grads)))
            source = self.nodes[self.origin[target]]
            if source.op is ops.SITE:
                self._site(self.blocks[self.home[source.id]], source.args[0]).graded = True
            else:
                self.leaves.add(target)
        return found

    # ---- into moments

    def _sort(self) -> None:
        joins: list[dict[int, int]] = [{} for _ in self.blocks]
        by_bit = [{here.bit: here for here in _all_sites(block)} for block in self.blocks]
        for id, node in enumerate(self.nodes):
            home = self.home[id]
            block, mask = self.blocks[home], self.masks[id]
            block.members.append(id)
            if node.op in _READS:
                continue
            if mask == 0:
                block.first.append(id)
            elif mask & (mask - 1):
                index = joins[home].get(mask)
                if index is None:
                    index = joins[home][mask] = len(block.joins)
                    block.joins.append(Join(mask.bit_count()))
                block.joins[index].nodes.append(id)
            else:
                by_bit[home][mask].own.append(id)
        for block, known in zip(self.blocks, joins, strict=True):
            for mask, index in known.items():
                for here in _all_sites(block):
                    if mask & here.bit:
                        here.joins.append(index)
        for block in self.blocks:
            _find_hooks(block)
            if block.kind == "steps" and block.parent is not None:
                self.blocks[block.parent].steps.append(block.id)
        for block, here, id in self.late:
            if self.masks[id] != here.bit and self.masks[id] in joins[block.id]:
                here.late.append((joins[block.id][self.masks[id]], id))
                block.late = True

    def _count(self) -> tuple[list[int], list[tuple[int, ...]]]:
        """Readers of each value. One in an inner block is the reader that its block's node stands for."""
        uses = [0] * len(self.nodes)
        if not self.nested and not self.graded:
            drops = [node.refs for node in self.nodes]
            for refs in drops:
                for ref in refs:
                    uses[ref] += 1
        else:
            readers: list[set[int]] = [set() for _ in self.nodes]
            for node in self.nodes:
                if node.op is ops.GRAD:
                    continue  # its backward call reads for it
                for ref in (*node.refs, *self.graded.get(node.id, ())):
                    readers[self._reader(node.id, ref)].add(ref)
            for read in readers:
                for ref in read:
                    uses[ref] += 1
            # A block of steps is run again and again after its node: what it reads stays until the pass is over.
            pairs = zip(self.nodes, readers, strict=True)
            drops = [() if node.op is ops.STEPS else tuple(read) for node, read in pairs]
        for id in self.graph.saved:
            uses[id] += 1
        return uses, drops

    def _reader(self, id: int, ref: int) -> int:
        """The node that lets go of `ref` once `id` has read it: the one that stands in a block around both."""
        around = self._around(self.home[ref])
        reader, home = id, self.home[id]
        while home not in around:
            reader = self.opener[home]
            home = self.home[reader]
        return reader


def _find_hooks(block: BlockPlan) -> None:
    """Which modules are touched, and where."""
    for site, here in block.sites.items():
        if site == END:
            continue
        if site.inside:
            calls = block.inside.setdefault(site.path, {}).setdefault((site.inside, site.port), {})
        else:
            if here.skipped:
                block.inside.setdefault(site.path, {})
            calls = block.hooks.setdefault((site.path, site.port == "input"), {})
        calls[site.step, site.call] = here


_READS = frozenset({ops.SITE, ops.GRAD, ops.ITEM})


def _all_sites(block: BlockPlan) -> list[SitePlan]:
    return [*block.sites.values(), *block.grads.values()]


def _needs_grad(op: Operation) -> bool:
    return op is ops.BACKWARD or op in _GRADS or op.name in _GRADIENT_NAMES


_SETTERS = frozenset({ops.SETATTR, ops.method("requires_grad_")})


def _sets_grad(node: Node) -> bool:
    op = node.op
    return (op is ops.SETATTR and node.args[1] == "requires_grad") or (
        op.name == "method" and node.args[1] == "requires_grad_"
    )


_GRADIENT_NAMES = frozenset({"torch.autograd.grad", "torch.autograd.backward", "autograd.grad", "autograd.backward"})


def write_target(node: Node) -> int | None:
    """The node whose value this one changes, if it changes any."""
    out = node.kwargs.get("out")
    if type(out) is Ref:
        return out.id
    if (node.op.writes or node.kwargs.get("inplace") is True) and node.args and type(node.args[0]) is Ref:
        return node.args[0].id
    return None


def sites_of(plan: Plan, id: int) -> list[Site | GradSite]:
    """The sites a node waits for."""
    mask = plan.masks[id]
    return [here.site for here in _all_sites(plan.blocks[plan.home[id]]) if mask & here.bit]
