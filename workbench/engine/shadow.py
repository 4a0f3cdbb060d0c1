"""Shadow: a model's modules copied, with a fake tensor for each parameter and buffer, to run what is only to be known.

The live model is not touched, not even by a forward that keeps notes on `self`, and another thread can run it
meanwhile. A shadow is made once for a model as it is and used for many scans; after each it is as before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from workbench.engine.blocks import same_blocks
from workbench.engine.values import map_tensors, signature

FAKING = RLock()
"""Held by whoever works with fake tensors. One for all: a fake mode serves one thread at a time, and scans ask each
other, in any order."""


class Mismatch(Exception):
    """A block that was left out is not called as the one that stands for it: all blocks are to be run."""


class Shadow:
    """`root` is the copy; `mode` is under which it runs; `left_out` maps the blocks that are not in it to those that
    stand for them."""

    def __init__(self, root: nn.Module, mode: Any, left_out: dict[str, str]) -> None:
        self.root = root
        self.mode = mode
        self.left_out = left_out

    def module(self, path: str) -> nn.Module:
        """The copy of a module, or of the one that stands for it."""
        return self.root.get_submodule(self.leading(path))

    def leading(self, path: str) -> str:
        """The path itself, or that of what stands for it."""
        for block, leader in self.left_out.items():
            if path == block or path.startswith(f"{block}."):
                return leader + path[len(block) :]
        return path

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Afterwards every module is as it was, whatever a forward wrote on it."""
        with restored(self.root):
            yield


def shadow(root: nn.Module, fake: Callable[[Tensor], Tensor], mode: Any, collapse: bool) -> Shadow:
    """A shadow of a model. `fake` makes a tensor's stand-in; with `collapse`, one of the same blocks is there."""
    memo: dict[int, Any] = {}
    left_out = same_blocks(root) if collapse else {}
    for path, leader in left_out.items():
        memo[id(root.get_submodule(path))] = LeftOut(path, leader, root.get_submodule(leader))
    skipped = {id(tensor) for path in left_out for tensor in _tensors(root.get_submodule(path))}
    for tensor in _tensors(root):
        if id(tensor) not in skipped:
            memo[id(tensor)] = fake(tensor)
    copied = copy.deepcopy(root, memo)
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
        # transformers marks a model on which it has installed the hooks that record hidden states
        module.__dict__.pop("_output_capturing_hooks_installed", None)
    for module in copied.modules():
        if isinstance(module, LeftOut):
            module.__dict__["stands_for_it"] = copied.get_submodule(module.leader)
    if hasattr(copied, "set_experts_implementation"):  # a mixture's experts are chosen by numbers, which fakes have not
        copied.set_experts_implementation("batched_mm")  # pyright: ignore[reportCallIssue]
    return Shadow(copied, mode, left_out)


class LeftOut(nn.Module):
    """In the place of a block that is the same as an earlier one: gives what that one gave, if called as that one."""

    def __init__(self, path: str, leader: str, original: nn.Module) -> None:
        super().__init__()
        self.path = path
        self.leader = leader
        self.called: Any = None
        """The leader's call: signature of its arguments, and output."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["stands_for_it"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        called = self.stands_for_it.__dict__.get("workbench_called")
        if called is None or called[0] != signature((args, kwargs)):
            raise Mismatch(self.path)
        return map_tensors(torch.empty_like, called[1])


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def structure(root: nn.Module) -> Any:
    """What a shadow depends on: the modules, and their tensors' identities, shapes, dtypes and devices."""
    return tuple(
        (id(module), module.training, tuple((id(t), t.shape, t.dtype, t.device) for t in _own(module)))
        for module in root.modules()
    )


def _own(module: nn.Module) -> Iterator[Tensor]:
    for tensors in (module._parameters, module._buffers):
        yield from (tensor for tensor in tensors.values() if tensor is not None)


@contextmanager
def restored(root: nn.Module) -> Iterator[None]:
    """Afterwards every module's attributes and buffers are the objects that they were, and no hook is new."""
    put_back = noted(root)
    try:
        yield
    finally:
        put_back()


def noted(root: nn.Module) -> Callable[[], None]:
    """Notes every module's attributes, buffers and hooks; what it gives makes them so again, each time it is called."""
    kept: list[tuple[nn.Module, set[int], dict[str, Any], list[dict[str, Any]]]] = [
        (
            module,
            {*module._forward_hooks, *module._forward_pre_hooks},
            dict(module.__dict__),
            [dict(module._parameters), dict(module._buffers), dict(module._modules)],
        )
        for module in root.modules()
    ]

    def put_back() -> None:
        for module, hooks, attributes, tables in kept:
            for table in (module._forward_hooks, module._forward_pre_hooks):
                for key in [key for key in table if key >= 0 and key not in hooks]:  # ours, of other threads, are < 0
                    del table[key]
            module.__dict__.clear()
            module.__dict__.update(attributes)
            now: list[Any] = [module._parameters, module._buffers, module._modules]
            for table, before in zip(now, tables, strict=True):
                table.clear()
                table.update(before)

    return put_back
