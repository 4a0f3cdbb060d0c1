"""What each kind of view tells, beside the same worked out in plain torch."""

from __future__ import annotations

import base64
import json
import math
import re
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import workbench as wb
from workbench.engine.axes import Axes
from workbench.errors import InputError
from workbench.site import Site
from workbench.views import png
from workbench.views.array import array, axis_names, tile
from workbench.views.attention import attention, scores
from workbench.views.gradient import gradient
from workbench.views.grid import Buffers, Side, draw, spread
from workbench.views.header import ArrayView, AttentionView, GradientView, LogitsView, NeuronsView, ResidualView
from workbench.views.kinds import facts_of, kind_of, kinds_of
from workbench.views.logits import logits
from workbench.views.mlp import mlp
from workbench.views.observe import look, subject
from workbench.views.residual import residual
from workbench.views.view import MIME

EIFFEL = "The Eiffel Tower is in the city of"


@pytest.fixture(scope="module")
def model() -> Any:
    model: Any = wb.demo("gpt2")
    model.trace("The", trace=False)  # loads the weights
    return model


def plain(model: Any) -> Any:
    """The same pass by transformers alone, in which attention is computed step by step."""
    ids = model.tokenizer(EIFFEL, return_tensors="pt").input_ids
    model.module.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return model.module(ids, output_hidden_states=True, output_attentions=True)
    finally:
        model.module.set_attn_implementation("sdpa")


# ---- any array


def test_a_picture_has_the_numbers_of_the_two_axes_and_the_index_of_the_others() -> None:
    value = torch.randn(2, 3, 5, 4)
    view = array(value, down=3, across=1, index=(1, 0, 2, 0))
    assert isinstance(view.header, ArrayView)
    assert view.header.grid is not None
    assert np.array_equal(view.numbers(view.header.grid)[0], value[1, :, 2].T.numpy())
    assert np.array_equal(view.to_dataframe().to_numpy(), value[1, :, 2].T.numpy())


def test_a_tile_is_merged_by_mean_or_by_what_is_largest() -> None:
    value = torch.randn(100, 64)
    kept = Buffers()
    grid = tile(value, 0, 1, (0, 0), kept, window=(10, 90, 0, 64), most=(20, 16))
    assert (grid.rows.start, grid.rows.size, grid.rows.step, grid.rows.length) == (10, 20, 4, 100)
    assert (grid.columns.size, grid.columns.step) == (16, 4)
    mean = value[10:90].reshape(20, 4, 16, 4).mean((1, 3))
    assert np.allclose(np.frombuffer(kept.parts[0], np.float32).reshape(20, 16), mean, atol=1e-6)

    tile(value, 0, 1, (0, 0), kept, window=(10, 90, 0, 64), most=(20, 16), merged="largest")
    cells = value[10:90].reshape(20, 4, 16, 4).permute(0, 2, 1, 3).reshape(20, 16, 16)
    largest = cells.gather(-1, cells.abs().argmax(-1, keepdim=True))[..., 0]
    assert np.array_equal(np.frombuffer(kept.parts[1], np.float32).reshape(20, 16), largest)


def test_the_last_cell_stands_for_what_is_left() -> None:
    grid = draw(torch.arange(7.0)[None], Side("r"), Side("c", tuple("abcdefg")), kept := Buffers(), most=(1, 3))
    assert np.frombuffer(kept.parts[0], np.float32).tolist() == [1, 4, 6]
    assert grid.columns.labels == ("a …c", "d …f", "g")


def test_what_is_no_number_is_counted_and_stays() -> None:
    value = torch.tensor([[1.0, math.nan, math.inf, -math.inf, 2.0, 0.0]])
    view = array(value)
    assert isinstance(view.header, ArrayView)
    grid = view.header.grid
    assert grid is not None
    assert (grid.nan, grid.infinite) == (1, 2)
    assert np.array_equal(view.numbers(grid)[0], value.numpy(), equal_nan=True)


