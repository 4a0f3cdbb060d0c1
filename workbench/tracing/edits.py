"""Edits: what `with model.edit():` wrote, kept with a model, or in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.errors import WireError
from workbench.graph.graph import Graph
from workbench.graph.package import read_json
from workbench.graph.wire import from_wire, to_wire
from workbench.site import Site

if TYPE_CHECKING:
    from torch import Tensor

KIND = "workbench edits"


class Edit(NamedTuple):
    """What one `with model.edit():` wrote, and the values it names."""

    graph: Graph
    bindings: dict[str, Any]

    @property
    def sites(self) -> list[Site]:
        """Where it reads and writes."""
        return [arg for node in self.graph.nodes for arg in node.args if isinstance(arg, Site)]


def write(edits: Sequence[Edit], path: Path) -> None:
    """Keep edits in a safetensors file: their tensors, and in its header what is done with them."""
    from safetensors.torch import save_file

    graphs: list[Any] = []
    tensors: dict[str, Tensor] = {}
    for number, edit in enumerate(edits):
        graph, bound = to_wire(edit.graph, edit.bindings)
        graphs.append(graph)
        tensors |= {f"{number}/{name}": tensor.clone() for name, tensor in bound.items()}
    save_file(tensors, path, {"kind": KIND, "graphs": json.dumps(graphs)})


def read(path: Path) -> list[Edit]:
    """The edits in a file. Raises `WireError` for one that holds none, or holds what is not allowed."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise WireError(f"{path} is no safetensors file: {error}") from error
    if header.get("kind") != KIND:
        raise WireError(f"{path} holds no edits; they are written by model.save_edits(path)")
    edits = []
    for number, graph in enumerate(read_json(header["graphs"])):
        own = f"{number}/"
        bound = {name.removeprefix(own): tensor for name, tensor in tensors.items() if name.startswith(own)}
        edits.append(Edit(*from_wire(graph, bound)))
    return edits
