"""The two demo architectures, alike in size: a GPT-2, and a Llama with rotary positions and grouped-query attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from .corpus import END
from .tokenizer import PAD

CONTEXT = 128
SPREAD = 0.05  # of the first weights: the usual 0.02 is for wider models


class _Tokens(TypedDict):
    vocab_size: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int


def _tokens(tokens: PreTrainedTokenizerFast) -> _Tokens:
    end, pad = tokens.get_vocab()[END], tokens.get_vocab()[PAD]
    return {"vocab_size": len(tokens), "bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}


def gpt2(tokens: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A GPT-2 of 4 blocks with random weights."""
    config = GPT2Config(
        n_positions=CONTEXT,
        n_embd=128,
        n_layer=4,
        n_head=4,
        initializer_range=SPREAD,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, computed in one piece
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **_tokens(tokens),
    )
    return GPT2LMHeadModel(config)


def llama(tokens: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A Llama of 4 blocks, two query heads to a key-value head, with random weights."""
    config = LlamaConfig(
        max_position_embeddings=CONTEXT,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=SPREAD,
        tie_word_embeddings=True,
        **_tokens(tokens),
    )
    return LlamaForCausalLM(config)


BUILD: dict[str, Callable[[PreTrainedTokenizerFast], PreTrainedModel]] = {"gpt2": gpt2, "llama": llama}