def test_colours_end_at_three_deviations() -> None:
    value = torch.cat([torch.randn(9999), torch.tensor([80.0])])
    view = array(value)
    assert isinstance(view.header, ArrayView)
    assert view.header.grid is not None
    limit = 3 * float(value.double().square().mean().sqrt())
    assert view.header.grid.limit == pytest.approx(limit, rel=1e-5)
    assert spread(value) == pytest.approx(limit, rel=1e-5)
    assert spread(torch.zeros(3)) == 1.0
    assert spread(torch.full((2,), math.nan)) == 1.0
    assert spread(torch.tensor([1e30, -1e30])) == pytest.approx(1e30)  # whose squares are too large
    assert array(torch.tensor([[1.0, -1.0, 40.0] + [0.1] * 97])).header.grid.clipped == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (torch.tensor([[True, False]]), [[1, 0]]),
        (torch.tensor([3 + 4j]), [[5]]),
        (torch.tensor(2.5), [[2.5]]),
        (torch.tensor([1, 2], dtype=torch.int64), [[1, 2]]),
        (torch.tensor([0.5], dtype=torch.bfloat16), [[0.5]]),
        (torch.ones(1, 1, requires_grad=True), [[1]]),
        (torch.arange(4.0).reshape(2, 2).T, [[0, 2], [1, 3]]),
    ],
)
def test_every_dtype_is_drawn(value: Tensor, shown: list[list[float]]) -> None:
    assert array(value).to_dataframe().to_numpy().tolist() == shown


@pytest.mark.parametrize(
    "value",
    [torch.empty(0, 3), torch.empty(2, device="meta"), torch.eye(2).to_sparse()],
    ids=["empty", "meta", "sparse"],
)
def test_what_has_no_numbers_says_so(value: Tensor) -> None:
    assert array(value).header.note == "there are no numbers to draw"


def test_what_is_not_there_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="index 5 of axis 0, which has 2"):
        array(torch.zeros(2, 3, 4), index=(5, 0, 0))
    with pytest.raises(InputError, match="choose two different ones"):
        array(torch.zeros(2, 3), down=1, across=1)
    with pytest.raises(InputError, match="rows 0:9"):
        tile(torch.zeros(2, 3), 0, 1, (0, 0), Buffers(), window=(0, 9, 0, 1))


def test_a_tensor_of_eight_billion_numbers_is_browsed_by_its_tiles() -> None:
    value = torch.arange(16384, dtype=torch.int32).expand(126, 4096, 16384)  # numbers, but no memory
    assert axis_names(value.shape) == ("batch", "position", "feature")
    began = time.perf_counter()
    kept = Buffers()
    grid = tile(value, 1, 2, (7, 0, 0), kept, window=(1000, 1512, 5000, 6024))
    assert np.frombuffer(kept.parts[0], np.float32).reshape(512, 1024)[3].tolist() == list(range(5000, 6024))
    assert grid.columns.length == 16384
    assert len(kept.parts[0]) == 512 * 1024 * 4
    assert time.perf_counter() - began < 5


def test_four_million_numbers_are_ready_in_a_moment() -> None:
    value = torch.randn(1024, 4096)
    array(value)
    began = time.perf_counter()
    view = array(value)
    assert sum(map(len, view.buffers)) <= 512 * 1024 * 4
    assert time.perf_counter() - began < 0.6  # 0.1 s on a quiet core


# ---- colours


