"""Python → experiment: a cell is read, never run.

Calls of the public interventions with literal arguments become cards again; every other statement becomes a code card,
word for word, with its comments.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from workbench.errors import InputError
from workbench.experiment.code_text import fault_of, indentation, moved, within_strings
from workbench.experiment.kinds import Code, Experiment, Intervention, Measure
from workbench.experiment.magic_line import header_of
from workbench.experiment.merging import merged
from workbench.experiment.statements import Reader, steps_in
from workbench.experiment.to_python import MEASURED, ORDINARY
from workbench.models.base import NNsight


@dataclass(frozen=True)
class Lifted:
    """An experiment, and the card that each line belongs to on which a card's statement begins."""

    experiment: Experiment
    cards: dict[int, str]


@dataclass(frozen=True)
class _Item:
    """A statement: what it is known as, and its lines, `first + 1` to `last`; its own begins at `own`."""

    known: Intervention | Measure | None
    first: int
    own: int
    last: int


def from_python(text: str, variables: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment that a cell stands for.

    Args:
        text: Python with one `with model.trace(...)` or `model.generate(...)` block, or a `%%trace` cell.
        variables: the kernel's, by name: of its models, which give standard names (`model.layers[2].attn`) their
            meaning, and of texts, which a `%%trace` line may name.

    Raises:
        InputError: it is no Python.

    Example:
        >>> e = from_python('with model.trace("The Eiffel Tower"):\\n    wb.ablate(model.transformer.h[2].mlp, [-1])')
        >>> e.prompts, e.interventions[0].kind, e.interventions[0].at.positions
        (('The Eiffel Tower',), 'ablate', (-1,))
    """
    return lifted(text, variables).experiment


def lifted(text: str, variables: Mapping[str, Any] | None = None) -> Lifted:
    """As `from_python`, with the cards' lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith(f"{ORDINARY}\n"):
        text = text.removeprefix(ORDINARY)
    header, body = header_of(text)
    fault = fault_of(body)
    if fault is not None:
        raise InputError(fault)
    known = variables or {}
    lift = _Lift(body, {name: each for name, each in known.items() if issubclass(type(each), NNsight)})
    if header is None:
        return lift.text()
    return lift.cell(header.settings(known), text.count("\n") - body.count("\n"))


class _Lift:
    """One text, read."""

    def __init__(self, text: str, models: Mapping[str, NNsight]) -> None:
        self.models = models
        self.source = text
        self.lines = text.split("\n")
        self.strings = within_strings(text)
        self.tree = ast.parse(text)
        self.measure: Measure | None = None
        self.spans: dict[str, int] = {}
        imported = (each for node in ast.walk(self.tree) if isinstance(node, ast.Import) for each in node.names)
        self.workbench = {"wb", "workbench", *(each.asname or "" for each in imported if each.name == "workbench")}

    # ---- the whole

    def text(self) -> Lifted:
        """Ordinary Python: what stands before the block, the block, what stands after it."""
        body = self.tree.body
        found = [
            (number, node, settings)
            for number, node in enumerate(body)
            if isinstance(node, ast.With) and (settings := self._opened(node))
        ]
        if not found:
            cards = (Code(id="card 1", code=self.source, where="before"),) if self.source.strip() else ()
            return Lifted(Experiment(model=next(iter(self.models), "model"), interventions=cards), {})
        number, node, settings = found[0]
        before = body[:number]
        if settings.get("seed") is None and len(before) > 1:
            texts = [ast.unparse(each) for each in before[-2:]]
            seed = texts[1].removeprefix("torch.manual_seed(").removesuffix(")")
            if texts[0] == "import torch" and seed.isdigit() and texts[1] != seed:
                settings["seed"], before = int(seed), before[:-2]
        lead = self._code(0, before[-1].end_lineno or 0, "before") if before else []
        if not before and self._comments(0, node.lineno - 1):
            lead = self._code(0, node.lineno - 1, "before")
        assert isinstance(node, ast.With)
        end = node.end_lineno or node.lineno
        trail = self._code(end, len(self.lines), "after")
        return self._experiment(settings, node.body, node.lineno, end, lead, trail)

    def cell(self, settings: dict[str, Any], offset: int) -> Lifted:
        """The body of a `%%trace` cell, below its first line."""
        body = self.tree.body
        if "prompts" not in settings:
            prompts = [_invoked(each) for each in body]
            settings["prompts"] = tuple(prompts) if prompts and None not in prompts else ("",)
        found = self._experiment(settings, body, 0, len(self.lines), [], [])
        return Lifted(found.experiment, {line + offset: id for line, id in found.cards.items()})

    def _opened(self, node: ast.stmt) -> Any:
        """What `with model.trace(...)` says, if it is one that an experiment can stand for."""
        if not isinstance(node, ast.With) or len(node.items) != 1:
            return None
        call, named = node.items[0].context_expr, node.items[0].optional_vars
        if named is not None and not (isinstance(named, ast.Name) and named.id == "tracer"):
            return None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            return None
        if not isinstance(call.func.value, ast.Name) or call.func.attr not in ("trace", "generate"):
            return None
        try:
            given = [ast.literal_eval(each) for each in call.args]
            more = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        except (ValueError, TypeError):
            return None
        if not given:
            prompts = [_invoked(each) for each in node.body]
            return None if None in prompts else _settings(call.func.value.id, call.func.attr, tuple(prompts), more)
        return _settings(call.func.value.id, call.func.attr, tuple(given), more) if len(given) == 1 else None

    def _experiment(
        self,
        settings: dict[str, Any],
        nodes: Sequence[ast.stmt],
        start: int,
        stop: int,
        lead: list[Intervention],
        trail: list[Intervention],
    ) -> Lifted:
        reader = Reader(settings["model"], self.workbench, self.models.get(settings["model"]))
        generate = settings.get("generate", 0)
        if nodes and all(_invoked(each) is not None for each in nodes):
            groups = []
            for number, node in enumerate(nodes):
                assert isinstance(node, ast.With)
                end = nodes[number + 1].lineno - 1 if number + 1 < len(nodes) else stop
                suffix = f"_{number}" if len(nodes) > 1 else ""
                groups.append(self._cards(reader, node.body, node.lineno, end, generate, suffix))
        else:
            groups = [self._cards(reader, nodes, start, stop, generate, "")]
        twins: dict[str, str] = {}
        cards = [*lead, *merged(groups, twins), *trail]
        ids = {card.id: f"card {number}" for number, card in enumerate(cards, 1)}
        spans = {line: ids[twins.get(id, id)] for id, line in self.spans.items()}
        numbered = tuple(card.model_copy(update={"id": ids[card.id]}) for card in cards)
        return Lifted(Experiment(**settings, measure=self.measure, interventions=numbered), spans)

    # ---- one prompt's statements

    def _cards(
        self, reader: Reader, nodes: Sequence[ast.stmt], start: int, stop: int, generate: int, suffix: str
    ) -> list[Intervention]:
        """Cards of a list of statements; what is not known between two that are is one card of code."""
        found: list[Intervention] = []
        unknown: list[_Item] = []

        def end_of_code() -> None:
            if unknown:
                found.extend(self._code(unknown[0].first, unknown[-1].last, "inside"))
                unknown.clear()

        items = list(self._items(reader, nodes, start, generate, suffix))
        last = items[-1].last if items else start
        if self._comments(last, stop):
            items.append(_Item(None, last, last, stop))
        for item in items:
            if item.known is None:
                unknown.append(item)
                continue
            end_of_code()
            if isinstance(item.known, Measure):
                self.measure = item.known
                continue
            id = f"{item.own}.{len(self.spans)}"
            self.spans[id] = item.own
            note = "\n".join(self._comments(item.first, item.last))
            found.append(type(item.known).model_validate(item.known.model_dump() | {"id": id, "note": note}))
        end_of_code()
        return found

    def _items(
        self, reader: Reader, nodes: Sequence[ast.stmt], start: int, generate: int, suffix: str
    ) -> Iterator[_Item]:
        at = start
        lists: dict[str, int] = {}
        waiting: list[_Item] = []
        for node in nodes:
            end = node.end_lineno or node.lineno
            block = steps_in(node) if generate else None
            name = reader.list_of(node)
            if name is not None and generate and self._alone(node):
                waiting.append(_Item(None, at, node.lineno, end))
                lists[name] = len(waiting)
                at = end
                continue
            inner = self._in_block(reader, block, waiting[0].first if waiting else at, generate, set(lists))
            if inner is not None and self._filled(inner, set(lists)):
                yield from inner
            else:
                yield from waiting
                if isinstance(node, ast.Pass) and len(nodes) == 1 and not self._comments(at, end):
                    return
                known = reader.read(node, generate, None, set()) if self._alone(node) and block is None else None
                if isinstance(known, Measure) and not self._is_ours(node, known, at, end, suffix):
                    known = None
                yield _Item(known, at, node.lineno, end)
            waiting, lists, at = [], {}, end
        yield from waiting

    def _in_block(
        self, reader: Reader, block: tuple[str, ast.With] | None, first: int, generate: int, lists: set[str]
    ) -> list[_Item] | None:
        """The statements of a block of steps, if all of them are known."""
        if block is None:
            return None
        steps, node = block
        if node.body[0].lineno == node.lineno:
            return None
        found = []
        for inner in node.body:
            known = reader.read(inner, generate, steps, lists) if self._alone(inner) else None
            if known is None:
                return None
            found.append(_Item(known, first, inner.lineno, inner.end_lineno or inner.lineno))
            first = found[-1].last
        return found

    def _filled(self, items: list[_Item], lists: set[str]) -> bool:
        """Whether a block fills each list that was made for it, once."""
        names = [item.known.name for item in items if item.known is not None and item.known.kind == "save"]  # type: ignore[union-attr]
        return lists == set(names) & lists and len(set(names)) == len(names)

    def _is_ours(self, node: ast.stmt, known: Measure, first: int, last: int, suffix: str) -> bool:
        """Whether a measure is what the experiment measures, which has its own name and one wording for all prompts."""
        named = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id
        return named == MEASURED + suffix and self.measure in (None, known) and not self._comments(first, last)

    # ---- lines

    def _alone(self, node: ast.stmt) -> bool:
        """Whether a statement has its lines to itself, but for a comment."""
        before = self.lines[node.lineno - 1].encode()[: node.col_offset].decode()
        after = self.lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset or 0 :].decode().strip()
        return not before.strip() and (not after or after.startswith("#"))

    def _comments(self, start: int, stop: int) -> list[str]:
        """The comments on lines `start + 1` to `stop`, without their signs."""
        lines = (self.lines[number - 1] for number in range(start + 1, stop + 1) if number not in self.strings)
        return [comment for line in lines if (comment := _comment(line)) is not None]

    def _code(self, start: int, stop: int, where: Any) -> list[Intervention]:
        text = "\n".join(self.lines[start:stop]).strip("\n")
        code = Code(
            id=f"{where} {start}", code=moved(text, -indentation(text)) if indentation(text) else text, where=where
        )
        return [code] if code.code.strip() else []


