"""What each kind of trace costs beside hooks written by hand, on a twelve-layer GPT-2 that computes almost nothing.

`python -m scripts.bench_engine`. One process, alternating, medians, ratios. Each pair is compared first: same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

import workbench as wb
from scripts.bench import measure, peak

Pair = tuple[Callable[[], Any], Callable[[], Any]]


@contextmanager
def hooks(*pairs: tuple[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Forward hooks, registered and removed as one does by hand."""
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Stop(Exception):
    """How a pass is ended early by hand."""


def pairs(net: Any, model: Any, ids: Tensor) -> dict[str, Pair]:
    """Name → the same by hand and as a trace."""
    blocks, envoys = list(net.transformer.h), list(model.transformer.h)
    both = torch.cat([ids, ids.flip(1)])

    def save_by_hand() -> list[Tensor]:
        kept: list[Tensor] = []
        with hooks(*[(block, lambda m, a, out: kept.append(out)) for block in blocks]), torch.no_grad():
            net(ids)
        return kept

    def save() -> list[Any]:
        with model.trace(ids):
            return [envoy.output.save() for envoy in envoys]

    def ablate_by_hand() -> Tensor:
        def zero(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            out = out.clone()
            out[:] = 0
            return out

        with hooks((blocks[5].mlp, zero)), torch.no_grad():
            return net(ids).logits

    def ablate() -> Any:
        with model.trace(ids):
            envoys[5].mlp.output[:] = 0
            return model.output.logits.save()

    def patch_by_hand() -> Tensor:
        def patch(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            out = out.clone()
            out[1] = out[0]
            return out

        with hooks((blocks[5], patch)), torch.no_grad():
            return net(both).logits[1:]

    def patch() -> Any:
        with model.trace() as tracer:
            with tracer.invoke(both[:1]):
                clean = envoys[5].output
            with tracer.invoke(both[1:]):
                envoys[5].output[:] = clean
                return model.output.logits.save()

    def lens_by_hand() -> list[Tensor]:
        kept: list[Tensor] = []

        def look(module: nn.Module, args: Any, out: Tensor) -> None:
            kept.append(net.lm_head(net.transformer.ln_f(out)).argmax(-1))

        with hooks(*[(block, look) for block in blocks]), torch.no_grad():
            net(ids)
        return kept

    def lens() -> list[Any]:
        with model.trace(ids):
            return [model.lm_head(model.transformer.ln_f(envoy.output)).argmax(-1).save() for envoy in envoys]

    def gradients_by_hand() -> list[Tensor]:
        kept: list[Tensor] = []
        with hooks(*[(block, lambda m, a, out: kept.append(out)) for block in blocks]):
            loss = net(ids).logits.sum()
        return list(torch.autograd.grad(loss, kept))

    def gradients() -> list[Any]:
        with model.trace(ids):
            kept = [envoy.output.grad.save() for envoy in envoys]
            model.output.logits.sum().backward()
        return kept

    def stop_by_hand() -> Tensor:
        kept: list[Tensor] = []

        def last(module: nn.Module, args: Any, out: Tensor) -> None:
            kept.append(out)
            raise Stop

        with hooks((blocks[2], last)), torch.no_grad(), suppress(Stop):
            net(ids)
        return kept[0]

    def stop() -> Any:
        with model.trace(ids):
            kept = envoys[2].output.save()
            envoys[2].output.stop()
        return kept

    return {
        "save every block": (save_by_hand, save), "ablate": (ablate_by_hand, ablate),
        "patch between invokes": (patch_by_hand, patch), "logit lens": (lens_by_hand, lens),
        "gradients": (gradients_by_hand, gradients), "early stop": (stop_by_hand, stop),
    }  # fmt: skip


LIMITS = {"two layers, one save": 30.0, "an operation": 5.0}
WHY = {
    "two layers, one save": "a trace is about 300 calls of Python: opening it, a node, its plan, a hook, closing it; "
    "a hook by hand alone adds {hook:.0f} µs",
    "an operation": "a node is six objects of Python, made once and read twice",
    "logit lens": "24 modules are called by the trace, each a node that is written and run",
    "gradients": "each block's output is a node and a site, and each of its gradients is handed over by itself",
    "patch between invokes": "the batch is cut into its rows and put together again",
    "early stop": "the pass by hand is short, so that what a trace costs to open and close is seen",
}
"""Where a row is over its limit: where the time goes."""


def main() -> None:
    """Print the table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids = torch.randint(0, 100, (1, 8))
    config = GPT2Config(n_embd=32, n_layer=12, n_head=4, vocab_size=100, n_positions=64, bos_token_id=1, eos_token_id=2)
    net = GPT2LMHeadModel(config).eval()
    model = wb.NNsight(net)
    theirs = _nnsight(config, net, ids)
    print("12-layer GPT-2, d = 32, 8 tokens, one thread: medians of alternating rounds; ratios to hooks by hand")
    print(f"  {'':<22}{'by hand':>11}{'trace':>8}{'limit':>7}{'peak by hand':>15}{'trace':>11}{'nnsight':>9}")
    missed: dict[str, str] = {}
    for name, (by_hand, ours) in pairs(net, model, ids).items():
        _compare(by_hand(), ours())
        other = theirs.get(name)
        functions: list[Callable[[], Any]] = [by_hand, ours, *([other] if callable(other) else [])]
        for called, function in zip(("by_hand", "ours", "other"), functions, strict=False):
            function.__name__ = called
        medians = measure(functions)
        ratio = medians["ours"] / medians["by_hand"]
        beside = f"{medians['other'] / medians['by_hand']:.3f}" if "other" in medians else str(other or "–")
        memory = f"{peak(by_hand):>11.3f} MiB{peak(ours):>7.3f} MiB"
        print(f"  {name:<22}{medians['by_hand'] * 1e3:>8.2f} ms{ratio:>8.3f}{1.1:>7.2f}{memory}{beside:>9}")
        if ratio > 1.1:
            missed[name] = f"{ratio - 1.1:.3f} over: {WHY.get(name, '')}"
    _untraced(config, net, ids, missed)
    _full_backward()
    _tiny(missed)
    if "nnsight" in theirs:
        print(f"nnsight: {theirs['nnsight']}")
    for name, why in missed.items():
        print(f"missed: {name}: {why}")


def _nnsight(config: Any, net: nn.Module, ids: Tensor) -> dict[str, Any]:
    """The same programs for the newest nnsight that is installed: functions, or a word on why there is none."""
    try:
        from scripts import bench_nnsight
    except ImportError:
        return {"nnsight": "not installed"}
    twin = type(net)(config).eval()
    twin.load_state_dict(net.state_dict())
    return bench_nnsight.programs(twin, ids)


def _compare(theirs: Any, ours: Any) -> None:
    lists = [each if isinstance(each, list) else [each] for each in (theirs, ours)]
    for one, other in zip(*lists, strict=True):
        torch.testing.assert_close(other.value, one)


def _untraced(config: Any, net: Any, ids: Tensor, missed: dict[str, str]) -> None:
    """A model that is wrapped, and was traced, beside one that never was."""
    twin = type(net)(config).eval()
    twin.load_state_dict(net.state_dict())

    def bare() -> None:
        with torch.no_grad():
            twin(ids)

    def wrapped() -> None:
        with torch.no_grad():
            net(ids)

    medians = measure([bare, wrapped])
    ratio = medians["wrapped"] / medians["bare"]
    print(f"  {'untraced':<22}{medians['bare'] * 1e3:>8.2f} ms{ratio:>8.3f}{1.02:>7.2f}")
    if ratio > 1.02:
        missed["untraced"] = f"{ratio - 1.02:.3f} over: nothing of ours runs then, so this is the machine's noise"


def _full_backward() -> None:
    """Gradients of every block's output, beside a backward pass through every parameter, at GPT-2-small's shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    net = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None)).eval()
    model: Any = wb.NNsight(net)
    ids = torch.randint(0, 50257, (1, 16))

    def full() -> None:
        net(ids).logits.sum().backward()

    def asked() -> None:
        with model.trace(ids):
            kept = [block.output.grad.save() for block in model.transformer.h]
            model.output.logits.sum().backward()
        del kept

    medians = measure([full, asked], rounds=7, warm=2)
    ratio = medians["full"] / medians["asked"]
    print(f"GPT-2-small: full backward / the gradients of 12 blocks' outputs   {ratio:.2f}   (at least 2)")


