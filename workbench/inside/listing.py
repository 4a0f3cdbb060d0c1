"""Listing: the calls in a function's source, each with a name that stays the same from run to run."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn

from workbench.errors import SourceError
from workbench.inside.forwards import original_forward

OPERATORS: dict[type[ast.operator], str] = {
    ast.MatMult: "matmul", ast.Mult: "mul", ast.Add: "add", ast.Sub: "sub", ast.Div: "truediv", ast.Pow: "pow",
}  # fmt: skip
_NO_SITES = frozenset(
    """super isinstance issubclass print len range enumerate zip getattr setattr hasattr type tuple list dict set int
    float bool str min max ValueError TypeError RuntimeError NotImplementedError""".split()
)


@dataclass(frozen=True)
class Call:
    """One call: its name in the listing, its line in the file, its text."""

    name: str
    line: int
    text: str


@dataclass(frozen=True)
class Listing:
    """A function's source with the names of its calls. Printing it shows both, line by line."""

    function: Any
    tree: ast.FunctionDef
    first: int
    lines: tuple[str, ...]
    calls: tuple[Call, ...]
    names: dict[ast.AST, str]

    def __str__(self) -> str:
        by_line: dict[int, list[str]] = {}
        for call in self.calls:
            by_line.setdefault(call.line, []).append(call.name)
        wide = min(max(len(line) for line in self.lines), 100)
        rows = []
        for number, line in enumerate(self.lines, self.first):
            names = by_line.get(number)
            rows.append(f"{line:<{wide}}  ← {', '.join(names)}" if names else line)
        return "\n".join(rows)


def forward_of(module: nn.Module) -> Any:
    """The module's own forward, without its self."""
    original = original_forward(module)
    return getattr(original, "__func__", original)


def innermost(function: Any, what: str) -> FunctionType:
    """The function below its decorators. Raises `SourceError` for one that is no Python function."""
    found: Any = inspect.unwrap(function)
    found = getattr(found, "__func__", found)
    if not isinstance(found, FunctionType):
        kind = type(found).__name__
        raise SourceError(
            f"{what} cannot be opened: it is a {kind}, which has no Python source; read its output instead"
        )
    return found


_listings: dict[Any, Listing] = {}


def listing(function: FunctionType, what: str) -> Listing:
    """A function's calls, in the order in which they are made. `what` names it in errors.

    Raises:
        SourceError: the source cannot be read, or is not that of one function.
    """
    kept = _listings.get(function.__code__)
    if kept is None:
        kept = _listings[function.__code__] = _read(function, what)
    return kept


def _read(function: FunctionType, what: str) -> Listing:
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError) as error:
        raise SourceError(
            f"{what} cannot be opened: its source cannot be read ({error}); read its output instead"
        ) from error
    if not isinstance(tree, ast.FunctionDef):
        raise SourceError(f"{what} cannot be opened: it is a {type(tree).__name__}, not a plain function")
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(tree)):
        raise SourceError(f"{what} cannot be opened: it is a generator; read its output instead")
    tree.decorator_list = []
    found: list[tuple[str, ast.expr]] = []
    for statement in tree.body:
        _visit(statement, found)
    count = Counter(name for name, _ in found)
    seen: Counter[str] = Counter()
    names: dict[ast.AST, str] = {}
    calls = []
    for name, node in found:
        full = f"{name}_{seen[name]}" if count[name] > 1 else name
        seen[name] += 1
        names[node] = full
        calls.append(Call(full, first + node.lineno - 1, ast.unparse(node)))
    shown = tuple(line.rstrip("\n") for line in textwrap.dedent("".join(lines)).splitlines())
    return Listing(function, tree, first, shown, tuple(calls), names)


def _visit(node: ast.AST, found: list[tuple[str, ast.expr]]) -> None:
    """Calls and operators below a node, those that are made first coming first."""
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        children.sort(key=lambda child: not isinstance(child, ast.comprehension))  # what is gone over comes first
    for child in children:
        _visit(child, found)
    if isinstance(node, ast.Call):
        name = _called(node.func)
        if name is not None:
            found.append((name, node))
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not _of_constants(node):
        found.append((OPERATORS[type(node.op)], node))


def _of_constants(node: ast.expr) -> bool:
    return all(isinstance(each, (ast.Constant, ast.BinOp, ast.operator)) for each in ast.walk(node))


def _called(function: ast.expr) -> str | None:
    """`self.c_attn` → c_attn, `torch.matmul` → torch_matmul, `x.view(…).transpose` → transpose."""
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if isinstance(function, ast.Subscript):
        return parts[0] if parts else None
    if isinstance(function, ast.Name):
        if (not parts and function.id in _NO_SITES) or function.id in ("logger", "warnings"):
            return None
        if not parts:
            return function.id
        if function.id in _MODULES:
            return "_".join([function.id, *reversed(parts)])
        return "_".join(reversed(parts)) if function.id == "self" else parts[0]
    return parts[0] if parts else None


_MODULES = frozenset({"torch", "nn", "F", "math", "einops"})


def resolve(module: nn.Module, inside: Listing, name: str) -> Any:
    """The function that a listed call would call, as far as the source tells.

    Raises:
        SourceError: it is known only in the run.
    """
    node = next((node for node, known in inside.names.items() if known == name), None)
    if not isinstance(node, ast.Call):
        raise SourceError(f"{name} cannot be opened: it is an operator")
    scope: dict[str, Any] = {**inside.function.__globals__, "self": module}
    target = node.func
    if isinstance(target, ast.Name) and target.id not in inside.function.__globals__:
        target = _assigned(inside.tree, target)
    try:
        return eval(compile(ast.Expression(target), "<a call's function>", "eval"), scope)
    except Exception as error:
        raise SourceError(f"{name} cannot be opened: which function it calls is known only in the run") from error


def _assigned(tree: ast.FunctionDef, name: ast.Name) -> ast.expr:
    """What a variable is assigned, as in `interface = table.get(self.config.kind)`; else the variable."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        if statement.value is not None and any(isinstance(t, ast.Name) and t.id == name.id for t in targets):
            return statement.value
    return name


Hook = Callable[[str, str, Any], Any]
"""`hook(name, "input", (args, kwargs))` and `hook(name, "output", value)`: the value to go on with."""
