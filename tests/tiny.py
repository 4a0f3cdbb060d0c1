"""Tiny random language models with a tokenizer of whole words: built in a moment, nothing downloaded."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from workbench.models.language import LanguageModel

WORDS = "the cat sat on a mat and saw its dog run".split()


def words() -> Any:
    """A tokenizer whose tokens are the words above; anything else is unknown."""
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(["?", *WORDS])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


@cache
def gpt2() -> LanguageModel:
    """Two layers, eight features, two heads, random weights from a fixed seed."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS) + 1, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return LanguageModel(GPT2LMHeadModel(config).eval(), tokenizer=words())
