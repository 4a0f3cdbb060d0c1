"""Together: several queued traces of one model as one forward pass, each with the result it would have had alone.

Each request becomes an invoke, or several, of one graph. It is done only where one cannot touch another: what stops a
pass, skips a module, asks for gradients or reads a value that all share is run by itself, as is whatever goes wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.engine.axes import Axes, Known, Layout
from workbench.engine.batching import Rows, narrow
from workbench.engine.execution import Passing
from workbench.engine.frame import Frame
from workbench.engine.values import Where, placed
from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.limits import Limits
from workbench.graph.node import Argument, Node, Ref
from workbench.graph.package import Outcome, Request
from workbench.graph.source import text
from workbench.models.base import NNsight
from workbench.server.execute import bounded
from workbench.server.guard import Checked, Models, Watched
from workbench.site import Site

_TEXT = frozenset({"input_ids", "attention_mask", "position_ids"})
_ALONE = frozenset({
    ops.STOP, ops.SKIP, ops.GRAD, ops.SWAP_GRAD, ops.BACKWARD, ops.SETATTR, ops.PARAMETER, ops.OPTIMIZER,
    ops.method("requires_grad_"),
})  # fmt: skip
_WASTE = 2.0
"""How many times its own positions a pass may have, padding counted."""


class Apart(Exception):
    """These requests are not to share a pass; each is run by itself."""


# ---- who may share


def kin(request: Request) -> Any:
    """Equal for requests that may share a pass; None for one that is run alone. Tensors that are not read yet pass."""
    if request.kind != "trace" or len(request.models) != 1 or not all(map(_quiet, request.graph.nodes)):
        return None
    try:
        options = tuple(sorted((name, _plain(value)) for name, value in request.options.items()))
        (shape,) = {_shape(args, kwargs) for args, kwargs in request.inputs}
    except (TypeError, ValueError):  # something that has no plain form, or invokes that differ
        return None
    return request.models[0], options, shape


def _quiet(node: Node) -> bool:
    return node.op not in _ALONE and "autograd" not in node.op.name


def _shape(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What inputs must agree in to be joined."""
    if not args and "input_ids" in kwargs and kwargs.keys() <= _TEXT:
        return tuple(sorted((name, getattr(value, "dtype", None)) for name, value in kwargs.items()))
    if kwargs or not args:
        raise ValueError
    return tuple(_plain(value) if not isinstance(value, Tensor) else _rows_of(value) for value in args)


def _rows_of(tensor: Tensor) -> Any:
    if not tensor.ndim:
        raise ValueError
    return tensor.dtype, tuple(tensor.shape[1:])


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, type(None))):
        return type(value).__name__, value
    raise TypeError


# ---- one graph of several


@dataclass(frozen=True)
class Merged:
    """Several requests as one, and where the nodes and invokes of each begin in it."""

    parts: Sequence[Request]
    request: Request
    nodes: tuple[int, ...]
    invokes: tuple[int, ...]

    def owner(self, node: int) -> int:
        """Whose node it is."""
        return bisect_right(self.nodes, node) - 1


def merge(parts: Sequence[Request]) -> Merged:
    """One request that does what these do, each on rows of its own."""
    nodes: list[Node] = []
    saved: set[int] = set()
    names: list[str] = []
    bindings: dict[str, Any] = {}
    inputs: list[Any] = []
    first_nodes, first_invokes = [], []
    for number, part in enumerate(parts):
        at, invoke = len(nodes), len(inputs)
        first_nodes.append(at)
        first_invokes.append(invoke)
        called = {name: f"{number}/{name}" for name in part.graph.arguments}
        nodes += [_moved(node, at, invoke, called) for node in part.graph.nodes]
        saved |= {at + id for id in part.graph.saved}
        names += called.values()
        bindings |= {called[name]: value for name, value in part.bindings.items() if name in called}
        inputs += part.inputs
    graph = Graph(tuple(nodes), frozenset(saved), tuple(names))
    whole = Request(
        graph, bindings, parts[0].models, inputs, parts[0].options, form=b"+".join(part.form for part in parts)
    )
    return Merged(parts, whole, tuple(first_nodes), tuple(first_invokes))


def _moved(node: Node, at: int, invoke: int, called: Mapping[str, str]) -> Node:
    def moved(value: Any) -> Any:
        kind = type(value)
        if kind is Ref:
            return Ref(at + value.id)
        if kind is Argument:
            return Argument(called[value.name])
        if kind is tuple or kind is list:
            return kind([moved(item) for item in value])
        if kind is slice:
            return slice(moved(value.start), moved(value.stop), moved(value.step))
        if kind is dict:
            return {name: moved(item) for name, item in value.items()}
        return value

    return node._replace(
        id=at + node.id,
        args=tuple(moved(arg) for arg in node.args),
        kwargs={name: moved(value) for name, value in node.kwargs.items()},
        refs=tuple(at + ref for ref in node.refs),
        invoke=invoke + node.invoke,
        guard=None if node.guard is None else at + node.guard,
    )


