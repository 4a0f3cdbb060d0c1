"""What the panel sees of a kernel's models: which there are, a prompt's tokens, and every module's shapes."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import TypeVar

import torch
from torch import nn

from workbench.engine.scan import Scan
from workbench.errors import InputError
from workbench.experiment.scene import TAKES_TENSORS, takes_text
from workbench.jupyter.messages import ModelInfo, Shapes, ShapesReply, Tokens, TokensReply, WrapReply
from workbench.jupyter.tree import columns
from workbench.models.base import NNsight
from workbench.models.language import LanguageModel
from workbench.models.tokens import encode, pieces
from workbench.site import Site
from workbench.views.summary import dtype_name

NOT_LOADED = "not loaded"

T = TypeVar("T")


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


def modules_in(namespace: Mapping[str, object]) -> dict[str, nn.Module]:
    """The plain modules by name that no wrapped model, and no other of them, has in it."""
    found: dict[str, nn.Module] = {}
    for name, value in list(namespace.items()):
        if issubclass(type(value), nn.Module) and not name.startswith("_"):
            found[name] = value  # pyright: ignore[reportArgumentType]
    if not found:
        return {}
    inside = {id(module) for model in models_in(namespace).values() for module in model.module.modules()}
    for module in found.values():
        inside.update(id(each) for each in list(module.modules())[1:])
    kept: dict[str, nn.Module] = {}
    for name, module in found.items():
        if id(module) not in inside:
            inside.add(id(module))
            kept[name] = module
    return kept


def info(name: str, model: NNsight) -> ModelInfo:
    """One line about a model."""
    module = model.module
    config = getattr(module, "config", None)
    config = getattr(config, "text_config", config)
    rows = columns(model)
    heads = next((getattr(config, each, None) for each in ("num_attention_heads", "num_heads", "n_head")), None)
    return ModelInfo(
        name=name,
        cls=type(module).__name__,
        parameters=int(rows.parameters[0]),
        device=device(module),
        tokenizes=takes_text(model),
        layers=sum(standard.endswith("]") for standard in rows.standard.values()) or None,
        heads=heads if isinstance(heads, int) else None,
        modules=len(rows.parents),
    )


def plain(name: str, module: nn.Module) -> ModelInfo:
    """One line about a module that is not wrapped yet."""
    return ModelInfo(
        name=name,
        cls=type(module).__name__,
        parameters=_count(module),
        device=device(module),
        tokenizes=False,
        wrapped=False,
        modules=sum(1 for _ in module.modules()),
    )


def wrap(name: str, namespace: Mapping[str, object]) -> WrapReply:
    """The lines that wrap a plain module: as a language model where it is one and its tokenizer is there too.

    Raises:
        InputError: there is no module of this name.
    """
    module = modules_in(namespace).get(name)
    if module is None:
        raise InputError(f"there is no module named {name!r} in this kernel; run the cell that makes it")
    ours = next((each for each, value in namespace.items() if getattr(value, "__name__", "") == "workbench"), None)
    lines = [] if ours else ["import workbench as wb"]
    wb = ours or "wb"
    new = next(each for each in ("model", f"{name}_model", f"{name}_wrapped") if each not in namespace)
    tokenizer = _tokenizer_in(namespace)
    if tokenizer and hasattr(module, "config") and hasattr(module, "generate"):
        lines.append(f"{new} = {wb}.LanguageModel({name}, tokenizer={tokenizer})")
    else:
        lines.append(f"{new} = {wb}.NNsight({name})")
    return WrapReply(code="\n".join(lines))


def _tokenizer_in(namespace: Mapping[str, object]) -> str | None:
    """The name of the namespace's newest tokenizer, told by what it can do: no library is opened to ask."""
    names = [
        name
        for name, value in list(namespace.items())
        if not name.startswith("_")
        and not keyword.iskeyword(name)
        and all(hasattr(type(value), each) for each in ("encode", "decode", "convert_ids_to_tokens"))
    ]
    return names[-1] if names else None


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def device(module: nn.Module) -> str:
    """Where the weights are."""
    names = sorted(map(str, _devices(module)))
    return NOT_LOADED if names == ["meta"] else ", ".join(names) or "cpu"


