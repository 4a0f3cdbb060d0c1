"""Blocks: which of a model's modules are the same but for their numbers, so that a scan need run only one of them.

Two siblings are the same when every module in them has the same class, the same plain attributes, parameters and
buffers of the same shapes, and is not patched. A layer's own number counts as the same in transformers' layers, where
it only says which part of a cache is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

_NUMBERS = frozenset({"layer_idx", "layer_id", "layer_index", "layer_number", "block_idx", "idx"})
_PLAIN = (int, float, bool, str, bytes, type(None))
_LEAST = 3  # siblings that are worth the look


def same_blocks(root: nn.Module) -> dict[str, str]:
    """Path of each block → path of the earlier block that it is the same as."""
    found: dict[str, str] = {}
    seen: dict[int, int] = {}
    for module in root.modules():
        for child in module._modules.values():
            seen[id(child)] = seen.get(id(child), 0) + 1
    for path, module in root.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < _LEAST:
            continue
        if any(path.startswith(f"{block}.") for block in found):
            continue  # inside a block that is left out itself
        first: dict[Any, str] = {}
        for name, block in module._modules.items():
            if block is None or not block._modules or any(seen.get(id(each), 0) > 1 for each in block.modules()):
                continue  # a small one is not worth it; a shared one is called elsewhere too
            here = f"{path}.{name}" if path else name
            leader = first.setdefault(_key(block, name), here)
            if leader != here:
                found[here] = leader
    return found


def _key(block: nn.Module, number: str) -> Any:
    return tuple((path, _module_key(module, number)) for path, module in block.named_modules())


def _module_key(module: nn.Module, number: str) -> Any:
    numbered = type(module).__module__.startswith("transformers.")
    noted = type(module).__module__.startswith("peft.")  # with what it was made, its own path among it
    attributes = tuple(
        (name, "its number" if numbered and name in _NUMBERS and str(value) == number else _attribute_key(value))
        for name, value in sorted(module.__dict__.items())
        if name not in _TORCHS_OWN and not (noted and name == "kwargs")
    )
    return type(module), attributes, _tensors_key(module._parameters), _tensors_key(module._buffers)


def _attribute_key(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_attribute_key, value))
    if isinstance(value, dict):  # as an adapter has by its name
        return type(value), tuple((_attribute_key(name), _attribute_key(item)) for name, item in value.items())
    if isinstance(value, partial):
        return id(value.func), _attribute_key(value.args), _attribute_key(tuple(value.keywords.items()))
    return id(value)  # the same object, as a shared configuration is; else these are not the same


def _tensors_key(tensors: Mapping[str, Tensor | None]) -> Any:
    return tuple(
        (name, None if tensor is None else (tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad))
        for name, tensor in tensors.items()
    )


_TORCHS_OWN = frozenset(nn.Module().__dict__) - {"training"}
