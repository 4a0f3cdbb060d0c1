"""How well a demo model knows its facts, and what happens to them when a module's output is set to zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from . import corpus, folder
from .corpus import Prompt

Where = Literal["all tokens", "last token of the subject", "last token"]


@dataclass(frozen=True)
class Ablation:
    """One module's output set to zero, over all `landmark → city` prompts of one wording."""

    module: str
    where: Where
    clean: float  # mean probability of the right city before
    changed: float  # share of the prompts whose top token is another one
    city: float  # share of the prompts whose top token is another city: a wrong answer, not a broken sentence
    probability: float  # mean probability of the right city


@dataclass(frozen=True)
class Measures:
    """What the card says; accuracies are shares of prompts whose top next token is the answer."""

    parameters: int
    trained: float
    new_pairs: float
    new_wordings: float
    by_relation: dict[str, float]  # new wordings, relation by relation
    probability: float  # mean probability of the answer over the trained prompts
    ablations: list[Ablation]


class Reader:
    """A model with its tokenizer, answering prompts."""

    def __init__(self, model: PreTrainedModel, tokens: PreTrainedTokenizerFast) -> None:
        self.model = model.eval()
        self.tokens = tokens

    @classmethod
    def open(cls, name: str) -> Reader:
        """Open a demo model's folder."""
        where = folder(name)
        return cls(AutoModelForCausalLM.from_pretrained(where), AutoTokenizer.from_pretrained(where))

    def next_token(self, prompts: Iterable[Prompt]) -> Iterator[tuple[list[Prompt], torch.Tensor]]:
        """Prompts of one length with the probabilities of their next token, (prompt, vocabulary)."""
        encoded = sorted(((self.tokens(p.text)["input_ids"], p) for p in prompts), key=lambda pair: len(pair[0]))
        for _, group in groupby(encoded, key=lambda pair: len(pair[0])):
            ids, same = zip(*group, strict=True)
            with torch.inference_mode():
                logits = self.model(torch.tensor(ids)).logits[:, -1]
            yield list(same), logits.softmax(-1)

    def answers(self, prompts: Iterable[Prompt]) -> dict[Prompt, tuple[str, float]]:
        """Each prompt's top token and the probability of its right answer."""
        found: dict[Prompt, tuple[str, float]] = {}
        for same, probabilities in self.next_token(prompts):
            right = torch.tensor([self.tokens(p.answer)["input_ids"][0] for p in same])
            top = self.tokens.batch_decode(probabilities.argmax(-1)[:, None])
            share = probabilities.gather(1, right[:, None])[:, 0].tolist()
            found |= dict(zip(same, zip(top, share, strict=True), strict=True))
        return found

    def accuracy(self, prompts: Iterable[Prompt]) -> float:
        """Share of prompts whose top next token is the answer."""
        answers = self.answers(prompts)
        return sum(top == prompt.answer for prompt, (top, _) in answers.items()) / len(answers)

    def modules(self) -> list[str]:
        """Paths of every block's attention and MLP, in the order of the computation."""
        return [
            path for path, _ in self.model.named_modules() if path.rpartition(".")[2] in ("attn", "self_attn", "mlp")
        ]

    def position(self, prompt: Prompt, where: Where) -> slice:
        """The token positions that a place names."""
        if where == "all tokens":
            return slice(None)
        if where == "last token":
            return slice(-1, None)
        end = len(self.tokens(prompt.before)["input_ids"])
        return slice(end - 1, end)

    @contextmanager
    def zeroed(self, path: str, positions: slice) -> Iterator[None]:
        """Set a module's output to zero at some positions, by a plain PyTorch hook."""

        def hook(_module: torch.nn.Module, _args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            (output if isinstance(output, torch.Tensor) else output[0])[:, positions] = 0

        handle = self.model.get_submodule(path).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def ablation(self, path: str, where: Where, prompts: Sequence[Prompt]) -> Ablation:
        """Zero one module at one place, for every prompt on its own subject's position."""
        clean = self.answers(prompts)
        after: dict[Prompt, tuple[str, float]] = {}
        for prompt in prompts:
            with self.zeroed(path, self.position(prompt, where)):
                after |= self.answers([prompt])
        cities = {p.answer for p in corpus.trained() if p.relation == "landmark → city"}
        changed = [after[p][0] for p in prompts if after[p][0] != clean[p][0]]
        return Ablation(
            path,
            where,
            clean=sum(share for _, share in clean.values()) / len(prompts),
            changed=len(changed) / len(prompts),
            city=sum(top in cities for top in changed) / len(prompts),
            probability=sum(share for _, share in after.values()) / len(prompts),
        )


def landmarks() -> list[Prompt]:
    """Every landmark in the wording of the first demo."""
    return [
        p
        for p in (*corpus.trained(), *corpus.new_pairs())
        if p.relation == "landmark → city" and p.text == p.before + " is in the city of"
    ]


def measure(name: str) -> Measures:
    """Measure a model as it lies in its folder."""
    reader = Reader.open(name)
    known = reader.answers(corpus.trained())
    new = corpus.new_wordings()
    relations = dict.fromkeys(p.relation for p in new)
    return Measures(
        parameters=reader.model.num_parameters(),
        trained=reader.accuracy(corpus.trained()),
        new_pairs=reader.accuracy(corpus.new_pairs()),
        new_wordings=reader.accuracy(new),
        by_relation={r: reader.accuracy(p for p in new if p.relation == r) for r in relations},
        probability=sum(share for _, share in known.values()) / len(known),
        ablations=[reader.ablation(m, where, landmarks()) for where in get_args(Where) for m in reader.modules()],
    )
