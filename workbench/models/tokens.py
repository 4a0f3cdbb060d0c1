"""Tokens: prompts in every form a person writes them, made ready for a model, and shown back as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import InputError

DECODED = ("decoder_input_ids", "decoder_attention_mask", "decoder_position_ids")
"""Inputs of a decoder that answers what an encoder reads; its positions are other ones than the prompt's."""


def encode(tokenizer: Any, prompt: Any, left: bool = True, **options: Any) -> dict[str, Any]:
    """A prompt as the model's keyword arguments.

    Args:
        tokenizer: a transformers tokenizer.
        prompt: a string, a list of strings, token ids (list, list of lists, or tensor `(position,)` or
            `(batch, position)`), chat messages (`[{"role": "user", "content": "…"}]`, or a list of such lists), or what
            a tokenizer returned.
        left: where padding goes in a list of prompts: before the shorter ones, or else behind them.
        options: for the tokenizer, such as `max_length=` and `truncation=`.

    Returns:
        `input_ids` and `attention_mask`, each `(batch, position)`. Shorter prompts of a list are padded on the left,
        so that position -1 is each one's last token, and `position_ids` then count each prompt from 0. `positions`
        says where a prompt's own tokens are.

    Raises:
        InputError: an empty prompt, or something that is no prompt.
    """
    if isinstance(prompt, Mapping):
        return _tokenized(tokenizer, prompt, left)
    if isinstance(prompt, str):
        prompt = [prompt]
    elif _is_chat(prompt):
        return _padded(tokenizer, _chats(tokenizer, [prompt], options), left)
    elif isinstance(prompt, (list, tuple)) and prompt and all(map(_is_chat, prompt)):
        return _padded(tokenizer, _chats(tokenizer, prompt, options), left)
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
    return _padded(tokenizer, rows, left)


def _tokenized(tokenizer: Any, prompt: Mapping[str, Any], left: bool) -> dict[str, Any]:
    """What a tokenizer returned, as tensors."""
    rows = prompt.get("input_ids")
    if isinstance(rows, (list, tuple)) and len({len(row) for row in rows if isinstance(row, (list, tuple))}) > 1:
        more = {name: value for name, value in prompt.items() if name not in ("input_ids", "attention_mask")}
        return {**_padded(tokenizer, [list(row) for row in rows], left), **more}
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


_POSITIONS = frozenset({"wpe", "embed_positions", "position_embeddings", "position_embedding"})
"""What embeddings of learned positions are called, by the end of their path."""


def positions_learned(module: nn.Module) -> int | None:
    """How many tokens a model has learned positions for; None where positions are worked out, and have no end."""
    config: Any = getattr(module, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    said = getattr(config, "max_position_embeddings", None)
    if not isinstance(said, int):
        return None
    found = []
    for path, each in module.named_modules():
        if path.rpartition(".")[2] in _POSITIONS and isinstance(each, nn.Embedding):
            first = getattr(each, "offset", 0 if each.padding_idx is None else each.padding_idx + 1)
            if said <= each.num_embeddings <= said + first:  # others are of images
                found.append(each.num_embeddings - first)
    return min(found, default=None)


def within_positions(ids: Tensor, room: int) -> None:
    """Raises `InputError` for a prompt with more tokens than there are positions."""
    if ids.shape[-1] > room:
        raise InputError(
            f"the prompt has {ids.shape[-1]:,} tokens, and this model has positions for {room:,}: shorten it, or cut "
            f"it with truncation=True, max_length={room}"
        )


def _padded(tokenizer: Any, rows: list[list[int]], left: bool) -> dict[str, Any]:
    longest = max(map(len, rows))
    if all(len(row) == longest for row in rows):
        ids = torch.tensor(rows)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pad = padding(tokenizer)
    ids = torch.tensor([_filled(row, pad, longest, left) for row in rows])
    mask = torch.tensor([_filled([1] * len(row), 0, longest, left) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions_of(mask)}


def _filled(row: list[int], filler: int, length: int, left: bool) -> list[int]:
    more = [filler] * (length - len(row))
    return more + row if left else row + more


def widened(
    inputs: Mapping[str, Any], width: int, pad: int, left: bool, only: Sequence[str] | None = None
) -> dict[str, Any]:
    """A prompt's inputs with padding to `width` positions, behind it or, with `left`, before it.

    `only` names the inputs that are padded, of which the first has the ids; else all but a decoder's are.
    """
    ids = inputs[only[0] if only else "input_ids"]
    more = width - ids.shape[1]
    if not more:
        return dict(inputs)
    wide = dict(inputs)
    if only is None and inputs.get("attention_mask") is None:
        wide["attention_mask"] = torch.ones_like(ids)
    for name, value in wide.items():
        chosen = name in only if only else name not in DECODED
        if chosen and isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == ids.shape:
            filler = {"input_ids": pad, "decoder_input_ids": pad, "labels": -100}.get(name, 0)
            more_of_it = value.new_full((value.shape[0], more, *value.shape[2:]), filler)
            wide[name] = torch.cat([more_of_it, value] if left else [value, more_of_it], 1)
    return wide


def decoded_length(inputs: Mapping[str, Any]) -> int:
    """How many positions the decoder is given; 0 where there is none."""
    ids = inputs.get(DECODED[0])
    return ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else 0


def started(module: Any, answer: Any) -> int:
    """The token with which a model's decoder begins."""
    generation, config = getattr(module, "generation_config", None), getattr(module, "config", None)
    for name in ("decoder_start_token_id", "bos_token_id"):
        for each in (generation, config):
            found = getattr(each, name, None)
            if isinstance(found, int):
                return found
    raise InputError(
        f"the configuration of this {type(module).__name__} does not say with which token its decoder begins: give "
        "decoder_input_ids=, token ids of shape (batch, position)"
    )


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
