"""The first line of a `%%trace` cell, read."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from workbench.errors import InputError

USAGE = '%%trace model "prompt" [--invoke NAME]… [--generate N] [--validate] [--remote] [--name RUN] [--seed N]'
_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:\\.|[^"\\])*"|'[^']*')+""")


@dataclass(frozen=True)
class Given:
    """An input as it stands on the line: a text in quotes, or the name of a variable that holds one."""

    text: str
    quoted: bool

    def value(self, variables: Mapping[str, object]) -> Any:
        """The input itself.

        Raises:
            InputError: there is no variable of this name.
        """
        if self.quoted:
            return self.text
        if self.text not in variables:
            raise InputError(f'there is no variable {self.text!r}; a prompt stands in quotes: "{self.text}"')
        return variables[self.text]


@dataclass(frozen=True)
class Header:
    """What the line says. With several inputs the body is traced for each, in an invoke of its own."""

    model: str
    inputs: tuple[Given, ...] = ()
    generate: int = 0
    temperature: float = 0.0
    seed: int | None = None
    validate: bool = False
    remote: bool = False
    name: str | None = None

    def settings(self, variables: Mapping[str, object]) -> dict[str, Any]:
        """What it says of an experiment; a variable that is not known, or holds no text, is taken by its name."""
        found: dict[str, Any] = {"model": self.model, "generate": self.generate, "seed": self.seed}
        found["temperature"] = self.temperature if self.generate else 0.0
        if self.inputs:
            values = [each.text if each.quoted else variables.get(each.text) for each in self.inputs]
            texts = [one if isinstance(one, str) else each.text for one, each in zip(values, self.inputs, strict=True)]
            found["prompts"] = tuple(texts)
        return found


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
        >>> found = header('model "The Eiffel Tower" --generate 3')
        >>> found.inputs[0].text, found.generate
        ('The Eiffel Tower', 3)
    """
    quoted: dict[str, str] = {}
    words = [_word(raw, quoted) for raw in _split(line)]
    found: Any = _parser().parse_args(words)
    if found.generate < 0:
        raise InputError(f"--generate {found.generate}: how many new tokens, 0 or more")
    given: list[str] = [*([] if found.prompt is None else [found.prompt]), *found.invoke]
    return Header(
        str(quoted.get(found.model, found.model)),
        tuple(Given(quoted.get(each, each), each in quoted) for each in given),
        found.generate,
        found.temperature,
        found.seed,
        found.validate,
        found.remote,
        found.name and quoted.get(found.name, found.name),
    )


def _split(line: str) -> list[str]:
    """The words of the line, with their quotes."""
    rest = _WORD.sub("", line).strip()
    if rest:
        raise InputError(f"the line of %%trace cannot be read: {rest[0]} is not closed; write {USAGE}")
    return _WORD.findall(line)


def _word(raw: str, quoted: dict[str, str]) -> str:
    """A word for the parser, in which a text in quotes is a sign of its own: it is never an option."""
    if not any(each in raw for each in "\"'\\"):
        return raw
    sign = f"\0{len(quoted)}"
    quoted[sign] = shlex.split(raw)[0]
    return sign


def header_of(text: str) -> tuple[Header | None, str]:
    """A cell's `%%trace` line, if it begins with one, and the rest."""
    first, _, rest = text.lstrip("\n").partition("\n")
    if first.split(" ", 1)[0] != "%%trace":
        return None, text
    return header(first.removeprefix("%%trace")), rest
