"""Tokens: prompts in every form a person writes them, made ready for a model, and shown back as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.errors import InputError


def encode(tokenizer: Any, prompt: Any, **options: Any) -> dict[str, Any]:
    """A prompt as the model's keyword arguments.

    Args:
        tokenizer: a transformers tokenizer.
        prompt: a string, a list of strings, token ids (list, list of lists, or tensor `(position,)` or
            `(batch, position)`), or what a tokenizer returned.
        options: for the tokenizer, such as `max_length=` and `truncation=`.

    Returns:
        `input_ids` and `attention_mask`, each `(batch, position)`. Shorter prompts of a list are padded on the left,
        so that position -1 is each one's last token, and `position_ids` then count each prompt from 0.

    Raises:
        InputError: an empty prompt, or something that is no prompt.
    """
    if isinstance(prompt, Mapping):
        return {name: _rows(value) if name == "input_ids" else value for name, value in prompt.items()}
    if isinstance(prompt, str):
        prompt = [prompt]
    if isinstance(prompt, Tensor):
        ids = _rows(prompt)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if not isinstance(prompt, (list, tuple)) or not prompt:
        raise InputError(f"a prompt is a string, a list of strings, or token ids; this is {_words(prompt)}")
    if all(isinstance(item, str) for item in prompt):
        if tokenizer is None:
            raise InputError("this model has no tokenizer, so it takes token ids; give it one with tokenizer=")
        rows = [list(ids) for ids in tokenizer(list(prompt), **options)["input_ids"]]
        for text, ids in zip(prompt, rows, strict=True):
            if not ids:
                raise InputError(f"the prompt {text!r} has no tokens; write at least one")
    elif all(isinstance(item, int) for item in prompt):
        rows = [list(prompt)]
    elif all(isinstance(item, (list, tuple)) and item for item in prompt):
        rows = [list(item) for item in prompt]
    else:
        raise InputError(f"a prompt is a string, a list of strings, or token ids; this is {_words(prompt)}")
    return _padded(tokenizer, rows)


def _padded(tokenizer: Any, rows: list[list[int]]) -> dict[str, Any]:
    longest = max(map(len, rows))
    if all(len(row) == longest for row in rows):
        ids = torch.tensor(rows)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pad = padding(tokenizer)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions_of(mask)}


def widened(inputs: Mapping[str, Any], width: int, pad: int, left: bool) -> dict[str, Any]:
    """A prompt's inputs with padding to `width` positions, behind it or, with `left`, before it."""
    ids = inputs["input_ids"]
    more = width - ids.shape[1]
    if not more:
        return dict(inputs)
    mask = inputs.get("attention_mask")
    wide = dict(inputs) | {"attention_mask": torch.ones_like(ids) if mask is None else mask}
    for name, value in wide.items():
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == ids.shape:
            filler = value.new_full(
                (value.shape[0], more, *value.shape[2:]), {"input_ids": pad, "labels": -100}.get(name, 0)
            )
            wide[name] = torch.cat([filler, value] if left else [value, filler], 1)
    return wide


def positions_of(mask: Tensor) -> Tensor:
    """Each prompt's positions `(batch, position)`, counted from 0 at its own first token."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def padding(tokenizer: Any) -> int:
    """The token that stands where a prompt has none."""
    ids = (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None))
    return next((each for each in ids if each is not None), 0)


def _rows(ids: Any) -> Tensor:
    tensor = torch.as_tensor(ids)
    if tensor.ndim == 1:
        tensor = tensor[None]
    if tensor.ndim != 2 or tensor.is_floating_point() or not tensor.numel():
        raise InputError(f"token ids are whole numbers of shape (batch, position); these have {tuple(tensor.shape)}")
    return tensor


def _words(prompt: Any) -> str:
    return "empty" if prompt in ([], ()) else f"a {type(prompt).__name__}"


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """Each token as a person reads it, with its leading space."""
    return [tokenizer.decode([id]) for id in ids]
