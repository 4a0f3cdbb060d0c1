"""Fault: something wrong, told to a person, on the card it belongs to."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.experiment.kinds import Frozen

GENERATED = re.compile(r"run \d+$")
"""The names that generated code is compiled under."""


class Fault(Frozen):
    """Something wrong, in words a person can act on."""

    message: str
    card: str | None = Field(default=None, description="id of the card it belongs to, when it belongs to one")
    line: str | None = Field(default=None, description="the user's own line, when one is to blame")
    detail: str | None = Field(default=None, description="the traceback, for the curious")
    level: Literal["error", "warning"] = Field(default="error", description="an error disables Run, a warning does not")


def explain(error: BaseException, cards: Mapping[int, str] | None = None) -> Fault:
    """An error as a fault.

    Args:
        error: what was raised.
        cards: for an error of generated code, the card that each of its lines came from.
    """
    line = getattr(error, "line", None) or (_line(error) if cards else None)
    number = re.search(r" line (\d+)\b", line) if line else None
    return Fault(
        message=_message(error),
        card=cards.get(int(number[1])) if cards and number else None,
        line=line,
        detail="".join(traceback.format_exception(error)),
    )


def _line(error: BaseException) -> str | None:
    """The innermost line of generated code that an error of Python's own went through."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if GENERATED.match(each.filename)]
    return f"{frames[-1].filename} line {frames[-1].lineno}: {frames[-1].line}" if frames else None


def _message(error: BaseException) -> str:
    """The error's own words; the kind of error before them where they were not written for a person to act on."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    words = re.split("\nWhile (?:running|validating) ", str(error))[0].strip()
    if isinstance(error, WorkbenchError):
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
