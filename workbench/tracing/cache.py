"""Cache: what many modules gave in one pass, kept at once and read by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.engine.values import map_tensors
from workbench.errors import NotSetError
from workbench.graph.operations import Operation, register
from workbench.proxy import Proxy


class Kept(NamedTuple):
    """One module's values: `output`, and `inputs` as `(args, kwargs)` where they were asked for."""

    output: Any
    inputs: Any = None


class Cache(Mapping[str, Kept]):
    """Values by module path, after the run; modules that were not called are not in it.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> with model.trace(torch.ones(1, 2)) as tracer:
        ...     cache = tracer.cache()
        >>> list(cache)
        ['', '0', '1']
        >>> cache["1"].output.shape
        torch.Size([1, 3])
    """

    def __init__(self) -> None:
        self._outputs: dict[str, Proxy] = {}
        self._inputs: dict[str, Proxy] = {}

    def __getitem__(self, path: str) -> Kept:
        output = self._outputs.get(path)
        if output is None:
            raise KeyError(f"{path!r} is not in this cache; it was made for {', '.join(map(repr, self._outputs))}")
        inputs = self._inputs.get(path)
        return Kept(output.value, None if inputs is None else inputs.value)

    def __iter__(self) -> Iterator[str]:
        return (path for path, proxy in self._outputs.items() if _has_value(proxy))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<cache of {len(self)} modules>"


def _has_value(proxy: Proxy) -> bool:
    try:
        _ = proxy.value
    except NotSetError:
        return False
    return True


def _kept(value: Any, device: Any, dtype: torch.dtype | None, detach: bool) -> Any:
    def keep(tensor: Tensor) -> Tensor:
        if detach:
            tensor = tensor.detach()
        if device is not None or (dtype is not None and tensor.is_floating_point()):
            tensor = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        return tensor

    return map_tensors(keep, value)


KEEP = register(Operation("keep", _kept, views=True))
