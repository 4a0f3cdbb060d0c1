"""What a hostile request may try: each is refused or ended with a sentence, and the next user's values are the same."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import zstandard

import workbench as wb
from tests import test_server, test_together
from tests.doors import HOSTED, Answer, Door, Packed, PackedSession, forged, named, packed, with_head
from tests.hosted import net
from tests.nets import traced
from tests.tiny import gpt2, words
from workbench.graph.allowed import function
from workbench.graph.limits import MIB, Limits, Refused
from workbench.graph.package import pack, peek, unpack
from workbench.server.execute import execute
from workbench.server.guard import GENERATION

KEYS = {"tiny": "gpt2", "net": "net"}
LIMITS = {"memory": 256 * MIB, "result": 8 * MIB, "body": 4 * MIB, "unpacked": 8 * MIB, "trips": 200, "log_lines": 50}
PROMPT = "the cat sat on a mat"


@pytest.fixture(scope="module")
def tiny() -> Any:
    return named(wb.LanguageModel(gpt2().module, tokenizer=words()), "tiny")


@pytest.fixture(scope="module")
def small() -> Any:
    return named(wb.NNsight(net()), "net")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    opened = Door(tmp_path_factory.mktemp("jobs"), KEYS, LIMITS, str(HOSTED.with_name("mischief.py")))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def healthy(door: Door, tiny: Any, small: Any) -> Any:
    """Asks, as the next user, for logits and for what the net gives: bit for bit what they are without a server."""
    with packed(tiny, PROMPT) as text:
        logits = tiny.lm_head.output.save()
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    with packed(small, x) as plain:
        out = small.output[0].save()
    with torch.no_grad():
        right = tiny.module(tiny.tokenizer(PROMPT, return_tensors="pt")["input_ids"]).logits
        also = small.module(x)[0]

    def check() -> None:
        answer = door.ask(text.request)
        assert torch.equal(answer.value(logits), right)
        assert answer.clean
        answer = door.ask(plain.request)
        assert torch.equal(answer.value(out), also)
        assert answer.clean

    check()
    return check


@pytest.fixture(autouse=True)
def _the_next_user(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that has asked the worker for something."""
    check = request.getfixturevalue("healthy") if "door" in request.fixturenames else lambda: None
    yield
    check()


def refused(answer: Answer, words: str) -> None:
    """A job that ended in an error with a sentence; the worker lives and is as before."""
    assert answer.outcome is None
    assert not answer.lost, answer.lost
    assert words in answer.error["message"], answer.error
    assert 400 <= answer.error["status"] < 500
    assert answer.clean


# ---- what is refused as it is read: the same sentence at the door and in the worker

OUT: Any = {"ref": 0}


def statement(op: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"op": op, "args": list(args)}
    return {**data, "kwargs": kwargs} if kwargs else data


