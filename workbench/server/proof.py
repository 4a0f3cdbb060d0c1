"""Proof: that a job left nothing behind. What is simple is put back; what is still not as before, is said.

Versions and addresses of parameters and buffers are looked at each time, their contents when there is doubt: what is
written by way of `.data` is seen by no version.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, _tensor_str, nn

from workbench.engine.divided import local
from workbench.engine.shadow import noted

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
)  # fmt: skip


class Proof:
    """How some models, and the process around them, were when they were loaded.

    Args:
        roots: the models' modules.
    """

    def __init__(self, roots: Sequence[nn.Module]) -> None:
        self._roots = list(roots)
        # A module that comes or goes is seen by its parent's children, so the list itself need not be made again.
        self._all = [(index, path, each) for index, root in enumerate(roots) for path, each in root.named_modules()]
        self._parameters = [each for root in roots for each in root.parameters()]
        self._noted = [noted(root) for root in roots]
        self._state = _state()
        self._random = _random_state()
        self._modules = self._look()
        self._sums = self.sums()
        self.bytes = sum(own.numel() * own.element_size() for own in map(local, self._tensors()))

    @contextmanager
    def job(self) -> Iterator[None]:
        """A job is run inside: its random numbers are its own, and afterwards what is simple is as before."""
        seed = int.from_bytes(os.urandom(6), "little")
        _seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            self._put_back()

    def _put_back(self) -> None:
        for put_back in self._noted:
            put_back()
        for parameter in self._parameters:
            parameter.grad = None
        for name, value in self._state.items():
            setter = _SETTERS.get(name)
            if setter is not None and _READ[name]() != value:
                setter(value)
        _set_random_state(self._random)

    def differences(self, contents: bool = False) -> list[str]:
        """What is not as it was, in words.

        Args:
            contents: look at the contents of all parameters and buffers, too.
        """
        found = [
            f"{name} is {now!r}, and was {self._state[name]!r}"
            for name, now in _state().items()
            if now != self._state[name]
        ]
        if not _same_random(self._random, _random_state()):
            found.append("the state of the random numbers is another")
        now = self._look()
        for key in self._modules.keys() | now.keys():
            before, after = self._modules.get(key), now.get(key)
            if before != after:
                found.append(f"{key[1] or 'the model'} is not as it was: {_changed(before, after)}")
        if contents and not found:
            found += [
                f"the contents of {name} changed"
                for (name, before), after in zip(self._sums.items(), self.sums().values(), strict=True)
                if before != after
            ]
        return found

    def sums(self) -> dict[str, int]:
        """A checksum of each parameter and buffer."""
        named = {
            f"{index}/{name}": tensor
            for index, root in enumerate(self._roots)
            for name, tensor in (*root.named_parameters(), *root.named_buffers())
        }
        return {name: checksum(tensor) for name, tensor in named.items()}

    def _tensors(self) -> list[Tensor]:
        found = {id(each): each for root in self._roots for each in (*root.parameters(), *root.buffers())}
        return list(found.values())

    def _look(self) -> dict[tuple[int, str], dict[str, Any]]:
        settings: dict[int, Any] = {}  # many modules share one
        return {(index, path): _looked_at(module, settings) for index, path, module in self._all}


def _looked_at(module: nn.Module, settings: dict[int, Any]) -> dict[str, Any]:
    attributes = vars(module)
    return {
        "id": id(module),
        "class": type(module),
        "training": module.training,
        "forward": id(attributes["forward"]) if "forward" in attributes else None,
        "children": [(name, id(child)) for name, child in module._modules.items()],
        "hooks": [list(attributes.get(name, ())) for name in _HOOKS],
        "settings": [_plain(attributes.get(name), settings) for name in ("config", "generation_config")],
        **{f"parameter {name}": _tensor(tensor) for name, tensor in module._parameters.items()},
        **{f"buffer {name}": _tensor(tensor) for name, tensor in module._buffers.items()},
    }


def _tensor(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    return (
        id(tensor), local(tensor).data_ptr(), tensor._version, tuple(tensor.shape), tensor.stride(), tensor.dtype,
        tensor.device, tensor.requires_grad, tensor.grad is None, not tensor._backward_hooks,
    )  # fmt: skip


def _plain(settings: Any, known: dict[int, Any]) -> Any:
    """A configuration's values that can be compared."""
    if settings is None:
        return None
    if id(settings) not in known:
        own = vars(settings).items()
        known[id(settings)] = {name: repr(value) for name, value in own if isinstance(value, _COMPARED)}
    return known[id(settings)]


_COMPARED = (bool, int, float, str, list, dict, type(None), torch.dtype)


def _changed(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    if before is None or after is None:
        return "a module came" if before is None else "a module went"
    return ", ".join(sorted({key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}))


def checksum(tensor: Tensor) -> int:
    """A number that changes when any element does."""
    tensor = local(tensor.detach())
    if tensor.is_meta or not tensor.numel():
        return 0
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    flat = flat.clone() if flat.storage_offset() % 8 else flat
    whole = flat.numel() // 8 * 8
    total = 0
    for start in range(0, whole, 1 << 23):
        words = flat[start : min(start + (1 << 23), whole)].view(torch.int64)
        weights = torch.arange(start + 1, start + 1 + 2 * words.numel(), 2, device=words.device)
        total = (total + int((words * weights).sum())) & ((1 << 64) - 1)
    rest = flat[whole:]
    return (total * 31 + int((rest.long() * torch.arange(1, rest.numel() + 1, device=rest.device)).sum())) & (
        (1 << 64) - 1
    )


# ---- the process


_READ: dict[str, Callable[[], Any]] = {
    "the default dtype": torch.get_default_dtype,
    "the default device": torch.get_default_device,
    "gradients": torch.is_grad_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "autocast": lambda: (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "the number of threads": torch.get_num_threads,
    "anomaly detection": torch.is_anomaly_enabled,
    "modes of torch functions": torch._C._len_torch_function_stack,
    "modes of torch dispatch": torch._C._len_torch_dispatch_stack,
    "Optimizer.__init__": lambda: id(torch.optim.Optimizer.__init__),
    "Module.__call__": lambda: id(nn.Module.__call__),
    "hooks of all modules": lambda: (
        len(nn.modules.module._global_forward_hooks),
        len(nn.modules.module._global_forward_pre_hooks),
    ),
    "how tensors are printed": lambda: tuple(vars(_tensor_str.PRINT_OPTS).items()),
    "the folder": os.getcwd,
    "the environment": lambda: hash(tuple(sorted(os.environ.items()))),
}
_SETTERS: dict[str, Callable[[Any], Any]] = {
    "the default dtype": torch.set_default_dtype,
    "gradients": torch.set_grad_enabled,
    "the number of threads": torch.set_num_threads,
    "anomaly detection": torch.autograd.set_detect_anomaly,
    "deterministic algorithms": torch.use_deterministic_algorithms,
}


def _state() -> dict[str, Any]:
    return {name: read() for name, read in _READ.items()}


def _random_state() -> tuple[Any, ...]:
    import numpy

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda, random.getstate(), numpy.random.get_state()


def _seed(seed: int) -> None:
    """As `torch.manual_seed`, which takes as long as a small model's layer: it notes its stack for GPUs that are not
    in use yet."""
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _set_random_state(state: tuple[Any, ...]) -> None:
    import numpy

    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
    random.setstate(state[2])
    numpy.random.set_state(state[3])


def _same_random(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return (
        torch.equal(one[0], other[0])
        and len(one[1]) == len(other[1])
        and all(map(torch.equal, one[1], other[1]))
        and one[2] == other[2]
        and all((a == b).all() if hasattr(a, "all") else a == b for a, b in zip(one[3], other[3], strict=True))
    )
