"""Fuzz: requests as a trace would write them, then changed at random: what no client of ours would send."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

import torch

import workbench as wb
from tests.doors import PackedSession, packed, with_head
from workbench.graph.allowed import table
from workbench.graph.package import pack

_STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**19, 0.5, -1e308, 1e-320, "", "x", "__class__", "../..",
    "os.system", "\0", "é" * 50, [], {}, [[]], {"ref": 0}, {"ref": 1}, {"ref": 99}, {"ref": -1}, {"ref": "0"},
    {"argument": "tensor_0"}, {"argument": "nothing"}, {"tensor": "x"}, {"site": ["lm_head", "output", 0, "", 0]},
    {"site": ["", "input", 0, "", 0]}, {"site": ["nowhere", "output", -1, "x", 9]}, {"tuple": [1, 2]},
    {"slice": [None, None, None]}, {"slice": [{"ref": 0}, 1, 0]}, {"dtype": "torch.float64"}, {"dtype": "os"},
    {"dict": [["dim", 0]]}, {"dict": [[1]]}, {"list": []}, {"pickle": "gASV"}, {"device": "cuda:99"}, {"shape": [2]},
]  # fmt: skip
_MARKERS = """site swap skip stop log module weight grad swap_grad backward cond either trace loop steps item exit
getattr setattr getitem setitem delitem method constant parameter optimizer first_input with_first_input list dict
function:halved os.system builtins.eval torch.load""".split()  # fmt: skip
_NAMES = "shape dtype output append keys split item sum argmax zero_ T grad data numpy __dict__ logits".split()


def seeds(model: Any) -> list[bytes]:
    """Requests of every kind, as they are packed."""
    made = []
    with packed(model, "the cat sat on a mat") as tracer:
        model.transformer.h[0].mlp.output[:, -1] = 0
        hidden = model.transformer.h[1].output
        model.transformer.h[1].output = hidden * 2 + torch.ones(hidden.shape[-1])
        with tracer.cond(hidden.sum() > 0):
            tracer.log(hidden.mean())
        model.lm_head.output[:, -1].topk(3).values.save()
    made.append(tracer.request)
    with packed(model) as tracer:
        with tracer.invoke("a dog"):
            grad = model.transformer.h[0].output.grad.save()
            model.lm_head.output.sum().backward()
        with tracer.invoke("the cat sat"):
            model.transformer.h[0].output[:, 0] = torch.nn.functional.softmax(model.transformer.wte.output, -1)[:, 0]
    made.append(tracer.request)
    with packed(model, "a dog run", kind="generate", max_new_tokens=2) as tracer:
        steps = wb.list().save()
        with tracer.all():
            steps.append(model.lm_head.output[:, -1].argmax(-1))
        tokens = model.generator.output.save()
    made.append(tracer.request)
    with PackedSession(model) as session:
        weight = torch.nn.Parameter(torch.randn(128, 2))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        with session.iter([1, 2], return_context=True) as (item, loop):
            with model.trace("the cat"):
                (model.transformer.h[1].output @ weight * item).sum().backward()
            optimizer.step()
            with loop.cond(item == 1):
                loop.exit()
        weight.save()  # type: ignore[attr-defined]
    made.append(session.request)
    del grad, tokens
    return [pack(each) for each in made]


def changed(data: bytes, chance: random.Random) -> bytes:
    """The same request, changed in one to four places."""
    if chance.random() < 0.1:
        return _garbled(data, chance)
    length = int.from_bytes(data[8:16], "little")
    head = json.loads(data[16 : 16 + length])
    for _ in range(chance.randint(1, 4)):
        try:
            chance.choice(_CHANGES)(head, chance)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            continue  # an earlier change took away what this one is about
    return with_head(data, json.dumps(head).encode())


def _garbled(data: bytes, chance: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        made[chance.randrange(len(made))] = chance.randrange(256)
    return bytes(made[: chance.randrange(len(made))] if chance.random() < 0.3 else made)


def _node(head: Any, chance: random.Random) -> Any:
    return chance.choice(head["graph"]["nodes"])


def _strange(chance: random.Random, *more: Any) -> Any:
    """One of the strange values, of its own: a later change may be inside it."""
    return deepcopy(chance.choice([*_STRANGE, *more]))


def _operation(head: Any, chance: random.Random) -> None:
    _node(head, chance)["op"] = chance.choice(_MARKERS if chance.random() < 0.4 else list(table()))


def _argument(head: Any, chance: random.Random) -> None:
    args = _node(head, chance)["args"]
    what = _strange(chance, *_NAMES)
    args.insert(chance.randint(0, len(args)), what) if chance.random() < 0.3 else args.__setitem__(
        chance.randrange(len(args)), what
    )


def _named(head: Any, chance: random.Random) -> None:
    name = chance.choice(["dim", "out", "inplace", "dtype", "x"])
    _node(head, chance).setdefault("kwargs", {})[name] = _strange(chance)


def _field(head: Any, chance: random.Random) -> None:
    name = chance.choice(["block", "invoke", "guard", "line", "modes", "op", "args"])
    _node(head, chance)[name] = _strange(chance)


def _order(head: Any, chance: random.Random) -> None:
    nodes = head["graph"]["nodes"]
    one, other = chance.randrange(len(nodes)), chance.randrange(len(nodes))
    nodes[one], nodes[other] = nodes[other], nodes[one]


def _less(head: Any, chance: random.Random) -> None:
    nodes = head["graph"]["nodes"]
    del nodes[chance.randrange(len(nodes))]


def _more(head: Any, chance: random.Random) -> None:
    nodes = head["graph"]["nodes"]
    refs = [{"ref": chance.randrange(len(nodes))} for _ in range(chance.randint(0, 3))]
    extra = [_strange(chance, *_NAMES) for _ in range(chance.randint(0, 2))]
    nodes.append({"op": chance.choice(list(table())), "args": refs + extra})
    if chance.random() < 0.7:
        head["graph"]["saved"].append(len(nodes) - 1)


def _anywhere(head: Any, chance: random.Random) -> None:
    """Something else in a place at random, whatever it is."""
    place: Any = head
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = chance.choice(list(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or chance.random() < 0.2:
            break
        place = place[key]
    if chance.random() < 0.2:
        del place[key]
    else:
        place[key] = _strange(chance)


_CHANGES = (_operation, _argument, _argument, _named, _field, _order, _less, _more, _more, _anywhere)