STATEMENTS = {
    "a dunder attribute": (statement("getattr", OUT, "__class__"), "'__class__' may not be used"),
    "a private attribute": (statement("getattr", OUT, "_base"), "'_base' may not be used"),
    "a dunder method": (statement("method", OUT, "__reduce_ex__", 4), "'__reduce_ex__' may not be used"),
    "os.system": (statement("os.system", "true"), "'os.system' is no operation"),
    "eval": (statement("builtins.eval", "1"), "'builtins.eval' is no operation"),
    "torch.load": (statement("torch.load", "/etc/passwd"), "'torch.load' is no operation"),
    "torch.serialization.load": (statement("torch.serialization.load", "x"), "is no operation"),
    "torch.save": (statement("torch.save", OUT, "/tmp/x"), "'torch.save' is no operation"),
    "torch.hub.load": (statement("torch.hub.load", "a/b", "c"), "'torch.hub.load' is no operation"),
    "torch.from_file": (statement("torch.from_file", "/etc/passwd"), "'torch.from_file' is no operation"),
    "torch.ops": (statement("torch.ops.aten.add", OUT, 1), "'torch.ops.aten.add' is no operation"),
    "torch.compile": (statement("torch.compile", OUT), "'torch.compile' is no operation"),
    "torch.set_default_dtype": (statement("torch.set_default_dtype", {"dtype": "torch.float64"}), "is no operation"),
    "torch.manual_seed": (statement("torch.manual_seed", 1), "'torch.manual_seed' is no operation"),
    "torch.as_strided": (statement("torch.as_strided", OUT, [9], [1]), "'torch.as_strided' is no operation"),
    "resize_": (statement("method", OUT, "resize_", 10**6), "'resize_' may not be used"),
    "set_": (statement("method", OUT, "set_", OUT), "'set_' may not be used"),
    "numpy": (statement("method", OUT, "numpy"), "'numpy' may not be used"),
    "numpy's tofile": (statement("method", OUT, "tofile", "/tmp/x"), "'tofile' may not be used"),
    "numpy.ndarray.tofile": (statement("numpy.ndarray.tofile", OUT, "/tmp/x"), "is no operation"),
    "data": (statement("getattr", OUT, "data"), "'data' may not be used"),
    "storage": (statement("method", OUT, "untyped_storage"), "'untyped_storage' may not be used"),
    "data_ptr": (statement("method", OUT, "data_ptr"), "'data_ptr' may not be used"),
    "register_hook": (statement("method", OUT, "register_hook", OUT), "'register_hook' may not be used"),
    "apply_": (statement("method", OUT, "apply_", OUT), "'apply_' may not be used"),
    "calling a value": (statement("call", OUT), "'call' is no operation"),
    "einops": (statement("einops.einops.rearrange", OUT, "a -> ()"), "is no operation"),
    "einsum's words": (statement("torch.functional.einsum", "a" * 10_000, OUT), "may not be given the text"),
    "einsum's code": (statement("torch.functional.einsum", "__import__('os')", OUT), "may not be given the text"),
    "a width of a format": (statement("operator.mod", "%999999999d", 1), "a text is not formatted"),
    "format": (statement("method", "{0.__class__}", "format", OUT), "'format' may not be used"),
    "center": (statement("method", "x", "center", 10**9), "'center' may not be used"),
    "out=": (statement("torch.add", OUT, OUT, out=OUT), "may not be given out="),
    "a generator": (statement("torch.rand", 2, generator=1), "may not be given generator="),
    "pinned memory": (statement("torch.zeros", 2, pin_memory=True), "may not be given pin_memory="),
    "a text as a size": (statement("torch.abs", "x"), "may not be given a text"),
    "a reference forward": (statement("torch.abs", {"ref": 7}), "reads what comes after it"),
    "a reference to itself": (statement("torch.abs", {"ref": 1}), "reads what comes after it"),
    "a negative reference": (statement("torch.abs", {"ref": -1}), "reads what comes after it"),
    "no reference": (statement("torch.abs", {"ref": "0"}), "a reference is no whole number"),
    "an infinite number": (statement("torch.add", OUT, 10**400), "a whole number of 401 digits"),
    "an unknown kind": (statement("torch.abs", {"pickle": "gASV"}), "no value of kind 'pickle'"),
    "two kinds": (statement("torch.abs", {"ref": 0, "tensor": "x"}), "no object with one key"),
    "a tensor that is not there": (statement("torch.abs", {"tensor": "x"}), "the tensors x are missing"),
    "a block that there is not": ({**statement("torch.abs", OUT), "block": 3}, "a block that there is not"),
    "an invoke that there is not": ({**statement("torch.abs", OUT), "invoke": 3}, "an invoke that there is not"),
    "a loop over itself": (statement("loop", 0, [1]), "runs a block that it cannot run"),
    "leaving what is not there": (statement("exit", 9), "leaves a block that it cannot leave"),
    "a stop without a site": (statement("stop", 3), "stop takes a reference"),
    "a swap of nothing": (statement("swap", OUT, OUT), "swap takes a site"),
    "an optimizer of nothing": (statement("optimizer", 1, [], {"dict": []}), "optimizer takes a kind of optimizer"),
}


@pytest.mark.parametrize("what", STATEMENTS)
def test_statements_that_no_trace_writes(what: str, door: Door, tiny: Any) -> None:
    added, words = STATEMENTS[what]
    with packed(tiny, PROMPT) as tracer:
        tiny.lm_head.output.save()
    data = forged(tracer.request, lambda head: head["graph"]["nodes"].append(added))
    with pytest.raises(Refused) as caught:
        peek(data, Limits.read(LIMITS))
    assert words in str(caught.value)
    assert 400 <= caught.value.status < 500
    refused(door.ask(data), words)


# ---- bytes


