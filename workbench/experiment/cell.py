"""A `%%trace` cell as Python: the block that it stands for, on the cell's own lines.

%%trace model "The Eiffel Tower"          with model.trace("The Eiffel Tower") as tracer:
hidden = model.h[2].output.save()    →        hidden = model.h[2].output.save()
model.lm_head.output[:, -1]                   shown = model.lm_head.output[:, -1].save()
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from workbench.errors import InputError
from workbench.experiment.code_text import assigned
from workbench.experiment.from_python import Lifted, lifted
from workbench.experiment.kinds import Experiment
from workbench.experiment.magic_line import Header, header_of
from workbench.experiment.to_python import names_of
from workbench.models.base import NNsight
from workbench.proxy import Proxy, values_of

INPUT, KEEP, ENDED, OPTIONS = "__input_{}__", "__keep__", "__ended__", "__options__"
"""Names, in the executed block, of what the line gives and of what is called in it."""
SHOWN = "shown"
"""The name under which a run keeps the last expression."""


class Cell:
    """One cell: its line, read, and its body as a block.

    Args:
        text: the whole cell; the `%%trace` line comes first, but for empty ones.
        file: what the kernel calls it, for errors.
        variables: the kernel's, in which it is run.

    Raises:
        InputError: the line cannot be read, or names what is not there.
        SyntaxError: the body is no Python.
    """

    def __init__(self, text: str, file: str, variables: dict[str, Any]) -> None:
        header, body = header_of(text)
        if header is None:
            raise InputError("a cell that is traced begins with %%trace")
        self.text = text
        self.file = file
        self.header = header
        self.variables = variables
        self.model = _model(header, variables)
        self.inputs = [each.value(variables) for each in header.inputs]
        self.shown: Any = None
        """The last expression's value; with several inputs a list of them."""
        self._offset = text.count("\n") - body.count("\n")
        self._body = ast.parse("\n" * self._offset + body, file)
        self._found: dict[str, Any] = {}
        self._lifted: Lifted = lifted(text, variables)

    @property
    def experiment(self) -> Experiment:
        """What it stands for."""
        return self._lifted.experiment

    @property
    def cards(self) -> dict[int, str]:
        """Line → the card whose statement begins on it."""
        return self._lifted.cards

    @property
    def takes_texts(self) -> bool:
        """Whether all its inputs are texts, so that it can be run again from what is written down."""
        return bool(self.experiment.prompts[0]) and all(isinstance(each, str) for each in self.inputs)

    # ---- the block

    def block(self) -> ast.Module:
        """`with model.trace(...) as tracer:` around the body, or around an invoke for each of several inputs."""
        body = self._body.body
        several = len(self.inputs) > 1
        names = [INPUT.format(number) for number in range(len(self.inputs))]
        statements: list[ast.stmt] = []
        if several:
            for number, name in enumerate(names):
                ended = _parsed(f"{ENDED}({number})", self._offset)  # no card's line
                statements.append(self._with(f"tracer.invoke({name})", [*self._saving(deepcopy(body)), ended]))
        else:
            statements = self._saving(body)
        given = [] if several else names
        method = "generate" if self.header.generate else "trace"
        opened = f"{self.header.model}.{method}({', '.join([*given, f'**{OPTIONS}'])}) as tracer"
        return ast.Module([self._with(opened, statements)], [])

    def _with(self, opened: str, body: list[ast.stmt]) -> ast.stmt:
        made = _parsed(f"with {opened}: pass", self._offset)
        assert isinstance(made, ast.With)
        made.body = body
        made.end_lineno = body[-1].end_lineno
        return made

    def _saving(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """The body, its last expression saved."""
        if not body:
            return [_parsed("pass", self._offset)]
        last = body[-1]
        if isinstance(last, ast.Expr):
            call = ast.Expr(ast.Call(ast.Name(KEEP, ast.Load()), [last.value], []))
            body = [*body[:-1], ast.fix_missing_locations(ast.copy_location(call, last))]
        return body

    # ---- the run

    def given(self) -> dict[str, Any]:
        """What the block's own names stand for."""
        header = self.header
        options: dict[str, Any] = {}
        if header.generate:
            options |= {"max_new_tokens": header.generate}
            options |= {"do_sample": True, "temperature": header.temperature} if header.temperature else {}
            options |= {"seed": header.seed} if header.seed is not None else {}
        options |= {"validate": True} if header.validate else {}
        options |= {"remote": True} if header.remote else {}
        inputs = {INPUT.format(number): value for number, value in enumerate(self.inputs)}
        return {**inputs, OPTIONS: options, KEEP: self._keep, ENDED: self._ended}

    def _keep(self, value: Any) -> None:
        """The last expression."""
        for proxy in _proxies(value):
            proxy.save()
        if value is not None:
            self.shown = [*(self.shown or []), value] if len(self.inputs) > 1 else value

    def _ended(self, number: int) -> None:
        """The end of one of several invokes: a name that was assigned in it is that invoke's."""
        for name in self._names():
            if name in self.variables:
                self._found[f"{name}_{number}"] = self.variables[name]

    def close(self) -> None:
        """After the run: of several inputs each name holds a list."""
        if len(self.inputs) > 1:
            for name in self._names():
                values = [self._found.get(f"{name}_{number}") for number in range(len(self.inputs))]
                if any(map(is_proxy, values)):
                    self.variables[name] = values
        self.shown = values_of(self.shown)

    def values(self) -> dict[str, Any]:
        """Traced values by the name under which the run keeps them."""
        found = self._found if len(self.inputs) > 1 else {name: self.variables.get(name) for name in self._names()}
        shown = self.shown
        known = any(shown is value for value in found.values())
        return found if known else {**found, SHOWN: shown}

    def names(self) -> dict[str, Any]:
        """Saved name → (card, prompt)."""
        return names_of(self.experiment)

    def _names(self) -> list[str]:
        """Names that the body assigns, in their order."""
        return assigned(self._body)


def _model(header: Header, variables: Mapping[str, object]) -> NNsight:
    found = variables.get(header.model)
    if issubclass(type(found), NNsight):
        return found  # pyright: ignore[reportReturnType]
    there = [name for name, each in variables.items() if issubclass(type(each), NNsight) and name[0] != "_"]
    cure = f"; there is {', '.join(there)}" if there else '; make one, as in `model = wb.LanguageModel("gpt2")`'
    what = f"{header.model} is a {type(found).__name__}, no model" if found is not None else "no such model"
    raise InputError(f"%%trace {header.model}: {what}{cure}")


def is_proxy(value: object) -> bool:
    """Whether a value is a traced one; its own `__class__` says that it is what it holds."""
    return issubclass(type(value), Proxy)


def _proxies(value: Any) -> Iterator[Proxy]:
    if is_proxy(value):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _proxies(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _proxies(each)


def _parsed(code: str, line: int) -> ast.stmt:
    """One statement, as if it stood on a line."""
    (made,) = ast.parse(code).body
    ast.increment_lineno(made, line - 1)
    return made
