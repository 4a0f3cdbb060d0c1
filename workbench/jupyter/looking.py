"""Looking: `wb.look(…)`: a view of a run, of a value that it saved, of any tensor, or of a model's pass, in a cell."""

from __future__ import annotations

import sys
import weakref
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from workbench.errors import InputError
from workbench.jupyter import link, looks, viewing
from workbench.jupyter.history import PanelRun
from workbench.jupyter.looks import Look
from workbench.jupyter.messages import ViewParams
from workbench.models.base import NNsight
from workbench.views.header import KINDS, Kind
from workbench.views.kinds import facts_of, kinds_of
from workbench.views.view import View


def look(
    what: Any,
    kind: Kind | None = None,
    *,
    of: str = "",
    model: NNsight | None = None,
    prompt: str | int = 0,
    **options: Any,
) -> View:
    """Something to look at, which shows itself in a cell; `to_dataframe()` gives its numbers.

    Args:
        what: a run of the panel or its number, a tensor, or a model.
        kind: "residual", "attention", "logits", "mlp", "gradient" or "array"; what suits it where left out.
        of: name of the saved value of a run; the run as a whole where left out.
        model: for a tensor, whose: then the residual stream has a logit lens, and logits have words.
        prompt: for a model, its text; for a run, which of its prompts; for a tensor, the text whose tokens name its
            positions.
        options: of the kind. attention: `layer`, `head`, `batch`. mlp: `layer`, `neurons`, `position`, `batch`. array:
            `down`, `across`, `index`, `merged`. A saved value that holds several tensors: `part`.

    Raises:
        InputError: a run, a value, a kind or an option that is not there.

    Example:
        >>> import torch, workbench as wb
        >>> wb.look(torch.eye(3), "array").to_dataframe().shape
        (3, 3)
        >>> wb.look(wb.demo(), "residual", prompt="The Eiffel Tower")
        logit lens · residual view
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f"unknown kind of view {kind!r}; one of {', '.join(KINDS)}")
    if type(what) is int or isinstance(what, PanelRun):
        return _run(what if isinstance(what, int) else what.number, kind, of, prompt, options)
    if issubclass(type(what), NNsight):
        return _model(what, kind or "residual", prompt, options)
    if isinstance(what, Tensor):
        return _tensor(what, kind, model, prompt, options)
    raise InputError(f"a {type(what).__name__} cannot be looked at: give a run, its number, a tensor or a model")


def _run(number: int, kind: Kind | None, of: str, prompt: str | int, options: dict[str, Any]) -> View:
    here = link.current()
    if here is None:
        raise InputError(f"run {number} is of a notebook's kernel; here there is none")
    record = here.bench.runs_made.get(number)
    try:
        params = ViewParams(run=number, name=of, kind=kind, prompt=prompt, **options)  # pyright: ignore
    except ValidationError as error:
        raise InputError(_words(error)) from error
    return viewing.look(record, here.bench.model_of(record), params)


def _model(model: NNsight, kind: Kind, prompt: str | int, options: dict[str, Any]) -> View:
    if not isinstance(prompt, str):
        raise InputError('a model is looked at over a text: wb.look(model, "attention", prompt="The Eiffel Tower")')
    if kind == "array":
        raise InputError("a model as a whole has no array; give a tensor")
    _known(kind, options, viewing.OPTIONS[kind])
    return _look(Look(weakref.ref(model), _name(model), prompt=prompt), kind, options)


def _tensor(
    value: Tensor, kind: Kind | None, model: NNsight | None, prompt: str | int, options: dict[str, Any]
) -> View:
    chosen = kind or kinds_of(value, facts=None if model is None else facts_of(model))[0]
    own = ("names",) if chosen == "array" else ("batch",)
    _known(chosen, options, (*viewing.OPTIONS[chosen], *own, "title"))
    if isinstance(prompt, str) and model is None:
        raise InputError("a prompt names a tensor's positions by its model's tokens: give model=… too")
    look = Look(
        weakref.ref(value),
        _name(value),
        None if model is None else weakref.ref(model),
        "" if model is None else _name(model),
        prompt if isinstance(prompt, str) else None,
        {name: options.pop(name) for name in ("names", "title") if name in options},
    )
    return _look(look, chosen, options)


def _look(look: Look, kind: Kind, options: dict[str, Any]) -> View:
    """The view; where a page may ask for it again, with the number by which it does."""
    number = 0 if link.current() is None and "marimo" not in sys.modules else looks.keep(look)
    try:
        params = ViewParams(run=number, kind=kind, **options)
    except ValidationError as error:
        raise InputError(_words(error)) from error
    found = look.view(params)
    return found if number else replace(found, params=None)


def _name(value: Any) -> str:
    """What the notebook calls it."""
    here = link.current()
    names = {} if here is None else dict(here.variables())
    return next((name for name, each in names.items() if each is value and not name.startswith("_")), "")


def _known(kind: Kind, options: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in options:
        if name not in names:
            raise InputError(f"unknown option {name!r} of {kind!r}; it has {', '.join(names) or 'none'}")


def _words(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