def bodies(tiny: Any) -> dict[str, tuple[bytes, str, int]]:
    factors = torch.arange(12.0)
    with packed(tiny, PROMPT) as tracer:
        (tiny.lm_head.output * factors).save()
    good = pack(tracer.request)
    length = int.from_bytes(good[8:16], "little")
    head, tail = good[16 : 16 + length], good[16 + length :]
    size = int.from_bytes(tail[:8], "little")
    header = json.loads(tail[8 : 8 + size])

    def lying(**wrong: Any) -> bytes:
        name = next(each for each in header if "tensor" in each)
        text = json.dumps({**header, name: {**header[name], **wrong}}).encode()
        return good[: 16 + length] + len(text).to_bytes(8, "little") + text + tail[8 + size :]

    return {
        "100,000 deep JSON": (with_head(good, b"[" * 100_000 + b"]" * 100_000), "nested deeper", 400),
        "300 deep JSON": (with_head(good, b"[" * 300 + b"]" * 300), "nested deeper", 400),
        "an oversized body": (b"\0" * (5 * MIB), "4.0 MiB are allowed", 413),
        "a zstd bomb": (zstandard.ZstdCompressor().compress(b"\0" * (512 * MIB)), "more than 8.0 MiB", 413),
        "broken zstd": (b"\x28\xb5\x2f\xfd" + b"\xff" * 40, "cannot be unpacked", 400),
        "duplicate keys": (with_head(good, head[:-1] + b',"graph":{}}'), "'graph' stands twice", 400),
        "NaN": (with_head(good, head.replace(b'"saved":[1]', b'"saved":[NaN]')), "NaN is no number of JSON", 400),
        "Infinity": (
            with_head(good, head.replace(b'"saved":[1]', b'"saved":[-Infinity]')),
            "is no number of JSON",
            400,
        ),
        "no JSON": (with_head(good, b"{"), "this is no JSON", 400),
        "no text": (with_head(good, b"\xff\xfe{}"), "this is no JSON", 400),
        "no request": (b"PK\3\4" + b"\0" * 100, "no workbench request", 400),
        "nothing": (b"", "no workbench request", 400),
        "a longer head than there is": (good[:8] + (1 << 40).to_bytes(8, "little") + good[16:], "longer", 400),
        "cut in the middle": (good[: 16 + length + 20], "header is longer", 400),
        "cut at the end": (good[:-4], "does not say what was sent", 400),
        "more at the end": (good + b"\0" * 64, "more bytes were sent", 400),
        "a header of 2**63 bytes": (good[: 16 + length] + b"\xff" * 8 + tail[8:], "header is longer", 400),
        "a shape of 2**60": (lying(shape=[1 << 60]), "does not say what was sent", 400),
        "a negative shape": (lying(shape=[-12, -1]), "does not say what was sent", 400),
        "offsets beyond the end": (lying(data_offsets=[0, 1 << 50]), "does not say what was sent", 400),
        "tensors over each other": (lying(data_offsets=[0, 48]), "lie over each other", 400),
        "an unknown dtype": (lying(dtype="O"), "does not say what was sent", 400),
    }


def test_bodies_that_are_none(door: Door, tiny: Any, healthy: Any) -> None:
    for what, (data, said, status) in bodies(tiny).items():
        for read in (peek, unpack):
            with pytest.raises(Refused) as caught:
                read(data, Limits.read(LIMITS))
            assert said in str(caught.value), (what, str(caught.value))
            assert caught.value.status == status, what
        refused(door.ask(data), said)
        healthy()


