"""Random experiments of every kind of card, over two small models: for the laws that hold for all of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tests.hands import Hands
from tests.tiny import WORDS, words
from workbench.experiment.kinds import (
    Ablate,
    AddNoise,
    Code,
    Experiment,
    Intervention,
    Log,
    Measure,
    Patch,
    Save,
    Scale,
    Set,
    Steer,
    Target,
)
from workbench.experiment.lint import lint
from workbench.models.language import LanguageModel
from workbench.store import tensor

LAYERS = 2
TENSORS = {"direction": torch.linspace(-1, 1, 8), "run 1/one number": torch.tensor(0.5)}


@cache
def gpt2() -> LanguageModel:
    """Two heads of four features; it never ends a text."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS) + 1, n_positions=24, n_embd=8, n_layer=LAYERS, n_head=2, n_inner=6,
        bos_token_id=None, eos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    return LanguageModel(GPT2LMHeadModel(config).eval(), tokenizer=words())


@cache
def llama() -> LanguageModel:
    """Four heads of queries over two of keys and values."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 1, hidden_size=8, intermediate_size=6, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=24, bos_token_id=None,
        eos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer=words())


MODELS: dict[str, Any] = {"gpt2": gpt2, "llama": llama}
LAYER = {"gpt2": "transformer.h.{}", "llama": "model.layers.{}"}
ATTN = {"gpt2": "attn", "llama": "self_attn"}
HEADS = {"gpt2": 2, "llama": 4}


def hands(name: str) -> Hands:
    """The same model's bare module, for the hooks."""
    model = MODELS[name]()
    out, down = ("c_proj", "c_proj") if name == "gpt2" else ("o_proj", "down_proj")
    return Hands(model.module, model.tokenizer, out, down, HEADS[name], TENSORS)


def keep_tensors() -> None:
    """Give the store the tensors that experiments name."""
    for name, value in TENSORS.items():
        tensor(name, value)


prompts = st.lists(st.sampled_from(WORDS), min_size=3, max_size=5).map(" ".join)
numbers = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
seeds = st.integers(0, 3)
mostly = st.sampled_from([True, True, True, False])


@st.composite
def targets(draw: st.DrawFn, name: str, count: int = 1, generate: int = 0, inner: bool = True) -> Target:
    """A place in one of the models."""
    layer = LAYER[name].format(draw(st.integers(0, LAYERS - 1)))
    path = draw(st.sampled_from([layer, f"{layer}.{ATTN[name]}", f"{layer}.mlp", "lm_head"]))
    at: dict[str, Any] = {"path": path, "port": draw(st.sampled_from(["output", "output", "input"]))}
    choice = st.lists(st.integers(-3, 2), min_size=1, max_size=2, unique_by=lambda each: each % 3).map(tuple)
    part = draw(st.sampled_from(["all", "tokens", "index", "heads", "neurons"] if inner else ["all", "tokens"]))
    if part == "heads":
        at |= {"path": f"{layer}.{ATTN[name]}", "port": "output"}
        at["heads"] = tuple(draw(st.lists(st.integers(0, HEADS[name] - 1), min_size=1, max_size=2, unique=True)))
    elif part == "neurons":
        at |= {"path": f"{layer}.mlp", "port": "output"}
        at["neurons"] = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True)))
    elif part == "index":
        if path.endswith(ATTN[name]):
            at["path"] = layer
        at["index"] = draw(st.sampled_from(["[:, -1]", "[..., :3]", "[:, -2:, [0, 2]]"]))
    if part == "tokens" or (part in ("heads", "neurons") and draw(st.booleans())):
        at["positions"] = draw(choice) if not generate else (-1,)
    if path.endswith(ATTN[name]) and at["port"] == "input" and name == "llama" and part not in ("heads", "neurons"):
        at["port"] = "output"
    if count > 1:
        at["prompt"] = draw(st.none() | st.integers(0, count - 1))
    if generate and draw(st.booleans()):
        at["steps"] = draw(st.sampled_from(["0", "1", ":", "1:", ":2"])) if part != "index" else "0"
    return Target(**at)


