"""What the panel sees of a kernel: models and plain modules, the tree in columns, tokens laid side by side, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import workbench as wb
from tests.tiny import gpt2
from workbench.errors import InputError
from workbench.jupyter import forms, look
from workbench.jupyter.tree import columns, tree


class Tied(nn.Module):
    """Two layers that share one weight, and a list of three that are alike but for the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.stack = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_the_columns_say_the_same_as_the_module() -> None:
    module = gpt2().module
    found = columns(gpt2())
    paths = [""]
    for row in range(1, len(found.names)):
        above = paths[found.parents[row]]
        paths.append(f"{above}.{found.name(row)}" if above else found.name(row))
    named = dict(module.named_modules())
    assert paths == list(named)
    assert [found.classes[cls] for cls in found.cls] == [type(each).__name__ for each in named.values()]
    assert list(found.parameters) == [sum(p.numel() for p in each.parameters()) for each in named.values()]
    assert {paths[row]: name for row, name in found.standard.items()}["transformer.h.1.mlp"] == "layers[1].mlp"


def test_a_shared_weight_counts_once_and_only_the_same_structure_has_the_same_key() -> None:
    found = columns(wb.NNsight(Tied()))
    rows = {found.name(row): row for row in range(len(found.names))}
    assert found.parameters[0] == 4 + 6 + 6 + 9
    assert (found.parameters[rows["first"]], found.parameters[rows["second"]]) == (4, 4)
    assert found.keys[rows["0"]] == found.keys[rows["1"]] != found.keys[rows["2"]]


def test_columns_cross_as_bytes_and_are_made_anew_when_a_module_is_attached() -> None:
    model = wb.NNsight(Tied())
    reply, buffers = tree("tied", model)
    numbers = np.frombuffer(buffers[0], np.int32).reshape(4, reply.rows)
    assert reply.name == "tied"
    assert [reply.words[word] for word in numbers[1]] == ["", "first", "second", "stack", "0", "1", "2"]
    assert numbers[0].tolist() == [-1, 0, 0, 0, 3, 3, 3]
    assert np.frombuffer(buffers[1], np.float64).tolist() == [25, 4, 4, 21, 6, 6, 9]
    assert columns(model) is columns(model)
    model.stack[0].extra = nn.Linear(2, 2)
    assert len(columns(model).parents) == reply.rows + 1


def test_plain_modules_are_offered_unless_a_model_has_them() -> None:
    net = Tied()
    wrapped = wb.NNsight(nn.Sequential(nn.Linear(1, 1)))
    namespace = {"net": net, "part": net.first, "model": wrapped, "inside": wrapped.module, "_own": nn.ReLU(), "x": 1}
    assert list(look.modules_in(namespace)) == ["net"]
    assert look.wrap("net", {"net": net}).code == "import workbench as wb\nmodel = wb.NNsight(net)"
    assert look.wrap("net", namespace | {"wb": wb}).code == "net_model = wb.NNsight(net)"
    with pytest.raises(InputError, match="no module named 'part'"):
        look.wrap("part", namespace)


def test_a_hugging_face_model_is_wrapped_with_the_tokenizer_beside_it() -> None:
    model = gpt2()
    namespace = {"gpt": model.module, "tok": model.tokenizer, "wb": wb}
    code = look.wrap("gpt", namespace).code
    assert code == "model = wb.LanguageModel(gpt, tokenizer=tok)"
    exec(code, namespace)
    assert look.info("model", namespace["model"]).tokenizes


@pytest.mark.parametrize(
    ("prompts", "rows"),
    [
        ([(1, 2, 3)], [(0, 1, 2)]),
        ([(1, 2, 3), (1, 4, 3)], [(0, 1, 2), (0, 1, 2)]),
        ([(1, 2, 3), (1, 4, 5, 3)], [(0, 1, None, 2), (0, 1, 2, 3)]),
        ([(1, 3), (1, 2, 3), (2, 3)], [(0, None, 1), (0, 1, 2), (None, 0, 1)]),
        ([(), (7,)], [(None,), (0,)]),
    ],
)
def test_tokens_that_correspond_stand_in_one_column(prompts: list[tuple[int, ...]], rows: list[tuple]) -> None:
    assert list(look.aligned(prompts)) == rows


def test_shapes_are_those_of_a_real_run() -> None:
    model = gpt2()
    reply = look.shapes(model, "the dog ran")
    assert reply.shapes is not None
    real: dict[str, tuple[int, ...]] = {}

    def note(path: str, out: Any) -> None:
        first = next(iter(out.values())) if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
        real[path] = tuple(first.shape)

    handles = [
        module.register_forward_hook(lambda module, args, out, path=path: note(path, out))
        for path, module in model.module.named_modules()
    ]
    model.trace("the dog ran", trace=False)
    for handle in handles:
        handle.remove()
    sizes = reply.shapes.sizes
    shown = {envoy.path: sizes[at] for envoy, at in zip(model.walk(), reply.shapes.output, strict=True) if at >= 0}
    assert shown == real
    blocks = [envoy.path for envoy in model.walk()].index("transformer.h")
    assert reply.shapes.reasons[reply.shapes.why[blocks]] == "not called when this prompt is run"


def test_a_form_has_all_of_a_new_card_but_its_id_place_and_name() -> None:
    for kind in forms.kinds().kinds:
        fields = kind.form["properties"]
        assert isinstance(fields, dict)
        assert fields.keys() - kind.new.keys() <= {"id", "enabled", "kind", "at", "name"}
        assert kind.new.keys() <= fields.keys()
