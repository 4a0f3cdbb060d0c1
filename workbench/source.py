"""Source: the inside of a module's forward as a person reads it, and the sites of the calls in it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Protocol, Self

from torch import nn

from workbench.errors import PathError
from workbench.graph import operations as ops
from workbench.inside.listing import inside
from workbench.recorder import Recorder


class Owner(Protocol):
    """The module whose forward is opened."""

    _module: nn.Module
    _path: str

    def _recorder(self, what: str) -> Recorder: ...


class Source:
    """A forward, or a function called in it. Its attributes are the calls that it makes."""

    def __init__(self, owner: Owner, names: tuple[str, ...] = ()) -> None:
        self._owner = owner
        self._names = names
        self._listing = inside(owner._module, names)

    @property
    def names(self) -> list[str]:
        """The calls' names, in the order in which they are made."""
        return [call.name for call in self._listing.calls]

    def __getattr__(self, name: str) -> InsideCall:
        names = self.__dict__["_listing"].nodes if "_listing" in self.__dict__ else ()
        if name.startswith("_") and name not in names:
            raise AttributeError(name)
        if name not in names:
            near = get_close_matches(name, self.names, 3) or self.names[:12]
            raise PathError(
                f"{_where(self._owner, self._names)} makes no call named {name!r}; it has {', '.join(near)}"
            )
        return InsideCall(self._owner, (*self._names, name))

    def __dir__(self) -> list[str]:
        return ["names", *self.names]

    def __repr__(self) -> str:
        return str(self._listing)


class InsideCall:
    """One call inside a forward. `output`, `input` and `inputs` are read, edited and assigned as a module's are."""

    _owner: Owner
    _names: tuple[str, ...]

    def __init__(self, owner: Owner, names: tuple[str, ...]) -> None:
        self.__dict__["_owner"] = owner
        self.__dict__["_names"] = names

    @property
    def source(self) -> Source:
        """The inside of the function that is called here."""
        return Source(self._owner, self._names)

    def _site(self, what: str) -> tuple[Recorder, str, str]:
        owner = self._owner
        return owner._recorder(f"source.{'.'.join(self._names)}.{what}"), owner._path, ".".join(self._names)

    @property
    def output(self) -> Any:
        """What the call returned, as a traced value."""
        recorder, path, inside = self._site("output")
        return recorder.site(path, "output", inside)

    @output.setter
    def output(self, value: Any) -> None:
        recorder, path, inside = self._site("output")
        recorder.swap(path, "output", value, inside)

    @property
    def inputs(self) -> Any:
        """`(args, kwargs)` of the call, as a traced value."""
        recorder, path, inside = self._site("inputs")
        return recorder.site(path, "input", inside)

    @inputs.setter
    def inputs(self, value: Any) -> None:
        recorder, path, inside = self._site("inputs")
        recorder.swap(path, "input", value, inside)

    @property
    def input(self) -> Any:
        """The first tensor among the call's arguments, as a traced value."""
        recorder, path, inside = self._site("input")
        return recorder.part(path, "input", ops.FIRST_INPUT, inside)

    @input.setter
    def input(self, value: Any) -> None:
        recorder, path, inside = self._site("input")
        if not recorder.is_part(path, "input", ops.FIRST_INPUT, value, inside):
            whole = recorder.site(path, "input", inside)
            recorder.swap(path, "input", recorder.add(ops.WITH_FIRST_INPUT, (whole, value)), inside)

    def next(self, calls: int = 1) -> Self:
        """Move on to a later time that this call is made in the pass, as in a loop."""
        recorder, path, inside = self._site("next()")
        recorder.next_call(f"{path}/{inside}", calls)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("output", "input", "inputs"):
            raise AttributeError(f"{name} cannot be assigned; a call has .output, .input and .inputs")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<call of {_where(self._owner, self._names)}>"


def _where(owner: Owner, names: tuple[str, ...]) -> str:
    return ".".join([f"{owner._path or 'model'}.source", *names])
