"""A graph as data: what comes back does what was written, and nothing else is let in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import workbench as wb
from tests.families import family
from workbench.errors import InputError, PathError, WireError
from workbench.graph.wire import from_wire, to_wire


def net() -> Any:
    torch.manual_seed(0)
    return wb.NNsight(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))


def carried(edited: Any, folder: Path) -> Any:
    """The same edits on the bare model, by way of a file."""
    edited.save_edits(folder / "edits.safetensors")
    bare = edited._view()
    bare.__dict__["_edits"] = ()
    return bare.load_edits(folder / "edits.safetensors")


FACTOR = torch.tensor([1.0, -2.0, 3.0, 0.5, 0.0, 1.5])

STATEMENTS: list[Any] = [
    lambda m: m[0].output.__setitem__((slice(None), 1), 0),
    lambda m: m[0].output.__setitem__((..., slice(2, None, 2)), m[0].output[..., 0:1]),
    lambda m: setattr(m[1], "output", m[1].output * FACTOR),
    lambda m: setattr(m[1], "output", torch.where(m[1].output > 0.1, m[1].output, torch.zeros(6))),
    lambda m: setattr(m[2], "input", torch.nn.functional.gelu(m[2].input, approximate="tanh")),
    lambda m: setattr(m[2], "output", m[2].output.to(torch.float64).sum(-1, keepdim=True).float().expand(-1, 3) + 1.5),
    lambda m: setattr(m[2], "output", m[2].output @ m[2].weight @ m[2].weight.T + m[2].bias),
    lambda m: setattr(m[2], "output", m[2].output - m[2](m[1].output * float("inf")).nan_to_num(0, 1, -1)),
    lambda m: setattr(m[0], "output", torch.stack([m[0].output, m[0].output.flip(-1)]).mean(0)),
    lambda m: m[1].output.mul_(torch.ones(2, 6).cumsum(1)[0]),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(range(len(STATEMENTS))), min_size=1, max_size=5))
def test_edits_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, chosen: list[int]) -> None:
    model = net()
    with model.edit() as edited:
        for index in chosen:
            STATEMENTS[index](model)
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    again = carried(edited, tmp_path_factory.mktemp("edits"))
    assert torch.equal(again.trace(x, trace=False), edited.trace(x, trace=False))


def test_what_is_carried_is_what_plain_hooks_do(tmp_path: Path) -> None:
    model = net()
    with model.edit() as edited:
        model[1].output[:, 2] = FACTOR[2]
        model[2].output = model[2].output * 2
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    hidden = model.module[:2](x)
    hidden[:, 2] = 3.0
    assert torch.equal(carried(edited, tmp_path).trace(x, trace=False), model.module[2](hidden) * 2)


def test_edits_stack_in_place_and_are_cleared(tmp_path: Path) -> None:
    model = net()
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    plain = model.trace(x, trace=False)
    with model.edit() as edited:
        model.output = model.output + 1
    edited.save_edits(tmp_path / "one.safetensors")
    with model.edit(inplace=True):
        model.output = model.output * 3
    model.load_edits(tmp_path / "one.safetensors", inplace=True)
    torch.testing.assert_close(model.trace(x, trace=False), plain * 3 + 1)
    model.clear_edits()
    assert torch.equal(model.trace(x, trace=False), plain)


def test_on_another_model_of_the_same_make_and_in_generation(tmp_path: Path) -> None:
    ids = [[5, 9, 14, 21]]
    model: Any = wb.LanguageModel(family("llama")[0])
    other: Any = wb.LanguageModel(family("llama")[0])
    with model.edit() as edited:
        model.model.layers[1].output = model.model.layers[1].output * 0.5
        model.lm_head.output[..., 7] = 100.0
    edited.save_edits(tmp_path / "edits.safetensors")
    again = other.load_edits(tmp_path / "edits.safetensors")
    tokens = again.generate(ids, max_new_tokens=3, trace=False)
    assert tokens[0, 4:].tolist() == [7, 7, 7]
    assert torch.equal(tokens, edited.generate(ids, max_new_tokens=3, trace=False))
    assert not torch.equal(other.generate(ids, max_new_tokens=3, trace=False), tokens)


def test_whole_graphs_of_every_kind_go_there_and_back() -> None:
    model = net()
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    with model.trace() as tracer:
        with tracer.invoke(x):
            hidden = model[0].output
            with tracer.cond(hidden.sum() > -100):
                model[1].output = hidden * 2
            model.output.save()
            loss = model.output.sum()
            grad = hidden.grad.save()
            loss.backward()
        with tracer.invoke(x * 2):
            model[2].output[:] = hidden[:, :3]
    assert grad.shape == (2, 6)
    data, tensors = to_wire(tracer.graph, {})
    graph, bindings = from_wire(json.loads(json.dumps(data)), tensors)
    assert graph.to_python() == tracer.graph.to_python()
    assert to_wire(graph, bindings) == (data, tensors)


def wrong(statement: Any) -> Any:
    model = net()
    with model.edit() as edited:
        statement(model)
    return edited


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (lambda m: setattr(m, "output", wb.apply(lambda x: x * 2, m.output)), "the function <lambda> is not torch's"),
        (lambda m: setattr(m, "output", wb.apply(carried, m.output)), "the function carried is not torch's"),
        (lambda m: setattr(m, "output", wb.apply(torch.add, m.output, nn.Identity())), "a Identity cannot travel"),
        (lambda m: m.output.numpy(), "the attribute 'numpy' may not be used"),
    ],
)
def test_what_cannot_be_kept_is_refused_on_its_line(statement: Any, said: str, tmp_path: Path) -> None:
    edited = wrong(statement)
    with pytest.raises(WireError, match=said):
        edited.save_edits(tmp_path / "edits.safetensors")
    assert not (tmp_path / "edits.safetensors").exists()


def tampered(change: Any, tmp_path: Path) -> Any:
    """A file in which something was changed."""
    edited = wrong(lambda m: setattr(m[0], "output", m[0].output.abs() * FACTOR))
    edited.save_edits(tmp_path / "edits.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "edits.safetensors", "pt") as file:
        header = file.metadata()
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in list(file.keys())}
    graphs = json.loads(header["graphs"])
    change(graphs[0], header, tensors)
    header["graphs"] = json.dumps(graphs)
    save_file(tensors, tmp_path / "edits.safetensors", header)
    return net().load_edits(tmp_path / "edits.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g, h, t: g["nodes"][1].update(op="os.system"), "'os.system' is no operation that may stand in a file"),
        (lambda g, h, t: g["nodes"][1]["args"].__setitem__(1, "__class__"), "the attribute '__class__' may not be"),
        (lambda g, h, t: g["nodes"][1]["args"].__setitem__(1, "numpy"), "the attribute 'numpy' may not be used"),
        (lambda g, h, t: g["nodes"][1]["args"].__setitem__(0, {"ref": 9}), "node 1 reads what comes after it"),
        (lambda g, h, t: g.update(version=99), "of version 99, and this workbench reads versions 1 and 2"),
        (lambda g, h, t: g.update(saved=[99]), "keeps nodes that it does not have"),
        (lambda g, h, t: g["nodes"][0].pop("op"), "this is no graph of a workbench"),
        (lambda g, h, t: t.clear(), "the tensors tensor_0 are missing beside this graph"),
        (lambda g, h, t: h.update(kind="other"), "holds no edits; they are written by"),
    ],
)
def test_a_file_that_was_changed_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(WireError, match=said):
        tampered(change, tmp_path)


def test_other_files_and_other_models(tmp_path: Path) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(WireError, match="no safetensors file"):
        net().load_edits(tmp_path / "no.safetensors")
    with pytest.raises(InputError, match="no edits to save"):
        net().save_edits(tmp_path / "none.safetensors")
    wrong(lambda m: setattr(m[2], "output", m[2].output * 2)).save_edits(tmp_path / "edits.safetensors")
    with pytest.raises(PathError, match="no module at '2'"):
        wb.NNsight(nn.Sequential(nn.Identity())).load_edits(tmp_path / "edits.safetensors")
