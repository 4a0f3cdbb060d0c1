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
            `(batch, position)`), chat messages (`[{"role": "user", "content": "…"}]`, or a list of such lists), or what
            a tokenizer returned.
        options: for the tokenizer, such as `max_length=` and `truncation=`.

    Returns:
        `input_ids` and `attention_mask`, each `(batch, position)`. Shorter prompts of a list are padded on the left,
        so that position -1 is each one's last token, and `position_ids` then count each prompt from 0.

    Raises:
        InputError: an empty prompt, or something that is no prompt.
    """
    if isinstance(prompt, Mapping):
        return _tokenized(tokenizer, prompt)
    if isinstance(prompt, str):
        prompt = [prompt]
    elif _is_chat(prompt):
        return _padded(tokenizer, _chats(tokenizer, [prompt], options))
    elif isinstance(prompt, (list, tuple)) and prompt and all(map(_is_chat, prompt)):
        return _padded(tokenizer, _chats(tokenizer, prompt, options))
    if isinstance(prompt, Tensor):
        ids = _rows(prompt)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if not isinstance(prompt, (list, tuple)) or not prompt:
        raise InputError(_no_prompt(prompt))
    if all(isinstance(item, str) for item in prompt):
        _need(tokenizer)
        rows = [list(ids) for ids in tokenizer(list(prompt), **options)["input_ids"]]
        for text, ids in zip(prompt, rows, strict=True):
            if not ids:
                raise InputError(f"the prompt {text!r} has no tokens; write at least one")
    elif all(_is_id(item) for item in prompt):
        rows = [list(prompt)]
    elif all(isinstance(item, (list, tuple)) and item and all(map(_is_id, item)) for item in prompt):
        rows = [list(item) for item in prompt]
    else:
        raise InputError(_no_prompt(prompt))
    return _padded(tokenizer, rows)


def _tokenized(tokenizer: Any, prompt: Mapping[str, Any]) -> dict[str, Any]:
    """What a tokenizer returned, as tensors."""
    rows = prompt.get("input_ids")
    if isinstance(rows, (list, tuple)) and len({len(row) for row in rows if isinstance(row, (list, tuple))}) > 1:
        return _padded(tokenizer, [list(row) for row in rows])
    return {
        name: _rows(value) if isinstance(value, (list, tuple)) or name == "input_ids" else value
        for name, value in prompt.items()
    }


def _is_id(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _is_chat(prompt: Any) -> bool:
    messages = prompt if isinstance(prompt, (list, tuple)) else ()
    return bool(messages) and all(isinstance(each, Mapping) and {"role", "content"} <= each.keys() for each in messages)


def _chats(tokenizer: Any, chats: Any, options: dict[str, Any]) -> list[list[int]]:
    """Each conversation's tokens, up to where the model is to answer."""
    _need(tokenizer)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "these are chat messages, and this model's tokenizer has no chat template: give the text itself, or set "
            "model.tokenizer.chat_template"
        )
    settings = {"add_generation_prompt": True, **options}
    texts = [tokenizer.apply_chat_template(list(chat), tokenize=False, **settings) for chat in chats]
    # The template has written the special tokens.
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _need(tokenizer: Any) -> None:
    if tokenizer is None:
        raise InputError("this model has no tokenizer, so it takes token ids; give it one with tokenizer=")


def in_vocabulary(ids: Tensor, size: int) -> None:
    """Raises `InputError` for a token that the model does not know."""
    wrong = ids[(ids < 0) | (ids >= size)]
    if wrong.numel():
        raise InputError(
            f"the token {int(wrong[0])} is not in this model's vocabulary, 0 to {size - 1}; is the tokenizer another "
            "model's?"
        )


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


def _no_prompt(prompt: Any) -> str:
    what = "empty" if isinstance(prompt, (list, tuple)) and not prompt else f"a {type(prompt).__name__}"
    if isinstance(prompt, (list, tuple)) and prompt:
        kinds = ", ".join(dict.fromkeys(type(item).__name__ for item in prompt))
        what += f" of {kinds}"
    return f"a prompt is a string, a list of strings, token ids, or chat messages; this is {what}"


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """Each token as a person reads it, with its leading space."""
    return [tokenizer.decode([id]) for id in ids]
