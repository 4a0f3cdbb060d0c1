"""Split: many prompts in several passes, whose values are joined as if it had been one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.engine.axes import Sizes, compared
from workbench.engine.execution import Execution
from workbench.engine.fakes import evaluate
from workbench.engine.scan import NOWHERE
from workbench.engine.values import map_placed, map_tensors, placed, tensors
from workbench.errors import InputError
from workbench.graph.graph import Graph
from workbench.graph.node import Node, call_text
from workbench.graph.source import text
from workbench.recorder import not_recording

if TYPE_CHECKING:
    from workbench.models.base import NNsight

Input = tuple[tuple[Any, ...], dict[str, Any]]


def run_split(
    model: NNsight,
    graph: Graph,
    bindings: Any,
    whole: Input,
    kwargs: Any,
    size: int,
    execute: Callable[[Input], Execution],
) -> Execution:
    """Run a graph on the rows of one input, `size` at a time, and join what is kept.

    Where memory runs out, that pass is made again with half as many rows, and so are all that follow.
    """
    from tqdm.auto import tqdm

    total = next((tensor.shape[0] for tensor in tensors(whole) if tensor.ndim), 0)
    if not total:
        raise InputError("batch_size= splits an input with a batch axis; this one has none")
    kept: list[dict[int, Any]] = []
    start = 0
    last: Execution | None = None
    with tqdm(total=total, desc="prompts", delay=1, leave=False) as bar:
        while start < total:
            stop = min(start + size, total)
            try:
                last = execute(_rows(whole, start, stop, total))
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not _out_of_memory(error):
                    raise
                size = max(1, (stop - start) // 2)
                warnings.warn(
                    f"memory ran out with {stop - start} prompts at once; going on with {size}: give batch_size={size}",
                    UserWarning,
                    stacklevel=6,
                )
                continue
            kept.append(last.saved)
            bar.update(stop - start)
            start = stop
    assert last is not None
    if len(kept) > 1:
        axes = _Batches(model, graph, bindings, whole, kwargs)
        last.saved = {
            id: _joined([each[id] for each in kept], axes.of(id), graph.nodes[id])
            for id in last.saved
            if all(id in each for each in kept)
        }
    return last


def _rows(whole: Input, start: int, stop: int, total: int) -> Input:
    def cut(tensor: Tensor) -> Tensor:
        return tensor[start:stop] if tensor.ndim and tensor.shape[0] == total else tensor

    return map_tensors(cut, whole)


def _out_of_memory(error: BaseException) -> bool:
    words = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        each in words for each in ("out of memory", "can't allocate memory", "not enough memory")
    )


class _Batches:
    """Which axis of each kept value holds the batch: from its shapes at two sizes of batch, without a run."""

    def __init__(self, model: NNsight, graph: Graph, bindings: Any, whole: Input, kwargs: Any) -> None:
        self._graph, self._bindings = graph, bindings
        args, named = whole
        length = next((tensor.shape[1] for tensor in tensors(named) if tensor.ndim > 1), 0)
        self._sizes = Sizes(3, length), Sizes(5, length)
        self._model = model
        self._inputs = [model._sized(args, {**named, **kwargs}, size) for size in self._sizes]
        self._known: tuple[dict[int, Any], dict[int, Any]] = {}, {}

    def of(self, id: int) -> dict[Any, int | None] | None:
        """The batch's axis of each tensor in a kept value, by place; None where it is known only in a run."""
        try:
            small, large = (dict(placed(self._fake(which, id))) for which in (0, 1))
        except Exception:  # whatever a statement does not do on fake values, it did in the run
            return None
        found = {}
        for where in small:
            if where in large and small[where].ndim == large[where].ndim:
                found[where] = compared(small[where], large[where], *self._sizes).batch
        return found

    def _fake(self, which: int, id: int) -> Any:
        def at(node: Node) -> Any:
            site = node.args[0]
            inside = frozenset({(site.path, site.inside)}) if site.inside else NOWHERE
            return self._model._scan(*self._inputs[which], inside).values[site]

        scan = self._model._scan(*self._inputs[which])
        with not_recording():
            return evaluate(scan, list(self._graph.nodes), id, self._bindings, self._known[which], at)


def _joined(values: list[Any], axes: dict[Any, int | None] | None, node: Node) -> Any:
    """One value of several passes'."""
    parts = [dict(placed(value)) for value in values]
    joined: dict[Any, Tensor] = {}
    for where in parts[0]:
        pieces = [each[where] for each in parts if where in each]
        axis = 0 if axes is None else axes.get(where)
        if len(pieces) < len(parts) or (axis is None and not all(torch.equal(pieces[0], each) for each in pieces[1:])):
            line = text(node.line)
            raise InputError(
                f"{call_text(node)} has no axis for the batch, so the values of several passes cannot be joined "
                f"({line}). Save what each prompt has, and put it together after the trace; or leave out batch_size="
            )
        joined[where] = pieces[0] if axis is None else torch.cat(pieces, axis)
    if not joined and any(value != values[0] for value in values[1:]):
        raise InputError(
            f"{call_text(node)} is another in each pass, and only tensors can be joined ({text(node.line)}); "
            "leave out batch_size="
        )
    return map_placed(lambda where, tensor: joined[where], values[0])
