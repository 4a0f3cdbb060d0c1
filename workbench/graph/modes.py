"""Modes: what PyTorch is told for a stretch of code (no_grad, autocast, …), kept with each operation written in it.

A mode is plain data, so that it can be printed, kept in a file and sent: its kind, then its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.errors import ModeError
from workbench.graph import operations as ops

Mode = tuple[Any, ...]
"""("grad", on), ("inference", on), ("autocast", device, dtype, on, cache), ("anomaly", on), ("sdpa", *backends)."""

Modes = tuple[Mode, ...]

# What is no computation of its own, and is the same under any mode.
MODELESS = frozenset(
    {
        ops.SITE, ops.SWAP, ops.SKIP, ops.STOP, ops.LOG, ops.GRAD, ops.SWAP_GRAD, ops.GUARD, ops.EITHER, ops.ITEM,
        ops.EXIT, ops.CONSTANT, ops.WEIGHT, ops.FIRST_INPUT, ops.WITH_FIRST_INPUT, ops.LOOP, ops.STEPS, ops.GETATTR,
    }
)  # fmt: skip

_DEVICES = ("cpu", "cuda", "mps", "xpu")
_SDPA: dict[str, Callable[[], bool]] = {
    "FLASH_ATTENTION": torch._C._get_flash_sdp_enabled,
    "EFFICIENT_ATTENTION": torch._C._get_mem_efficient_sdp_enabled,
    "MATH": torch._C._get_math_sdp_enabled,
    "CUDNN_ATTENTION": torch._C._get_cudnn_sdp_enabled,
}

any_autocast: Callable[[], bool] = torch._C._is_any_autocast_enabled
dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack


class State(NamedTuple):
    """What PyTorch is told at one moment, in one thread."""

    grad: bool
    inference: bool
    autocast: tuple[Mode, ...]
    dispatch: int


def state() -> State:
    """What it is told now."""
    return State(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), _autocast(), dispatch_modes())


def _autocast() -> tuple[Mode, ...]:
    if not any_autocast():
        return ()
    cache = torch.is_autocast_cache_enabled()
    return tuple(
        ("autocast", device, str(torch.get_autocast_dtype(device)).removeprefix("torch."), True, cache)
        for device in _DEVICES
        if torch.is_autocast_enabled(device)
    )


def changed(outside: State, grad: bool | None) -> Modes:
    """The modes that were entered since `outside`; `grad` is what gradients were explicitly set to, if they were.

    Raises:
        ModeError: a mode that sees operations as they run: here they are only written down.
    """
    now = state()
    if now.dispatch != outside.dispatch:
        mode = (
            type(torch._C._get_dispatch_stack_at(now.dispatch - 1)).__name__.lstrip("_") if now.dispatch else "a mode"
        )
        raise ModeError(
            f"{mode} was entered inside the trace, where operations are only written down, so it would see none of "
            f"them: enter it around the trace, `with {mode}(...), model.trace(...):`"
        )
    modes: list[Mode] = []
    if now.inference != outside.inference:
        modes.append(("inference", now.inference))
        implied = not now.inference
    else:
        implied = outside.grad
    if now.grad != implied or (grad is not None and now.inference == outside.inference):
        modes.append(("grad", now.grad))
    off = [mode for mode in outside.autocast if mode[1] not in {each[1] for each in now.autocast}]
    modes += [mode for mode in now.autocast if mode not in outside.autocast]
    modes += [(*mode[:3], False, mode[4]) for mode in off]
    return tuple(modes)


@contextmanager
def as_outside(outside: State) -> Iterator[None]:
    """What is run inside, such as a scan, is run as outside of the body that has entered other modes."""
    now = state()
    modes: list[Mode] = [mode for mode in outside.autocast if mode not in now.autocast]
    known = {mode[1] for mode in outside.autocast}
    modes += [(*mode[:3], False, mode[4]) for mode in now.autocast if mode[1] not in known]
    if now.inference:
        modes.insert(0, ("inference", False))
    with entered(tuple(modes)):
        yield


_flash, _efficient, _math, _cudnn = _SDPA.values()


def around_attention() -> Modes:
    """How attention is to be computed, where not all ways are allowed."""
    if _flash() and _efficient() and _math() and _cudnn():
        return ()
    return (("sdpa", *sorted(name for name, enabled in _SDPA.items() if enabled())),)


def around_backward() -> Modes:
    """Whether gradients are to be checked."""
    return (("anomaly", True),) if torch.is_anomaly_enabled() else ()


def entered(modes: Modes) -> AbstractContextManager[Any]:
    """These modes, as a context."""
    stack = ExitStack()
    try:
        for kind, *settings in modes:
            stack.enter_context(_ENTER[kind](*settings))
    except BaseException:
        stack.close()
        raise
    return stack


def _enter_autocast(device: str, dtype: str, on: bool, cache: bool) -> Any:
    return torch.autocast(device, getattr(torch, dtype), on, cache)


def _enter_sdpa(*names: str) -> Any:
    return sdpa_kernel([getattr(SDPBackend, name) for name in names])


_ENTER: dict[str, Callable[..., AbstractContextManager[Any]]] = {
    "grad": torch.set_grad_enabled,
    "inference": torch.inference_mode,
    "autocast": _enter_autocast,
    "anomaly": torch.autograd.set_detect_anomaly,
    "sdpa": _enter_sdpa,
}


def read(mode: Any) -> Mode:
    """A mode that came from a file. Raises `ValueError` for what is none."""
    kind, *settings = mode
    flags, known = {"grad": 1, "inference": 1, "anomaly": 1}, isinstance(kind, str)
    if known and kind in flags:
        known = len(settings) == flags[kind] and all(isinstance(each, bool) for each in settings)
    elif known and kind == "autocast":
        device, dtype, *rest = settings
        known = device in _DEVICES and dtype in ("float16", "bfloat16", "float32", "float64")
        known = known and len(rest) == 2 and all(isinstance(each, bool) for each in rest)
    else:
        known = known and kind == "sdpa" and bool(settings) and set(settings) <= _SDPA.keys()
    if not known:
        raise ValueError(f"{mode!r} is no mode")
    return (kind, *settings)


def mode_text(mode: Mode) -> str:
    """The context manager that enters a mode, as Python."""
    kind, *settings = mode
    if kind == "grad":
        return "torch.enable_grad()" if settings[0] else "torch.no_grad()"
    if kind == "inference":
        return f"torch.inference_mode({'' if settings[0] else 'False'})"
    if kind == "anomaly":
        return f"torch.autograd.set_detect_anomaly({settings[0]})"
    if kind == "sdpa":
        names = ", ".join(f"torch.nn.attention.SDPBackend.{name}" for name in settings)
        return f"torch.nn.attention.sdpa_kernel([{names}])"
    device, dtype, on, cache = settings
    more = ("" if on else ", enabled=False") + ("" if cache else ", cache_enabled=False")
    return f'torch.autocast("{device}", torch.{dtype}{more})'
