"""What tracing costs beside hooks written by hand: one process, alternating, medians, ratios.

`python -m scripts.bench`. The net is the twelve-block MLP of the first figure that this project promised.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import workbench as wb

ROUNDS = 200
WARM = 40


class Block(nn.Module):
    """A residual MLP block, small enough that the hooks' own cost is seen."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.linear(x))


def hand_saves(net: nn.Sequential, x: Tensor) -> dict[int, Tensor]:
    """Every block's output, by hooks as one writes them by hand."""
    saved: dict[int, Tensor] = {}
    handles = []
    for index, block in enumerate(net):

        def keep(module: nn.Module, args: object, output: Tensor, index: int = index) -> None:
            saved[index] = output

        handles.append(block.register_forward_hook(keep))
    try:
        with torch.no_grad():
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return saved


def main() -> None:
    """Print the medians and the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(*[Block() for _ in range(12)]).eval()
    twin = nn.Sequential(*[Block() for _ in range(12)]).eval()  # never wrapped
    twin.load_state_dict(net.state_dict())
    model = wb.NNsight(net)
    x = torch.rand(4, 64)

    def bare() -> None:
        with torch.no_grad():
            twin(x)

    def wrapped() -> None:
        with torch.no_grad():
            net(x)

    def by_hand() -> None:
        hand_saves(net, x)

    def empty() -> None:
        with model.trace(x):
            pass

    def one() -> None:
        with model.trace(x):
            model[5].output.save()

    def twelve() -> None:
        with model.trace(x):
            kept = [block.output.save() for block in model]
        del kept

    with model.trace(x):  # first of all: the same values
        kept = [block.output.save() for block in model]
    assert all(torch.equal(ours.value, theirs) for ours, theirs in zip(kept, hand_saves(net, x).values(), strict=True))

    medians = measure([bare, wrapped, by_hand, empty, one, twelve])
    print("12-block MLP, width 64, 1 thread: median of", ROUNDS, "rounds, alternating")
    for name, value in medians.items():
        print(f"  {name:<8} {value * 1e6:8.1f} µs")
    print(f"  12 saves / 12 hooks by hand      {medians['twelve'] / medians['by_hand']:.3f}   (at most 1.5)")
    print(f"  wrapped, untraced / bare         {medians['wrapped'] / medians['bare']:.3f}   (at most 1.02)")


def measure(functions: list[Callable[[], Any]], rounds: int = ROUNDS, warm: int = WARM) -> dict[str, float]:
    """Each function's median seconds, all of them in turn in every round, so that a slow moment hits all alike.

    Seconds of this thread's own work, which is all there is with one thread: what else the machine does is not counted.
    """
    times: dict[str, list[float]] = {function.__name__: [] for function in functions}
    for number in range(warm + rounds):
        for function in functions if number % 2 else reversed(functions):
            start = time.thread_time()
            function()
            seconds = time.thread_time() - start
            if number >= warm:
                times[function.__name__].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def peak(function: Callable[[], Any]) -> float:
    """The most memory, in MiB, that tensors take while a function runs, by the allocator's own account."""
    from torch.profiler import ProfilerActivity, profile

    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = function()
    del kept
    assert profiled.profiler is not None
    events: list[Any] = [each for each in profiled.profiler.kineto_results.events() if each.name() == "[memory]"]
    most = now = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / 2**20


if __name__ == "__main__":
    main()
