"""What is packed and run elsewhere is what was written: every kind of trace, its values, its containers, its errors."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

import workbench as wb
from tests.doors import PackedSession, id_of, named, packed
from tests.families import family
from tests.nets import traced
from tests.tiny import words
from workbench.errors import NotSetError, WireError
from workbench.graph.allowed import function, methods, offer, table
from workbench.graph.limits import Limits, Refused
from workbench.graph.package import Outcome, Request, pack, pack_outcome, peek, unpack, unpack_outcome
from workbench.recorder import CURRENT
from workbench.server.execute import execute

X = torch.linspace(-1, 1, 8).reshape(2, 4)


def net() -> Any:
    torch.manual_seed(0)
    return named(wb.NNsight(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))), "net")


def language(name: str = "gpt2") -> Any:
    return named(wb.LanguageModel(family(name)[0], tokenizer=words()), name)


def there(request: Request, *models: Any, log: Any = print) -> Outcome:
    """What comes back of a request: packed, read, run on other objects of these models, packed, and read."""
    data = pack(request)
    known = {model._key: model for model in models}
    assert peek(data) == request.models
    outcome, _ = execute(unpack(data), known, Limits(), log)
    return unpack_outcome(pack_outcome(outcome))


FACTOR = torch.tensor([1.0, -2.0, 3.0, 0.5, 0.0, 1.5])

STATEMENTS: list[Any] = [
    lambda m: m[0].output.__setitem__((slice(None), 1), 0),
    lambda m: m[0].output.__setitem__((..., slice(2, None, 2)), m[0].output[..., 0:1]),
    lambda m: setattr(m[1], "output", m[1].output * FACTOR),
    lambda m: setattr(m[1], "output", torch.where(m[1].output > 0.1, m[1].output, torch.zeros(6))),
    lambda m: setattr(m[2], "input", nn.functional.gelu(m[2].input, approximate="tanh")),
    lambda m: setattr(m[2], "output", m[2].output.to(torch.float64).sum(-1, keepdim=True).float().expand(-1, 3) + 1.5),
    lambda m: setattr(m[2], "output", m[2].output @ m[2].weight @ m[2].weight.T + m[2].bias),
    lambda m: setattr(m[2], "output", m[2].output - m[2](m[1].output * float("inf")).nan_to_num(0, 1, -1)),
    lambda m: setattr(m[0], "output", torch.stack([m[0].output, m[0].output.flip(-1)]).mean(0)),
    lambda m: m[1].output.mul_(torch.ones(2, 6).cumsum(1)[0]),
    lambda m: m[2].output.max(-1).values.save(),
    lambda m: traced(torch.fft.rfft(m[2].output)).save(),
    lambda m: wb.dict({"a": m[1].output, "b": (1, None, "x")}).save(),
    lambda m: wb.list([m[0].output.shape[0], m[0].output.dtype]).save(),
    lambda m: m[0].inputs.save(),
    lambda m: traced(nn.functional.max_pool1d(m[0].output[None], 2)).save(),
    lambda m: torch.linalg.norm(m[1].output, dim=-1).save(),
    lambda m: m[2].output.sum().item().save(),
    lambda m: m[1].output.unbind(0).save(),
    lambda m: (m[1].output[0, 0] > 0).save(),
]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    return type(one) is type(other) and one == other


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(range(len(STATEMENTS))), min_size=1, max_size=6))
def test_law_what_is_read_makes_the_same_run(chosen: list[int]) -> None:
    def write(model: Any) -> list[Any]:
        found = [STATEMENTS[index](model) for index in chosen]
        return [*[each for each in found if hasattr(type(each), "_node_id")], model.output.save()]

    model, other = net(), net()
    with packed(model, X) as tracer:
        saved = write(model)
    outcome = there(tracer.request, other)
    with other.trace(X):
        local = write(other)
    compare(tracer.request, outcome, saved, local)


def compare(request: Request, outcome: Outcome, sent: list[Any], kept: list[Any]) -> None:
    """Each value that came back is what a local run kept, and one that has none has none here either."""
    for mine, local in zip(sent, kept, strict=True):
        if id_of(mine) not in request.graph.saved:
            continue
        if id_of(mine) in outcome.reasons:
            with pytest.raises(NotSetError):
                _ = local.value
            continue
        ours, theirs = outcome.values[id_of(mine)], local.value
        if isinstance(theirs, tuple) and type(theirs) is not tuple and not isinstance(theirs, torch.Size):
            theirs = tuple(theirs)
        assert same(ours, theirs), (ours, theirs)


PARTS = st.lists(
    st.lists(st.tuples(st.sampled_from(range(len(STATEMENTS))), st.sampled_from([None, True, False])), max_size=3),
    min_size=1,
    max_size=3,
)
"""For each invoke, or each pass of a session, its statements: whether each stands in a condition, true or not."""


@settings(max_examples=60, deadline=None)
@given(PARTS, st.integers(0, 3))
def test_law_with_invokes_conditions_sessions_and_loops(parts: Any, rounds: int) -> None:
    def body(model: Any, context: Any, statements: Any, factor: Any) -> list[Any]:
        found = []
        for index, holds in statements:
            if holds is None:
                found.append(STATEMENTS[index](model))
                continue
            size = model[0].output.abs().sum() * factor
            with context.cond(size >= 0 if holds else size < 0):
                found.append(STATEMENTS[index](model))
        context.log(model.output.sum())
        return [*[each for each in found if hasattr(type(each), "_node_id")], model.output.save()]

    def write(context: Any, model: Any) -> list[Any]:
        if not rounds:
            found = []
            for number, statements in enumerate(parts):
                with context.invoke(X * (number + 1)):
                    found += body(model, context, statements, 1)
            return found
        with context.iter(list(range(1, rounds + 1))) as item:
            found = []
            for statements in parts:
                with model.trace(X) as tracer:
                    found += body(model, tracer, statements, item)
        return found

    model, other, lines = net(), net(), []
    with packed(model) if not rounds else PackedSession(model) as context:
        sent = write(context, model)
    outcome = there(context.request, other, log=lines.append)
    with other.trace() if not rounds else other.session() as local:
        kept = write(local, other)
    compare(context.request, outcome, sent, kept)
    assert lines == local.logs


def test_conditions_gradients_and_several_invokes() -> None:
    def write(model: Any, tracer: Any) -> list[Any]:
        with tracer.invoke(X):
            hidden = model[0].output
            with tracer.cond(hidden.sum() > -100):
                model[1].output = hidden * 2
            loss = model.output.sum()
            grad = hidden.grad.save()
            loss.backward()
            tracer.log("sum", loss)
        with tracer.invoke(X * 2):
            model[2].output[:] = hidden[:, :3]
            out = model.output.save()
        return [grad, out]

    model, lines = net(), []
    with packed(model) as tracer:
        sent = write(model, tracer)
    outcome = there(tracer.request, net(), log=lines.append)
    with net().trace() as local:
        kept = write(local.model, local)
    assert all(torch.equal(outcome.values[id_of(a)], b.value) for a, b in zip(sent, kept, strict=True))
    assert lines == local.logs


def test_why_a_value_is_missing_and_writes_that_did_nothing() -> None:
    model = net()
    with packed(model, X) as tracer:
        model[0].output.stop()
        late = model[2].output.save()
        never = model[0].next().output.save()
    outcome = there(tracer.request, net())
    assert "was stopped by .stop()" in outcome.reasons[id_of(late)]
    assert id_of(never) in outcome.reasons


def test_the_users_own_line_is_in_the_error() -> None:
    model = net()
    with packed(model, X) as tracer:
        (model[0].output @ torch.ones(9, 9)).save()  # this line
    with pytest.raises(RuntimeError, match=r"While running %.*test_package.py line \d+: .*this line") as caught:
        there(tracer.request, net())
    assert "this line" in caught.value.line  # type: ignore[attr-defined]


def test_containers_of_a_language_model_and_its_cache_goes_back() -> None:
    model, other = language(), language()
    ids = torch.tensor([[5, 9, 14, 21]])
    with packed(model, ids, use_cache=True) as tracer:
        whole = model.output.save()
        first = model.transformer.h[0].output.save()
    outcome = there(tracer.request, other)
    with torch.no_grad():
        right = model.module(ids, use_cache=True)
    ours = outcome.values[id_of(whole)]
    assert type(ours) is type(right)
    assert torch.equal(ours.logits, right.logits)
    assert torch.equal(outcome.values[id_of(first)], right_block(model, ids))
    for mine, theirs in zip(ours.past_key_values.layers, right.past_key_values.layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)
    more = torch.tensor([[3]])
    with packed(model, more, past_key_values=ours.past_key_values) as tracer:
        logits = model.lm_head.output.save()
    with other.trace(more, past_key_values=right.past_key_values):
        local = other.lm_head.output.save()
    assert torch.equal(there(tracer.request, other).values[id_of(logits)], local.value)


def right_block(model: Any, ids: Any) -> Any:
    found: list[Any] = []
    handle = model.module.transformer.h[0].register_forward_hook(lambda m, a, o: found.append(o))
    with torch.no_grad():
        model.module(ids)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("name", ["gemma3", "mamba", "t5"])
def test_caches_of_other_families_travel(name: str) -> None:
    model, other = language(name), language(name)
    module, inputs = family(name)
    with packed(model, **inputs, use_cache=True) as tracer:
        whole = model.output.save()
    ours = there(tracer.request, other).values[id_of(whole)]
    with torch.no_grad():
        right = module(**inputs, use_cache=True)
    assert list(ours.keys()) == list(right.keys())
    assert torch.equal(ours.logits, right.logits)


def test_generation_steps_and_a_list_that_they_fill() -> None:
    def write(model: Any, tracer: Any) -> list[Any]:
        seen = wb.list()
        with tracer.all():
            seen.append(model.lm_head.output[:, -1].argmax(-1))
        first = model.transformer.h[0].output.save()
        second = model.transformer.h[0].next().output.save()
        return [seen.save(), first, second, model.generator.output.save()]

    ids = [[5, 9, 14, 21]]
    model, other = language(), language()
    with packed(model, ids, kind="generate", max_new_tokens=3) as tracer:
        sent = write(model, tracer)
    outcome = there(tracer.request, other)
    with other.generate(ids, max_new_tokens=3) as local:
        kept = write(other, local)
    assert all(same(outcome.values[id_of(a)], b.value) for a, b in zip(sent, kept, strict=True))


ITEMS: Any = [torch.full((4,), float(n)) for n in range(4)]


def test_a_session_over_two_models_with_a_loop_of_a_data_loader() -> None:
    def write(session: Any, one: Any, two: Any) -> list[Any]:
        total = wb.list()
        with session.iter(DataLoader(ITEMS, batch_size=2), return_context=True) as (batch, loop):
            with one.trace(batch):
                hidden = one[2].output
            with two.trace(hidden.repeat(1, 2)[:, :4]):
                total.append(two.output.sum())
            with loop.cond(batch.sum() > 10):
                loop.exit()
            session.log(batch.sum())
        return [total.save()]

    one, two = net(), named(net(), "other")
    with PackedSession(one) as session:
        sent = write(session, one, two)
    assert session.request.models == ("net", "other")
    lines: list[str] = []
    outcome = there(session.request, net(), named(net(), "other"), log=lines.append)
    with one.session() as local:
        kept = write(local, one, two)
    assert same(outcome.values[id_of(sent[0])], kept[0].value)
    assert lines == local.logs


def test_training_with_parameters_and_an_optimizer_made_there() -> None:
    def write(session: Any, model: Any) -> list[Any]:
        down = nn.Parameter(torch.full((6, 2), 0.1)).save()  # type: ignore[attr-defined]
        up = nn.Parameter(torch.full((2, 3), 0.2)).save()  # type: ignore[attr-defined]
        optimizer = torch.optim.AdamW([down, up], lr=0.1)
        with session.iter([1, 2, 3]):
            with model.trace(X):
                model[2].output = model[2].output + model[1].output @ down @ up
                loss = (model.output - 1).pow(2).mean()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            session.log(loss)
        return [down, up]

    model, lines = net(), []
    with PackedSession(model) as session:
        sent = write(session, model)
    other = net()
    before = [each.clone() for each in other.module.parameters()]
    outcome = there(session.request, other, log=lines.append)
    with model.session() as local:
        kept = write(local, model)
    for ours, theirs in zip(sent, kept, strict=True):
        assert isinstance(outcome.values[id_of(ours)], nn.Parameter)
        assert torch.equal(outcome.values[id_of(ours)], theirs.value)
    assert lines == local.logs
    assert len(set(lines)) == 3
    assert all(map(torch.equal, before, other.module.parameters()))


def test_saved_values_of_earlier_runs_are_constants() -> None:
    model = net()
    with model.trace(X):
        earlier = model[1].output.save()
        whole = model[0].inputs.save()
    with packed(model, X) as tracer:
        model[1].output = earlier * 2 + whole[0][0].sum()
        out = model.output.save()
    right = model.module[2](earlier.value * 2 + X.sum())
    assert torch.equal(there(tracer.request, net()).values[id_of(out)], right)


def test_functions_that_an_operator_offers() -> None:
    @offer("spectrum")
    def spectrum(x: Any, times: int = 1) -> Any:
        return torch.linalg.svdvals(x) * times

    model = net()
    with packed(model, X) as tracer:
        recorder = CURRENT.get()
        assert recorder is not None
        kept = recorder.add(function("spectrum"), (model[0].output,), {"times": 3}).save()
    right = torch.linalg.svdvals(model.module[0](X)) * 3
    torch.testing.assert_close(there(tracer.request, net()).values[id_of(kept)], right.detach())
    with packed(model, X) as tracer:
        recorder = CURRENT.get()
        assert recorder is not None
        recorder.add(function("nothing"), (model[0].output,)).save()
    with pytest.raises(Refused, match=r"offers no function 'nothing'; it offers .*spectrum"):
        there(tracer.request, net())


class Odd:
    """No codec knows it."""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (lambda m: wb.apply(lambda x: x * 2, m.output), "the function <lambda> is not torch's, and cannot travel"),
        (lambda m: wb.apply(torch.add, m.output, Odd()), "a Odd cannot travel"),
        (lambda m: wb.apply(torch.add, m.output, nn.Identity()), "a Identity cannot travel"),
        (lambda m: m.output.numpy(), "the attribute 'numpy' may not be used"),
        (lambda m: m.output + 2**70, "a whole number of 71 bits cannot travel"),
        (lambda m: m.output + torch.ones(3).to_sparse(), "tensor of layout torch.sparse_coo cannot travel"),
    ],
)
def test_what_cannot_travel_is_refused_with_its_line(statement: Any, said: str) -> None:
    model = net()
    with packed(model, X) as tracer:
        statement(model)
    with pytest.raises(WireError, match=said) as caught:
        pack(tracer.request)
    assert caught.value.line is not None
    assert "test_package.py line" in caught.value.line


def test_a_result_of_a_type_that_cannot_travel_says_which() -> None:
    with pytest.raises(WireError, match=r"what was saved cannot be sent: a Odd cannot travel.*\(cell line 3\)"):
        pack_outcome(Outcome({0: Odd()}), where=lambda id: "(cell line 3)")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(max_size=20)
    | st.complex_numbers(allow_nan=False) | st.sampled_from([torch.float16, torch.device("cpu"), ..., range(3, 9, 2)]),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner, inner, inner).map(lambda s: slice(*s)),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_law_values_come_back_as_they_were(value: Any) -> None:
    back = unpack_outcome(pack_outcome(Outcome({3: value}), compress=True)).values[3]
    assert repr(back) == repr(value)  # nan is not itself


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
              torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_of_every_kind(dtype: Any, shape: Any) -> None:
    torch.manual_seed(0)
    tensor = (torch.randn(shape) * 3).to(dtype)
    back = unpack_outcome(
        pack_outcome(Outcome({0: [tensor, tensor.mT if tensor.ndim else tensor, nn.Parameter(torch.ones(2))]}))
    ).values[0]
    assert back[0].dtype == dtype
    assert torch.equal(back[0], tensor)
    assert back[1].shape == shape[::-1]
    assert isinstance(back[2], nn.Parameter)


def test_values_that_are_one_stay_one_and_parts_of_one_memory_are_sent_apart() -> None:
    tensor = torch.arange(6.0)
    back = unpack_outcome(pack_outcome(Outcome({0: [tensor, tensor], 1: tensor[:3], 2: tensor.expand(4, 6)}))).values
    assert torch.equal(back[0][0], tensor)
    assert torch.equal(back[1], tensor[:3])
    assert torch.equal(back[2], tensor.expand(4, 6))


def test_the_table_is_kept_by_hand_and_holds_nothing_that_leads_out() -> None:
    denied = """load save from_file hub compile jit ops package serialization numpy tofile data_ptr untyped_storage
    storage set_ resize_ as_strided as_strided_ apply_ map_ map2_ register_hook share_memory_ pin_memory from_numpy
    frombuffer __reduce_ex__ __setstate__ __dlpack__ __array__ manual_seed set_default_dtype set_num_threads
    set_rng_state exec eval system popen import_module open format format_map""".split()
    names = {name.rpartition(".")[2] for name in table()} | {name for each in methods().values() for name in each}
    assert names.isdisjoint(denied)
    assert 1000 < len(table()) < 1400


def test_the_table_names_strings_of_its_own_and_looks_up_none_of_a_request() -> None:
    from workbench.graph import allowed

    tree = ast.parse(Path(allowed.__file__).read_text())
    looked = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr"
    ]
    assert len(looked) == 3  # all in the loops over its own lists
