"""Several queued traces by one forward pass: each has what it would have had alone, and none can touch another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.doors import HOSTED, Answer, Door, Packed, PackedSession, id_of, named, packed
from tests.hosted import mixed, net
from tests.tiny import gpt2, words
from workbench.graph.allowed import function
from workbench.graph.limits import MIB, Limits
from workbench.graph.package import Request, look, pack, unpack
from workbench.server.together import Apart, kin, merge, run_together

LIMITS = {"memory": 256 * MIB, "result": 8 * MIB, "log_lines": 5}
PROMPTS = ("the cat sat on a mat", "a dog run", "saw its dog and the cat", "the")


@pytest.fixture(scope="module")
def tiny() -> Any:
    return named(wb.LanguageModel(gpt2().module, tokenizer=words()), "tiny")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    opened = Door(tmp_path_factory.mktemp("jobs"), {"tiny": "gpt2"}, LIMITS, str(HOSTED.with_name("mischief.py")))
    yield opened
    opened.close()


def passes(request: Request, *others: Request, models: Any) -> list[Any]:
    return run_together([request, *others], models, Limits.read(LIMITS), set(), {})


Asked = tuple[Packed, list[Any]]


def looks(tiny: Any, prompt: str) -> Asked:
    """Reads some sites, and logs."""
    with packed(tiny, prompt) as tracer:
        first = tiny.transformer.h[0].output.save()
        best = tiny.lm_head.output[:, -1].argmax(-1).save()
        tracer.log("best of", prompt, best)
    return tracer, [first, best]


def edits(tiny: Any, prompt: str) -> Asked:
    """Writes into a site, and replaces another."""
    with packed(tiny, prompt) as tracer:
        tiny.transformer.h[0].mlp.output[:, -1] = 0
        tiny.transformer.h[1].output = tiny.transformer.h[1].output * 2 + torch.linspace(-1, 1, 8)
        last = tiny.lm_head.output[:, -1].save()
    return tracer, [last]


def several(tiny: Any, prompt: str) -> Asked:
    """Has two invokes of its own, one patched from the other."""
    with packed(tiny) as tracer:
        with tracer.invoke(prompt):
            clean = tiny.transformer.h[0].output[:, -1]
            one = tiny.lm_head.output.save()
        with tracer.invoke("the dog"):
            tiny.transformer.h[0].output[:, -1] = clean
            two = tiny.lm_head.output.save()
    return tracer, [one, two]


def lens(tiny: Any, prompt: str) -> Asked:
    """Calls modules on what it read, under a condition."""
    with packed(tiny, prompt) as tracer:
        hidden = tiny.transformer.h[0].output
        early = tiny.lm_head(tiny.transformer.ln_f(hidden)).save()
        with tracer.cond(early.abs().sum() > 0):
            held = (hidden + 1).sum().save()
        with tracer.cond(early.abs().sum() < 0):
            never = hidden.sum().save()
    return tracer, [early, held, never]


KINDS = (looks, edits, several, lens)


def compare(alone: Answer, shared: Answer, asked: Asked) -> None:
    _, kept = asked
    assert shared.error == {}
    assert shared.log == alone.log
    assert alone.outcome is not None
    assert shared.outcome is not None
    assert shared.outcome.values.keys() == alone.outcome.values.keys()
    assert shared.outcome.reasons == alone.outcome.reasons
    for value in kept:
        if id_of(value) in alone.outcome.values:
            torch.testing.assert_close(shared.value(value), alone.value(value), rtol=1e-4, atol=1e-5)


def test_each_has_what_it_would_have_had_alone(door: Door, tiny: Any) -> None:
    asked = [kind(tiny, prompt) for kind in KINDS for prompt in PROMPTS[:3]]
    alone = [door.ask(tracer.request) for tracer, _ in asked]
    shared = door.ask_together([tracer.request for tracer, _ in asked])
    for one, other, each in zip(alone, shared, asked, strict=True):
        compare(one, other, each)
        assert other.events[0] == "running"
        assert other.events.count("running") == 1  # else it was run again, by itself


def test_it_is_one_pass(tiny: Any) -> None:
    requests = [unpack(pack(looks(tiny, prompt)[0].request)) for prompt in PROMPTS]
    calls: list[Any] = []
    handle = tiny.module.transformer.h[1].register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))
    try:
        passes(*requests, models={"tiny": tiny})
        assert len(calls) == 1 + len(PROMPTS) + 1  # the first time, it is tried that rows do not depend on each other
        known = {("tiny", True): True}
        run_together(requests, {"tiny": tiny}, Limits.read(LIMITS), set(), known)
        assert len(calls) == 1 + len(PROMPTS) + 2
    finally:
        handle.remove()
    assert tuple(calls[-1][:2]) == (len(PROMPTS), 6)


def test_one_that_fails_spoils_no_other(door: Door, tiny: Any) -> None:
    good = [looks(tiny, prompt) for prompt in PROMPTS[:2]]
    alone = [door.ask(tracer.request) for tracer, _ in good]
    with packed(tiny, PROMPTS[0]) as bad:
        bad.log("before")
        (tiny.transformer.h[1].output @ torch.ones(3, 3)).save()
    before = door.child.pid
    first, failed, second = door.ask_together([good[0][0].request, bad.request, good[1][0].request])
    compare(alone[0], first, good[0])
    compare(alone[1], second, good[1])
    assert failed.error["kind"] == "RuntimeError"
    assert "test_together.py line" in failed.error["line"]
    assert failed.log == ["before"]  # once
    assert door.child.pid == before


def test_one_that_writes_into_the_weights_has_no_part_in_anothers_result(door: Door, tiny: Any) -> None:
    good = looks(tiny, PROMPTS[0])
    alone = door.ask(good[0].request)
    with packed(tiny, PROMPTS[1]) as bad:
        norm, hidden = tiny.transformer.ln_f, tiny.transformer.h[0].output[0]
        nn.functional.batch_norm(hidden, norm.weight, norm.bias, training=True)  # writes into its arguments
    answers = door.ask_together([good[0].request, bad.request])
    assert not answers[0].clean
    assert all(answer.outcome is None and not answer.error for answer in answers)  # to be run again, each alone
    compare(alone, door.ask(good[0].request), good)


def test_one_that_crashes_takes_the_worker_with_it_and_all_are_to_be_run_again(door: Door, tiny: Any) -> None:
    good = looks(tiny, PROMPTS[0])
    with packed(tiny, PROMPTS[1]) as bad:
        bad._recorder.add(function("crash"), (tiny.lm_head.output,)).save()
    answers = door.ask_together([good[0].request, bad.request])
    assert all("SIGABRT" in answer.lost for answer in answers)
    assert door.ask(good[0].request).error == {}


def test_nobody_gets_anothers_rows(door: Door, tiny: Any) -> None:
    """A hidden write into one's own part, and into what all share, reaches no other."""
    good = looks(tiny, PROMPTS[0])
    alone = door.ask(good[0].request)
    for site in (tiny.transformer.h[1], tiny.transformer.wpe, tiny.transformer):
        with packed(tiny, PROMPTS[2]) as bad:
            held = wb.list([site.output if site is not tiny.transformer else site.output[0]])
            held[0].zero_()
            tiny.lm_head.output.save()
        first, second = door.ask_together([bad.request, good[0].request])
        compare(alone, second, good)
        assert first.error == {}