def test_a_png_marks_what_the_page_marks() -> None:
    value = torch.tensor([[0.1] * 97 + [-0.1, 40.0, -40.0], [0.0] * 97 + [math.nan, math.inf, -math.inf]])
    view = array(value)
    assert isinstance(view.header, ArrayView)
    assert view.header.grid is not None
    found = png.colours(view.numbers(view.header.grid)[0], view.header.grid)
    assert [tuple(each) for each in found[0, 98:].tolist()] == [png.OVER, png.UNDER]
    assert [tuple(each) for each in found[1, 96:].tolist()] == [png.MIDDLE, png.MISSING, png.INFINITE, png.INFINITE]
    pattern = attention(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert isinstance(pattern.header, AttentionView)
    shown = png.colours(pattern.numbers(pattern.header.pattern)[0], pattern.header.pattern)
    assert [tuple(each) for each in shown.reshape(4, 3).tolist()] == [png.BELOW, png.LATER, png.MIDDLE, png.BELOW]


MACHADO = {  # how full deficiencies see linear RGB: Machado, Oliveira, Fernandes 2009, severity 1
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colour: Any, seen: Any) -> Any:
    """CIE L*a*b* of an sRGB colour as it is seen."""
    linear = np.asarray(colour) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(np.asarray(seen) @ linear, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", [np.eye(3), *MACHADO.values()], ids=["all", *MACHADO])
@pytest.mark.parametrize("theme", ["LIGHT", "DARK"])
def test_ends_and_marks_are_told_apart_by_every_eye(theme: str, seen: Any) -> None:
    source = (Path(__file__).parents[1] / "labextension" / "src" / "views" / "colours.ts").read_text()
    block = source.split(f"const {theme}: Theme = {{")[1].split("}")[0]
    colours = {name: tuple(map(int, rgb.split(","))) for name, rgb in re.findall(r"(\w+): \[([\d, ]+)\]", block)}
    if theme == "LIGHT":
        names = ("below", "neutral", "above", "under", "over", "infinite", "missing", "later")
        same = (png.BELOW, png.MIDDLE, png.ABOVE, png.UNDER, png.OVER, png.INFINITE, png.MISSING, png.LATER)
        assert tuple(colours[name] for name in names) == same
    far = lambda one, other: float(np.linalg.norm(lab(colours[one], seen) - lab(colours[other], seen)))  # noqa: E731
    signed = ("below", "neutral", "above")
    assert min(far(one, other) for one, other in combinations(signed, 2)) > 40  # a just noticeable difference is 2.3
    assert min(far("under", "below"), far("over", "above"), far("under", "over")) > 15
    assert min(far("missing", each) for each in (*signed, "under", "over", "infinite")) > 15
    assert far("later", "neutral") > 4


# ---- attention


def test_scores_of_heads_made_by_hand() -> None:
    size = 6
    before = torch.zeros(size, size)
    before[0, 0] = 1
    before[range(1, size), range(size - 1)] = 1
    even = torch.ones(size, size).tril()
    even /= even.sum(-1, keepdim=True)
    induction = torch.eye(size)
    ids = [1, 2, 3, 1, 2, 3]  # 3 → 1, 4 → 2, 5 → 3: after the same token before
    induction[3:] = 0
    induction[3, 1] = induction[4, 2] = induction[5, 3] = 1
    found = scores(torch.stack([before, even, induction]), ids)
    assert [each.previous for each in found] == pytest.approx([1, (1 / torch.arange(2.0, 7)).mean().item(), 0])
    assert found[0].entropy == pytest.approx(0)
    assert found[1].entropy == pytest.approx(math.log(math.factorial(6)) / 6)
    assert [each.induction for each in found] == pytest.approx([0, (1 / 4 + 1 / 5 + 1 / 6) / 3, 1])
    assert scores(even[None], range(size))[0].induction is None


def test_an_attention_view_has_the_models_own_patterns(model: Any) -> None:
    view = look("attention", subject(model, EIFFEL), layer=1)
    header = view.header
    assert isinstance(header, AttentionView)
    assert (header.layer, header.layers, header.heads, header.pattern.causal) == (1, 4, (0, 1, 2, 3), True)
    assert np.allclose(view.numbers(header.pattern), plain(model).attentions[1][0].numpy(), atol=1e-6)
    assert header.pattern.columns.labels[1] == " Eiffel"


def test_long_prompts_send_one_head_whole_and_all_small() -> None:
    pattern = torch.softmax(torch.randn(12, 700, 700) + torch.full((700, 700), -torch.inf).triu(1), -1)
    view = attention(pattern, head=5)
    assert isinstance(view.header, AttentionView)
    assert view.header.heads == (5,)
    assert np.allclose(view.numbers(view.header.pattern)[0], pattern[5])
    assert view.numbers(view.header.thumbs).shape[1:] == (47, 47)
    assert view.header.pattern.causal


# ---- residual


def test_norms_and_the_lens_are_those_of_the_hidden_states(model: Any) -> None:
    view = look("residual", subject(model, EIFFEL))
    header = view.header
    assert isinstance(header, ResidualView)
    assert header.lens is not None
    found = plain(model)
    streams = torch.stack(found.hidden_states[:-1])[:, 0]  # transformers gives the last one after the final norm
    assert np.allclose(view.numbers(header.norms)[0][:-1], streams.norm(dim=-1), rtol=1e-5)
    with torch.no_grad():
        p = model.module.lm_head(model.module.transformer.ln_f(streams)).softmax(-1).max(-1)
        last = found.logits[0].softmax(-1).max(-1)
    assert np.allclose(view.numbers(header.lens)[0][:-1], p.values, atol=1e-5)
    assert np.allclose(view.numbers(header.lens)[0][-1], last.values, atol=1e-5)
    texts = [model.tokenizer.decode([id]) for id in [*p.indices.flatten().tolist(), *last.indices.tolist()]]
    assert list(header.lens.texts) == texts
    assert header.norms.rows.labels == ("embedding", "layer 0", "layer 1", "layer 2", "layer 3")


def test_a_stream_without_a_model_has_norms_alone() -> None:
    view = residual(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), ["a", "b"])
    assert isinstance(view.header, ResidualView)
    assert view.header.lens is None
    assert view.to_dataframe()["norm"].tolist() == [5, 1]


# ---- logits


def test_ranks_probabilities_and_kl_are_torchs_own() -> None:
    before, after = torch.randn(3, 50), torch.randn(3, 50)
    view = logits(after, before, top=4)
    assert isinstance(view.header, LogitsView)
    assert [at.position for at in view.header.at] == [0, 1, 2]
    for at in view.header.at:
        p, q = after[at.position].softmax(-1), before[at.position].softmax(-1)
        kl = torch.nn.functional.kl_div(p.log(), q, reduction="sum")
        assert at.kl == pytest.approx(float(kl), rel=1e-4)
        assert {each.id for each in at.top} == {*p.topk(4).indices.tolist(), *q.topk(4).indices.tolist()}
        for each in at.top:
            assert each.after == pytest.approx(float(p[each.id]), rel=1e-4)
            assert each.after_rank == p.argsort(descending=True).tolist().index(each.id) + 1
            assert each.before_rank == q.argsort(descending=True).tolist().index(each.id) + 1


def test_tokens_that_cannot_come_and_logits_that_are_no_numbers() -> None:
    view = logits(torch.tensor([[0.0, -math.inf], [math.nan, 0.0]]), top=2)
    assert isinstance(view.header, LogitsView)
    assert [(at.position, at.entropy) for at in view.header.at] == [(0, 0.0)]
    assert "NaN" in view.header.note


# ---- neurons, gradients


def test_the_strongest_neurons_at_any_position_or_at_one(model: Any) -> None:
    view = look("mlp", subject(model, EIFFEL), layer=2, neurons=(7,), position=-1)
    header = view.header
    assert isinstance(header, NeuronsView)
    kept: list[Tensor] = []
    hook = model.module.transformer.h[2].mlp.c_proj.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    plain(model)
    hook.remove()
    neurons = kept[0][0]  # (position, neuron)
    best = neurons[-1].abs().topk(16).indices.tolist()
    assert header.neurons == (*best, 7)
    assert np.allclose(view.numbers(header.grid)[0], neurons[:, [*best, 7]].T, atol=1e-5)
    assert header.at[0] == int(neurons[:, best[0]].abs().argmax())
    with pytest.raises(InputError, match="neuron 9; there are 3"):
        mlp(torch.zeros(1, 3), also=[9])


def test_gradients_are_those_of_autograd(model: Any) -> None:
    view = look("gradient", subject(model, EIFFEL))
    header = view.header
    assert isinstance(header, GradientView)
    assert header.product is not None
    ids = model.tokenizer(EIFFEL, return_tensors="pt").input_ids
    found = model.module(ids, output_hidden_states=True)
    stream = found.hidden_states[2]  # after layer 1
    slope = torch.autograd.grad(found.logits[0, -1].max(), stream)[0]
    assert np.allclose(view.numbers(header.norms)[0][1], slope[0].norm(dim=-1), atol=1e-5)
    assert np.allclose(view.numbers(header.product)[0][1], (slope * stream)[0].sum(-1).detach(), atol=1e-4)
    assert header.of == "the logit of ' Paris'"
    with pytest.raises(InputError, match="activations"):
        gradient(torch.zeros(2, 3), torch.zeros(2, 4))


def test_tables_hold_what_the_pictures_show(model: Any) -> None:
    of, found = subject(model, EIFFEL), plain(model)
    attended = look("attention", of, layer=2)
    heads = attended.to_dataframe("scores")
    pattern = found.attentions[2][0].double()
    assert heads["entropy"].tolist() == pytest.approx(torch.special.entr(pattern).sum(-1).mean(-1).tolist(), abs=1e-5)
    assert heads["previous"].tolist() == pytest.approx(pattern.diagonal(-1, 1, 2).mean(-1).tolist(), abs=1e-5)
    assert heads["first"].tolist() == pytest.approx(pattern[..., 0].mean(-1).tolist(), abs=1e-5)

    pairs: Any = attended.to_dataframe()
    assert len(pairs) == 4 * 8 * 9 / 2  # what comes later is not there
    one = pairs[(pairs["head"] == 3) & (pairs["query"] == 5) & (pairs["key"] == 1)]
    assert one[["query_token", "key_token"]].values.tolist() == [[" the", " Eiffel"]]
    assert float(one["attention"].iloc[0]) == pytest.approx(float(pattern[3, 5, 1]), abs=1e-6)
    assert pairs.groupby(["head", "query"])["attention"].sum().tolist() == pytest.approx([1] * 32, abs=1e-5)
    with pytest.raises(InputError, match="attention 'scores' too"):
        look("logits", of).to_dataframe("scores")

    following = look("logits", of).to_dataframe().query("position == 7").set_index("id")
    p = found.logits[0, 7].softmax(-1)
    assert following["after"].tolist() == pytest.approx(p[following.index.tolist()].tolist(), abs=1e-5)
    assert following["after_rank"].tolist() == list(range(1, len(following) + 1))
    assert set(following["kl"].tolist()) == {None}  # nothing was changed, so there is no before

    neurons = look("mlp", of, layer=0).to_dataframe()
    assert set(neurons.columns) == {"position", "token", "neuron", "activation"}
    assert len(neurons) == 16 * 8
    gradients = look("gradient", of).to_dataframe()
    assert gradients[["layer", "position"]].iloc[-1].tolist() == ["layer 3", 7]
    assert gradients["token"].iloc[1] == " Eiffel"


def test_a_row_of_a_batch_is_that_row(model: Any) -> None:
    value = torch.randn(3, 5, 128)
    for kind in ("residual", "mlp", "gradient"):
        view = wb.look(value, kind, batch=2)
        alone = wb.look(value[2], kind)
        assert (view.header.batch, view.header.rows) == (2, 3)
        assert view.buffers == alone.buffers
        with pytest.raises(InputError, match="row 3 of a batch of 3"):
            wb.look(value, kind, batch=3)
    patterns = torch.softmax(torch.randn(2, 4, 6, 6), -1)
    assert np.allclose(wb.look(patterns, batch=1).numbers(wb.look(patterns, batch=1).header.pattern), patterns[1])  # type: ignore[union-attr]


# ---- which kind


def test_the_kind_comes_from_place_axes_and_shape(model: Any) -> None:
    facts = facts_of(model)
    stream, neurons, vocabulary = torch.randn(1, 8, 128), torch.randn(1, 8, 512), torch.randn(1, 8, 970)
    assert kind_of(stream, Site("transformer.h.1", "output"), facts=facts) == "residual"
    assert kind_of(stream, Site("transformer.h.1.mlp", "output"), facts=facts) == "array"
    assert "residual" in kinds_of(stream, Site("transformer.h.1.mlp", "output"), facts=facts)
    assert kind_of(neurons, Site("transformer.h.1.mlp.c_proj", "input"), facts=facts) == "mlp"
    assert kind_of(vocabulary, Site("lm_head", "output"), facts=facts) == "logits"
    assert kind_of(plain(model).attentions[0]) == "attention"
    assert kind_of(torch.zeros(1, 4, 8, 8), roles=Axes(0, (2, 3))) == "attention"
    assert kind_of(torch.zeros(1, 4, 8, 8)) == "array"
    assert kind_of(torch.randn(7)) == "array"


# ---- in a cell


def test_a_view_in_a_cell_is_text_a_picture_and_data_but_a_program_only_once() -> None:
    view = array(torch.tensor([[1.0, -2.0]]), title="</script>")
    bundle = view._repr_mimebundle_()
    assert bundle["text/plain"] == "</script> · array view"
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG"
    assert bundle[MIME] == {"version": 1, "headline": "", "views": 1, "widget": None}
    page = bundle["text/html"]
    inside = page.split(f'<script type="{MIME}">')[1].split("</script>")[0]
    kept = json.loads(inside)["views"][0]
    assert kept["header"]["title"] == "</script>"
    assert np.frombuffer(base64.b64decode(kept["buffers"][0]), np.float32).tolist() == [1, -2]
    again = array(torch.eye(3))._repr_mimebundle_()["text/html"]
    assert len(again) < 4000
    assert '<script type="module">' not in again
