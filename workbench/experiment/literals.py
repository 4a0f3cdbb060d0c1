"""Literals: names, texts and numbers as a person would write them in Python."""

from __future__ import annotations

import keyword
import unicodedata


def is_name(text: str) -> bool:
    """Whether text is a Python name and stays what it is: Python itself folds some letters together."""
    return text.isidentifier() and not keyword.iskeyword(text) and unicodedata.normalize("NFKC", text) == text


def quoted(text: str) -> str:
    """Text as a Python literal: in double quotes, unless that would need more escapes."""
    if '"' in text:
        return repr(text)
    return '"' + repr("'" + text)[2:]  # repr keeps to double quotes when there is a single one inside


def number(value: float) -> str:
    """`2` for 2.0, else as Python writes it."""
    text = repr(float(value))
    return text.removesuffix(".0")
