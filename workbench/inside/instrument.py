"""Instrument: a function's own code compiled again, so that named calls in it pass through a hook."""

from __future__ import annotations

import ast
import copy
import operator
import types
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from torch import nn

from workbench.errors import SourceError
from workbench.inside.forwards import original_forward
from workbench.inside.listing import OPERATORS, Hook, Listing, innermost, listing

_CALL = "__workbench_call__"


def instrumented(module: nn.Module, wanted: Iterable[str], hook: Hook) -> Callable[..., Any]:
    """The module's forward, bound, with the wanted calls passing through `hook`.

    A dotted name is of a call inside a called function: `attention_interface.softmax`.
    """
    original = original_forward(module)
    made = with_hooks(
        getattr(original, "__func__", original), frozenset(wanted), hook, "", f"{type(module).__name__}.forward"
    )
    return types.MethodType(made, module) if hasattr(original, "__func__") else made


def with_hooks(function: Any, wanted: frozenset[str], hook: Hook, prefix: str, what: str) -> Any:
    """The function, below the same decorators, with its wanted calls passing through `hook`."""
    inner = innermost(function, what)
    here = frozenset(name.partition(".")[0] for name in wanted)
    found = listing(inner, what)
    unknown = here - set(found.names.values())
    if unknown:
        raise SourceError(f"{what} makes no call named {', '.join(sorted(unknown))}; print its source to see the names")

    def call(name: str, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        full = prefix + name
        args, kwargs = hook(full, "input", (args, kwargs))
        below = frozenset(each.removeprefix(f"{name}.") for each in wanted if each.startswith(f"{name}."))
        if below:
            target = _opened(target, below, hook, f"{full}.", full)
        return hook(full, "output", target(*args, **kwargs))

    return _redecorated(function, inner, _bound(inner, _compiled(found, here), call), what)


def _opened(target: Any, wanted: frozenset[str], hook: Hook, prefix: str, what: str) -> Any:
    made = with_hooks(getattr(target, "__func__", target), wanted, hook, prefix, what)
    owner = getattr(target, "__self__", None)
    return made if owner is None else types.MethodType(made, owner)


class _Wrap(ast.NodeTransformer):
    """`f(x)` becomes `call("name", f, x)`, and `a @ b` becomes `call("name", operator.matmul, a, b)`."""

    def __init__(self, names: dict[ast.AST, str], owner: str) -> None:
        self.names = names
        self.owner = owner

    def visit_Call(self, node: ast.Call) -> Any:
        name = self.names.get(node)
        self.generic_visit(node)
        if name is None:
            return node
        return ast.copy_location(
            ast.Call(_name(_CALL), [ast.Constant(name), node.func, *node.args], node.keywords), node
        )

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        name = self.names.get(node)
        self.generic_visit(node)
        if name is None:
            return node
        function = ast.Subscript(_name(f"{_CALL}operators"), ast.Constant(OPERATORS[type(node.op)]), ast.Load())
        return ast.copy_location(
            ast.Call(_name(_CALL), [ast.Constant(name), function, node.left, node.right], []), node
        )

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        self.generic_visit(node)
        if node.attr.startswith("__") and not node.attr.endswith("__"):  # as the compiler does inside a class
            node.attr = f"_{self.owner.lstrip('_')}{node.attr}"
        return node


def _name(text: str) -> ast.Name:
    return ast.Name(text, ast.Load())


@cache
def _code(function: Any, wanted: frozenset[str]) -> types.CodeType:
    found = listing(function, function.__qualname__)
    order = {node: index for index, node in enumerate(ast.walk(found.tree))}
    tree = copy.deepcopy(found.tree)
    copies = list(ast.walk(tree))
    names = {copies[order[node]]: name for node, name in found.names.items() if name in wanted}
    owner = function.__qualname__.rpartition(".")[0].rpartition(".")[2]
    tree = _Wrap(names, owner).visit(tree)
    tree.returns = None
    for argument in ast.walk(tree.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    tree.args.defaults = [ast.Constant(None) for _ in tree.args.defaults]
    tree.args.kw_defaults = [None if each is None else ast.Constant(None) for each in tree.args.kw_defaults]
    free = [*function.__code__.co_freevars, _CALL, f"{_CALL}operators"]
    outer = ast.parse("def outer(): pass").body[0]
    assert isinstance(outer, ast.FunctionDef)
    outer.args = ast.arguments([], [ast.arg(name) for name in free], None, [], [], None, [])
    outer.body = [tree]
    ast.fix_missing_locations(outer)
    ast.increment_lineno(outer, found.first - 1)
    compiled = compile(ast.Module([outer], []), function.__code__.co_filename, "exec", dont_inherit=True)
    body = next(each for each in compiled.co_consts if isinstance(each, types.CodeType))
    return next(each for each in body.co_consts if isinstance(each, types.CodeType) and each.co_name == tree.name)


def _compiled(found: Listing, wanted: frozenset[str]) -> types.CodeType:
    return _code(found.function, wanted)


def _bound(original: types.FunctionType, code: types.CodeType, call: Callable[..., Any]) -> types.FunctionType:
    """The code as a function with the original's globals, defaults and closure."""
    cells = dict(zip(original.__code__.co_freevars, original.__closure__ or (), strict=True))
    cells[_CALL] = types.CellType(call)
    cells[f"{_CALL}operators"] = types.CellType({name: getattr(operator, name) for name in OPERATORS.values()})
    closure = tuple(cells[name] for name in code.co_freevars)
    made = types.FunctionType(code, original.__globals__, original.__name__, original.__defaults__, closure)
    made.__kwdefaults__ = original.__kwdefaults__
    made.__qualname__ = original.__qualname__
    made.__module__ = original.__module__
    made.__annotations__ = dict(original.__annotations__)
    made.__dict__.update(original.__dict__)
    return made


def _redecorated(function: Any, inner: Any, made: Any, what: str) -> Any:
    """The decorators of `function` around `made`: copies of the wrappers, which hold what they wrap in a closure."""
    if function is inner:
        return made
    wrapped = function.__wrapped__
    below = _redecorated(wrapped, inner, made, what)
    if not isinstance(function, types.FunctionType) or function.__closure__ is None:
        raise SourceError(f"{what} cannot be opened: a decorator hides it; read its output instead")
    cells = []
    replaced = False
    for cell in function.__closure__:
        if cell.cell_contents is wrapped:
            cell, replaced = types.CellType(below), True
        cells.append(cell)
    if not replaced:
        raise SourceError(f"{what} cannot be opened: a decorator hides it; read its output instead")
    wrapper: Any = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
    wrapper.__kwdefaults__ = function.__kwdefaults__
    wrapper.__dict__.update(function.__dict__)
    wrapper.__wrapped__ = below
    return wrapper
