"""A model's module tree in columns, kept while the model's tree stays as it is: 60,000 rows cross as two buffers."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

from workbench.errors import InputError
from workbench.jupyter.messages import TreeReply
from workbench.models.base import NNsight
from workbench.models.naming import names_of


@dataclass(frozen=True)
class Columns:
    """All modules, parents first; the model itself is row 0. Each array has a number for each row.

    `parents` is the parent's row (-1 for the model), `names` and `cls` point into `words` and `classes`, `keys` are
    equal for modules of the same structure, `parameters` count a module's own and all below it. `standard` maps rows to
    standard names.
    """

    parents: array[int]
    names: array[int]
    cls: array[int]
    keys: array[int]
    parameters: array[float]
    words: tuple[str, ...]
    classes: tuple[str, ...]
    standard: dict[int, str]

    def name(self, row: int) -> str:
        """The last part of a row's path; of the model itself ''."""
        return self.words[self.names[row]]


def tree(name: str, model: NNsight) -> tuple[TreeReply, list[bytes]]:
    """The tree of a model that a variable `name` stands for, and its columns as bytes.

    Example:
        >>> import workbench as wb
        >>> found, buffers = tree("model", wb.demo())
        >>> found.name, found.words[:3], found.standard[2], len(buffers[0]) == 4 * 4 * found.rows
        ('model', ('', 'transformer', 'wte'), 'embed', True)
    """
    found = columns(model)
    reply = TreeReply(
        name=name, rows=len(found.parents), words=found.words, classes=found.classes, standard=found.standard
    )
    whole = b"".join(each.tobytes() for each in (found.parents, found.names, found.cls, found.keys))
    return reply, [whole, found.parameters.tobytes()]


_KNOWN: WeakKeyDictionary[NNsight, tuple[object, Columns]] = WeakKeyDictionary()


def columns(model: NNsight) -> Columns:
    """A model's columns, made once for each shape that its tree has."""
    own = model._root.__dict__
    state = (id(own["_module"]), hash(tuple(map(id, own["_by_path"].values()))))
    known = _KNOWN.get(model)
    if known is None or known[0] != state:
        known = _KNOWN[model] = (state, _columns(model))
    return known[1]


def _columns(model: NNsight) -> Columns:
    rows = list(model.walk())
    modules = [envoy.__dict__["_module"] for envoy in rows]
    paths = [envoy.__dict__["_path"] for envoy in rows]
    numbers = {path: row for row, path in enumerate(paths)}
    words: dict[str, int] = {}
    classes: dict[str, int] = {}
    parents, names = array("i"), array("i")
    for path in paths:
        above, _, last = path.rpartition(".")
        parents.append(numbers[above] if path else -1)
        names.append(words.setdefault(last, len(words)))
    keys, counts = _keys_and_parameters(modules, parents, names)
    return Columns(
        parents,
        names,
        array("i", [classes.setdefault(type(module).__name__, len(classes)) for module in modules]),
        keys,
        counts,
        tuple(words),
        tuple(classes),
        {numbers[path]: standard for path, standard in _standard_names(model).items() if path in numbers},
    )


def _keys_and_parameters(
    modules: list[nn.Module], parents: array[int], names: array[int]
) -> tuple[array[int], array[float]]:
    """A number for each row, equal where class, own parameters' shapes and all below are; and how many parameters it
    has, with all below it, one that is used twice below it counted once."""
    below: dict[int, list[int]] = {}  # row → name, key, name, key, … of its children
    known: dict[object, int] = {}
    places: dict[int, list[int]] = {}  # parameter → the rows that have it
    sizes: dict[int, int] = {}
    keys, counts = array("i", bytes(4 * len(modules))), array("d", bytes(8 * len(modules)))
    for row in range(len(modules) - 1, -1, -1):
        module = modules[row]
        shapes: list[object] = []
        own = 0
        for name, parameter in module._parameters.items():
            if parameter is None:
                shapes.append(name)
                continue
            size = parameter.numel()
            own += size
            shapes += (name, parameter.shape)
            if (places_of := places.get(id(parameter))) is None:
                places[id(parameter)], sizes[id(parameter)] = [row], size
            else:
                places_of.append(row)
        under = below.pop(row, None)
        key = (type(module), tuple(shapes), None if under is None else tuple(under))
        number = keys[row] = known.setdefault(key, len(known))
        counts[row] += own
        above = parents[row]
        if above >= 0:
            below.setdefault(above, []).extend((names[row], number))
            counts[above] += counts[row]
    for parameter, where in places.items():
        if len(where) > 1:
            times = Counter(above for row in where for above in _upwards(row, parents))
            for row, count in times.items():
                counts[row] -= (count - 1) * sizes[parameter]
    return keys, counts


def _upwards(row: int, parents: array[int]) -> Iterator[int]:
    """A row and all above it, up to the model itself."""
    while row >= 0:
        yield row
        row = parents[row]


def _standard_names(model: NNsight) -> dict[str, str]:
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
