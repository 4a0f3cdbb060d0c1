"""Small random models of the families that people look into, made in memory, each with an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

LENGTH = 7
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _causal(name: str, **more: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name}Config")(**{**SMALL, **more})
        return transformers.AutoModelForCausalLM.from_config(config)

    return make


def _named(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return make


_GPT2 = {
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "vocab_size": 60,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MIXED = ["sliding_attention", "full_attention"] * 2

DECODERS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": _named("GPT2LMHeadModel", "GPT2Config", **_GPT2),
    "gpt_neox": _causal("GPTNeoX", num_key_value_heads=4),
    "opt": _named(
        "OPTForCausalLM", "OPTConfig", hidden_size=32, ffn_dim=48, num_hidden_layers=4, num_attention_heads=4,
        vocab_size=60, max_position_embeddings=64, word_embed_proj_dim=32,
    ),
    "llama": _causal("Llama"),
    "mistral": _causal("Mistral", sliding_window=4),
    "qwen2": _causal("Qwen2"),
    "qwen3": _causal("Qwen3", head_dim=8),
    "gemma2": _causal("Gemma2", head_dim=8, sliding_window=4),
    "gemma3": _causal("Gemma3Text", head_dim=8, sliding_window=4, layer_types=_MIXED),
    "phi": _causal("Phi", num_key_value_heads=4),
    "mixtral": _causal("Mixtral", num_local_experts=4, num_experts_per_tok=2),
    "mamba": _named(
        "MambaForCausalLM", "MambaConfig", hidden_size=32, num_hidden_layers=4, vocab_size=60, state_size=4,
    ),
}  # fmt: skip


def _seeing() -> nn.Module:
    """A model that sees and reads: four image tokens, of one image of four patches."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**SMALL), image_token_index=59, vision_feature_layer=-1
    )
    return LlavaForConditionalGeneration(config)


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "bert": _named(
        "BertForMaskedLM", "BertConfig", hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, vocab_size=60, max_position_embeddings=64,
    ),
    "t5": _named(
        "T5ForConditionalGeneration", "T5Config", d_model=32, d_kv=8, d_ff=48, num_layers=4, num_heads=4,
        vocab_size=60, decoder_start_token_id=0,
    ),
    "vit": _named(
        "ViTForImageClassification", "ViTConfig", hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, image_size=16, patch_size=8,
    ),
}  # fmt: skip

FAMILIES = {**DECODERS, **OTHERS}

SEEING: dict[str, Callable[[], nn.Module]] = {"llava": _seeing}
"""Not among the families: transformers counts its image tokens by their numbers, which a scan does not have."""


def family(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model of the family in evaluation mode, the same each time, and the keyword arguments of a forward pass."""
    torch.manual_seed(0)
    model = {**FAMILIES, **SEEING}[name]().eval()
    ids = torch.randint(3, 60, (2, LENGTH))
    if name == "vit":
        return model, {"pixel_values": torch.randn(2, 3, 16, 16)}
    if name == "llava":
        ids = torch.tensor([[5, 59, 59, 59, 59, 9, 14], [7, 59, 59, 59, 59, 8, 40]])
        more = {"pixel_values": torch.randn(2, 3, 16, 16)}
        return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # padded on the left; a mask that masks nothing is left out by transformers in real runs alone
    kwargs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if name == "t5":
        kwargs["decoder_input_ids"] = ids[:, :4]
    if name == "mamba":
        del kwargs["attention_mask"]
    return model, kwargs
