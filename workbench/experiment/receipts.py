"""Receipts: what each card did in a run. For them, what a card changes is copied before it does so, and compared after.

They are made for runs of the panel and of `%%trace` cells only, by statements that are put around a card's own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from workbench.errors import NotSetError
from workbench.experiment.kinds import Placed
from workbench.experiment.table import kind_of
from workbench.functions import list as traced_list
from workbench.interventions import Where, located
from workbench.measures import CHANGE, HELD, SEEN
from workbench.models.base import NNsight
from workbench.proxy import Proxy
from workbench.recorder import Recorder, require

BEGIN, BEFORE, AFTER, END = "__begin__", "__before__", "__after__", "__end__"
"""Names, in the executed text, of what is called at the beginning and end of each prompt's block and around a card's
statement."""


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

    def add(self, numbers: Tensor) -> None:
        """Take in one time that the card acted."""
        changed, total, before, after = numbers.tolist()
        self.fired += 1
        self.changed += int(changed)
        self.total += int(total)
        self.squares_before += before
        self.squares_after += after


class Receipts:
    """What the executed text calls so that the run says what each card did, here or on a server."""

    def __init__(self, cards: Mapping[str, Placed], model: NNsight) -> None:
        self._cards = cards
        self._model = model
        self._before: dict[str, Any] = {}
        self._lists: dict[str, Any] = {}
        self._came: dict[str, list[tuple[Any, Any]]] = {id: [] for id in cards}

    def begin(self) -> None:
        """In a generation a card may act in several steps: what it does in each is kept in a list."""
        recorder = require("a receipt")
        self._lists = {}
        if recorder.blocks[recorder.block].kind == "generate":
            with unchecked(recorder):
                self._lists = {id: traced_list().save() for id in self._cards}

    def before(self, id: str) -> None:
        """Copy what a card is about to change."""
        if kind_of(self._cards[id]).changes:
            recorder = require("a receipt")
            with unchecked(recorder):
                self._before[id] = recorder.add(HELD, self._site(id))

    def after(self, id: str) -> None:
        """See what a card did."""
        recorder = require("a receipt")
        with unchecked(recorder):
            if id in self._before:
                did = recorder.add(CHANGE, (self._before.pop(id), *self._site(id)))
            else:
                at = self._cards[id].at
                did = recorder.add(SEEN, (getattr(self._model.find(at.path), at.port),))
            if id in self._lists:
                self._lists[id].append(did)
            self._came[id].append((did.save(), self._lists.get(id)))

    def close(self) -> list[Tally]:
        """The tallies, after the run."""
        return [self._closed(id) for id in self._cards]

    def _closed(self, id: str) -> Tally:
        tally = Tally(id, kind_of(self._cards[id]).changes)
        for did, several in self._came[id]:
            for numbers in _values(did if several is None else several):
                tally.add(numbers)
        if not tally.fired and self._came[id]:
            tally.why = _reason(self._came[id][0][0])
        return tally

    def _site(self, id: str) -> tuple[Any, Any]:
        at = self._cards[id].at
        envoy = self._model.find(at.path)
        inner = at.heads is not None or at.neurons is not None
        found = located(
            envoy if at.port == "output" or inner else envoy.input,
            Where(at.positions, at.heads, at.neurons, at.index),
        )
        return found.value, found.index


def _values(proxy: Proxy) -> list[Tensor]:
    """What a card did, each time; nothing where it was never reached."""
    try:
        value = proxy.value
    except NotSetError:
        return []
    return value if isinstance(value, list) else [value]


def _reason(proxy: Proxy) -> str:
    """Why there is no value."""
    return proxy._recorder.reason(proxy._node_id()).rpartition(" was never reached: ")[2]


@contextmanager
def unchecked(recorder: Recorder) -> Iterator[None]:
    """What is recorded meanwhile is ours: it is not run on fake values where a trace is validated."""
    check, recorder.check = recorder.check, None
    try:
        yield
    finally:
        recorder.check = check


# ---- the text


def instrumented(tree: ast.Module, cards: Mapping[int, str], opens: Callable[[ast.With], bool]) -> ast.Module:
    """A module with calls around the statements that begin on a card's line, and at both ends of each prompt's block.

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
            node.body = [_call(BEGIN, [], node.body[0]), *node.body, _call(END, [], node.body[-1])]
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
    return (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in (BEGIN, BEFORE, AFTER, END)
    )


def _call(name: str, given: list[str], at: ast.stmt) -> ast.stmt:
    call = ast.Expr(ast.Call(ast.Name(name, ast.Load()), [ast.Constant(each) for each in given], []))
    return ast.copy_location(call, at)
