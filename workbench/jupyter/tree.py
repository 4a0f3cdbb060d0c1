"""A model's module tree in columns: short enough to be sent, with 60,000 rows, in one message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from workbench.envoy import Envoy
from workbench.errors import InputError
from workbench.jupyter.messages import TreeReply
from workbench.models.base import NNsight
from workbench.models.naming import names_of


def tree(name: str, model: NNsight) -> TreeReply:
    """All modules, parents first; the first row is the model itself, under its variable's name.

    Example:
        >>> import workbench as wb
        >>> found = tree("model", wb.demo())
        >>> found.names[:3], found.parents[:3], found.standard[2]
        (('model', 'transformer', 'wte'), (-1, 0, 1), 'embed')
    """
    rows = list(model.walk())
    numbers = {envoy.path: row for row, envoy in enumerate(rows)}
    parents = [numbers[envoy.path.rpartition(".")[0]] if envoy.path else -1 for envoy in rows]
    classes: dict[str, int] = {}
    counts = _parameters(rows, parents)
    return TreeReply(
        names=tuple(envoy.path.rpartition(".")[2] or name for envoy in rows),
        parents=tuple(parents),
        cls=tuple(classes.setdefault(type(envoy.module).__name__, len(classes)) for envoy in rows),
        classes=tuple(classes),
        parameters=tuple(counts),
        keys=_keys(rows, parents),
        standard={numbers[path]: standard for path, standard in standard_names(model).items() if path in numbers},
    )


def _keys(rows: list[Envoy], parents: list[int]) -> tuple[int, ...]:
    """A number for each row, equal where class, own parameters' shapes and all below are."""
    below: list[list[tuple[str, int]]] = [[] for _ in rows]
    known: dict[object, int] = {}
    keys = [0] * len(rows)
    for row in range(len(rows) - 1, -1, -1):
        module = rows[row].module
        shapes = tuple((name, None if p is None else tuple(p.shape)) for name, p in module._parameters.items())
        structure = (type(module), shapes, tuple(below[row]))
        keys[row] = known.setdefault(structure, len(known))
        if parents[row] >= 0:
            below[parents[row]].append((rows[row].path.rpartition(".")[2], keys[row]))
    return tuple(keys)


def standard_names(model: NNsight) -> dict[str, str]:
    """Path → standard name, where the model's architecture is known or can be guessed; else nothing."""
    try:
        family = names_of(model.module).family
    except InputError:
        return {}
    found = {family.embed: "embed", family.final_norm: "final_norm", family.unembed: "unembed"}
    found[family.layers] = "layers"
    stack = model.module.get_submodule(family.layers)
    for name, _ in stack.named_children():
        layer, standard = f"{family.layers}.{name}", f"layers[{name}]"
        found[layer] = standard
        for inner, path in (("attn", family.attn), ("mlp", family.mlp)):
            if path:
                found[f"{layer}.{path}"] = f"{standard}.{inner}"
    found.pop("", None)
    return found


def _parameters(rows: list[Envoy], parents: list[int]) -> list[int]:
    """How many parameters each module has, with all below it; one that is used twice below it is counted once."""
    counts = [0] * len(rows)
    places: dict[nn.Parameter, list[int]] = {}
    for row, envoy in enumerate(rows):
        for parameter in envoy.module._parameters.values():
            if parameter is not None:
                counts[row] += parameter.numel()
                places.setdefault(parameter, []).append(row)
    for row in range(len(rows) - 1, 0, -1):
        counts[parents[row]] += counts[row]
    for parameter, where in places.items():
        if len(where) > 1:
            times = Counter(above for row in where for above in _upwards(row, parents))
            for row, count in times.items():
                counts[row] -= (count - 1) * parameter.numel()
    return counts


def _upwards(row: int, parents: list[int]) -> Iterator[int]:
    """A row and all above it, up to the model itself."""
    while row >= 0:
        yield row
        row = parents[row]