# ---- the pass


def run_together(
    parts: Sequence[Request],
    models: Models,
    limits: Limits,
    fitting: set[bytes],
    independent: dict[Any, bool],
) -> list[tuple[Outcome, list[str]]]:
    """Run requests of one kin by one pass; the outcome and the lines of each.

    Args:
        parts: the requests.
        models: those that are loaded here, by key.
        limits: what each of them may use; all of them together may use no more.
        fitting: forms of requests for which it is known already that they fit.
        independent: of which models it is known that a row's values do not depend on the rows beside it.

    Raises:
        Apart: they are not to share a pass.
        Exception: whatever one of them raised. Nothing was told to anyone, so each can be run by itself.
    """
    merged = merge(parts)
    checked = Checked(merged.request, models, limits)
    if checked.plan.grad or checked.doubtful:
        raise Apart("a gradient, or a weight that is written to, is one's own affair")
    model, inputs, options = checked.model, merged.request.inputs, dict(merged.request.options)
    passing = model._passing(inputs, options)
    if passing.rows is None or passing.layout is None or model._module.training:
        raise Apart("this model's rows cannot be told apart")
    padded = any(each.padded for each in passing.rows)
    if _waste(passing.rows) > _WASTE:
        raise Apart("most of the pass would be padding")
    key = merged.request.models[0], padded
    if key not in independent:
        independent[key] = _independent(model, inputs, options, passing)
    if not independent[key]:
        raise Apart("in this model a row's values depend on the rows beside it")
    if merged.request.form not in fitting:
        checked.predict()
        fitting.add(merged.request.form)
    passing.layout = _Own(passing.layout)
    run = _Shared(checked, merged)
    run.run_pass(passing)
    return [(outcome, run.lines[number]) for number, outcome in enumerate(_outcomes(merged, run))]


def _waste(rows: Sequence[Rows]) -> float:
    own = sum((each.stop - each.start) * each.length for each in rows)
    return rows[-1].total * rows[0].width / own if own else 1.0


def _outcomes(merged: Merged, run: Watched) -> list[Outcome]:
    found = [Outcome(names=dict(part.names)) for part in merged.parts]
    for id in merged.request.graph.saved:
        number = merged.owner(id)
        own = id - merged.nodes[number]
        if id in run.saved:
            found[number].values[own] = run.saved[id]
        else:
            found[number].reasons[own] = run.reason(id)
    for site, node, why in run.idle():
        found[merged.owner(node.id)].idle.append((str(site), text(node.line), why))
    return found


class _Shared(Watched):
    """A run whose lines are kept, each for the request that logged it."""

    def __init__(self, checked: Checked, merged: Merged) -> None:
        super().__init__(checked, self._logged)
        self.lines: list[list[str]] = [[] for _ in merged.parts]
        self._merged = merged
        self._now = 0
        self._logs: list[Callable[[str], None]] = [bounded(lines.append, checked.limits) for lines in self.lines]

    def execute(self, id: int, frame: Frame) -> None:
        """Run one node; what it logs is its request's."""
        self._now = id
        super().execute(id, frame)

    def _logged(self, line: str) -> None:
        self._logs[self._merged.owner(self._now)](line)


class _Own(Layout):
    """Axes as they are, but that a tensor without rows of its own for each request is no one's."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def of(self, site: Site) -> Known:
        """The axes of the tensors at a site."""
        known = self._layout.of(site)
        trim = known.trim

        def apart(part: Tensor, rows: Rows) -> Tensor:
            part = part if trim is None else trim(part, rows)
            return part.clone() if 0 in part.stride() else part  # expanded: the rows may be one piece of memory

        return Known(_Rowed(known.axes), known.times, apart)


class _Rowed(dict[Where, Axes]):
    def get(self, where: Where, default: Any = None) -> Any:
        axes = super().get(where)
        return _NO_ONES if axes is None or axes.batch is None else axes


_NO_ONES = Axes(None, mixed=(0,))


def _independent(model: NNsight, inputs: list[Any], options: dict[str, Any], passing: Passing) -> bool:
    """Whether the model gives each of these inputs beside the others what it gives it alone: tried, without edits."""
    assert passing.rows is not None
    assert passing.layout is not None
    known = _Own(passing.layout).of(Site("", "output"))
    with torch.no_grad():
        whole = passing.forward()
        for each, rows in zip(inputs, passing.rows, strict=True):
            alone = dict(placed(model._passing([each], options).forward()))
            for where, part in placed(narrow(whole, rows, known)):
                if where not in alone or not _close(part, alone[where]):
                    return False
    return True


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    if not one.numel():
        return True
    room = 512 * torch.finfo(one.dtype).eps * max(1.0, float(other.abs().max()))
    return bool((one - other).abs().max() <= room)
