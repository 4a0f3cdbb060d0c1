"""Looks: what `wb.look` showed that is no run's: a tensor, or a model's pass, looked at otherwise while it is there."""

from __future__ import annotations

import secrets
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from torch import Tensor

from workbench.errors import InputError
from workbench.jupyter import viewing
from workbench.jupyter.messages import TileParams, TileReply, ViewParams, ViewReply
from workbench.views import observe
from workbench.views.header import Kind
from workbench.views.kinds import facts_of, kinds_of
from workbench.views.observe import as_kind
from workbench.views.view import View

MOST = 256
"""Looks that are remembered: they are small, since they keep nothing alive."""


@dataclass(frozen=True)
class Look:
    """What was looked at, without keeping it: a tensor, or a model's pass over a prompt."""

    what: weakref.ref[Any]
    name: str = ""
    """In the notebook, by which the view's code is written; empty where it has none."""
    model: weakref.ref[Any] | None = None
    """Of a tensor: whose."""
    model_name: str = ""
    prompt: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Options of an array that no page changes: names, title."""

    def view(self, params: ViewParams) -> View:
        """The view with what is chosen in `params`, which stands in it.

        Raises:
            InputError: what was looked at is gone; an index, a row, a neuron that is not there.
        """
        what = self._there()
        kind = params.kind
        assert kind is not None
        options = {name: getattr(params, name) for name in viewing.OPTIONS[kind]}
        if not isinstance(what, Tensor):
            found = observe.look(kind, observe.subject(what, self.prompt), **options)
            return self._told(found, params, kind, ())
        model = None if self.model is None else self.model()
        kinds = kinds_of(what, facts=None if model is None else facts_of(model))
        options.pop("layer", None)
        more = self.fixed if kind == "array" else {"batch": params.batch, **self.fixed}
        found = as_kind(kind, what, self._tokens(), model, **options, **more)
        return self._told(found, params, kind, tuple(dict.fromkeys((kind, *kinds))))

    def tile(self, params: TileParams) -> tuple[TileReply, list[bytes]]:
        """A part of the tensor."""
        return viewing.tile_in(self._there(), params, self.fixed.get("names", ()), self._tokens())

    def _there(self) -> Any:
        found = self.what()
        if found is None:
            raise InputError("what was looked at is no longer there: give it a name, and look again")
        return found

    def _tokens(self) -> tuple[str, ...]:
        model = None if self.model is None else self.model()
        return () if model is None or self.prompt is None else tuple(model.tokens(self.prompt))

    def _told(self, found: View, params: ViewParams, kind: Kind, kinds: tuple[Kind, ...]) -> View:
        code = ""
        if self.name:
            whose = [f"model={self.model_name}"] if self.model_name else []
            over = [] if self.prompt is None else [f"prompt={self.prompt!r}"]
            fixed = [f"{name}={value!r}" for name, value in self.fixed.items()]
            batch = ("batch",) if kinds and kind != "array" else ()
            chosen = viewing.chosen(params, (*batch, *viewing.OPTIONS[kind]))
            code = f"wb.look({', '.join([self.name, repr(kind), *whose, *over, *fixed, *chosen])})"
        header = found.header.model_copy(update={"code": code, "kinds": kinds})
        return View(header, found.buffers, params.model_dump(mode="json"))


_kept: OrderedDict[int, Look] = OrderedDict()
_lock = Lock()


def keep(look: Look) -> int:
    """Remember a look; gives the number that stands for a run's: below zero, and no other kernel's either."""
    number = -1 - secrets.randbits(48)
    with _lock:
        _kept[number] = look
        while len(_kept) > MOST:
            _kept.popitem(last=False)
    return number


def view(params: ViewParams) -> tuple[ViewReply, list[bytes]]:
    """One view, as the page gets it."""
    found = _of(params.run).view(params)
    return ViewReply(view=found.header), list(found.buffers)


def tile(params: TileParams) -> tuple[TileReply, list[bytes]]:
    """A part of a tensor that is looked at."""
    return _of(params.run).tile(params)


def _of(number: int) -> Look:
    with _lock:
        found = _kept.get(number)
    if found is None:
        raise InputError("this was looked at in another kernel, or long ago: run the cell again")
    return found
