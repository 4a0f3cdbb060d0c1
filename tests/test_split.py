"""Many prompts in several passes: what is saved is what one pass gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.families import family
from workbench.errors import InputError

PROMPTS = [[5, 9, 14], [7, 3, 8, 21, 33], [4, 30], [17, 6, 25, 9], [22, 31, 13, 18, 5], [9, 28]]


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
@pytest.mark.parametrize("size", [1, 2, 4, 6, 9])
def test_joined_values_are_those_of_one_pass(name: str, size: int) -> None:
    model: Any = wb.LanguageModel(family(name)[0])
    blocks = next(path for path, m in model.module.named_modules() if isinstance(m, nn.ModuleList) and len(m) == 4)
    block = model.find(f"{blocks}.1")
    embed = next(path for path, m in model.module.named_modules() if isinstance(m, nn.Embedding))

    def run(**settings: Any) -> list[Any]:
        with model.trace(PROMPTS, **settings):
            block.output[:, -1] *= 2
            logits = model.output.logits
            kept = [logits.save(), logits[:, -1].argmax(-1).save(), block.output.transpose(0, 1).save()]
            kept += [block.input.norm(dim=-1).flatten().save(), model.find(embed).weight.norm().save()]
            kept += [wb.list([logits[:, 0], block.output]).save()]
        return [each.value for each in kept]

    plain = model.module.get_input_embeddings().weight.norm()
    ours, whole = run(batch_size=size), run()
    torch.testing.assert_close(ours[4], plain)
    for mine, theirs in zip([*ours[:5], *ours[5]], [*whole[:5], *whole[5]], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


class Hungry(nn.Module):
    """Asks for more memory than there is, for more than two rows at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        torch.empty(1 << (50 if len(x) > 2 else 2))
        return x * 2


def test_where_memory_runs_out_fewer_are_run_at_once() -> None:
    module = Hungry()
    model = wb.NNsight(module)
    x = torch.arange(7.0)[:, None]
    tracer = model.trace(x, batch_size=5)
    tracer.__enter__()
    out: Any = model.output.save()
    with pytest.warns(UserWarning, match="memory ran out with 5 prompts at once; going on with 2: give batch_size=2"):
        tracer.__exit__(None, None, None)
    assert torch.equal(out.value, x * 2)
    assert module.seen[:5] == [5, 2, 2, 2, 1]


WRITTEN = [[5, 9, 14], [7, 3, 8], [4, 30], [17, 6, 25], [22, 31]]


@pytest.mark.parametrize("name", ["gpt2", "llama", "mamba", "t5"])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}])
def test_generation_in_several_passes_is_that_in_one(name: str, options: dict[str, Any]) -> None:
    module: Any = family(name)[0]
    module.generation_config.eos_token_id = None
    model: Any = wb.LanguageModel(module)
    prompts = WRITTEN if name != "mamba" else [row[:2] for row in WRITTEN]

    def run(**settings: Any) -> list[Any]:
        with model.generate(prompts, max_new_tokens=4, pad_token_id=0, **options, **settings) as tracer:
            steps = wb.list().save()
            second = model.unembed.next().output.transpose(0, 1).save()
            with tracer.iter[1:]:
                steps.append(model.layers[1].resid_post)
                steps.append(model.unembed.output.transpose(0, 2))
            tokens = model.generator.output.save()
            turned = model.generator.output.T.save()
        return [second.value, *steps, tokens.value, turned.value]

    ours, whole = run(batch_size=2), run()
    assert len(ours) == 3 + 6
    for mine, theirs in zip(ours, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    at_once = model.generate(prompts, max_new_tokens=4, pad_token_id=0, batch_size=3, trace=False, **options)
    assert torch.equal(at_once, whole[-2])


def test_texts_that_end_at_other_steps_in_other_passes() -> None:
    module: Any = family("gpt2")[0]
    model: Any = wb.LanguageModel(module)
    settings: dict[str, Any] = {"max_new_tokens": 6, "pad_token_id": 0}
    written = model.generate(WRITTEN, trace=False, eos_token_id=None, **settings)[:, 3:]
    ends = int(written[0, 1])  # what the first says second
    settings["eos_token_id"] = ends
    whole = model.generate(WRITTEN, trace=False, **settings)
    ours = model.generate(WRITTEN, trace=False, batch_size=1, **settings)
    assert torch.equal(ours, whole)
    assert whole.shape[1] > 5
    with pytest.raises(InputError, match="the texts of one pass ended some steps before those of another"):
        with model.generate(WRITTEN, batch_size=1, **settings) as tracer:
            logits = wb.list().save()
            with tracer.all():
                logits.append(model.lm_head.output)


def test_where_memory_runs_out_in_generation() -> None:
    module: Any = family("gpt2")[0]
    module.generation_config.eos_token_id = None
    model: Any = wb.LanguageModel(module)
    whole = model.generate(WRITTEN, max_new_tokens=3, trace=False)
    seen: list[int] = []

    def hungry(block: nn.Module, args: Any) -> None:
        seen.append(len(args[0]))
        torch.empty(1 << (50 if len(args[0]) > 2 and len(seen) > 1 else 2))  # in its second step

    handle = module.transformer.h[2].register_forward_pre_hook(hungry)
    with pytest.warns(UserWarning, match="memory ran out with 4 prompts at once; going on with 2: give batch_size=2"):
        ours = model.generate(WRITTEN, max_new_tokens=3, trace=False, batch_size=4)
    handle.remove()
    assert torch.equal(ours, whole)
    assert seen == [4, 4, *[2] * 6, *[1] * 3]


def test_what_is_of_one_pass_alone_says_so() -> None:
    model: Any = wb.LanguageModel(family("gpt2")[0])
    output = model.trace(PROMPTS, batch_size=4, trace=False)
    assert output.logits.shape == (6, 5, 60)
    with pytest.raises(ValueError, match="the DynamicCache of several passes is not joined: leave out batch_size="):
        _ = output.past_key_values.layers


def test_one_prompt_that_is_too_large_says_so() -> None:
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.empty(1 << 50)

    with pytest.raises(RuntimeError, match="memory"), model_trace(Always()):
        pass


def model_trace(module: nn.Module) -> Any:
    return wb.NNsight(module).trace(torch.ones(2, 1), batch_size=1)


def test_what_cannot_be_joined_says_so() -> None:
    model: Any = wb.LanguageModel(family("gpt2")[0])
    with pytest.raises(InputError, match=r"mean\(\) has no axis for the batch.*Save what each prompt has"):
        with model.trace(PROMPTS, batch_size=2):
            model.lm_head.output.mean().save()
    for size, inputs in ((0, (PROMPTS,)), (2, ())):
        with pytest.raises(InputError, match="batch_size= splits the prompts of one trace"):
            with model.trace(*inputs, batch_size=size) as tracer:
                if not inputs:
                    with tracer.invoke(PROMPTS):
                        model.lm_head.output.save()
    with pytest.raises(InputError, match="batch_size= splits the prompts of one trace"), model.session():
        with model.trace(PROMPTS, batch_size=2):
            model.lm_head.output.save()


def test_at_once_without_a_block() -> None:
    model: Any = wb.LanguageModel(family("gpt2")[0])
    ours = model.trace(PROMPTS, batch_size=4, trace=False).logits
    _, inputs = model._prepare(PROMPTS)
    with torch.no_grad():
        torch.testing.assert_close(ours, model.module(**inputs).logits, rtol=1e-4, atol=2e-5)
