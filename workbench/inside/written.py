"""Written: a function's own source as a syntax tree, proved to be what runs, and compiled again from the tree."""

from __future__ import annotations
import __future__

import ast
import dis
import inspect
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

from workbench.errors import SourceError

_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag
_STEPWISE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Written(NamedTuple):
    """A function as it stands in its file. The tree is shared: it is read, never changed."""

    tree: ast.FunctionDef
    lines: tuple[str, ...]
    first: int
    bound: frozenset[str]
    """The names that are given a value in it."""
    places: tuple[tuple[int, ast.Call], ...]
    """Its calls with their places in `ast.walk`'s order."""


def written(code: CodeType, what: str) -> Written:
    """A function's source. `what` names it in errors.

    Raises:
        SourceError: it has no source, is no plain function, or its source is not what runs.
    """
    try:
        return _written(code, code.co_filename)
    except SourceError as error:
        raise SourceError(f"{what} cannot be opened: {error}; read its output instead") from None


@lru_cache(1024)
def _written(code: CodeType, filename: str) -> Written:  # two files' functions may have equal codes
    if code.co_name == "<lambda>":
        raise SourceError("it is a lambda, whose source cannot be told from what stands around it")
    if code.co_flags & _STEPWISE:
        raise SourceError("it is a generator or a coroutine")
    lines, first = _block(code)
    tree = parsed(code)
    asserts = any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    if not any(_same(code, compiled(parsed(code), code, (), names), asserts) for names in _imported(code)):
        raise SourceError(f"its source in {filename} is not what runs, as after an edit; load it again")
    calls = tuple((place, node) for place, node in enumerate(ast.walk(tree)) if isinstance(node, ast.Call))
    return Written(tree, tuple(line.rstrip("\n") for line in lines), first, frozenset(bound_in(tree)), calls)


