"""A byte-level tokenizer made of the corpus's own words: a known word is one token, all other text is bytes."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .corpus import END

PAD = "<|pad|>"


def words(texts: Iterable[str]) -> list[str]:
    """The words of the texts as GPT-2 splits them, in byte-level spelling (`Ġ` is a leading space)."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.removesuffix(END))})


def build(texts: Iterable[str], longest: int) -> PreTrainedTokenizerFast:
    """Make the tokenizer; encoding adds no special tokens."""
    pieces = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), *words(texts)])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    # Without merges, `ignore_merges` is what finds whole words: a piece in the vocabulary is taken as it is.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END, special=True), AddedToken(PAD, special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )
