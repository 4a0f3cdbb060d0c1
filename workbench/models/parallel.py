"""Parallel: how transformers has divided a model over processes (`distributed_config=`), read from the model itself."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import nn

from workbench.engine.divided import Parallel, local

_SUMMED = frozenset({"moe_tp_experts", "all_reduce"})
"""Styles of modules in whose forward each process has a summand."""


def parallel_of(module: nn.Module) -> Parallel | None:
    """How a model is divided; None for one that is whole, or alone."""
    if (getattr(module, "_tp_size", None) or 1) < 2:
        return None
    from torch.distributed.tensor.placement_types import Shard
    from transformers.integrations.tensor_parallel import ALL_PARALLEL_STYLES

    mesh: Any = module._device_mesh
    plan: dict[str, str] = getattr(module, "tp_plan", None) or {}
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    partial = set()
    for path, each in module.named_modules():
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", path))
        if style is None:
            continue
        if style in _SUMMED:
            partial.add(path)
        layer: Any = ALL_PARALLEL_STYLES[style]
        if isinstance(getattr(layer, "input_layouts", None), Shard) and hasattr(each, "in_features"):
            inputs[path] = int(each.in_features)  # pyright: ignore[reportArgumentType]
        if isinstance(getattr(layer, "output_layouts", None), Shard) and hasattr(each, "out_features"):
            outputs[path] = int(each.out_features)  # pyright: ignore[reportArgumentType]
    group = (mesh["tp"] if mesh.ndim > 1 else mesh).get_group()
    return Parallel(group, inputs, outputs, frozenset(partial), local(next(module.parameters())).device)


def undivided(module: Any) -> nn.Module:
    """The same model whole, without weights: what a scan looks at."""
    config = copy.deepcopy(module.config)
    if hasattr(config, "distributed_config"):
        del config.distributed_config
    with torch.device("meta"):
        return type(module)._from_config(config, dtype=module.dtype).eval()
