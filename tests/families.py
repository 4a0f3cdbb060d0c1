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


def _adapted() -> nn.Module:
    """A Llama with low-rank adapters beside three of its projections."""
    import warnings

    import peft

    base: Any = DECODERS["llama"]()
    settings = peft.LoraConfig(
        r=2, target_modules=["q_proj", "o_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks by the old name
        return peft.get_peft_model(base, settings)


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
    "llava": _seeing,
    "peft": _adapted,
}  # fmt: skip

FAMILIES = {**DECODERS, **OTHERS}

WRITERS = [name for name in FAMILIES if name not in ("bert", "vit")]
"""Families that generate text."""

LACKS: list[tuple[list[str], list[str], str]] = [
    (["bert", "vit"], ["generate", "steps", "many"], "writes no text"),
    (["mamba"], ["heads", "pattern", "q, k, v", "neurons"], "has no attention and no feed-forward part"),
    (["mixtral"], ["neurons"], "has neurons in each of its experts, not one set"),
    (["bert"], ["lens"], "has no final norm: a network of its own stands before the unembedding"),
    (["vit"], ["lens", "list"], "reads images, which have no tokens and all one size"),
]
"""Which families have no such thing as a check looks at, and why."""


def family(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model of the family in evaluation mode, the same each time, and the keyword arguments of a forward pass."""
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    return model, _inputs(name)


def _inputs(name: str) -> dict[str, Any]:
    ids = torch.randint(3, 59, (2, LENGTH))
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16)}
    if name == "llava":
        ids = torch.tensor([[5, 59, 59, 59, 59, 9, 14], [7, 59, 59, 59, 59, 8, 40]])
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # padded on the left; a mask that masks nothing is left out by transformers in real runs alone
    kwargs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if name == "llava":
        kwargs["pixel_values"] = torch.randn(2, 3, 16, 16)
    if name == "t5":
        kwargs["decoder_input_ids"] = ids[:, :4]
    if name == "mamba":
        del kwargs["attention_mask"]
    return kwargs


PROMPTS: list[list[list[int]]] = [
    [[5, 9, 14]],
    [[7, 3, 8, 21, 33, 40, 11]],
    [[4, 30], [17, 6, 25, 9, 12]],
    [[22, 31, 13, 18, 5], [9, 28, 6, 44, 3]],
]
"""What several invokes are given: of unequal length, alone and as lists, one list with padding inside."""


def prompts(name: str) -> list[Any]:
    """The same for each family: images for one that sees only, images beside the text for one that sees and reads, the
    beginning of an answer for one with a decoder of its own."""
    torch.manual_seed(1)
    images = [torch.randn(len(rows), 3, 16, 16) for rows in PROMPTS]
    if name == "vit":
        return [{"pixel_values": each} for each in images]
    if name == "llava":
        return [
            {"input_ids": [[row[0], *[59] * 4, *row[1:]] for row in rows], "pixel_values": image}
            for rows, image in zip(PROMPTS, images, strict=True)
        ]
    if name == "t5":
        answers = [[[0, 7, 12]], [[0]], [[0, 8], [0, 9]], [[0, 33, 4, 20]] * 2]
        return [{"input_ids": rows, "decoder_input_ids": answer} for rows, answer in zip(PROMPTS, answers, strict=True)]
    return PROMPTS
