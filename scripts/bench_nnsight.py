"""The engine bench's programs as nnsight writes them, to look at both. It is no dependency: without it, no such column.

It runs a trace's body while the model runs, so values are read in the order in which they come, gradients from the
last to the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nnsight  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor, nn


def programs(net: nn.Module, ids: Tensor) -> dict[str, Any]:
    """Name → the program; or, where it cannot be run, the error's kind. `nnsight` says which release."""
    model: Any = nnsight.NNsight(net)
    both = torch.cat([ids, ids.flip(1)])

    def save() -> Any:
        with model.trace(ids):
            kept = nnsight.save([])
            for block in model.transformer.h:
                kept.append(block.output)
        return kept

    def ablate() -> Any:
        with model.trace(ids):
            model.transformer.h[5].mlp.output[:] = 0
            logits = model.output.logits.save()
        return logits

    def patch() -> Any:
        with model.trace() as tracer:
            barrier = tracer.barrier(2)
            with tracer.invoke(both[:1]):
                clean = model.transformer.h[5].output
                barrier()
            with tracer.invoke(both[1:]):
                barrier()
                model.transformer.h[5].output[:] = clean
                logits = model.output.logits.save()
        return logits

    def lens() -> Any:
        with model.trace(ids):
            kept = nnsight.save([])
            for block in model.transformer.h:
                kept.append(model.lm_head(model.transformer.ln_f(block.output)).argmax(-1))
        return kept

    def gradients() -> Any:
        with model.trace(ids):
            kept = nnsight.save([])
            values = [block.output for block in model.transformer.h]
            with model.output.logits.sum().backward():
                for value in reversed(values):
                    kept.append(value.grad)
        return kept

    def stop() -> Any:
        with model.trace(ids) as tracer:
            kept = model.transformer.h[2].output.save()
            tracer.stop()
        return kept

    found: dict[str, Any] = {
        "save every block": save, "ablate": ablate, "patch between invokes": patch, "logit lens": lens,
        "gradients": gradients, "early stop": stop,
    }  # fmt: skip
    return {name: _tried(program) for name, program in found.items()} | {"nnsight": nnsight.__version__}


def _tried(program: Callable[[], Any]) -> Any:
    try:
        program()
    except Exception as error:
        return type(error).__name__[:8]
    return program