# ---- who shares


def test_what_is_run_alone(tiny: Any) -> None:
    def of(tracer: Any) -> Any:
        return kin(look(pack(tracer.request)))

    assert of(looks(tiny, PROMPTS[0])[0]) == of(edits(tiny, PROMPTS[1])[0]) is not None
    with packed(tiny, PROMPTS[0]) as graded:
        tiny.transformer.h[0].output.grad.save()
        tiny.lm_head.output.sum().backward()
    with packed(tiny, PROMPTS[0]) as stopped:
        tiny.transformer.h[0].output.save().stop()
    with packed(tiny, PROMPTS[0]) as skipped:
        tiny.transformer.h[0].skip(tiny.transformer.h[0].input)
    with packed(tiny, PROMPTS[0], kind="generate", max_new_tokens=2) as written:
        tiny.generator.output.save()
    with PackedSession(tiny) as session:
        with tiny.trace(PROMPTS[0]):
            tiny.lm_head.output.save()
    assert [of(each) for each in (graded, stopped, skipped, written, session)] == [None] * 5
    with packed(tiny, PROMPTS[0], output_hidden_states=True) as more:
        tiny.output.save()
    assert of(more) not in (None, of(looks(tiny, PROMPTS[0])[0]))


def test_what_all_share_is_no_ones() -> None:
    model = named(wb.NNsight(net()), "net")
    requests = []
    for _ in range(2):
        with packed(model, torch.ones(1, 4)) as tracer:
            (model.output[1] * 2).save()
        requests.append(unpack(pack(tracer.request)))
    with pytest.raises(ValueError, match="has the rows of all invokes mixed"):
        passes(*requests, models={"net": model})