def _invoked(node: ast.stmt) -> str | None:
    """The prompt of `with tracer.invoke("…"):`."""
    if not isinstance(node, ast.With) or len(node.items) != 1 or node.items[0].optional_vars is not None:
        return None
    call = node.items[0].context_expr
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "tracer.invoke" or call.keywords:
        return None
    given = call.args[0] if len(call.args) == 1 else None
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None


def _settings(model: str, method: str, prompts: tuple[Any, ...], more: dict[str, Any]) -> dict[str, Any] | None:
    """An experiment's own settings from the arguments of `trace` or `generate`; None where it has others."""
    settings: dict[str, Any] = {"model": model, "prompts": prompts}
    more.pop("remote", None)  # where it runs is no part of what it is
    if method == "generate":
        settings |= {"generate": more.pop("max_new_tokens", 1), "seed": more.pop("seed", None)}
        if more.pop("do_sample", False):
            settings["temperature"] = more.pop("temperature", 1.0)
    try:
        Experiment(**settings)
    except ValidationError:
        return None
    return None if more or not all(isinstance(each, str) for each in prompts) else settings


def _comment(line: str) -> str | None:
    """The comment on a line of code, which may have a `#` in a string before it."""
    if "#" not in line:
        return None
    try:
        for token in tokenize.generate_tokens(io.StringIO(line.strip()).readline):
            if token.type == tokenize.COMMENT:
                return token.string[1:].removeprefix(" ")
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass  # a line of a statement that goes over several
    return None
