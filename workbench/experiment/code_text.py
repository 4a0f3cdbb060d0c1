"""A person's own code as text: whether it is Python, and how it is moved to another indentation, word for word.

Lines inside a string that goes over several lines are never moved: they are part of the string.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator


def fault_of(code: str) -> str | None:
    """Why a code card is not Python that can stand in a trace; None if it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "code", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        said = getattr(error, "msg", None) or str(error)
        return f"line {line} of this code is not Python: {said}" if line else f"this code is not Python: {said}"
    return None


def moved(code: str, by: int) -> str:
    """The code with each line `by` spaces further in, or, when negative, further out."""
    inside = within_strings(code)
    lines = code.split("\n")
    return "\n".join(
        line if number in inside or not line.strip() else " " * by + line if by > 0 else line[-by:]
        for number, line in enumerate(lines, 1)
    )


def within_strings(code: str) -> set[int]:
    """The lines, from 1, that begin inside a string."""
    found: set[int] = set()
    starts: list[int] = []
    opening = getattr(tokenize, "FSTRING_START", -1)
    closing = getattr(tokenize, "FSTRING_END", -1)
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.STRING:
                found.update(range(token.start[0] + 1, token.end[0] + 1))
            elif token.type == opening:
                starts.append(token.start[0])
            elif token.type == closing:
                found.update(range(starts.pop() + 1, token.end[0] + 1))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass  # not Python: its card says so
    return found


def indentation(code: str) -> int:
    """How many spaces its first statement stands in."""
    line = next((line for line in code.split("\n") if line.strip() and not line.strip().startswith("#")), "")
    return len(line) - len(line.lstrip(" "))


def statements(code: str) -> list[ast.stmt]:
    """The statements of code that is Python."""
    return ast.parse(code).body


def assigned(tree: ast.AST) -> list[str]:
    """The names that code gives values to, in their order; those inside functions and comprehensions are their own."""
    stored = (node for node in _outermost(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return list(dict.fromkeys(node.id for node in stored))


_INNER = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp,
)  # fmt: skip


def _outermost(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _INNER):
            yield from _outermost(child)
