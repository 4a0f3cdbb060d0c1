"""The first line of a `%%trace` cell, read."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, field
from typing import Any, NoReturn

from workbench.errors import InputError

USAGE = '%%trace model "prompt" [--validate] [--generate N] [--invoke NAME]… [--seed N] [--remote] [--name RUN]'


@dataclass(frozen=True)
class Header:
    """What the line says; `invokes` are further prompts, each the name of a variable or a text."""

    model: str
    prompt: str | None = None
    invokes: tuple[str, ...] = ()
    generate: int = 0
    temperature: float = 0.0
    seed: int | None = None
    validate: bool = False
    remote: bool = False
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; write {USAGE}")


def _parser() -> _Parser:
    parser = _Parser(prog="%%trace", add_help=False, allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--invoke", action="append", default=[])
    parser.add_argument("--generate", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--remote", action="store_true")
    parser.add_argument("--name")
    return parser


def header(line: str) -> Header:
    """The arguments of `%%trace`, without that word.

    Raises:
        InputError: an argument that it does not have, or cannot be read.

    Example:
        >>> header('model "The Eiffel Tower" --generate 3').prompt
        'The Eiffel Tower'
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InputError(f"the line of %%trace cannot be read: {error}; write {USAGE}") from error
    found = _parser().parse_args(words)
    if found.generate < 0:
        raise InputError(f"--generate {found.generate}: how many new tokens, 0 or more")
    settings: dict[str, Any] = {
        "model": found.model,
        "generate": found.generate,
        "temperature": found.temperature,
        "seed": found.seed,
    }
    if found.prompt is not None:
        settings["prompts"] = (found.prompt,)
    return Header(
        found.model, found.prompt, tuple(found.invoke), found.generate, found.temperature, found.seed, found.validate,
        found.remote, found.name, settings,
    )  # fmt: skip


def header_of(text: str) -> tuple[Header | None, str]:
    """A cell's `%%trace` line, if it begins with one, and the rest."""
    first, _, rest = text.lstrip("\n").partition("\n")
    if first.split(" ", 1)[0] != "%%trace":
        return None, text
    return header(first.removeprefix("%%trace")), rest
