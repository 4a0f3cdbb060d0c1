"""Recompiled: a function's own code compiled again, in which some of its calls are made by another function."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import CellType, CodeType, FunctionType
from typing import Any

from workbench.inside.written import compiled, parsed

OPERATORS: dict[type[ast.operator], str] = {
    ast.MatMult: "matmul", ast.Mult: "mul", ast.Add: "add", ast.Sub: "sub", ast.Div: "truediv", ast.Pow: "pow",
}  # fmt: skip
_CALL = "__workbench_call__"
_OPERATOR = "__workbench_operator__"

Caller = Callable[..., Any]
"""`caller(name, function, *args, **kwargs)` makes the call of that name."""


def recompiled(function: FunctionType, places: Mapping[int, str], caller: Caller) -> FunctionType:
    """The function with the calls at some places of its tree (in `ast.walk`'s order) made by `caller`, by name.

    Everything else stays: globals, defaults, closure, annotations, and the file's lines in tracebacks.
    """
    code = _code(function.__code__, function.__code__.co_filename, frozenset(places.items()))
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells |= {_CALL: CellType(caller), _OPERATOR: CellType(operator)}
    return updated(
        FunctionType(code, function.__globals__, closure=tuple(cells[n] for n in code.co_freevars)), function
    )


def updated(new: FunctionType, old: FunctionType) -> FunctionType:
    """A copy's name, defaults, annotations and attributes, taken from the function that it is a copy of."""
    new.__name__, new.__qualname__, new.__module__ = old.__name__, old.__qualname__, old.__module__
    new.__defaults__, new.__kwdefaults__, new.__doc__ = old.__defaults__, old.__kwdefaults__, old.__doc__
    # Python 3.14 works annotations out when they are asked for.
    annotations = "__annotate__" if hasattr(old, "__annotate__") else "__annotations__"
    setattr(new, annotations, getattr(old, annotations))
    new.__dict__.update(old.__dict__)
    return new


@lru_cache(1024)
def _code(code: CodeType, filename: str, places: frozenset[tuple[int, str]]) -> CodeType:
    tree = parsed(code)
    nodes = list(ast.walk(tree))
    return compiled(_Through({nodes[place]: name for place, name in places}).visit(tree), code, (_CALL, _OPERATOR))


class _Through(ast.NodeTransformer):
    """`f(x)` becomes `call("name", f, x)`, `a @ b` becomes `call("name", operator.matmul, a, b)`."""

    def __init__(self, names: dict[ast.AST, str]) -> None:
        self.names = names

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        return self._through(node, node.func, node.args, node.keywords) if node in self.names else node

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        return self._through(node, _operator(node, ""), [node.left, node.right]) if node in self.names else node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        self.generic_visit(node)
        if node not in self.names or not isinstance(node.target, ast.Name):
            return node
        old = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
        value = self._through(node, _operator(node, "i"), [old, node.value])
        return ast.copy_location(ast.Assign([node.target], value), node)

    def _through(self, node: ast.AST, function: ast.expr, args: list[ast.expr], more: Any = ()) -> ast.expr:
        caller = ast.copy_location(ast.Name(_CALL, ast.Load()), node)
        call = ast.Call(caller, [ast.Constant(self.names[node]), function, *args], list(more))
        return ast.copy_location(call, node)


def _operator(node: ast.BinOp | ast.AugAssign, prefix: str) -> ast.expr:
    return ast.Attribute(ast.Name(_OPERATOR, ast.Load()), prefix + OPERATORS[type(node.op)], ast.Load())
