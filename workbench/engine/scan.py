"""Scan: one forward pass on fake tensors, which says every site's shape and dtype before anything real runs.

The pass runs on a shadow of the model: the same Python objects copied, with a fake tensor for each parameter and
buffer. So the model itself is not touched, not even by a forward that keeps notes on `self`, and another thread can
run it meanwhile.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from workbench.engine.values import first_tensor, map_tensors
from workbench.site import Port, Site


class Scan:
    """What a forward pass looks like for one kind of input.

    `values` holds a fake value for each site reached, in the order in which they are reached. `how` is "scanned", or
    in words why nothing is known.
    """

    def __init__(self, values: dict[Site, Any], how: str, mode: Any = None, root: nn.Module | None = None) -> None:
        self.values = values
        self.how = how
        self.order = {site: index for index, site in enumerate(values)}
        self._mode = mode
        self._shadow = root

    @property
    def known(self) -> bool:
        return self.how == "scanned"

    def shape(self, path: str, port: Port = "output") -> tuple[int, ...] | None:
        """The shape of the first tensor at a site, or None if there is none."""
        tensor = first_tensor(self.values.get(Site(path, port)))
        return None if tensor is None else tuple(tensor.shape)

    def dtype(self, path: str, port: Port = "output") -> torch.dtype | None:
        """The dtype of the first tensor at a site, or None if there is none."""
        tensor = first_tensor(self.values.get(Site(path, port)))
        return None if tensor is None else tensor.dtype

    @contextmanager
    def faking(self) -> Iterator[None]:
        """Operations inside run on fake tensors: shapes and dtypes are worked out, numbers are not."""
        if self._mode is None:
            yield
            return
        with self._mode, torch.no_grad():
            yield

    def module(self, path: str) -> nn.Module:
        """The shadow of a module, to be called on fake values."""
        assert self._shadow is not None
        return self._shadow.get_submodule(path)

    def fake(self, value: Any) -> Any:
        """A real value's fake counterpart."""
        if self._mode is None:
            return value
        return map_tensors(self._mode.from_tensor, value)


def scan(root: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Scan:
    """Run `forward(module, *args, **kwargs)` on fake tensors and note what passes each module.

    Never raises for a model that cannot be faked: the scan then says why in `how`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        shadow = _shadow(root, mode)
    except Exception as error:  # whatever a stranger's module does when it is copied
        return Scan({}, f"unknown, because the model cannot be copied: {_first_line(error)}")
    values: dict[Site, Any] = {}
    _watch(shadow, values)
    try:
        with mode, torch.no_grad():
            forward(
                shadow,
                *[map_tensors(mode.from_tensor, arg) for arg in args],
                **{name: map_tensors(mode.from_tensor, value) for name, value in kwargs.items()},
            )
    except Exception as error:
        return Scan({}, f"unknown, because the model cannot run on fake tensors: {_first_line(error)}")
    for module in shadow.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return Scan(values, "scanned", mode, shadow)


def _shadow(root: nn.Module, mode: Any) -> nn.Module:
    """A copy of the model whose parameters and buffers are fake, without hooks, which may keep what they see."""
    memo: dict[int, Any] = {}
    for tensor in (*root.parameters(), *root.buffers()):
        if tensor.is_meta:  # not loaded yet: it will be where the inputs are
            with mode:
                memo[id(tensor)] = torch.empty_like(tensor, device="cpu")
        else:
            memo[id(tensor)] = mode.from_tensor(tensor.detach())
    shadow = copy.deepcopy(root, memo)
    for module in shadow.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return shadow


def _watch(shadow: nn.Module, values: dict[Site, Any]) -> None:
    """Note each module's input and output; a module under two names is noted under its first."""
    for path, module in shadow.named_modules():
        calls = {"input": 0, "output": 0}

        def before(module: nn.Module, args: Any, kwargs: Any, path: str = path, calls: dict[str, int] = calls) -> None:
            values[Site(path, "input", calls["input"])] = (args, kwargs)
            calls["input"] += 1

        def after(module: nn.Module, args: Any, output: Any, path: str = path, calls: dict[str, int] = calls) -> None:
            values[Site(path, "output", calls["output"])] = output
            calls["output"] += 1

        module.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
        module.register_forward_hook(after, prepend=True)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def bare() -> Scan:
    """A scan of nothing: fake values of what is made outside any forward pass."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return Scan({}, "scanned", FakeTensorMode(allow_non_fake_inputs=True))
