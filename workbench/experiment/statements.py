"""One statement of Python → the card that it is written by, if there is one."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from pydantic import ValidationError

from workbench import interventions
from workbench.envoy import Envoy
from workbench.errors import WorkbenchError
from workbench.experiment.kinds import KINDS, Intervention, Log, Measure, Save, Set, Target
from workbench.experiment.table import label, steps_of
from workbench.models.base import NNsight
from workbench.models.naming import STANDARD, Layers, View, standard
from workbench.subscript import indices, normal

NOTHING = object()
FUNCTIONS: dict[str, type[Any]] = {
    name: card for card in KINDS if hasattr(interventions, name := card.model_fields["kind"].default)
}
"""The kinds that are written as a call of the function of their name."""
_SIGNATURES = {name: inspect.signature(getattr(interventions, name)) for name in FUNCTIONS}
_TENSORS = {"steer": "vector", "patch": "source"}


class Reader:
    """Reads statements about one model. `workbench` are the names that the workbench goes by."""

    def __init__(self, model: str, workbench: set[str], live: NNsight | None) -> None:
        self.model = model
        self.workbench = workbench
        self.live = live

    def read(self, node: ast.stmt, generate: int, steps: str | None, lists: set[str]) -> Intervention | Measure | None:
        """The card of a statement, in a block of these steps; None for what is not known."""
        try:
            found = self._read(node, lists if steps is not None else set())
        except (ValidationError, WorkbenchError, TypeError, ValueError):
            return None
        if found is None or isinstance(found, Measure):
            return found if steps is None else None
        if isinstance(found, Save) and steps is not None and steps.isdigit() == isinstance(node, ast.Expr):
            return None  # a list is filled in several steps, a name is given in one
        return self._in_steps(found, generate, steps)

    def _in_steps(self, card: Any, generate: int, steps: str | None) -> Any:
        if steps_of(card, generate) == steps or not generate:
            return card
        at = Target.model_validate(card.at.model_dump() | {"steps": "0" if steps is None else steps})
        return card.model_copy(update={"at": at})

    def _read(self, node: ast.stmt, lists: set[str]) -> Intervention | Measure | None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            return self._save(target.id, node.value) if isinstance(target, ast.Name) else self._set(target, node.value)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
                owner, name = call.func.value.id, call.func.attr
                if owner in self.workbench and name in FUNCTIONS:
                    return self._function(name, call)
                if owner == "tracer" and name == "log":
                    return self._log(call)
                if owner in lists and name == "append" and len(call.args) == 1 and not call.keywords:
                    at = self.target(_uncloned(call.args[0]))
                    return None if at is None else Save(id="", at=at, name=owner)
        return None

    # ---- the lines of the language

    def _save(self, name: str, value: ast.expr) -> Intervention | Measure | None:
        kept = _method(value, "save")
        if kept is None:
            return None
        if isinstance(kept, ast.Call) and self._calls(kept, "measure"):
            return _measure(kept)
        at = self.target(_uncloned(kept))
        return None if at is None else Save(id="", at=at, name=name)

    def list_of(self, node: ast.stmt) -> str | None:
        """The name in `name = wb.list().save()`."""
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            inner = _method(node.value, "save")
            if self._calls(inner, "list") and isinstance(inner, ast.Call) and not inner.args and not inner.keywords:
                return node.targets[0].id
        return None

    def _set(self, target: ast.expr, value: ast.expr) -> Intervention | None:
        if not isinstance(target, ast.Subscript):
            return None
        at = self.target(target)
        if at is None:
            return None
        if at.index == "[...]":
            at = at.model_copy(update={"index": None})
        name = self._tensor(value)
        if name is None:
            given = ast.literal_eval(value)
            if isinstance(given, bool) or not isinstance(given, (int, float)):
                return None
            return Set(id="", at=at, value=float(given))
        return Set(id="", at=at, value=name)

    def _log(self, call: ast.Call) -> Intervention | None:
        if len(call.args) != 2 or call.keywords:
            return None
        text = ast.literal_eval(call.args[0])
        value, show = call.args[1], "value"
        for each in ("norm", "mean"):
            inner = _method(value, each)
            if inner is not None:
                value, show = inner, each
        if isinstance(value, ast.Attribute) and value.attr == "shape":
            value, show = value.value, "shape"
        elif isinstance(value, ast.Call) and self._calls(value, "apply") and len(value.args) == 3:
            if [ast.unparse(each) for each in (value.args[0], value.args[2])] != ["getattr", "'shape'"]:
                return None
            value, show = value.args[1], "shape"
        at = self.target(value)
        if at is None or not isinstance(text, str):
            return None
        card = Log(id="", at=at, show=show, text=text)
        return card.model_copy(update={"text": ""}) if text == label(card) or not text else card

    # ---- the functions

    def _function(self, name: str, call: ast.Call) -> Intervention | None:
        if any(each.arg is None for each in call.keywords) or any(isinstance(each, ast.Starred) for each in call.args):
            return None
        bound = _SIGNATURES[name].bind(*call.args, **{str(each.arg): each.value for each in call.keywords}).arguments
        at = self._at(bound.pop("at"))
        if at is None:
            return None
        tensor = self._tensor(bound[_TENSORS[name]]) if _TENSORS.get(name) in bound else None
        if tensor is not None:
            bound.pop(_TENSORS[name])
        given = {key: ast.literal_eval(value) for key, value in bound.items()}
        chosen = {key: _numbers(given.pop(key)) for key in ("positions", "heads", "neurons") if key in given}
        if "index" in given:
            chosen["index"] = given.pop("index")
        if chosen.get("index") is not None and not isinstance(chosen["index"], str):
            return None
        if "source_positions" in given:
            given["source_positions"] = _numbers(given["source_positions"])
        if tensor is not None:
            given["tensor"] = tensor
        elif given.get("vector", NOTHING) is None:
            given.pop("vector")
        target = Target(**{**at.model_dump(), **chosen})
        card: Any = FUNCTIONS[name](id="", at=canonical(target), **given)
        return card

    def _at(self, node: ast.expr) -> Target | None:
        """`model.h[2]`, `model.h[2].input` or `model.h[2].output` as the first argument."""
        if isinstance(node, ast.Attribute) and node.attr in ("input", "output"):
            path = self.path(node.value)
            return None if path is None else Target(path=path, port=node.attr)
        path = self.path(node)
        return None if path is None else Target(path=path)

    # ---- places

    def target(self, node: ast.expr) -> Target | None:
        """`model.h[2].output[:, [0]]`, or `wb.heads(model.h[2].attn)[:, :, [1]]`."""
        parts: list[str] = []
        while isinstance(node, ast.Subscript):
            parts.insert(0, f"[{_bare(node.slice)}]")
            node = node.value
        inner = next((each for each in ("heads", "neurons") if self._calls(node, each)), None)
        if inner is not None:
            assert isinstance(node, ast.Call)
            path = self.path(node.args[0]) if len(node.args) == 1 and not node.keywords else None
            return None if path is None or len(parts) != 1 else _inner(path, inner, parts[0])
        if not isinstance(node, ast.Attribute) or node.attr not in ("output", "input"):
            return None
        path = self.path(node.value)
        if path is None:
            return None
        at = Target(path=path, port=node.attr, index="".join(parts) or None)
        return canonical(at)

    def path(self, node: ast.expr) -> str | None:
        """The module path of an expression; standard names by the model itself, where it is known."""
        parts: list[str | int] = []
        values = ("output", "input", "inputs", "grad", "source")
        own: list[str] = []
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Attribute):
                own += [node.attr] if parts and node.attr in values else []
                parts.insert(0, node.attr)
            elif isinstance(node, ast.Subscript):
                key = ast.literal_eval(node.slice)
                if isinstance(key, bool) or not isinstance(key, (int, str)):
                    return None
                parts.insert(0, key)
            else:
                return None
            node = node.value
        if node.id != self.model:
            return None
        found = None if self.live is None else _resolved(self.live, parts)
        if found is not None:
            return found
        return None if own or any(isinstance(each, int) and each < 0 for each in parts) else ".".join(map(str, parts))

    def _calls(self, node: ast.expr | None, name: str) -> bool:
        """Whether it is `wb.name(...)`."""
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == name
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in self.workbench
        )

    def _tensor(self, node: ast.expr) -> str | None:
        """The name in `wb.tensor("name")`."""
        if self._calls(node, "tensor") and isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
            name = ast.literal_eval(node.args[0])
            return name if isinstance(name, str) else None
        return None


def steps_in(node: ast.stmt) -> tuple[str, ast.With] | None:
    """Which steps `with tracer.all():` or `with tracer.iter[1:3]:` is about."""
    if not isinstance(node, ast.With) or len(node.items) != 1 or node.items[0].optional_vars is not None:
        return None
    text = ast.unparse(node.items[0].context_expr)
    if text == "tracer.all()":
        return ":", node
    if text.startswith("tracer.iter[") and text.endswith("]"):
        steps = text.removeprefix("tracer.iter[")[:-1]
        return (steps, node) if all(each.isdigit() or each == ":" for each in steps) else None
    return None


def _resolved(model: NNsight, parts: list[str | int]) -> str | None:
    at: Any = model
    try:
        for part in parts:
            at = _child(at, part)
    except (WorkbenchError, IndexError, KeyError, AttributeError):
        return None
    at = at.__dict__["_envoy"] if isinstance(at, View) else at
    return at.path if isinstance(at, Envoy) else None


def _child(at: Any, part: str | int) -> Any:
    if isinstance(at, Layers):
        return at[part] if isinstance(part, int) else {}[part]
    if isinstance(at, View):
        if part in ("attn", "mlp"):
            return getattr(at, str(part))
        at = at.__dict__["_envoy"]
    if isinstance(part, int):
        return at[part]
    known = at.__dict__.get(part)
    if isinstance(known, Envoy):
        return known
    if part in at.children:
        return at.children[part]
    if part in STANDARD and at is at._root:
        return standard(at, part)
    raise KeyError(part)


def canonical(at: Target) -> Target:
    """Positions where an index says no more than that; the side left as it is where heads or neurons are meant."""
    if at.heads is not None or at.neurons is not None:
        return at.model_copy(update={"port": "output"})
    if at.index is not None and at.positions is None:
        (found, *more) = indices(at.index)
        if not more and isinstance(found, tuple) and len(found) == 2 and found[0] == slice(None):
            chosen = found[1]
            if _whole_numbers(chosen):
                return at.model_copy(update={"index": None, "positions": tuple(chosen)})
    return at


def _inner(path: str, what: str, part: str) -> Target | None:
    """The target of `wb.heads(module)[:, positions, heads]`."""
    (found,) = indices(part)
    if not isinstance(found, tuple) or len(found) != 3 or found[0] != slice(None) or not _whole_numbers(found[2]):
        return None
    if found[1] == slice(None):
        return Target(**{"path": path, what: tuple(found[2])})
    column = found[1]
    if isinstance(column, list) and all(_whole_numbers(each) and len(each) == 1 for each in column):
        return Target(**{"path": path, what: tuple(found[2]), "positions": tuple(each[0] for each in column)})
    return None


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int for each in value)


def _numbers(value: Any) -> Any:
    return (value,) if type(value) is int else value


def _bare(node: ast.expr) -> str:
    return normal(ast.unparse(ast.Subscript(ast.Name("_"), node, ast.Load()))[1:])[1:-1]


def _method(node: ast.expr | None, name: str) -> ast.expr | None:
    """What `….name()` is called on."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
        return node.func.value if not node.args and not node.keywords else None
    return None


def _uncloned(node: ast.expr) -> ast.expr:
    return _method(node, "clone") or node


def _measure(call: ast.Call) -> Measure | None:
    given = [ast.literal_eval(each) for each in call.args] + [ast.literal_eval(each.value) for each in call.keywords]
    return Measure(metric=given[0], answers=tuple(given[1]) if len(given) > 1 else ())


__all__ = ["Reader", "canonical", "steps_in"]
