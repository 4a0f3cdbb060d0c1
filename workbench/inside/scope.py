"""Scope: what the names in a function stand for, as far as that is known before it runs."""

from __future__ import annotations

import ast
import builtins
import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any

from workbench.inside.written import bound_in, written

UNKNOWN: Any = type("Unknown", (), {"__repr__": lambda self: "UNKNOWN"})()
_PLAIN = (str, int, float, bool, type(None), type)
_SAFE: tuple[Any, ...] = (getattr, hasattr, isinstance, functools.partial)
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


class Scope:
    """A function's names. `given` are the first of its arguments, `named` others by name."""

    def __init__(self, function: FunctionType, given: Iterable[Any], named: Mapping[str, Any]) -> None:
        code = function.__code__
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        self.first = arguments[0] if code.co_argcount else ""
        values = dict(zip(arguments[: code.co_argcount], given, strict=False))
        values |= {name: value for name, value in named.items() if name in arguments}
        self.values: dict[str, Any] = {name: value for name, value in values.items() if value is not UNKNOWN}
        self.bound = written(code, code.co_name).bound
        self.cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        self.globals = function.__globals__

    # ---- statements

    def run_to(self, statements: list[ast.stmt], stop: ast.AST) -> None:
        """Follow the assignments that come before a node; of what only a run can tell, the names are unknown."""
        for statement in statements:
            if any(node is stop for node in ast.walk(statement)):
                for inner in _bodies(statement):
                    if any(node is stop for each in inner for node in ast.walk(each)):
                        if not isinstance(statement, ast.If):
                            self._forget(statement)
                        self.run_to(inner, stop)
                return
            self._run(statement)

    def _run(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._set(name, self.value(value))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._set(name, self.value(value))
            case ast.If(test=test, body=body, orelse=orelse):
                known = self.value(test)
                if known is UNKNOWN:
                    self._forget(statement)
                else:
                    for each in body if known else orelse:
                        self._run(each)
            case _:
                self._forget(statement)

    def _set(self, name: str, value: Any) -> None:
        if value is UNKNOWN:
            self.values.pop(name, None)
        else:
            self.values[name] = value

    def _forget(self, node: ast.AST) -> None:
        for name in bound_in(node):
            self.values.pop(name, None)

    # ---- expressions

    def value(self, node: ast.expr) -> Any:
        """What an expression gives, or `UNKNOWN`. Nothing is called but look-ups in tables."""
        try:
            return self._value(node)
        except Exception:  # a property or a table of the model's own
            return UNKNOWN

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=owner, attr=name):
                found = self._value(owner)
                return UNKNOWN if found is UNKNOWN else getattr(found, name)
            case ast.Subscript(value=owner, slice=index):
                found, key = self._value(owner), self._value(index)
                return UNKNOWN if found is UNKNOWN or key is UNKNOWN else found[key]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                found = self._value(operand)
                return (not found) if isinstance(found, _PLAIN) else UNKNOWN
            case ast.BoolOp(op=op, values=parts):
                return self._either(isinstance(op, ast.Or), parts)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                known = self._value(test)
                return UNKNOWN if known is UNKNOWN else self._value(body if known else orelse)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                pair = self._value(left), self._value(right)
                compare = _COMPARE.get(type(op))
                fits = all(isinstance(each, (*_PLAIN, tuple, list)) for each in pair)
                return compare(*pair) if compare is not None and fits else UNKNOWN
            case ast.Call():
                return self._call(node)
        return UNKNOWN

    def _name(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        if name in self.bound:
            return UNKNOWN
        if name in self.cells:
            return self.cells[name].cell_contents
        return self.globals[name] if name in self.globals else getattr(builtins, name)

    def _either(self, last_true: bool, parts: list[ast.expr]) -> Any:
        found: Any = UNKNOWN
        for part in parts:
            found = self._value(part)
            if found is UNKNOWN or (isinstance(found, _PLAIN) and bool(found) is last_true):
                return found
        return found

    def _call(self, node: ast.Call) -> Any:
        function = self._value(node.func)
        if function is super and not node.args:
            return super(self._name("__class__"), self.values[self.first])
        looks_up = isinstance(getattr(function, "__self__", None), Mapping) and function.__name__.startswith("get")
        if not looks_up and function not in _SAFE:
            return UNKNOWN
        args = [self._value(each) for each in node.args]
        kwargs = {each.arg or "": self._value(each.value) for each in node.keywords}
        if any(each is UNKNOWN for each in (*args, *kwargs.values())):
            return UNKNOWN
        return function(*args, **kwargs)

    def arguments(self, call: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        """A call's arguments as far as they are known: by position up to a `*args`, and by name."""
        given = []
        for each in call.args:
            if isinstance(each, ast.Starred):
                break
            given.append(self.value(each))
        return given, {each.arg: self.value(each.value) for each in call.keywords if each.arg}


def _bodies(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks of a statement; a nested function's are not its own, since their names are others."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return []
    blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    blocks += [each.body for each in getattr(statement, "handlers", [])]
    blocks += [each.body for each in getattr(statement, "cases", [])]
    return [each for each in blocks if each]