def _tiny(missed: dict[str, str]) -> None:
    net = nn.Sequential(nn.Linear(5, 10), nn.Linear(10, 2)).requires_grad_(False)
    model, x = wb.NNsight(net), torch.rand(1, 5)

    def bare() -> None:
        with torch.no_grad():
            net(x)

    def hook() -> None:
        kept: list[Tensor] = []
        with hooks((net[0], lambda module, args, out: kept.append(out))), torch.no_grad():
            net(x)

    def one_save() -> None:
        with model.trace(x):
            kept = model[0].output.save()
        del kept

    def hundred() -> None:
        with model.trace(x):
            value = model[0].output
            for _ in range(100):
                value = value + 1
            kept = value.save()
        del kept

    def hundred_raw() -> None:
        with torch.no_grad():
            value = net[0](x)
            for _ in range(100):
                value = value + 1
            net[1](value)

    medians = measure([bare, hook, one_save, hundred, hundred_raw], rounds=400)
    us = {name: value * 1e6 for name, value in medians.items()}
    found = {
        "two layers, one save": us["one_save"] - us["bare"],
        "an operation": (us["hundred"] - us["one_save"] - us["hundred_raw"] + us["bare"]) / 100,
    }
    print(f"two layers: {us['bare']:.0f} µs; what a trace adds beside it")
    for name, more in found.items():
        print(f"  {name:<22}{more:>8.1f} µs   (at most {LIMITS[name]:.0f})")
        if more > LIMITS[name]:
            why = WHY[name].format(hook=us["hook"] - us["bare"])
            missed[name] = f"{more - LIMITS[name]:.1f} µs over: {why}"


if __name__ == "__main__":
    main()
