"""Subscript: an index written as text, `[0][:, -1, :10]`, read without running anything."""

from __future__ import annotations

import ast
from typing import Any

from workbench.errors import InputError


def normal(text: str) -> str:
    """An index as Python writes it: `[ : , -1 ]`, `: , -1` and `[:, -1]` are the same.

    Raises:
        InputError: what is no index, or is more than numbers, lists of numbers, slices, `...` and None.

    Example:
        >>> normal(":, -1, :10")
        '[:, -1, :10]'
    """
    return "".join(f"[{_unparsed(each)}]" for each in _parsed(text))


def indices(text: str) -> tuple[Any, ...]:
    """What stands in each pair of brackets, outermost last, as Python's own index objects.

    Example:
        >>> indices("[0][:, -1]")
        (0, (slice(None, None, None), -1))
    """
    return tuple(_value(each, text) for each in _parsed(text))


def _parsed(text: str) -> list[ast.expr]:
    text = text.strip()
    for source in (f"_{text}", f"_[{text}]") if text.startswith("[") else (f"_[{text}]",):
        try:
            node = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        found: list[ast.expr] = []
        while isinstance(node, ast.Subscript):
            found.insert(0, node.slice)
            node = node.value
        if isinstance(node, ast.Name) and found:
            for each in found:
                _value(each, text)
            return found
    raise InputError(f"{text!r} is no index; write it as in Python, such as [:, -1, :10]")


def _unparsed(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text[1:-1] if isinstance(node, ast.Tuple) and text.startswith("(") and node.elts else text


def _value(node: ast.expr | None, text: str) -> Any:
    """An index's value: numbers, lists of numbers, slices, `...`, None, and tuples of them."""
    if node is None:
        return None
    if isinstance(node, ast.Tuple):
        return tuple(_value(each, text) for each in node.elts)
    if isinstance(node, ast.List):
        return [_value(each, text) for each in node.elts]
    if isinstance(node, ast.Slice):
        return slice(_value(node.lower, text), _value(node.upper, text), _value(node.step, text))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, text)
        if isinstance(inner, int) and not isinstance(inner, bool):
            return -inner
    elif isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (int, type(...), str))):
        return node.value
    raise InputError(
        f"{text!r}: an index here is made of numbers, lists of numbers, slices, ... and None; "
        f"{ast.unparse(node)!r} is none of them"
    )