def test_prompts_of_very_unequal_length_do_not_wait_for_each_other(tiny: Any) -> None:
    long = unpack(pack(looks(tiny, " ".join(["the cat sat"] * 5))[0].request))
    short = [unpack(pack(looks(tiny, "the")[0].request)) for _ in range(4)]
    with pytest.raises(Apart, match="padding"):
        passes(long, *short, models={"tiny": tiny})


def test_a_model_whose_rows_depend_on_each_other_is_found_out() -> None:
    apart, joined = named(wb.NNsight(net()), "net"), named(wb.NNsight(mixed()), "mixed")
    for model, alone in ((apart, False), (joined, True)):
        requests = []
        for seed in (1.0, 2.0):
            with packed(model, torch.linspace(-seed, seed, 8).reshape(2, 4)) as tracer:
                model.first.output.save()
            requests.append(unpack(pack(tracer.request)))
        if alone:
            with pytest.raises(Apart, match="depend on the rows beside it"):
                passes(*requests, models={"mixed": joined})
        else:
            (one, _), (two, _) = passes(*requests, models={"net": apart})
            for found, seed in ((one, 1.0), (two, 2.0)):
                right = apart.module.first(torch.linspace(-seed, seed, 8).reshape(2, 4))
                torch.testing.assert_close(next(iter(found.values.values())), right)


def test_names_of_one_do_not_meet_names_of_another(tiny: Any) -> None:
    factors = [torch.full((8,), float(n)) for n in (2, 3)]
    requests = []
    for factor in factors:
        with packed(tiny, PROMPTS[0]) as tracer:
            (tiny.transformer.h[0].output * factor).save()
        requests.append(tracer.request)
    merged = merge(requests)
    assert len(set(merged.request.graph.arguments)) == len(merged.request.graph.arguments) == 2
    assert [merged.owner(id) for id in range(len(merged.request.graph.nodes))] == sorted(
        number for number, each in enumerate(requests) for _ in each.graph.nodes
    )
    (one, _), (two, _) = passes(*[unpack(pack(each)) for each in requests], models={"tiny": tiny})
    first, second = (next(iter(each.values.values())) for each in (one, two))
    torch.testing.assert_close(first * 1.5, second)


class _Tensors(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_training_model_is_not_shared() -> None:
    model = named(wb.NNsight(_Tensors().train()), "t")
    requests = []
    for _ in range(2):
        with packed(model, torch.ones(1, 2)) as tracer:
            model.output.save()
        requests.append(unpack(pack(tracer.request)))
    with pytest.raises(Apart):
        passes(*requests, models={"t": model})
