"""Suitable: what cannot be looked into is refused when it is wrapped, and what is likely a mistake is said."""

from __future__ import annotations

from torch import nn

from workbench.errors import InputError

_SHARDED = frozenset({"FullyShardedDataParallel", "FSDPModule"})


def refuse(module: nn.Module) -> None:
    """Raise `InputError` for a module whose values are not whole in this process: one wrapped by FSDP."""
    kinds = {type(each) for each in module.modules()}  # few, where modules may be tens of thousands
    sharded = {kind for kind in kinds if not _SHARDED.isdisjoint(base.__name__ for base in kind.__mro__)}
    for path, each in module.named_modules() if sharded else ():
        if type(each) in sharded:
            raise InputError(
                f"{path or 'this module'} is wrapped by FSDP, which holds a part of each parameter here and the rest "
                "in other processes; wrap the module before FSDP does, or load it whole (device_map= spreads it over "
                "GPUs)"
            )


def drops(module: nn.Module) -> str | None:
    """The path of a dropout that is at work, since the module is in train mode."""
    if not module.training:
        return None
    return next(
        (
            path
            for path, each in module.named_modules()
            if isinstance(each, nn.modules.dropout._DropoutNd) and each.training and each.p
        ),
        None,
    )
