"""What generation and several prompts in one pass cost beside the bare model, at GPT-2-small's shape.

`python -m scripts.bench_language`. One process, alternating, medians, ratios. Each pair is compared first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor

import workbench as wb
from scripts.bench import measure

STEPS = 20
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def pairs(net: Any, model: Any) -> dict[str, Pair]:
    """Name → the same by hand and as a trace."""
    ids = torch.arange(5, 17)[None]
    short = torch.arange(30, 37)[None]
    settings: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}

    def generate_by_hand() -> Tensor:
        return net.generate(ids, attention_mask=torch.ones_like(ids), **settings)

    def generate() -> Tensor:
        with model.generate(ids, **settings) as tracer:
            logits = wb.list().save()
            with tracer.all():
                logits.append(model.lm_head.output)
            tokens = model.generator.output.save()
        assert len(logits) == STEPS
        return tokens.value

    def two_by_hand() -> Tensor:
        padded = torch.cat([ids, torch.nn.functional.pad(short, (0, 5))])
        mask = torch.ones_like(padded)
        mask[1, 7:] = 0
        seen: list[Tensor] = []
        handle = net.transformer.h[5].register_forward_hook(lambda m, a, out: seen.append(out))
        with torch.no_grad():
            net(input_ids=padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1))
        handle.remove()
        return seen[0][1:, :7]

    def two() -> Tensor:
        with model.trace() as tracer:
            with tracer.invoke(ids):
                model.transformer.h[5].output.save()
            with tracer.invoke(short):
                kept = model.transformer.h[5].output.save()
        return kept.value

    def lens_by_hand() -> Tensor:
        body = net.transformer
        seen: list[Tensor] = []
        handles = [body.h[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))]
        handles += [block.register_forward_hook(lambda m, args, out: seen.append(out)) for block in body.h]
        with torch.no_grad():
            body(ids, attention_mask=torch.ones_like(ids))
            logits = net.lm_head(body.ln_f(torch.stack(seen)[:, 0]))
        for handle in handles:
            handle.remove()
        return logits

    def lens() -> Tensor:
        return wb.logit_lens(model, ids).logits

    return {
        "logit lens, 12 layers": (lens_by_hand, lens),
        f"{STEPS} tokens, each step's logits": (generate_by_hand, generate),
        "two prompts of unequal length": (two_by_hand, two),
    }


def main() -> None:
    """Measure, and print the table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=50257, bos_token_id=None, eos_token_id=None)).eval()
    model = wb.LanguageModel(net)
    print(f"{'GPT-2-small':<34}{'by hand':>12}{'trace':>12}{'ratio':>8}")
    for name, (by_hand, trace) in pairs(net, model).items():
        torch.testing.assert_close(trace(), by_hand())
        theirs, ours = measure([by_hand, trace], rounds=15, warm=2).values()
        print(f"{name:<34}{theirs * 1e3:>10.1f} ms{ours * 1e3:>10.1f} ms{ours / theirs:>8.3f}")
    lengths = count(20)  # each of a length that was not scanned before

    def shapes() -> None:
        model.scanned(torch.arange(next(lengths))[None])

    seconds = measure([shapes], rounds=15, warm=2)["shapes"]
    print(f"{'shapes of a prompt being typed':<34}{seconds * 1e3:>22.1f} ms   (at most 100)")


if __name__ == "__main__":
    main()
