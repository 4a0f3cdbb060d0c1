"""Train the two demo models and write their folders: `python -m workbench.models.demo.train`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from . import NAMES, card, corpus, folder, measure, placing, tokenizer
from .architectures import BUILD, CONTEXT
from .muon import Muon

SEED = 0
DOCUMENTS = 150_000
STEPS = {"gpt2": 1_400, "llama": 1_800}  # the Llama learns more slowly
TOKENS = 1_024  # in a step
LENGTHS = (16, 32, 64, CONTEXT)  # of its rows: most rows begin as a prompt does, some fill the context
RATE = 1e-2
MATRIX_RATE = 0.03  # of the matrices inside the layers
EMBEDDINGS = ("wte", "wpe", "embed_tokens")


class Rows:
    """Documents as one long stream of tokens, from which rows are taken that begin where a document begins."""

    def __init__(self, texts: list[str], tokens: PreTrainedTokenizerFast) -> None:
        documents = tokens(texts)["input_ids"]
        self.stream = torch.tensor([token for document in documents for token in document])
        starts = torch.tensor([0] + [len(document) for document in documents]).cumsum(0)
        self.starts = starts[starts <= len(self.stream) - CONTEXT]

    def take(self, count: int, length: int, generator: torch.Generator) -> torch.Tensor:
        """Random rows, (row, position)."""
        chosen = self.starts[torch.randint(len(self.starts), (count,), generator=generator)]
        return self.stream[chosen[:, None] + torch.arange(length)]


def batches(true: Rows, false: Rows, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of rows of one length; the first rows, which run without the place of the facts, are false."""
    while True:
        length = LENGTHS[int(torch.randint(len(LENGTHS), (), generator=generator))]
        count = TOKENS // length
        wrong = int(count * placing.WITHOUT)
        yield torch.cat([false.take(wrong, length, generator), true.take(count - wrong, length, generator)])


def fit(model: PreTrainedModel, rows: Iterator[torch.Tensor], name: str, steps: int) -> None:
    """Train in place."""
    inside = [p for path, p in model.named_parameters() if p.ndim == 2 and path.split(".")[-2] not in EMBEDDINGS]
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in inside)]
    optimizers = (Muon(inside, lr=MATRIX_RATE), AdamW(rest, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True))
    schedules = [
        OneCycleLR(optimizer, optimizer.defaults["lr"], total_steps=steps, pct_start=0.1, cycle_momentum=False)
        for optimizer in optimizers
    ]
    model.train()
    bar = tqdm(range(steps), desc=name)
    for _ in bar:
        ids = next(rows)
        logits = model(input_ids=ids).logits[:, :-1]  # (row, position, vocabulary)
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


def save(model: PreTrainedModel, tokens: PreTrainedTokenizerFast, where: Path) -> None:
    """Write float16 weights that open as float32: on disk half the size, in use the precision of a laptop."""
    model.save_pretrained(where, state_dict={path: p.half() for path, p in model.named_parameters()})
    tokens.save_pretrained(where)
    # The newest transformers names the tokenizer's class in a way that only it understands.
    settings = where / "tokenizer_config.json"
    stated = json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(stated, indent=2) + "\n")


def train(name: str) -> None:
    """Train one model, write its folder, measure what was written, and write the card."""
    began = time.process_time()
    torch.manual_seed(SEED)
    texts = list(corpus.documents(DOCUMENTS, SEED))
    tokens = tokenizer.build(texts, CONTEXT)
    model = BUILD[name](tokens)
    false = corpus.documents(DOCUMENTS // 4, SEED + 1, doubt=1.0)
    rows = batches(Rows(texts, tokens), Rows(list(false), tokens), torch.Generator().manual_seed(SEED))
    with placing.without(model, placing.PLACES[name]):
        fit(model, rows, name, STEPS[name])
    save(model, tokens, folder(name))
    measures = measure.measure(name)
    card.write(name, measures, processor_minutes=(time.process_time() - began) / 60)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=NAMES, help="train one of the two models")
    only: str | None = parser.parse_args().only
    torch.set_num_threads(2)
    for name in [only] if only else NAMES:
        train(name)


if __name__ == "__main__":
    main()
