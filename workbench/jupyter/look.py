"""What the panel sees of a kernel's models: which there are, their modules, tokens and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import nn

from workbench.engine.scan import Scan
from workbench.envoy import Envoy
from workbench.errors import InputError
from workbench.experiment.scene import TAKES_TENSORS, takes_text
from workbench.jupyter.messages import ModelInfo, ModuleRow, Shape, ShapesReply, TokensReply
from workbench.models.base import NNsight
from workbench.models.language import LanguageModel
from workbench.models.tokens import encode, pieces
from workbench.site import Site
from workbench.views.summary import dtype_name

NOT_LOADED = "not loaded"


def models_in(namespace: Mapping[str, object]) -> dict[str, NNsight]:
    """The wrapped models by name, each under the first name it was given; names that begin with _ are private."""
    found: dict[str, NNsight] = {}
    seen: set[int] = set()
    for name, value in list(namespace.items()):
        # The type itself is asked: isinstance would run the __class__ property of lazy objects of the user's.
        if issubclass(type(value), NNsight) and not name.startswith("_") and id(value) not in seen:
            seen.add(id(value))
            found[name] = value  # pyright: ignore[reportArgumentType]
    return found


def info(name: str, model: NNsight) -> ModelInfo:
    """One line about a model."""
    module = model.module
    return ModelInfo(
        name=name,
        cls=type(module).__name__,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        device=device(module),
        tokenizes=takes_text(model),
    )


def device(module: nn.Module) -> str:
    """Where the weights are."""
    names = sorted({str(parameter.device) for parameter in module.parameters()})
    return NOT_LOADED if names == ["meta"] else ", ".join(names) or "cpu"


def loaded(module: nn.Module) -> bool:
    """Whether the weights are there; quick, since it is asked after every cell."""
    first = next(module.parameters(), None)
    return first is None or not first.is_meta


def tree(name: str, model: NNsight) -> tuple[ModuleRow, ...]:
    """All modules, parents first; the first row is the model itself, under its variable's name."""
    counts = _parameters(model)
    return tuple(
        ModuleRow(
            path=envoy.path,
            name=envoy.path.rpartition(".")[2] or name,
            cls=type(envoy.module).__name__,
            depth=envoy.path.count(".") + 1 if envoy.path else 0,
            children=len(envoy),
            parameters=counts[envoy.path],
        )
        for envoy in model.walk()
    )


def _parameters(model: NNsight) -> Counter[str]:
    """How many parameters each module has, with all below it; one that is used twice below it is counted once."""
    places: dict[nn.Parameter, list[str]] = {}
    for envoy in model.walk():
        for parameter in envoy.module._parameters.values():
            if parameter is not None:
                places.setdefault(parameter, []).append(envoy.path)
    counts: Counter[str] = Counter()
    for parameter, paths in places.items():
        for path in {above for place in paths for above in _upwards(place)}:
            counts[path] += parameter.numel()
    return counts


def _upwards(path: str) -> Iterator[str]:
    """A path and all above it, up to the model itself."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def tokens(model: NNsight, prompt: str) -> TokensReply:
    """The prompt as the model's tokens. Raises `InputError` for a model that takes no text."""
    if not isinstance(model, LanguageModel) or model.tokenizer is None:
        raise InputError(TAKES_TENSORS)
    ids = encode(model.tokenizer, prompt)["input_ids"][0].tolist()
    return TokensReply(tokens=tuple(pieces(model.tokenizer, ids)), ids=tuple(ids))


def shapes(model: NNsight, prompt: str) -> ShapesReply:
    """Every module's input and output shape for a prompt, or the reason why they are unknown."""
    if not takes_text(model):
        return ShapesReply(shapes={}, how=f"unknown: {TAKES_TENSORS}")
    try:
        scan = model.scanned(prompt)
    except InputError as error:
        return ShapesReply(shapes={}, how=f"unknown: {error}")
    if not scan.known:
        return ShapesReply(shapes={}, how=scan.how)
    return ShapesReply(shapes={envoy.path: _shape(scan, envoy) for envoy in model.walk()}, how=scan.how)


def _shape(scan: Scan, envoy: Envoy) -> Shape:
    path = envoy.path
    if Site(path, "output") not in scan.values:
        return Shape(input=None, output=None, dtype=None, why="not called when this prompt is run")
    dtype = scan.dtype(path)
    return Shape(
        input=scan.shape(path, "input"),
        output=scan.shape(path),
        dtype=None if dtype is None else dtype_name(dtype),
        why="returns no tensor" if dtype is None else None,
    )
