"""Generation beside transformers' own `generate`, by plain hooks that count the calls of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.families import WRITERS, family, prompts
from workbench.errors import InputError, NeverReachedWarning

IDS = [[5, 9, 14, 21]]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_beams": 3},
    {"do_sample": True, "seed": 3},
    {"num_beams": 2, "num_return_sequences": 2},
]


def opened(name: str) -> Any:
    module: Any = family(name)[0]
    module.generation_config.eos_token_id = None  # random models stop at random
    return wb.LanguageModel(module)


def plain(model: Any, prompt: Any, **options: Any) -> Any:
    """What the bare model generates."""
    _, inputs = model._prepare(prompt)
    inputs.pop("position_ids", None)
    return model.module.generate(**inputs, **{"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, **options})


@contextmanager
def by_step(module: nn.Module, change: Callable[[int, Tensor], Any]) -> Iterator[None]:
    """A plain hook that is told how often the module was called before."""
    calls = iter(range(1000))

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return change(next(calls), output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("name", WRITERS)
def test_tokens_are_those_of_the_bare_model(name: str) -> None:
    model = opened(name)
    prompt = prompts(name)[1]
    for options in SETTINGS:
        settings = dict(options)
        seed = settings.pop("seed", None)
        torch.manual_seed(3)
        beside = plain(model, prompt, **settings)
        more = settings if seed is None else {**settings, "seed": seed}
        ours = model.generate(prompt, max_new_tokens=4, trace=False, **more)
        assert torch.equal(ours, beside), options


@pytest.mark.parametrize("name", WRITERS)
def test_edits_at_one_step_some_steps_every_step(name: str) -> None:
    model = opened(name)
    head = model.unembed
    prompt = prompts(name)[1]
    for chosen in (range(2, 3), range(1, 3), range(100)):

        def change(step: int, logits: Tensor, chosen: range = chosen) -> Tensor | None:
            if step not in chosen:
                return None
            logits = logits.clone()
            logits[..., 7 + step] = 1e4
            return logits

        with by_step(head.module, change):
            beside = plain(model, prompt)
        with model.generate(prompt, max_new_tokens=4) as tracer:
            with tracer.iter[chosen.start : chosen.stop] as step:
                head.output[..., 7 + step] = 1e4
            ours = model.generator.output.save()
        assert torch.equal(ours.value, beside), chosen
        assert (
            ours.value[0, -4 + chosen.start :][: len(chosen)] == torch.arange(7, 11)[chosen.start : chosen.stop]
        ).all()


@pytest.mark.parametrize("name", WRITERS)
def test_each_invoke_generates_what_it_generates_alone(name: str) -> None:
    model = opened(name)
    block = model.layers[1]
    given = [{"input_ids": [[5, 9, 14]], "decoder_input_ids": [[0]]}, [[7, 3, 8, 21]], [[4, 30], [17, 6, 25]]]
    given = given if name == "t5" else prompts(name)[:3]

    def write(tracer: Any, index: int) -> tuple[Any, Any]:
        states = wb.list().save()
        with tracer.all():
            if index == 1:
                block.resid_post[:] *= 0.5
            states.append(block.resid_post)
        return model.generator.output.save(), states

    beside = []
    for index, prompt in enumerate(given):
        with model.generate(prompt, max_new_tokens=4, pad_token_id=0) as tracer:
            beside.append(write(tracer, index))
    assert torch.equal(beside[0][0].value, plain(model, given[0]))
    with model.generate(max_new_tokens=4, pad_token_id=0) as tracer:
        ours = []
        for index, prompt in enumerate(given):
            with tracer.invoke(prompt):
                ours.append(write(tracer, index))
    for (tokens, states), (tokens_alone, states_alone) in zip(ours, beside, strict=True):
        assert torch.equal(tokens.value, tokens_alone.value)
        assert len(states) == len(states_alone) == 4
        for step in range(1, 4):
            torch.testing.assert_close(states[step], states_alone[step], rtol=1e-4, atol=2e-5)
        assert states[0].shape == states_alone[0].shape
        torch.testing.assert_close(states[0][:, -2:], states_alone[0][:, -2:], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", WRITERS)
def test_shapes_are_known_in_every_step(name: str) -> None:
    model = opened(name)
    settings: list[dict[str, Any]] = [{}, {"num_beams": 2}, {"use_cache": False}]
    for options in settings if name in ("llama", "t5") else settings[:1]:
        said, seen = [], []
        with model.generate(prompts(name)[1], max_new_tokens=4, **options) as tracer:
            for _ in tracer.iter[:4]:
                for value in (model.layers[1].resid_post, model.unembed.output):
                    said.append(value.shape)
                    seen.append(value.save())
            if not options:
                with tracer.iter[1:]:
                    said.append(model.layers[3].resid_post.shape)
                    seen.append(model.layers[3].resid_post.save())
        assert said == [each.shape for each in seen], options


def test_a_shape_that_is_another_in_each_step_says_so() -> None:
    model = opened("llama")
    model.module.set_attn_implementation("eager")
    said = r"another in each step of this block: \(1, 4, 32\) in step 0, \(1, 1, 32\) in step 1"
    with pytest.raises(wb.errors.DeferredError, match=said):
        with model.generate(IDS, max_new_tokens=4) as tracer, tracer.all():
            _ = model.layers[0].resid_post.shape
    with model.generate(IDS, max_new_tokens=4) as tracer:
        with tracer.iter[1:]:
            assert model.layers[0].attn.heads.shape == (1, 1, 4, 8)
            with pytest.raises(wb.errors.DeferredError, match=r"\(1, 4, 1, 5\) in step 1, \(1, 4, 1, 6\) in step 2"):
                _ = model.layers[0].attn.pattern.shape
        with tracer.iter[2:3]:
            assert model.layers[0].attn.pattern.shape == (1, 4, 1, 6)
            pattern = model.layers[0].attn.pattern.save()
    assert pattern.shape == (1, 4, 1, 6)


def test_steps_by_next_and_by_a_python_loop() -> None:
    model = opened("gpt2")
    seen: list[Tensor] = []
    with by_step(model.lm_head.module, lambda step, logits: seen.append(logits)):
        tokens = plain(model, IDS)
    with model.generate(IDS, max_new_tokens=4) as tracer:
        first = model.lm_head.output.save()
        second = model.lm_head.next().output.save()
        fourth = model.lm_head.next(2).output.save()
        looped = [model.transformer.h[0].output.save() for step in tracer.iter[1:3]]
        result = tracer.result.save()
    for ours, beside in zip((first, second, fourth), (seen[0], seen[1], seen[3]), strict=True):
        assert torch.equal(ours.value, beside)
    assert [each.shape for each in looped] == [(1, 1, 32)] * 2
    assert not torch.equal(looped[0].value, looped[1].value)
    assert torch.equal(result.value, tokens)


def test_one_new_token_unless_told_otherwise() -> None:
    model = opened("gpt2")
    assert model.generate(IDS, trace=False).shape == (1, 5)
    assert model.generate(IDS, trace=False, max_length=7).shape == (1, 7)


def test_an_edit_leaves_what_is_remembered_of_earlier_tokens_as_it_is() -> None:
    """Keys and values are remembered at each step; an edit of what comes behind them must not reach them."""
    model = opened("llama")
    layer = model.model.layers[1]
    with by_step(layer.module, lambda step, hidden: hidden * 0 if step == 1 else None):
        beside = plain(model, IDS, return_dict_in_generate=True)
    with model.generate(IDS, max_new_tokens=4, return_dict_in_generate=True):
        layer.next().output[:] = 0
        ours = model.generator.output.save()
    assert torch.equal(ours.sequences, beside.sequences)
    for mine, yours in zip(ours.past_key_values.layers, beside.past_key_values.layers, strict=True):
        assert torch.equal(mine.keys, yours.keys)
        assert torch.equal(mine.values, yours.values)


def test_a_list_that_steps_fill_is_whole_after_them() -> None:
    model = opened("gpt2")
    with model.generate(IDS, max_new_tokens=4) as tracer:
        norms = wb.list().save()
        with tracer.iter[1:] as step:
            last = model.transformer.h[2].output.norm()
            norms.append(last)
            tracer.log(step)
        total = cast(Any, torch.stack(norms)).sum().save()
        kept = (last * 2).save()
    assert len(norms) == 3
    assert tracer.logs == ["1", "2", "3"]
    torch.testing.assert_close(total.value, torch.stack(list(norms.value)).sum())
    torch.testing.assert_close(kept.value, norms[-1] * 2)


def test_a_value_of_the_prompt_in_later_steps() -> None:
    model = opened("gpt2")
    states: list[Tensor] = []

    def change(step: int, hidden: Tensor) -> Tensor:
        states.append(hidden)
        return hidden if step == 0 else hidden + states[0][:, -1:]

    with by_step(model.transformer.h[1].module, change):
        beside = plain(model, IDS)
    with model.generate(IDS, max_new_tokens=4) as tracer:
        hidden = model.transformer.h[1].output[:, -1:]
        with tracer.iter[1:]:
            model.transformer.h[1].output = model.transformer.h[1].output + hidden
        ours = model.generator.output.save()
    assert torch.equal(ours.value, beside)
    with pytest.raises(wb.errors.OrderError, match=r"step 0 of this block cannot begin: .*iter\[1:\]"):
        with model.generate(IDS, max_new_tokens=4) as tracer:
            hidden = model.transformer.h[2].output
            with tracer.all():
                model.transformer.h[1].output += hidden[:, -1:]


def test_edits_of_a_model_hold_in_every_step() -> None:
    model = opened("gpt2")
    with by_step(model.transformer.h[1].module, lambda step, hidden: hidden * 0.5):
        beside = plain(model, IDS)
    with model.edit() as edited:
        model.transformer.h[1].output = model.transformer.h[1].output * 0.5
    with edited.generate(IDS, max_new_tokens=4):
        ours = edited.generator.output.save()
        read = edited.transformer.h[1].output.save()
        before = edited.transformer.h[2].input.save()
    assert torch.equal(ours.value, beside)
    assert torch.equal(read.value, before.value)
    assert torch.equal(model.generate(IDS, max_new_tokens=4, trace=False), plain(model, IDS))


def test_the_end_of_a_text() -> None:
    model = opened("gpt2")
    tokens = plain(model, IDS, max_new_tokens=6)[0, 4:]
    stop = int(tokens[2])
    end = int((tokens == stop).nonzero()[0]) + 1
    tracer = model.generate(IDS, max_new_tokens=6, eos_token_id=stop)
    tracer.__enter__()
    late = model.lm_head.next(5).output.save()
    model.transformer.h[0].next(5).output[:] = 0
    with pytest.warns(NeverReachedWarning, match=rf"step 5\) was never reached.*generation ended after {end} step"):
        tracer.__exit__(None, None, None)
    with pytest.raises(ValueError, match=rf"step 5\) was never reached: generation ended after {end} step"):
        _ = late.value


def test_a_text_that_ends_before_another_is_as_alone() -> None:
    model = opened("gpt2")
    prompts = [IDS, [[7, 3, 8, 21, 33, 40]]]
    written = plain(model, IDS, max_new_tokens=6)[0, 4:].tolist()
    other = plain(model, prompts[1], max_new_tokens=6)[0, 6:].tolist()
    stop = next(token for token in written if token not in other)
    beside = [plain(model, prompt, max_new_tokens=6, eos_token_id=stop) for prompt in prompts]
    with model.generate(max_new_tokens=6, eos_token_id=stop) as tracer:
        ours, logits, late = [], [], []
        for prompt in prompts:
            with tracer.invoke(prompt):
                ours.append(model.generator.output.save())
                logits.append(wb.list().save())
                with tracer.all():
                    logits[-1].append(model.lm_head.output)
                late.append(model.lm_head.next(5).output.save())
    assert [torch.equal(mine.value, yours) for mine, yours in zip(ours, beside, strict=True)] == [True, True]
    steps = written.index(stop) + 1
    assert [len(each) for each in logits] == [steps, 6]
    with pytest.raises(ValueError, match=f"the text of its prompt had ended after {steps} step"):
        _ = late[0].value
    assert late[1].shape == (1, 1, 60)


def test_several_prompts_with_beams_and_samples() -> None:
    model = opened("llama")
    prompts = [IDS, [[7, 3, 8, 21, 33, 40]]]
    with model.generate(max_new_tokens=3, num_beams=3, num_return_sequences=2) as tracer:
        ours, hidden = [], []
        for prompt in prompts:
            with tracer.invoke(prompt):
                ours.append(model.generator.output.save())
                hidden.append(model.model.layers[0].output.save())
    for mine, prompt in zip(ours, prompts, strict=True):
        beside = plain(model, prompt, max_new_tokens=3, num_beams=3, num_return_sequences=2)
        assert torch.equal(mine.value, beside)
    assert [each.shape for each in hidden] == [(3, 4, 32), (3, 6, 32)]


def test_text_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    model = wb.demo("gpt2")
    prompt = "The Eiffel Tower is in the city of"
    said: list[list[str]] = []
    calls: list[int] = []
    model._ready()
    handle = model.lm_head.module.register_forward_hook(lambda *_: calls.append(len(said)))
    tokens = model.generate(prompt, max_new_tokens=2, stream=said.append, trace=False)
    handle.remove()
    assert said == [[model.tokenizer.decode([token])] for token in tokens[0, -2:].tolist()]
    assert calls == [0, 1]  # each word is said before the next is begun
    model.generate(prompt, max_new_tokens=2, stream=True, trace=False)
    assert capsys.readouterr().out == "".join(text for (text,) in said)


def test_a_seed_leaves_the_random_state_as_it_is() -> None:
    model = opened("gpt2")
    before = torch.random.get_rng_state()
    one = model.generate(IDS, max_new_tokens=8, do_sample=True, seed=1, trace=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(model.generate(IDS, max_new_tokens=8, do_sample=True, seed=1, trace=False), one)


def test_generation_in_a_session_and_as_python() -> None:
    model = opened("gpt2")
    with model.session() as session:
        with model.generate(IDS, max_new_tokens=3) as tracer:
            tokens = model.generator.output
            with tracer.iter[1:]:
                model.transformer.h[0].output[:] *= 0.5
        with model.trace(tokens):
            logits = model.lm_head.output.save()
    assert logits.shape == (1, 7, 60)
    assert "with model.generate(input" in str(session.graph) or "tracer.iter[1:]" in str(session.graph)
    with model.generate(IDS, max_new_tokens=3) as tracer:
        seen = wb.list().save()
        with tracer.iter[0:2] as step:
            seen.append(model.lm_head.output[:, -1].argmax(-1) + step)
        later = model.lm_head.next(2).output.save()
    assert tracer.graph is not None
    text = tracer.graph.to_python()
    with wb_names(model) as names:
        exec(text, names)
        assert names["tracer"].graph.to_python() == text
    assert later.shape == (1, 1, 60)


@contextmanager
def wb_names(model: Any) -> Iterator[dict[str, Any]]:
    yield {"model": model, "input": IDS, "wb": wb, "torch": torch}


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda tracer, model: tracer.iter[-1], "steps are chosen by a number or a slice of numbers from 0"),
        (lambda tracer, model: tracer.iter["a"], "steps are chosen by a number or a slice of numbers from 0"),
        (lambda tracer, model: next(iter(tracer.iter[:])), "how many steps there will be is not known before the run"),
    ],
)
def test_wrong_steps(write: Any, said: str) -> None:
    model = opened("gpt2")
    with pytest.raises(wb.errors.InputError, match=said):
        with model.generate(IDS) as tracer:
            write(tracer, model)


def test_steps_where_there_are_none() -> None:
    model = opened("gpt2")
    with pytest.raises(wb.errors.NotTracingError, match=r"no generation; steps are chosen in `with model\.generate"):
        with model.trace(IDS) as tracer, tracer.iter[1:]:
            pass
    with pytest.raises(wb.errors.NotTracingError, match="inside a block of steps"):
        with model.generate(IDS) as tracer, tracer.all():
            model.lm_head.next()
    with pytest.raises(wb.errors.InputError, match="BertForMaskedLM makes no tokens"):
        wb.LanguageModel(family("bert")[0]).generate(IDS, trace=False)


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_a_text_that_outgrows_the_models_positions(name: str) -> None:
    model = opened(name)
    most = model.module.config.max_position_embeddings - len(IDS[0]) + 1  # the last token is not read any more
    with model.generate(IDS, max_new_tokens=most):
        tokens = model.generator.output.save()
    assert torch.equal(tokens.value, plain(model, IDS, max_new_tokens=most))
    with pytest.raises((IndexError, RuntimeError)):
        plain(model, IDS, max_new_tokens=most + 1)
    with pytest.raises(InputError, match=f"positions for 64: give max_new_tokens={most} or less"):
        with model.generate(IDS, max_new_tokens=most + 1):
            model.generator.output.save()
    first = model.transformer.wte if name == "gpt2" else model.model.decoder.embed_tokens
    with pytest.raises(IndexError, match=r"99.*first\.output"):  # a user's own line says so itself
        with model.generate(IDS, max_new_tokens=most + 1) as tracer:
            with tracer.iter[most:]:
                first.output[:, 99].save()