def test_another_version_says_who_is_to_update(tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        tiny.lm_head.output.save()
    old = forged(tracer.request, lambda head: head.update(version=0, writer="0.0.9"))
    new = forged(tracer.request, lambda head: head.update(version=2, writer="9.0"))
    with pytest.raises(Refused, match=r"version 0, written by workbench 0.0.9; .* knows version 1: .* on your machine"):
        peek(old)
    with pytest.raises(Refused, match=r"version 2, written by workbench 9.0; .* knows version 1: .* on the server"):
        peek(new)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"nodes": 3}, r"this graph has \d+ statements; 3 are allowed"),
        ({"inputs": 1}, "a pass may have 1 invokes, not 2"),
        ({"head": 100}, "the head of this request is longer than it may be"),
        ({"depth": 1}, "nested deeper than"),
        ({"body": 500}, "500 bytes are allowed"),
        ({"executed": 3}, "this runs more than 3 statements, loops' rounds counted"),
    ],
)
def test_each_limit_is_the_operators(limits: dict[str, int], words: str, tiny: Any) -> None:
    with packed(tiny) as tracer:
        for prompt in (PROMPT, "the dog"):
            with tracer.invoke(prompt):
                (tiny.lm_head.output[:, -1] * 2).save()
    data = pack(tracer.request)
    outcome, _ = execute(unpack(data), {"tiny": tiny}, Limits(), print)
    assert len(outcome.values) == 2
    with pytest.raises(Refused, match=words) as caught:
        execute(unpack(data, Limits.read(limits)), {"tiny": tiny}, Limits.read(limits), print)
    assert 400 <= caught.value.status < 500


