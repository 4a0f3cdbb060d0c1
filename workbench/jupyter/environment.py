"""Environment: what a run depends on beside its experiment: versions, the weights, the prompts' token ids."""

from __future__ import annotations

import hashlib
import platform
import weakref
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from workbench.experiment.kinds import Experiment
from workbench.experiment.scene import takes_text
from workbench.models.base import NNsight
from workbench.models.tokens import encode

PACKAGES = ("workbench", "torch", "transformers", "safetensors", "tokenizers")
SAMPLED = 1 << 16
"""Numbers of each large parameter that go into the weights' hash."""


def environment(experiment: Experiment, model: NNsight) -> dict[str, Any]:
    """Versions, the model and its weights, and each prompt's token ids."""
    return {
        "versions": versions(),
        "model": describe(model),
        "ids": [_ids(model, prompt) for prompt in experiment.prompts],
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(model: NNsight) -> dict[str, Any]:
    """A model: class, name, revision, parameters, dtype, and a hash of its weights."""
    module: Any = model.module
    config = getattr(module, "config", None)
    first = next(iter(module.parameters()), None)
    return {
        "class": type(module).__name__,
        "name": str(getattr(config, "_name_or_path", "") or ""),
        "revision": str(getattr(config, "_commit_hash", None) or ""),
        "parameters": sum(each.numel() for each in module.parameters()),
        "dtype": "" if first is None else str(first.dtype).removeprefix("torch."),
        "weights": weights_hash(model),
    }


_known: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, str]] = weakref.WeakKeyDictionary()


def weights_hash(model: NNsight) -> str:
    """A hash of all parameters, of large ones of numbers spread over them; '' where they are not loaded.

    It is worked out again only when a parameter was replaced or written to.
    """
    module = model.module
    state = [(id(each), each._version) for each in module.parameters()]
    kept = _known.get(module)
    if kept is not None and kept[0] == state:
        return kept[1]
    found = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            return ""
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLED)
        found.update(f"{name} {tuple(parameter.shape)} {parameter.dtype} ".encode())
        found.update(flat[::step].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    _known[module] = state, found.hexdigest()[:32]
    return _known[module][1]


def differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """In what the second environment differs from the first, in words.

    Example:
        >>> differences({"versions": {"torch": "2.12"}}, {"versions": {"torch": "2.13"}})
        ('torch 2.12 → 2.13',)
    """
    found = []
    old, new = before.get("versions", {}), after.get("versions", {})
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            found.append(f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}")
    old, new = before.get("model", {}), after.get("model", {})
    for name, title in (("class", "model class"), ("parameters", "parameters"), ("dtype", "dtype")):
        if old.get(name) != new.get(name):
            found.append(f"{title} {old.get(name)} → {new.get(name)}")
    if old.get("weights") and new.get("weights") and old["weights"] != new["weights"]:
        found.append("the weights are others")
    for number, (one, other) in enumerate(zip(before.get("ids", ()), after.get("ids", ()), strict=False)):
        if one != other:
            found.append(f"prompt {number + 1} has other tokens: {one} → {other}")
    return tuple(found)


def _ids(model: Any, prompt: str) -> list[int]:
    return encode(model.tokenizer, prompt)["input_ids"][0].tolist() if prompt and takes_text(model) else []
