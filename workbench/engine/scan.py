"""Scan: one forward pass that computes nothing, which says every site's shape and dtype before anything real runs.

It climbs a ladder: on fake tensors, else on the meta device, else by a real run that leaves nothing behind, else it
says in words why nothing is known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from workbench.engine.shadow import FAKING, LeftOut, Mismatch, Shadow, restored, shadow, structure
from workbench.engine.values import first_tensor, map_tensors, signature
from workbench.errors import DeferredError, SourceError
from workbench.inside.forwards import replaced
from workbench.site import Port, Site

Forward = Callable[..., Any]

Inside = frozenset[tuple[str, str]]
"""Calls inside forwards that a scan is to look at too: (path of the module, name of the call)."""

NOWHERE: Inside = frozenset()


class Scan:
    """What a forward pass looks like for one kind of input.

    `values` holds a fake value for each site reached, in the order in which they are reached. `how` is "scanned", or
    in words by which other way, or why nothing is known.
    """

    def __init__(self, values: dict[Site, Any], how: str, mode: Any = None, shadow: Shadow | None = None) -> None:
        self.values = values
        self.how = how
        self.order = {site: index for index, site in enumerate(values)}
        self._mode = mode
        self._shadow = shadow

    @property
    def known(self) -> bool:
        return self.how.startswith("scanned")

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
        with FAKING, self._mode, torch.no_grad(), quiet():
            yield

    def module(self, path: str) -> nn.Module:
        """The shadow of a module, to be called on fake values."""
        if self._shadow is None:
            raise DeferredError("what a module gives that is called here is known only in the run")
        return self._shadow.module(path)

    def fake(self, value: Any) -> Any:
        """A real value's fake counterpart."""
        return map_tensors(self._mode.from_tensor, value)