def bound_in(node: ast.AST) -> set[str]:
    """The names that are given a value anywhere below a node."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
    found |= {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    found |= {each.name for each in ast.walk(node) if isinstance(each, (ast.FunctionDef, ast.ClassDef))}
    found |= {a.asname or a.name.partition(".")[0] for a in ast.walk(node) if isinstance(a, ast.alias)}
    return found | {each.name for each in ast.walk(node) if isinstance(each, ast.ExceptHandler) and each.name}


def _block(code: CodeType) -> tuple[list[str], int]:
    try:
        lines, index = inspect.findsource(code)
        return inspect.getblock(lines[index:]), index + 1
    except (OSError, TypeError, SyntaxError, IndexError, tokenize.TokenError) as error:
        raise SourceError(f"its source cannot be read ({error})") from error


def _imported(code: CodeType) -> Iterator[list[ast.alias]]:
    """First no names, then those that the file imports: a call with many arguments is compiled otherwise on them."""
    yield []
    try:
        tree = ast.parse("".join(inspect.findsource(code)[0]))
    except SyntaxError:
        return  # a cell with a magic in it
    imports = [node.names for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.asname or alias.name.partition(".")[0] for aliases in imports for alias in aliases} - {"*"}
    yield [ast.alias(name) for name in names]


def parsed(code: CodeType) -> ast.FunctionDef:
    """A tree of its own, with the lines and columns of the file."""
    lines, first = _block(code)
    text = "".join(lines)
    indented = text[:1].isspace()
    try:
        # An indented block is put under an `if`: taking the indent away would change strings of several lines.
        body = ast.parse(f"if 1:\n{text}" if indented else text).body
    except SyntaxError as error:
        raise SourceError(f"its source cannot be read ({error})") from error
    tree = body[0].body[0] if indented and isinstance(body[0], ast.If) else body[0]
    if not isinstance(tree, ast.FunctionDef) or tree.name != code.co_name:
        raise SourceError(f"its source cannot be read (found a {type(tree).__name__} in its place)")
    ast.increment_lineno(tree, first - 1 - indented)
    return tree


def compiled(
    tree: ast.FunctionDef, code: CodeType, more: tuple[str, ...] = (), imports: list[ast.alias] | None = None
) -> CodeType:
    """The code of a function whose tree may have been changed; `more` are further free variables. Uses the tree up.

    The code is only made, never run at this level, so `imports` import nothing.
    """
    tree.decorator_list = []
    tree.returns = None
    for argument in [node for node in ast.walk(tree.args) if isinstance(node, ast.arg)]:
        argument.annotation = None
    # Defaults are taken from the function itself; only their number matters here.
    tree.args.defaults = [ast.Constant(None) for _ in tree.args.defaults]
    tree.args.kw_defaults = [None if each is None else ast.Constant(None) for each in tree.args.kw_defaults]
    if hasattr(tree, "type_params"):
        tree.type_params = []  # pyright: ignore[reportAttributeAccessIssue]
    owner = _class_of(code.co_qualname)
    if owner:
        for child in ast.iter_child_nodes(tree):
            _Mangled(owner).visit(child)
    # A function's own name inside it is the module's, except where it was a variable around it.
    around: list[ast.stmt] = [] if tree.name in code.co_freevars else [ast.Global([tree.name])]
    outer = ast.FunctionDef("outer", ast.arguments([], [], None, [], [], None, []), [*around, tree], [])
    outer.args.args = [ast.arg(name) for name in (*code.co_freevars, *more)]
    if hasattr(outer, "type_params"):
        outer.type_params = []  # pyright: ignore[reportAttributeAccessIssue]
    module = ast.fix_missing_locations(ast.Module([*([ast.Import(imports)] if imports else []), outer], []))
    made = compile(module, code.co_filename, "exec", flags=code.co_flags & _FUTURE, dont_inherit=True)
    inside = next(each for each in made.co_consts if isinstance(each, CodeType))
    return _renamed(next(each for each in inside.co_consts if isinstance(each, CodeType)), code.co_qualname)


def _renamed(code: CodeType, name: str) -> CodeType:
    """The code under its name in the file, with the functions in it."""
    inner = [
        _renamed(each, name + each.co_qualname.removeprefix(code.co_qualname)) if isinstance(each, CodeType) else each
        for each in code.co_consts
    ]
    return code.replace(co_qualname=name, co_consts=tuple(inner))


def _class_of(qualname: str) -> str:
    """The class in whose body a function stands, without leading underscores; empty for none."""
    parts = qualname.split(".")[:-1]
    while parts and parts[-1] == "<locals>":
        del parts[-2:]
    return parts[-1].lstrip("_") if parts else ""


class _Mangled(ast.NodeTransformer):
    """Names as `__secret` in a class, spelled out as the compiler would inside it."""

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def _name(self, name: str) -> str:
        return f"_{self.owner}{name}" if name.startswith("__") and not name.endswith("__") else name

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self._name(node.attr)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._name(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._name(node.arg)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node  # its names are its own


def _same(code: CodeType, again: CodeType, asserts: bool) -> bool:
    """Whether a function compiled from its source is the one that runs."""
    if asserts:  # a test runner writes its own code for `assert`, which adds names and takes none away
        return set(again.co_names) <= set(code.co_names) and set(again.co_varnames) <= set(code.co_varnames)
    steps = [[*_steps(code)], [*_steps(again)]]
    return len(steps[0]) == len(steps[1]) and all(
        _same(one[1], other[1], False)
        if isinstance(one[1], CodeType) and isinstance(other[1], CodeType)
        else one == other
        for one, other in zip(*steps, strict=True)
    )


def _steps(code: CodeType) -> Iterator[tuple[str, Any]]:
    """What a code does, without how: a file's imports decide by which instructions a method is called."""
    for step in dis.get_instructions(code):
        if step.opname not in _HOW:
            value = step.argval
            if isinstance(value, frozenset):
                value = sorted(map(repr, value))
            elif step.opcode in _JUMPS:
                value = None
            elif not isinstance(value, CodeType):
                value = repr(value)
            yield _ALIKE.get(step.opname, step.opname), value


_HOW = frozenset({"CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL", "RESUME"})
_ALIKE = {"LOAD_METHOD": "LOAD_ATTR", "CALL_METHOD": "CALL"}
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
