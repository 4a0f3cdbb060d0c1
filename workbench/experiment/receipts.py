"""Receipts: what each card did in a run. For them, what a card changes is copied before it does so, and compared after.

They are made for runs of the panel and of `%%trace` cells only, by statements that are put around a card's own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench.engine.values import first_tensor
from workbench.experiment.kinds import Placed
from workbench.experiment.table import kind_of
from workbench.graph.operations import Operation
from workbench.interventions import Where, located
from workbench.models.base import NNsight
from workbench.recorder import Recorder, require

BEFORE, AFTER, END = "__before__", "__after__", "__end__"
"""Names, in the executed text, of what is called around a card's statement and at the end of each prompt's block."""


@dataclass
class Tally:
    """What one card did, summed over prompts and steps; `changed` and `total` are of values."""

    card: str
    changes: bool
    fired: int = 0
    changed: int = 0
    total: int = 0
    squares_before: float = 0.0
    squares_after: float = 0.0
    why: str | None = None
    waiting: list[Any] = field(default_factory=list)

    def compare(self, before: tuple[float, int, Tensor], norm: float, after: Tensor) -> None:
        """Take in what came of one time that the card acted."""
        squares, total, old = before
        self.fired += 1
        self.total += total
        self.squares_before += squares
        self.squares_after += norm
        if old.shape == after.shape:
            same = old == after
            if old.is_floating_point():
                same |= old.isnan() & after.isnan()
            self.changed += int((~same).sum())

    def close(self) -> None:
        """After the run: why it never acted, if so."""
        if not self.fired and self.waiting:
            first = self.waiting[0]
            reason = first._recorder.reason(first._node_id())
            self.why = reason.rpartition(" was never reached: ")[2]
        self.waiting.clear()


class Receipts:
    """The tallies of one run, and what the executed text calls to keep them."""

    def __init__(self, cards: Mapping[str, Placed], model: NNsight) -> None:
        self._cards = cards
        self._model = model
        self.tallies = {id: Tally(id, kind_of(card).changes) for id, card in cards.items()}
        self._before: dict[str, Any] = {}

    def before(self, id: str) -> None:
        """Copy what a card is about to change."""
        if self.tallies[id].changes:
            recorder = require("a receipt")
            with unchecked(recorder):
                value, index = self._site(id)
                self._before[id] = recorder.add(_COPY, (value, index))

    def after(self, id: str) -> None:
        """See what a card did."""
        tally, recorder = self.tallies[id], require("a receipt")
        with unchecked(recorder):
            if tally.changes:
                value, index = self._site(id)
                node = recorder.add(_COMPARE, (tally, self._before.pop(id), value, index))
            else:
                at = self._cards[id].at
                node = recorder.add(_COUNT, (tally, getattr(self._model.find(at.path), at.port)))
            tally.waiting.append(node.save())

    def close(self) -> list[Tally]:
        """The tallies, after the run."""
        for tally in self.tallies.values():
            tally.close()
        return list(self.tallies.values())

    def _site(self, id: str) -> tuple[Any, Any]:
        at = self._cards[id].at
        envoy = self._model.find(at.path)
        inner = at.heads is not None or at.neurons is not None
        found = located(
            envoy if at.port == "output" or inner else envoy.input,
            Where(at.positions, at.heads, at.neurons, at.index),
        )
        return found.value, found.index


@contextmanager
def unchecked(recorder: Recorder) -> Iterator[None]:
    """What is recorded meanwhile is ours: it is not run on fake values where a trace is validated."""
    check, recorder.check = recorder.check, None
    try:
        yield
    finally:
        recorder.check = check


Before = tuple[float, int, Tensor]


def _copy(value: Tensor, index: Any) -> Before | None:
    try:
        return _squares(value), value.numel(), value[index].clone()
    except Exception:  # a wrong index, say: it is the card's own statement, which comes next, that is to say so
        return None


def _compare(tally: Tally, before: Before | None, value: Tensor, index: Any) -> int:
    if before is not None:
        tally.compare(before, _squares(value), value[index])
    return tally.fired


def _count(tally: Tally, value: Any) -> int:
    tally.fired += 1
    tensor = first_tensor(value)
    tally.total += 0 if tensor is None else tensor.numel()
    return tally.fired


def _squares(value: Tensor) -> float:
    return float(value.detach().to(torch.complex128 if value.is_complex() else torch.float64).abs().square().sum())


_COPY = Operation("receipt_copy", _copy)
_COMPARE = Operation("receipt", _compare)
_COUNT = Operation("fired", _count)


# ---- the text


def instrumented(tree: ast.Module, cards: Mapping[int, str], opens: Callable[[ast.With], bool]) -> ast.Module:
    """A module with calls around the statements that begin on a card's line, and at the end of each prompt's block.

    Args:
        tree: it is changed.
        cards: line → id of the card whose statement begins there.
        opens: whether a `with` opens the block of a trace.
    """
    _Around(cards, opens).visit(tree)
    return ast.fix_missing_locations(tree)


class _Around(ast.NodeTransformer):
    def __init__(self, cards: Mapping[int, str], opens: Callable[[ast.With], bool]) -> None:
        self.cards = cards
        self.opens = opens

    def visit_With(self, node: ast.With) -> Any:
        self.generic_visit(node)
        if _is_invoke(node) or (self.opens(node) and not any(_is_invoke(each) for each in ast.walk(node))):
            node.body.append(_call(END, [], node.body[-1]))
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                setattr(node, name, [each for statement in body for each in self._around(statement)])
        return node

    def _around(self, statement: ast.stmt) -> list[ast.stmt]:
        id = self.cards.get(statement.lineno) if isinstance(statement, (ast.Expr, ast.Assign)) else None
        if id is None or _lists(statement) or _is_ours(statement):
            return [statement]
        return [_call(BEFORE, [id], statement), statement, _call(AFTER, [id], statement)]


def _is_invoke(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr).startswith("tracer.invoke(")


def _lists(statement: ast.stmt) -> bool:
    """Whether a statement only makes the list that a save will fill."""
    return ast.unparse(statement).endswith("= wb.list().save()")


def _is_ours(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in (BEFORE, AFTER, END)


def _call(name: str, given: list[str], at: ast.stmt) -> ast.stmt:
    call = ast.Expr(ast.Call(ast.Name(name, ast.Load()), [ast.Constant(each) for each in given], []))
    return ast.copy_location(call, at)
