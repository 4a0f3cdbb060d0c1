"""Split: many prompts in several passes, whose values are joined as if it had been one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.engine.axes import Sizes
from workbench.engine.execution import Execution
from workbench.engine.scan import Inside, Scan
from workbench.engine.values import Untold, map_placed, map_tensors, placed, tensors
from workbench.errors import InputError
from workbench.graph import operations as ops
from workbench.graph.node import Node, Ref, call_text
from workbench.graph.source import text, warn
from workbench.recorder import Recorder
from workbench.tracing.progress import Bar
from workbench.tracing.shapes import Shapes

if TYPE_CHECKING:
    from workbench.models.base import NNsight

_SMALL, _LARGE = 3, 5
"""Two sizes of batch by which its axis is told."""

Input = tuple[tuple[Any, ...], dict[str, Any]]


def run_split(
    model: NNsight,
    recorder: Recorder,
    whole: Input,
    kwargs: dict[str, Any],
    size: int,
    execute: Callable[[Input], Execution],
) -> Execution:
    """Run what was recorded on the rows of one input, `size` at a time, and join what is kept.

    Where memory runs out, that pass is made again with half as many rows, and so are all that follow.
    """
    total = next((tensor.shape[0] for tensor in tensors(whole) if tensor.ndim), 0)
    if not total:
        raise InputError("batch_size= splits an input with a batch axis; this one has none")
    kept: list[dict[int, Any]] = []
    start = 0
    last: Execution | None = None
    with Bar(total, "prompts", "prompt") as bar:
        while start < total:
            stop = min(start + size, total)
            try:
                last = execute(_rows(whole, start, stop, total))
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not _out_of_memory(error):
                    raise
                size = max(1, (stop - start) // 2)
                warn(
                    f"memory ran out with {stop - start} prompts at once; going on with {size}: give batch_size={size}"
                )
                continue
            kept.append(last.saved)
            bar.update(stop - start)
            start = stop
    assert last is not None
    if len(kept) > 1:
        batches = _Batches(model, recorder, whole, kwargs)
        last.saved = {
            id: batches.joined(id, [each[id] for each in kept]) for id in last.saved if all(id in each for each in kept)
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

    def __init__(self, model: NNsight, recorder: Recorder, whole: Input, kwargs: dict[str, Any]) -> None:
        self._nodes = recorder.nodes
        self._generates = recorder.blocks[0].kind == "generate"
        args, named = whole
        length = next((tensor.shape[1] for tensor in tensors(named) if tensor.ndim > 1), 0)
        self._written = model._written(kwargs) if self._generates else None
        answer = named.get("decoder_input_ids")
        sizes = [Sizes(batch, length, 0 if answer is None else answer.shape[1]) for batch in (_SMALL, _LARGE)]
        self._shapes = [_AtOneStep(recorder, self._written, each) for each in sizes]
        for shapes, size in zip(self._shapes, sizes, strict=True):
            shapes.register(0, _scans(model, args, named, kwargs, size, self._generates))

    def joined(self, id: int, values: list[Any]) -> Any:
        """One value of several passes'."""
        node = self._nodes[id]
        if self._written is not None and node.op is ops.SITE and node.args[0].path == self._written.path:
            values = self._written.evened(values)
            axes = None  # tokens, and what else a generation returns, have it in front
        else:
            axes = self._of(id, values[0])
        return _joined(values, axes, node, self._generates)

    def _of(self, id: int, value: Any) -> dict[Any, int | None] | None:
        """The batch's axis of each tensor in a kept value, by place; None where it is known only in a run."""
        added = [node for node in self._nodes if _fills(node, id)]
        if not added or type(value) is not list:
            return self._axes(id)
        found: dict[Any, int | None] = {}
        for index in range(len(value)):  # each step adds the same ones again
            axes = self._axes(added[index % len(added)].args[2].id)
            found |= {(index, *where): axis for where, axis in (axes or {}).items()}
        return found

    def _axes(self, id: int) -> dict[Any, int | None] | None:
        try:
            small, large = (dict(placed(shapes.fake(id))) for shapes in self._shapes)
        except Exception:  # whatever a statement does not do on fake values, it did in the run
            return None
        return {
            where: _grows(small[where], large[where])
            for where in small
            if where in large and small[where].ndim == large[where].ndim
        }


def _grows(small: Tensor, large: Tensor) -> int | None:
    """The axis that is as much longer as the batch is."""
    sizes = enumerate(zip(small.shape, large.shape, strict=True))
    return next((axis for axis, (a, b) in sizes if a and a * _LARGE == b * _SMALL), None)


def _fills(node: Node, id: int) -> bool:
    """Whether a statement appends a traced value to a list."""
    return node.op is ops.method("append") and node.args[:2] == (Ref(id), "append") and isinstance(node.args[2], Ref)


def _scans(
    model: NNsight, args: tuple[Any, ...], named: dict[str, Any], kwargs: dict[str, Any], size: Sizes, generates: bool
) -> Callable[[int, Inside, int], Scan]:
    """A pass's scans at another size of batch."""
    sized = model._sized(args, named if generates else {**named, **kwargs}, size)

    def scan(invoke: int, inside: Inside, step: int) -> Scan:
        return model._scan_step(sized, kwargs, step, inside) if generates else model._scan(*sized, inside)

    return scan


class _AtOneStep(Shapes):
    """Shapes of which only the batch's axis is wanted, which is the same in each step of a block."""

    def __init__(self, recorder: Recorder, written: Any, sizes: Sizes) -> None:
        super().__init__(recorder)
        self._first = {node.args[0]: node.args[1] for node in recorder.nodes if node.op is ops.STEPS}
        self._written = written
        self._sizes = sizes

    def _site(self, node: Node) -> Any:
        site = node.args[0]
        if self._written is not None and site.path == self._written.path:
            return torch.empty(self._sizes.batch * self._written.returned, self._sizes.length + 1, dtype=torch.long)
        return self._at_step(node, site._replace(step=0), self._first.get(node.block, site.step))


def _joined(values: list[Any], axes: dict[Any, int | None] | None, node: Node, generates: bool) -> Any:
    """One value of several passes', whose batches lie along these axes."""
    parts = [dict(placed(value)) for value in values]
    if generates and len({len(each) for each in parts}) > 1:
        raise InputError(
            f"{call_text(node)}: the texts of one pass ended some steps before those of another, so their values "
            f"cannot be joined ({text(node.line)}). Make all as long, by min_new_tokens=; or leave out batch_size="
        )
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
    return map_placed(lambda where, tensor: joined[where], _without_objects(values[0]))


def _without_objects(value: Any) -> Any:
    """A model's output without what is of one pass alone, as its cache of keys and values."""
    if not isinstance(value, dict):
        return value
    plain = (Tensor, tuple, list, dict, str, int, float, type(None))
    kept = {
        name: each
        if isinstance(each, plain)
        else Untold(f"the {type(each).__name__} of several passes is not joined: leave out batch_size= to read it")
        for name, each in value.items()
    }
    return kept if type(value) is dict else type(value)(**kept)
