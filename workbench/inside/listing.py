"""Listing: the calls in a function's source, each with a name that stays the same from run to run."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from workbench.errors import SourceError
from workbench.inside.forwards import forward_of
from workbench.inside.layers import innermost
from workbench.inside.recompiled import OPERATORS
from workbench.inside.scope import UNKNOWN, Scope
from workbench.inside.written import written

_NO_SITES = frozenset(
    """super isinstance issubclass print len range enumerate zip reversed sorted map filter any all iter next getattr
    setattr hasattr callable type id repr tuple list dict set frozenset slice int float bool str min max
    round""".split()
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

    tree: ast.FunctionDef
    first: int
    lines: tuple[str, ...]
    calls: tuple[Call, ...]
    nodes: dict[str, ast.AST]
    order: dict[str, int]

    def places(self, wanted: Collection[str]) -> dict[int, str]:
        """The wanted calls by their place in the tree, as `recompiled` takes them."""
        return {self.order[name]: name for name in wanted}

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


def listing(function: FunctionType, what: str) -> Listing:
    """A function's calls, in the order in which they are made. `what` names it in errors.

    Raises:
        SourceError: the source cannot be read, or is not that of one function.
    """
    written(function.__code__, what)  # says in words what cannot be opened
    return _listing(function.__code__, function.__code__.co_filename)


@lru_cache(1024)
def _listing(code: CodeType, filename: str) -> Listing:
    tree, lines, first = written(code, code.co_name)[:3]
    found = [each for statement in tree.body for each in _calls(statement)]
    count = Counter(name for name, _ in found)
    seen: Counter[str] = Counter()
    nodes: dict[str, ast.AST] = {}
    calls = []
    for name, node in found:
        full = f"{name}_{seen[name]}" if count[name] > 1 else name
        while count[name] > 1 and full in count:  # a call of its own is named as this one would be
            full += "_"
        seen[name] += 1
        nodes[full] = node
        calls.append(Call(full, _line(node), ast.unparse(node)))
    indent = min(len(line) - len(line.lstrip()) for line in lines[:1])
    shown = tuple(line[indent:] if line[:indent].isspace() else line for line in lines)
    places = {node: place for place, node in enumerate(ast.walk(tree))}
    order = {name: places[node] for name, node in nodes.items()}
    return Listing(tree, first, shown, tuple(calls), nodes, order)


def _line(node: ast.AST) -> int:
    """The line where a call's name stands, which in a chain over several lines is not its first."""
    at: Any = node.func if isinstance(node, ast.Call) else node
    line: Any = at.end_lineno if isinstance(at, ast.Attribute) else at.lineno
    return line


def _calls(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Calls and operators below a node, those that are made first coming first."""
    for child in _in_order(node):
        yield from _calls(child)
    if isinstance(node, ast.Call):
        name = _called(node.func)
        if name is not None:
            yield name, node
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not _of_constants(node):
        yield OPERATORS[type(node.op)], node
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS and isinstance(node.target, ast.Name):
        yield f"i{OPERATORS[type(node.op)]}", node


def _in_order(node: ast.AST) -> list[ast.AST]:
    """A node's children as they are run; those that never give a value (an error's words, annotations) are left out."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr():
            return []
        case ast.Assign(targets=targets, value=value):
            return [value, *targets]
        case ast.AnnAssign(target=target, value=value):
            return [target] if value is None else [value, target]
        case ast.For(target=target, iter=source, body=body, orelse=orelse):
            return [source, target, *body, *orelse]
        case ast.ListComp(elt=each, generators=loops) | ast.SetComp(elt=each, generators=loops):
            return [*loops, each]
        case ast.GeneratorExp(elt=each, generators=loops):
            return [*loops, each]
        case ast.DictComp(key=key, value=value, generators=loops):
            return [*loops, key, value]
        case ast.comprehension(target=target, iter=source, ifs=ifs):
            return [source, target, *ifs]
        case ast.Dict(keys=keys, values=values):
            return [part for pair in zip(keys, values, strict=True) for part in pair if part is not None]
        case ast.FunctionDef(body=body):
            return list(body)
        case ast.withitem(context_expr=ast.Call(args=args, keywords=more)):
            return [*args, *more]  # a context such as no_grad() is no value
    return list(ast.iter_child_nodes(node))


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
        if (not parts and function.id in _NO_SITES) or function.id in ("logger", "logging", "warnings"):
            return None
        if not parts:
            return function.id
        if function.id in _MODULES:
            return "_".join([function.id, *reversed(parts)])
        return "_".join(reversed(parts)) if function.id == "self" else parts[0]
    return parts[0] if parts else None


_MODULES = frozenset({"torch", "nn", "F", "math", "einops"})


def inside(module: nn.Module, names: Collection[str]) -> Listing:
    """The listing of a module's forward, or of the function called there, in the function called in that one, ….

    Which function a call runs is worked out from the source, the module and its configuration; nothing is run.

    Raises:
        SourceError: the forward or a function cannot be opened, or which one is called is known only in the run.
    """
    what = f"{type(module).__name__}.forward"
    function, given = innermost(forward_of(module), what)
    named: dict[str, Any] = {}
    found = listing(function, what)
    for name in names:
        what = f"{what}, {name}"
        node = found.nodes.get(name)
        if node is None:
            raise SourceError(f"{what}: there is no such call; it has {', '.join(found.nodes) or 'none'}")
        if not isinstance(node, ast.Call):
            raise SourceError(f"{what} cannot be opened: it is an operator")
        scope = Scope(function, given, named)
        scope.run_to(found.tree.body, node)
        target = scope.value(node.func)
        if target is UNKNOWN:
            raise SourceError(f"{what} cannot be opened: which function it calls is known only in the run")
        known, named = scope.arguments(node)
        function, first = innermost(target, what)
        given = (*first, *known)
        found = listing(function, what)
    return found