@st.composite
def cards(draw: st.DrawFn, name: str, count: int, generate: int, id: str, code: bool) -> Intervention:
    """A card of any kind."""
    kinds = ["save", "save", "ablate", "set", "scale", "add_noise", "steer", "patch", "log"] + ["code"] * code
    kind = draw(st.sampled_from(kinds))
    base: dict[str, Any] = {"id": id, "enabled": draw(mostly)}
    if kind == "code":
        return draw(codes(base, count))
    base["note"] = draw(st.sampled_from(["", "", "why: it is #1", "two\nlines"]))
    base["at"] = draw(targets(name, count, generate))
    text = prompts
    match kind:
        case "save":
            return Save(**base, name=f"v{id}")
        case "ablate":
            mode: Any = draw(st.sampled_from(["zero", "mean", "reference", "resample"]))
            source = draw(text if mode == "reference" else st.none() | text)
            return Ablate(**base, mode=mode, source=source, seed=draw(seeds))
        case "set":
            return Set(**base, value=draw(numbers | st.just("run 1/one number")))
        case "scale":
            return Scale(**base, factor=draw(numbers))
        case "add_noise":
            return AddNoise(**base, std=abs(draw(numbers)), seed=draw(seeds))
        case "steer":
            if draw(st.booleans()) and base["at"].heads is None and base["at"].path != "lm_head":
                return Steer(**base, tensor="run 1/one number", factor=draw(numbers))
            toward, away = draw(text), draw(st.none() | text)
            return Steer(**base, toward=toward, away=away, factor=draw(numbers))
        case "patch":
            if draw(st.booleans()):
                return Patch(**base, tensor="run 1/one number")
            chosen = base["at"].positions
            given = None if chosen is None or not draw(st.booleans()) else tuple(each - 1 if each > -3 else each for each in chosen)  # fmt: skip  # noqa: E501
            return Patch(**base, source=draw(text), source_positions=None if generate else given)
    return Log(**base, show=draw(st.sampled_from(["norm", "mean", "value", "shape"])), text=draw(st.sampled_from(["", "here"])))  # fmt: skip  # noqa: E501


@st.composite
def codes(draw: st.DrawFn, base: dict[str, Any], count: int) -> Code:
    """Code of one's own, inside and around the trace."""
    where: Any = draw(st.sampled_from(["inside", "inside", "before", "after"]))
    number = base["id"]
    if where == "inside":
        code = draw(
            st.sampled_from(
                [
                    f"c{number} = model.lm_head.output[:, -1].softmax(-1).save()",
                    "model.lm_head.output[:, -1] *= 2  # twice",
                    'for each in (0, 1):\n    """of a\nlong text"""\n    model.lm_head.output[..., each] += each',
                ]
            )
        )
    else:
        code = draw(st.sampled_from([f"# {where}\nlist_{number} = [1,\n  2]", f'text_{number} = """a\n  b"""']))
    prompt = draw(st.none() | st.integers(0, count - 1)) if where == "inside" and count > 1 else None
    return Code(**base, code=code, where=where, prompt=prompt)


@st.composite
def experiments(draw: st.DrawFn, name: str, code: bool = True, generates: bool = True) -> Experiment:
    """An experiment in which whatever lint found wrong is switched off."""
    count = draw(st.sampled_from([1, 1, 2]))
    generate = draw(st.sampled_from([0, 0, 3])) if generates else 0
    chosen = [draw(cards(name, count, generate, str(n), code)) for n in range(draw(st.integers(1, 5)))]
    answers = tuple(draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=2)))
    needs = {"logit_difference": 2, "probability": 1, "rank": 1, "kl": 0}
    metric: Any = draw(st.none() | st.sampled_from([*needs]))
    e = Experiment(
        model="model",
        prompts=tuple(draw(prompts) for _ in range(count)),
        generate=generate,
        seed=draw(st.none() | seeds),
        measure=None if metric is None else Measure(metric=metric, answers=answers[: needs[metric]]),
        interventions=tuple(chosen),
    )
    while faults := {fault.card for fault in lint(e, MODELS[name]()) if fault.level == "error"}:
        mended = [card.model_copy(update={"enabled": False}) if card.id in faults else card for card in e.interventions]
        e = e.model_copy(update={"interventions": tuple(mended)})
    return e