# ---- what meets the model


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../../etc/passwd", "no module at '../../etc/passwd'"),
        ("transformer.__class__", "no module at 'transformer.__class__'"),
        ("transformer._modules.h", "no module at"),
        ("transformer.h.0.mlpp", "near: transformer.h.0.mlp"),
        ("lm_head.weight", "no module at 'lm_head.weight'"),
    ],
)
def test_paths_are_looked_up_and_walk_nowhere(path: str, words: str, door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        tiny.lm_head.output.save()

    def change(head: dict[str, Any]) -> None:
        head["graph"]["nodes"][0]["args"] = [{"site": [path, "output", 0, "", 0]}]

    refused(door.ask(forged(tracer.request, change)), words)


@pytest.mark.parametrize("name", ["__dict__", "forward", "_parameters", "bias_", "config"])
def test_weights_are_parameters_and_buffers_and_nothing_else(name: str, door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        tiny.lm_head.output.save()

    def change(head: dict[str, Any]) -> None:
        head["graph"]["nodes"].append(statement("weight", None, "lm_head", name))

    refused(door.ask(forged(tracer.request, change)), f"lm_head has no parameter or buffer '{name}'")


@pytest.mark.parametrize("name", ["custom_generate", "generation_config", "stopping_criteria", "tokenizer", "streamer"])
def test_a_generation_takes_only_what_is_on_the_list(name: str, door: Door, tiny: Any) -> None:
    assert name not in GENERATION
    with packed(tiny, PROMPT, kind="generate", max_new_tokens=2) as tracer:
        tiny.generator.output.save()
    data = forged(tracer.request, lambda head: head["options"]["dict"].append([name, "evil/repo"]))
    refused(door.ask(data), f"may not be given {name}=")


def test_endless_generation_and_tokens_that_are_none(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT, kind="generate", max_new_tokens=10**9) as tracer:
        tiny.generator.output.save()
    refused(door.ask(tracer.request), "max_new_tokens= is a count of at most 4096")
    with packed(tiny, PROMPT) as tracer:
        tiny.lm_head.output.save()
    tracer.request.inputs[0][1]["input_ids"] = torch.full((1, 6), 10**6)
    refused(door.ask(tracer.request), "input_ids are tokens from 0 to 11, not 1000000")


# ---- what would be too much


def test_zeros_of_a_trillion(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        traced(torch.zeros(10**12) + tiny.lm_head.output.sum()).save()
    refused(door.ask(tracer.request), "would have 3.6 TiB; 256 MiB are allowed")
    with packed(tiny, PROMPT) as tracer:  # a size that only the run knows
        count = wb.int(tiny.lm_head.output.abs().sum().ceil()) * 10**11
        traced(torch.zeros(count).sum()).save()
    refused(door.ask(tracer.request), "memory ran out: a job may have 256 MiB here")


def test_a_cat_that_doubles(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        value = tiny.lm_head.output
        for _ in range(40):
            value = torch.cat([value, value])
        traced(value.sum()).save()
    refused(door.ask(tracer.request), "256 MiB are allowed")
    with PackedSession(tiny) as session:  # in a loop, where shapes are not known before
        held = wb.list()
        held.append(torch.ones(1000))
        with session.iter(list(range(60))):
            held.append(torch.cat([held[-1], held[-1]]))
        held[-1].sum().save()
    refused(door.ask(session.request), "memory ran out: a job may have 256 MiB here")


def test_what_is_expanded_counts_as_if_it_were_written_out(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        tiny.lm_head.output[0, 0, 0].expand(4 * MIB).save()
    refused(door.ask(tracer.request), "what is saved would have more than 8.0 MiB")
    with packed(tiny, PROMPT) as tracer:
        count = wb.int(tiny.lm_head.output.isfinite().sum()) * 50_000
        tiny.lm_head.output[0, 0, 0].expand(count).save()
    refused(door.ask(tracer.request), "what is saved has more than 8.0 MiB")


def test_a_huge_result(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        kept = [traced(torch.ones(MIB // 2) * index).save() for index in range(6)]
        del kept
        tiny.lm_head.output.sum().save()
    refused(door.ask(tracer.request), "what is saved would have more than 8.0 MiB")


def test_loops_without_an_end(door: Door, tiny: Any) -> None:
    with PackedSession(tiny) as session:
        items = wb.list([1])
        with session.iter(items):
            items.append(1)
        items.save()
    refused(door.ask(session.request), "more than 200 rounds of its loops")
    with PackedSession(tiny) as session:
        with session.iter(list(range(100))):
            with session.iter(list(range(100))) as item:
                (item * 2).save()
    refused(door.ask(session.request), "more than 200 rounds of its loops")


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        ("operator.pow", (7, 10**9), "is larger than is allowed here"),
        ("operator.lshift", (7, 10**9), "a shift by 1000000000 bits"),
        ("bytes", (10**12,), "bytes are more than is allowed here"),
        ("bytearray", (10**12,), "bytes are more than is allowed here"),
        ("list", ({"range": [0, 10**15, 1]},), "is larger than is allowed here"),
    ],
)
def test_arithmetic_that_explodes(op: str, args: Any, words: str, door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        tiny.lm_head.output.save()
    data = forged(tracer.request, lambda head: head["graph"]["nodes"].append(statement(op, *args)))
    refused(door.ask(data), words)


def test_texts_and_numbers_that_double(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        text = wb.str("xxxxxxxxxxxxxxxx")
        for _ in range(40):
            text = text + text
        text.save()
    refused(door.ask(tracer.request), "larger than is allowed here")
    with packed(tiny, PROMPT) as tracer:
        text = wb.str("%999999999d") % 1
        text.save()
    refused(door.ask(tracer.request), "a text is not formatted in a trace")
    with packed(tiny, PROMPT) as tracer:
        (wb.list([0]) * 10**9).save()
    refused(door.ask(tracer.request), "too large")
    with packed(tiny, PROMPT) as tracer:
        number = wb.int(3)
        for _ in range(40):
            number = number * number
        number.save()
    refused(door.ask(tracer.request), "a whole number of more than 4096 bits")


def test_a_flood_of_lines_is_cut(door: Door, tiny: Any) -> None:
    with PackedSession(tiny) as session:
        with session.iter(list(range(150))) as item:
            session.log("line", item)
    answer = door.ask(session.request)
    assert answer.error == {}
    assert answer.log[:2] == ["line 0", "line 1"]
    assert len(answer.log) == 51
    assert answer.log[-1].startswith("… the lines behind are dropped")


def test_a_long_svd_is_killed_at_its_deadline(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        value = torch.rand(3000, 3000) + tiny.lm_head.output.sum()
        traced(torch.linalg.svd(value)[0].sum()).save()  # one call into C, much longer than it has
    before, start = door.child.pid, time.monotonic()
    answer = door.ask(tracer.request, deadline=1.0)
    assert answer.outcome is None
    assert "longer than 1 seconds" in answer.lost
    assert time.monotonic() - start < 15  # with the time in which another worker is started
    assert door.child.pid != before


# ---- what would stay


def hidden_write(model: Any, tracer: Packed) -> Any:
    """A write into the model's own weight, by a way that the planner does not see."""
    held = wb.list([model.lm_head.weight])
    return held[0].zero_()


def test_weights_that_were_changed_are_seen_and_the_worker_is_replaced(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        hidden_write(tiny, tracer)
        tiny.lm_head.output.save()
    before = door.child.pid
    answer = door.ask(tracer.request)
    assert not answer.clean
    assert door.child.pid != before


def test_weights_as_running_means_of_a_norm(door: Door, tiny: Any) -> None:
    """A norm in training writes into its running means, and torch counts no version of them."""
    norm = tiny.transformer.ln_f
    with packed(tiny, PROMPT) as tracer:
        hidden = tiny.transformer.h[0].output[0]
        torch.nn.functional.batch_norm(hidden, norm.weight, norm.bias, training=True)
    assert not door.ask(tracer.request).clean


def test_ordinary_writes_into_weights_go_to_a_copy(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        weight = tiny.lm_head.weight
        weight.zero_()
        zeroed = weight.sum().save()
        out = tiny.lm_head.output.sum().save()
    answer = door.ask(tracer.request)
    assert answer.clean
    assert answer.value(zeroed) == 0
    assert answer.value(out) != 0


def test_a_view_of_a_buffer_that_is_edited(door: Door, small: Any) -> None:
    x = torch.ones(1, 4)
    with packed(small, x) as tracer:
        small.output[1][:] = 0
        table = small.output[1].save()
    answer = door.ask(tracer.request)
    assert answer.clean
    assert answer.value(table).sum() == 0
    with packed(small, x) as tracer:  # by a way that the planner does not see
        held = wb.list([small.output])
        held[0][1].zero_()
        small.output[0].save()
    assert not door.ask(tracer.request).clean


def test_an_optimizer_on_the_models_own_weights(door: Door, tiny: Any) -> None:
    with PackedSession(tiny) as session:
        with packed_in(session, tiny):
            tiny.lm_head.output.sum().backward()
        optimizer = torch.optim.SGD([tiny.lm_head.weight], lr=1.0)
        optimizer.step()
    door.ask(session.request)


def packed_in(session: PackedSession, model: Any) -> Any:
    """A trace inside a session that is packed."""
    return model.trace(PROMPT)


def test_an_error_in_the_middle_leaves_no_hook(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        tiny.transformer.h[0].output[:, 0] = 0
        (tiny.transformer.h[1].output @ torch.ones(3, 3)).save()
    answer = door.ask(tracer.request)
    refused(answer, "While running")
    assert "test_attacks.py line" in answer.error["line"]
    assert answer.error["kind"] == "RuntimeError"


def test_random_numbers_are_each_jobs_own_and_edits_stay_in_it(door: Door, tiny: Any) -> None:
    def ask() -> tuple[Answer, Any]:
        with packed(tiny, PROMPT) as tracer:
            tiny.transformer.h[0].output[:] = torch.randn(1, 6, 8)
            drawn = traced(torch.rand(4)).save()
        return door.ask(tracer.request), drawn

    (first, one), (second, two) = ask(), ask()
    assert first.clean
    assert second.clean
    assert not torch.equal(first.value(one), second.value(two))


def test_memory_that_was_anothers_is_never_shown(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        secret = torch.full((100_000,), 7.0) + tiny.lm_head.output.sum()
        traced(secret.sum()).save()
    door.ask(tracer.request)
    with packed(tiny, PROMPT) as tracer:
        kept = [traced(torch.empty(100_000)).save(), tiny.lm_head.output.new_empty(100_000).save()]
        tiny.lm_head.output.sum().save()
    answer = door.ask(tracer.request)
    assert all(answer.value(each).count_nonzero() == 0 for each in kept)


def asked(door: Door, tiny: Any, name: str) -> Answer:
    """A job that calls an operator's function."""
    with packed(tiny, PROMPT) as tracer:
        recorder = tracer._recorder
        recorder.add(function(name), (tiny.lm_head.output,)).save()
    return door.ask(tracer.request)


@pytest.mark.parametrize("name", ["socket", "program", "file", "signal"])
def test_a_worker_has_no_network_no_programs_and_no_files(name: str, door: Door, tiny: Any) -> None:
    answer = asked(door, tiny, name)
    refused(answer, "a job")
    assert answer.error["kind"] == "PermissionError"


def test_a_worker_has_no_network_below_python_either(door: Door, tiny: Any) -> None:
    outcome = asked(door, tiny, "raw socket").outcome
    assert outcome is not None
    assert [each.item() for each in outcome.values.values()] == [-1]


@pytest.mark.parametrize("name", ["hook", "dtype", "training"])
def test_a_function_that_leaves_something_simple(name: str, door: Door, tiny: Any) -> None:
    before = door.child.pid
    assert asked(door, tiny, name).clean
    assert door.child.pid == before


def test_a_function_that_changes_weights_where_no_version_sees_it(door: Door, tiny: Any) -> None:
    with packed(tiny, PROMPT) as tracer:
        weight = tiny.lm_head.weight
        weight[0] = 0
        tracer._recorder.add(function("data"), (tiny.lm_head.output,)).save()
    assert not door.ask(tracer.request).clean


def test_a_crash(door: Door, tiny: Any) -> None:
    assert "SIGABRT" in asked(door, tiny, "crash").lost


def test_a_cancelled_job_ends_and_leaves_nothing(door: Door, tiny: Any) -> None:
    with PackedSession(tiny) as session:
        with session.iter(list(range(190))):
            with tiny.trace(PROMPT):
                tiny.lm_head.output.sum()
            wb.list([torch.rand(700, 700) @ torch.rand(700, 700) @ torch.rand(700, 700)])
        wb.list([1]).save()
    door._loop.call_soon_threadsafe(lambda: door._loop.call_later(0.3, door.child.cancel))
    answer = door.ask(session.request)
    assert answer.error["kind"] == "Cancelled"
    assert answer.clean


# ---- the whole list

CASES: dict[str, tuple[object, ...]] = {
    "dunder attribute": ("a dunder attribute", "a private attribute", "a dunder method"),
    "operation named os.system": ("os.system", "eval"),
    "torch.load, save, hub, from_file, ops": (
        "torch.load", "torch.serialization.load", "torch.save", "torch.hub.load", "torch.from_file", "torch.ops",
    ),
    "numpy tofile": ("numpy", "numpy's tofile", "numpy.ndarray.tofile"),
    "einops string abuse": ("einops", "einsum's words", "einsum's code"),
    "module-path traversal": (test_paths_are_looked_up_and_walk_nowhere,),
    "zeros(10**12)": (test_zeros_of_a_trillion,),
    "doubling cat": (test_a_cat_that_doubles,),
    "expand-then-save": (test_what_is_expanded_counts_as_if_it_were_written_out,),
    "endless loop": (test_loops_without_an_end, test_endless_generation_and_tokens_that_are_none),
    "long svd": (test_a_long_svd_is_killed_at_its_deadline,),
    "big-integer power": (test_arithmetic_that_explodes, test_texts_and_numbers_that_double),
    "format-width bomb": ("a width of a format", "format", "center", test_texts_and_numbers_that_double),
    "log flood": (test_a_flood_of_lines_is_cut,),
    "huge result": (test_a_huge_result,),
    "zstd bomb": (test_bodies_that_are_none,),
    "100,000-deep JSON": (test_bodies_that_are_none,),
    "oversized body": (
        test_bodies_that_are_none, test_server.test_what_is_no_request,
        test_server.test_a_body_that_says_nothing_of_its_length_is_cut_off,
    ),
    "duplicate keys, NaN": (test_bodies_that_are_none,),
    "lying safetensors header": (test_bodies_that_are_none,),
    "forward and cyclic references": ("a reference forward", "a reference to itself", "a loop over itself"),
    "param.data.zero_()": (
        "data", test_weights_that_were_changed_are_seen_and_the_worker_is_replaced,
        test_a_function_that_changes_weights_where_no_version_sees_it, test_weights_as_running_means_of_a_norm,
    ),
    "buffer-view edit": (test_a_view_of_a_buffer_that_is_edited,),
    "hook leak after error": (test_an_error_in_the_middle_leaves_no_hook,),
    "edit, RNG, dtype leak": (
        test_random_numbers_are_each_jobs_own_and_edits_stay_in_it, test_a_function_that_leaves_something_simple,
        "torch.set_default_dtype", "torch.manual_seed",
    ),
    "another key's result": (
        test_server.test_no_key_sees_anothers_job, test_server.test_without_a_key_nothing_is_told,
        test_memory_that_was_anothers_is_never_shown, test_together.test_nobody_gets_anothers_rows,
    ),
    "slow readers": (test_server.test_those_who_listen_slowly_hold_up_nobody,),
}  # fmt: skip
"""Each attack that a server must withstand, and what tries it: a statement of the table above, or a test."""


@pytest.mark.parametrize("case", CASES)
def test_each_attack_is_tried(case: str) -> None:
    for each in CASES[case]:
        assert each in STATEMENTS if isinstance(each, str) else callable(each)