def _devices(module: nn.Module) -> set[torch.device]:
    """The devices of all parameters; `module.parameters()` would be slow for 60,000 modules."""
    found: set[torch.device] = set()
    seen: set[int] = set()
    stack = [module]
    while stack:
        each = stack.pop()
        if id(each) not in seen:
            seen.add(id(each))
            found.update(parameter.device for parameter in each._parameters.values() if parameter is not None)
            stack += (child for child in each._modules.values() if child is not None)
    return found


def loaded(module: nn.Module) -> bool:
    """Whether the weights are there; quick, since it is asked after every cell."""
    first = next(module.parameters(), None)
    return first is None or not first.is_meta


# ---- tokens


def tokens(model: NNsight, prompts: Sequence[str]) -> TokensReply:
    """Each prompt as the model's tokens, and which of them correspond.

    Raises:
        InputError: the model takes no text.
    """
    if not isinstance(model, LanguageModel) or model.tokenizer is None:
        raise InputError(TAKES_TENSORS)
    found = tuple(_tokens(model, prompt) for prompt in prompts)
    return TokensReply(prompts=found, aligned=aligned([each.ids for each in found]))


def _tokens(model: LanguageModel, prompt: str) -> Tokens:
    if not prompt:
        return Tokens(tokens=(), ids=())
    try:
        ids = encode(model.tokenizer, prompt)["input_ids"][0].tolist()
    except InputError as error:
        return Tokens(tokens=(), ids=(), fault=str(error))
    return Tokens(tokens=tuple(pieces(model.tokenizer, ids)), ids=tuple(ids))


def aligned(prompts: Sequence[Sequence[int]]) -> tuple[tuple[int | None, ...], ...]:
    """One column for what corresponds: tokens that are the same, in order, and what stands between them, in order.

    Example:
        >>> aligned([(1, 2, 3), (1, 9, 9, 3)])
        ((0, 1, None, 2), (0, 1, 2, 3))
    """
    columns: list[int] = []  # what the next prompt is laid beside: each column's first token
    rows: list[list[int | None]] = []
    for ids in prompts:
        row: list[int | None] = []
        wider: list[int] = []
        stretched: list[list[int | None]] = [[] for _ in rows]
        for _, a, b, c, d in SequenceMatcher(None, columns, list(ids), autojunk=False).get_opcodes():
            for offset in range(max(b - a, d - c)):
                old, new = a + offset < b, c + offset < d
                wider.append(columns[a + offset] if old else ids[c + offset])
                row.append(c + offset if new else None)
                for before, after in zip(rows, stretched, strict=True):
                    after.append(before[a + offset] if old else None)
        columns, rows = wider, [*stretched, row]
    return tuple(tuple(row) for row in rows)


# ---- shapes


def shapes(model: NNsight, prompt: str) -> ShapesReply:
    """Every module's input and output shape for a prompt, or the reason why they are unknown."""
    if not takes_text(model):
        return ShapesReply(shapes=None, how=f"unknown: {TAKES_TENSORS}")
    try:
        scan = model.scanned(prompt)
    except InputError as error:
        return ShapesReply(shapes=None, how=f"unknown: {error}")
    if not scan.known:
        return ShapesReply(shapes=None, how=scan.how)
    return ShapesReply(shapes=_columns(scan, [envoy.path for envoy in model.walk()]), how=scan.how)


def _columns(scan: Scan, paths: Sequence[str]) -> Shapes:
    sizes: dict[tuple[int, ...], int] = {}
    dtypes: dict[str, int] = {}
    reasons: dict[str, int] = {}
    columns: dict[str, list[int]] = {"input": [], "output": [], "dtype": [], "why": []}
    for path in paths:
        called = Site(path, "output") in scan.values
        dtype = scan.dtype(path) if called else None
        before, after = (scan.shape(path, "input"), scan.shape(path)) if called else (None, None)
        why = "not called when this prompt is run" if not called else "returns no tensor" if dtype is None else None
        columns["input"].append(_place(before, sizes))
        columns["output"].append(_place(after, sizes))
        columns["dtype"].append(_place(None if dtype is None else dtype_name(dtype), dtypes))
        columns["why"].append(_place(why, reasons))
    return Shapes(
        **{name: tuple(column) for name, column in columns.items()},
        sizes=tuple(sizes),
        dtypes=tuple(dtypes),
        reasons=tuple(reasons),
    )


def _place(value: T | None, known: dict[T, int]) -> int:
    """Where a value stands in the list of those that there are; -1 for none."""
    return -1 if value is None else known.setdefault(value, len(known))
