"""Elsewhere: a recorded run that is made on another machine. The room that knows how registers itself here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from workbench.envoy import Envoy
from workbench.errors import InputError, WireError
from workbench.graph import operations as ops
from workbench.graph.graph import Graph
from workbench.graph.node import Node
from workbench.graph.source import text
from workbench.proxy import Proxy
from workbench.recorder import Recorder
from workbench.site import Site

Where = bool | str
"""`remote=`: True for the server that CONFIG names, or a server's address."""


@dataclass
class Call:
    """What is to be run: a graph, what its names are bound to, its models, and the prepared input of each invoke."""

    recorder: Recorder
    graph: Graph
    bindings: Mapping[str, Any]
    models: tuple[str, ...]
    log: Callable[[str], None]
    inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


class Elsewhere(Protocol):
    """What can run a call elsewhere."""

    def run(self, call: Call, where: Where, blocking: bool) -> Any:
        """Run it, and hand its values to the recorder's proxies; gives the job, which without `blocking` still runs."""
        ...

    def refuse(self, node: Node, bindings: Mapping[str, Any]) -> None:
        """Raise `WireError` if a node cannot travel."""
        ...


_found: list[Callable[[], Elsewhere]] = []


def register(find: Callable[[], Elsewhere]) -> None:
    """Say where the room is that runs calls elsewhere; it is loaded when it is first needed."""
    _found[:] = [find]


def elsewhere() -> Elsewhere:
    """What runs calls elsewhere."""
    if not _found:
        raise InputError("remote= needs `import workbench`, which knows how to ask a server")
    return _found[0]()


def checked(recorder: Recorder, then: Callable[[int], None] | None = None) -> Callable[[int], None]:
    """A recorder's check that refuses what cannot travel on the line on which it is written."""
    refuse = elsewhere().refuse

    def check(id: int) -> None:
        node = recorder.nodes[id]
        _refuse_attached(node, recorder)
        refuse(node, recorder.bindings)
        if then is not None:
            then(id)

    return check


def _refuse_attached(node: Node, recorder: Recorder) -> None:
    """A module that the user attached is in the model here, not in the server's."""
    path, root = "", recorder.root
    if node.op in _BY_PATH:
        path, given = node.args[1], node.args[0]
        root = root if given is None else recorder.bindings[given.name]
    elif node.args and type(node.args[0]) is Site:
        path = node.args[0].path
    if not path or not isinstance(root, Envoy):
        return
    if root._root.find(path).module in root._root.__dict__["_attached"]:
        line = text(node.line)
        error = WireError(
            f"{path} was attached here, and the server's model has no such module ({line}). Save what it is to be "
            "given, and call it after the trace; or write what it does with torch functions and its weights"
        )
        error.line = line
        raise error


_BY_PATH = frozenset({ops.MODULE, ops.HOOKED, ops.WEIGHT})


def keys_of(models: list[Any]) -> tuple[str, ...]:
    """The names under which a server knows models.

    Raises:
        InputError: a model that was not opened by name.
    """
    keys = []
    for model in models:
        key = model._key
        if key is None:
            raise InputError(
                f"a server finds its models by name, and this {type(model._root._module).__name__} was not opened by "
                'one: open it as the server does, LanguageModel("the name"), which loads no weights here'
            )
        keys.append(key)
    return tuple(dict.fromkeys(keys))


def names_of(recorder: Recorder, frame: FrameType | None) -> dict[int, str]:
    """What the user calls the saved values: variables of the frame in which the block stands."""
    if frame is None:
        return {}
    return {
        value._ref.id: name
        for name, value in list(frame.f_locals.items())
        if issubclass(type(value), Proxy)
        and value._recorder is recorder
        and value._ref is not None
        and value._ref.id in recorder.saved
        and not name.startswith("_")
    }