class Scanner:
    """Scans of one model: its shadow is made when it is first needed, and again when the model has changed."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._shadows: dict[bool, tuple[Any, Shadow]] = {}  # collapsed or not → the structure it is of, the shadow

    def scan(
        self,
        forward: Forward,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        collapse: bool = True,
        inside: Inside = NOWHERE,
    ) -> Scan:
        """Run `forward(module, *args, **kwargs)` without computing, and note what passes each module.

        Never raises for a model that cannot be scanned: the scan then says why in `how`.
        """
        with FAKING:
            wants_all = any(name.startswith("output_") and value for name, value in kwargs.items())
            try:
                try:
                    return self._fake(forward, args, kwargs, collapse and not wants_all, inside)
                except Mismatch:
                    return self._fake(forward, args, kwargs, False, inside)
            except SourceError:
                raise
            except Exception as error:
                why = [f"fake tensors failed: {_first_line(error)}"]
            try:
                return self._meta(forward, args, kwargs, inside, why)
            except Exception as error:
                why.append(f"the meta device failed: {_first_line(error)}")
            if any(p.is_meta for p in self._root.parameters()):
                return Scan({}, f"unknown, because {'; '.join(why)}; and without weights nothing can be run")
            try:
                return self._real(forward, args, kwargs, inside, why)
            except Exception as error:
                why.append(f"a real run failed: {_first_line(error)}")
            return Scan({}, f"unknown, because {'; '.join(why)}")

    def _fake(
        self, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any], collapse: bool, inside: Inside
    ) -> Scan:
        here = self._shadow(collapse)
        inside = frozenset((here.leading(path), name) for path, name in inside)
        values = _run(here.root, here.mode, here.mode.from_tensor, forward, args, kwargs, inside)
        return Scan(values, "scanned", here.mode, here)

    def _shadow(self, collapse: bool) -> Shadow:
        now = structure(self._root)
        kept = self._shadows.get(collapse)
        if kept is not None and kept[0] == now:
            return kept[1]
        mode = _fake_mode()

        def fake(tensor: Tensor) -> Tensor:
            if not tensor.is_meta:
                return mode.from_tensor(tensor.detach())
            with mode:  # not loaded yet: it will be where the inputs are
                return torch.empty_like(tensor, device="cpu")

        made = shadow(self._root, fake, mode, collapse)
        self._shadows[collapse] = now, made
        return made

    def _meta(
        self, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any], inside: Inside, why: list[str]
    ) -> Scan:
        here = shadow(self._root, _on_meta, torch.device("meta"), False)
        values = _run(here.root, here.mode, _on_meta, forward, args, kwargs, inside)
        return _refaked(values, f"scanned on the meta device, since {why[0]}")

    def _real(
        self, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any], inside: Inside, why: list[str]
    ) -> Scan:
        root = self._root
        devices = {t.device for t in root.parameters() if t.device.type == "cuda"}
        with restored(root), torch.random.fork_rng([device.index or 0 for device in devices]):
            for module in root.modules():
                for name, buffer in list(module._buffers.items()):
                    if buffer is not None:
                        module._buffers[name] = buffer.clone()
            values = _run(root, torch.no_grad(), torch.clone, forward, args, kwargs, inside)
        return _refaked(values, f"scanned by a real run, since {why[0]}")


def scan(
    root: nn.Module, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any], collapse: bool = True
) -> Scan:
    """One scan of a model; `Scanner` keeps what several can share."""
    return Scanner(root).scan(forward, args, kwargs, collapse)


def bare() -> Scan:
    """A scan of nothing: fake values of what is made outside any forward pass."""
    return Scan({}, "scanned", _fake_mode())


def _run(
    root: nn.Module,
    mode: Any,
    convert: Callable[[Tensor], Tensor],
    forward: Forward,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    inside: Inside,
) -> dict[Site, Any]:
    """The values at each site of a pass over `root`, which is as before afterwards."""
    values: dict[Site, Any] = {}
    handles: list[Any] = []
    fakes = [map_tensors(convert, arg) for arg in args], {k: map_tensors(convert, v) for k, v in kwargs.items()}
    with restored(root):
        try:
            _watch(root, values, handles)
            with mode, _Assumed(), quiet(), torch.no_grad(), ExitStack() as opened:
                for path in {path for path, _ in inside}:
                    names = {name for at, name in inside if at == path}
                    opened.enter_context(_open(root, path, names, values))
                forward(root, *fakes[0], **fakes[1])
        finally:
            for handle in handles:
                handle.remove()
    return values


class _Assumed(TorchFunctionMode):
    """A forward's own check of numbers (image tokens as many as images have) holds: there are no numbers."""

    def __torch_function__(self, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if fn is Tensor._is_all_true:
            return torch.tensor(True)
        return fn(*args, **(kwargs or {}))


def _open(root: nn.Module, path: str, names: set[str], values: dict[Site, Any]) -> AbstractContextManager[None]:
    """Note what passes these calls inside a module's forward."""
    from workbench.inside.instrument import instrumented  # here, since it is seldom needed

    calls: dict[tuple[str, str], int] = {}

    def note(name: str, port: Port, value: Any) -> Any:
        call = calls[name, port] = calls.get((name, port), -1) + 1
        values[Site(path, port, call, name)] = value
        return value

    module = root.get_submodule(path)
    return replaced(module, instrumented(module, names, note))  # pyright: ignore[reportArgumentType]


def _watch(root: nn.Module, values: dict[Site, Any], handles: list[Any]) -> None:
    """Note each module's input and output; a module under two names is noted under its first."""
    leaders = {module.leader for module in root.modules() if isinstance(module, LeftOut)}
    segments: dict[str, list[tuple[Site, Any]]] = {}  # leader → what was noted inside it
    for path, module in root.named_modules():
        watched = _Watched(path, module, path in leaders, values, segments)
        handles.append(module.register_forward_pre_hook(watched.before, prepend=True, with_kwargs=True))
        handles.append(module.register_forward_hook(watched.after, prepend=True))


class _Watched:
    """One module's calls, as they are noted."""

    def __init__(
        self, path: str, module: nn.Module, leads: bool, values: dict[Site, Any], segments: dict[str, Any]
    ) -> None:
        self.path = path
        self.leads = leads
        self.block = module if isinstance(module, LeftOut) else None
        self.values = values
        self.segments = segments
        self.calls = {"input": 0, "output": 0}
        self.began = 0

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.began = len(self.values)
        if self.leads:
            module.__dict__["workbench_called"] = [signature((args, kwargs)), None]
        self._note("input", (args, kwargs))

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.leads:
            if self.calls["output"]:
                raise Mismatch(f"{self.path} is called more than once")
            module.__dict__["workbench_called"][1] = output
            self.segments[self.path] = list(self.values.items())[self.began + 1 :]
        elif self.block is not None:
            _as_leader(self.block, self.segments[self.block.leader], self.values)
        self._note("output", output)

    def _note(self, port: Port, value: Any) -> None:
        if isinstance(value, dict):  # a model that sees puts other things in its vision tower's output afterwards
            value = map_tensors(lambda tensor: tensor, value)
        self.values[Site(self.path, port, self.calls[port])] = value
        self.calls[port] += 1


def _as_leader(block: LeftOut, segment: list[tuple[Site, Any]], values: dict[Site, Any]) -> None:
    """What would have been noted inside a block that was left out."""
    inside = f"{block.leader}."
    for site, value in segment:
        if not site.path.startswith(inside) and site.path != block.leader:
            raise Mismatch(f"{site} is called inside {block.leader}")
        here = Site(block.path + site.path.removeprefix(block.leader), site.port, site.call, site.inside)
        if here in values:
            raise Mismatch(f"{block.path} is called more than once")
        values[here] = value


def _refaked(values: dict[Site, Any], how: str) -> Scan:
    """Values of another rung as fake tensors, which hold no memory."""
    mode = _fake_mode()

    def fake(tensor: Tensor) -> Tensor:
        device = "cpu" if tensor.is_meta else tensor.device
        with mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    return Scan({site: map_tensors(fake, value) for site, value in values.items()}, how, mode)


def _on_meta(tensor: Tensor) -> Tensor:
    return tensor.detach().to("meta")


def _fake_mode() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def quiet() -> Iterator[None]:
    """torch logs each error of a fake operation; ours are raised in words, so this thread's are not logged."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    thread = get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
