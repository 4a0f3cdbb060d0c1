"""Divided: what lies in several processes is put together before the user sees it, and taken apart again behind.

Of a model that is divided each process holds a part of the weights, and runs the same graph, so all of them come to
each site. Which axis is divided is known from a scan of the whole model: it is the one of constant size, neither the
batch's nor the positions', of which this process has fewer. Gradients pass: what is put together forwards is taken
apart backwards, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.engine.scan import Scan
from workbench.engine.values import Where, map_placed, placed
from workbench.site import Site

Place = tuple[str, str, str]
"""A site in every call and step: path, port, and the call inside the forward."""

Scans = Callable[[Site], tuple[Scan, Scan]]
"""Two scans of the whole model that look at this site, at two sizes of input."""


@dataclass(frozen=True)
class Parallel:
    """Over which processes a model is divided, and how.

    `inputs` and `outputs` are the modules that take and give parts, by path, with the size of the whole along the last
    axis. `partial` are those inside whose forward a value is a summand in each process, which nothing can show.
    """

    group: Any
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    partial: frozenset[str]
    device: torch.device

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group)

    def agree(self) -> None:
        """Give all processes the first one's random numbers, so that the same graph makes the same noise in each."""
        source = dist.get_global_rank(self.group, 0)
        state = torch.get_rng_state().to(self.device)
        dist.broadcast(state, source, group=self.group)
        torch.set_rng_state(state.cpu())
        if self.device.type == "cuda":
            own = torch.cuda.get_rng_state(self.device).to(self.device)
            dist.broadcast(own, source, group=self.group)
            torch.cuda.set_rng_state(own.cpu(), self.device)

    # ---- a module that the user calls, or whose output the user gives

    def call(self, path: str, module: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a module on whole values."""
        if path in self.inputs and args and isinstance(args[0], Tensor):
            args = [self.take(args[0], -1, self.inputs[path]), *args[1:]]
        value = module(*args, **kwargs)
        if path in self.outputs and isinstance(value, Tensor):
            value = self.join(value, -1, self.outputs[path])
        return value

    def given(self, path: str, value: Any) -> Any:
        """This process's part of what stands for a module's output."""
        if path in self.outputs and isinstance(value, Tensor):
            return self.take(value, -1, self.outputs[path])
        return value

    # ---- one tensor

    def join(self, part: Tensor, axis: int, size: int) -> Tensor:
        """The whole, of all processes' parts along an axis that has this size in the whole."""
        return _Join.apply(part, axis % part.ndim, size, self.group)

    def take(self, whole: Tensor, axis: int, size: int) -> Tensor:
        """This process's part."""
        if whole.shape[axis] != size:
            raise ValueError(
                f"this value has {whole.shape[axis]} along axis {axis}, and the {self.size} processes that share this "
                f"model divide {size} there; give it that shape"
            )
        return _Take.apply(whole, axis % whole.ndim, self.group)


class Divided:
    """The sites of one pass over a divided model.

    `known` is where what was found is kept for other passes.
    """

    def __init__(self, parallel: Parallel, scans: Scans, known: dict[tuple[Place, Where], tuple[int, int]]) -> None:
        self.parallel = parallel
        self._scans = scans
        self._known = known
        self._whole: set[tuple[Place, Where]] = set()

    def join(self, site: Site, value: Any) -> Any:
        """A site's value, whole."""
        if site.inside and site.path in self.parallel.partial:
            raise ValueError(
                f"inside {site.path} each of the {self.parallel.size} processes that share this model has a summand of "
                "the value, and no part of it; look at the module's output, or open the model undivided"
            )
        found = {where: self._axis(site, where, tensor) for where, tensor in placed(value)}

        def join(where: Where, part: Tensor) -> Tensor:
            axis = found[where]
            return part if axis is None else self.parallel.join(part, *axis)

        return map_placed(join, value) if any(found.values()) else value

    def take(self, site: Site, value: Any) -> Any:
        """This process's part of a value that takes a site's place."""
        place = (site.path, site.port, site.inside)

        def take(where: Where, whole: Tensor) -> Tensor:
            axis = self._known.get((place, where))
            return whole if axis is None else self.parallel.take(whole, *axis)

        return map_placed(take, value)

    def _axis(self, site: Site, where: Where, part: Tensor) -> tuple[int, int] | None:
        """Along which axis a tensor is divided, and the whole's size there; None where it is whole."""
        key = (site.path, site.port, site.inside), where
        if key in self._known:
            return self._known[key]
        if key in self._whole:
            return None
        small, large = (dict(placed(_value(scan, site))).get(where) for scan in self._scans(site))
        if small is None or large is None or not small.ndim == large.ndim == part.ndim:
            self._whole.add(key)
            return None
        for axis, (size, other, here) in enumerate(zip(small.shape, large.shape, part.shape, strict=True)):
            if size == other != here and here == _size(size, self.parallel.rank, self.parallel.size):
                self._known[key] = axis, size
                return axis, size
        self._whole.add(key)
        return None


def _value(scan: Scan, site: Site) -> Any:
    found = scan.values.get(site._replace(step=0))
    return scan.values.get(site._replace(step=0, call=0)) if found is None else found


def whole(tensor: Any) -> Any:
    """A parameter that lies in several processes, put together; anything else as it is."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def local(tensor: Tensor) -> Tensor:
    """What this process has of a parameter."""
    own = getattr(tensor, "to_local", None)
    return tensor if own is None else own()


# ---- parts, as torch.chunk makes them


def _size(size: int, rank: int, world: int) -> int:
    most = -(-size // world)
    return max(0, min(most, size - rank * most))


def _taken(whole: Tensor, axis: int, group: Any) -> Tensor:
    world, rank, size = dist.get_world_size(group), dist.get_rank(group), whole.shape[axis]
    return whole.narrow(axis, min(rank * -(-size // world), size), _size(size, rank, world)).contiguous()


def _joined(part: Tensor, axis: int, size: int, group: Any) -> Tensor:
    world = dist.get_world_size(group)
    most = -(-size // world)
    sent = part.detach().contiguous()
    if part.dtype is torch.bool:
        sent = sent.to(torch.uint8)
    if part.shape[axis] < most:
        shape = [*sent.shape]
        shape[axis] = most - part.shape[axis]
        sent = torch.cat([sent, sent.new_zeros(shape)], axis)
    parts = [torch.empty_like(sent) for _ in range(world)]
    dist.all_gather(parts, sent, group=group)
    joined = torch.cat([each.narrow(axis, 0, _size(size, rank, world)) for rank, each in enumerate(parts)], axis)
    return joined.to(part.dtype)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, axis: int, size: int, group: Any) -> Tensor:
        ctx.axis, ctx.group = axis, group
        return _joined(part, axis, size, group)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Take.apply(grads[0], ctx.axis, ctx.group), None, None, None


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, axis: int, group: Any) -> Tensor:
        ctx.axis, ctx.size, ctx.group = axis, whole.shape[axis], group
        return _taken(whole, axis, group)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Join.apply(grads[0], ctx.axis, ctx.size, ctx.group), None, None
