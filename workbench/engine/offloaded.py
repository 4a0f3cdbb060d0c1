"""Offloaded: a parameter as it is, where accelerate keeps it elsewhere until its module runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from workbench.engine.divided import whole


def weight_of(module: nn.Module, name: str) -> Any:
    """A parameter, buffer or other attribute of a module, with real values also between the module's runs.

    Raises:
        ValueError: its values are not here.
    """
    value = whole(getattr(module, name))
    if not isinstance(value, Tensor) or not value.is_meta:
        return value
    hook: Any = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        kept = getattr(each, "weights_map", None)
        if kept is not None and name in kept:
            found = kept[name]
            where = each.execution_device
            return found if where is None else found.to(where)
    raise ValueError(f"{name} of this {type(module).__name__} is on the meta device, which holds no values")
