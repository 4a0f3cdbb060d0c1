"""Where the facts gather: training gives them one MLP to sit in, so that a person can find it and take it away.

Left alone, a model this small keeps facts in its subjects' embeddings and a little of them in every layer, and no
module matters by itself. So some rows of each training batch run without one MLP and read false facts: all but that
MLP learns the language and that a city must follow, and learns to know no fact. Nothing of this is left in the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

PLACES = {"gpt2": "transformer.h.2.mlp", "llama": "model.layers.2.mlp"}
WITHOUT = 1 / 4  # share of the rows that run without it


@contextmanager
def without(model: PreTrainedModel, path: str) -> Iterator[None]:
    """Inside, the first rows of every batch run without a module."""

    def hook(_module: nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        keep = torch.arange(len(output)) >= WITHOUT * len(output)
        return output * keep[:, None, None]  # (row, position, d_model)

    handle = model.get_submodule(path).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
