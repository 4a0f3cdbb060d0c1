"""Views of a run: of each of its prompts as the interventions left it, by code that gives the same again in a cell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.kernel import Kernel, Page
from workbench.errors import InputError
from workbench.experiment.kinds import Ablate, Code, Experiment, Save, Scale, Target
from workbench.jupyter.bench import Bench
from workbench.jupyter.interact import numbers_of, with_numbers
from workbench.jupyter.messages import ExperimentParams, RunParams, TileParams, ViewParams
from workbench.jupyter.widget import Widget, of_views
from workbench.views.view import MIME

PROMPTS = ("The Eiffel Tower is in the city of", "The Colosseum is in")
CARDS = (
    Ablate(id="a", at=Target(path="transformer.h.0.mlp", positions=(-1,))),
    Save(id="s", at=Target(path="transformer.h.1.mlp"), name="hidden"),
)


@pytest.fixture(scope="module")
def bench() -> Bench:
    model = wb.demo()
    return Bench(lambda: {"model": model})


def ran(bench: Bench, **more: Any) -> int:
    experiment = Experiment(model="model", prompts=PROMPTS, interventions=CARDS).model_copy(update=more)
    run = bench.run(ExperimentParams(experiment=experiment)).run
    end = time.monotonic() + 60
    while bench.runs_made.get(run).state == "running":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert bench.result(RunParams(run=run)).fault is None
    return run


def plain(bench: Bench, prompt: str) -> Any:
    """The same edit by a hook, in a pass of transformers' own for this prompt alone."""
    model: Any = wb.demo()
    model.trace("The", trace=False)  # loads the weights
    module = model.module
    module.set_attn_implementation("eager")
    ids = model.tokenizer(prompt, return_tensors="pt").input_ids

    def edit(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, -1] = 0
        return output

    hook = module.transformer.h[0].mlp.register_forward_hook(edit)
    kept: list[torch.Tensor] = []
    other = module.transformer.h[1].mlp.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        found = module(ids, output_hidden_states=True, output_attentions=True)
    hook.remove()
    other.remove()
    return found, kept[0]


def numbers(reply: Any, buffers: list[bytes], grid: Any) -> np.ndarray[Any, Any]:
    found = np.frombuffer(buffers[grid.buffer], np.float32)
    return found.reshape(grid.sheets, grid.rows.size, grid.columns.size)


@pytest.mark.parametrize("more", [{}, {"generate": 2}], ids=["a pass", "a generation"])
def test_each_prompt_is_seen_as_the_interventions_left_it(bench: Bench, more: dict[str, Any]) -> None:
    run = ran(bench, **more)
    for prompt, text in enumerate(PROMPTS):
        found, _ = plain(bench, text)
        reply, buffers = bench.view(ViewParams(run=run, kind="residual", prompt=prompt))
        header: Any = reply.view
        streams = torch.cat(found.hidden_states[:-1])
        assert len(header.tokens) == streams.shape[1]
        assert np.allclose(numbers(reply, buffers, header.norms)[0][:-1], streams.norm(dim=-1), rtol=1e-4)
        reply, buffers = bench.view(ViewParams(run=run, kind="attention", prompt=prompt, layer=1))
        header = reply.view
        assert np.allclose(numbers(reply, buffers, header.pattern), found.attentions[1][0], atol=1e-5)
        reply, _ = bench.view(ViewParams(run=run, kind="logits", prompt=prompt))
        header = reply.view
        last = found.logits[0, -1].softmax(-1)
        assert [each.after for each in header.at[-1].top] == pytest.approx(
            last[[each.id for each in header.at[-1].top]].tolist(), abs=1e-5
        )
        assert header.at[-1].kl > 0
        assert header.at[0].kl == pytest.approx(0, abs=1e-6)  # what comes before the edit is the same


def test_a_saved_value_of_each_prompt_has_its_own_tokens_and_tiles(bench: Bench) -> None:
    run = ran(bench)
    entries = [each for each in bench.views(RunParams(run=run)).entries if each.name]
    assert [(each.name, each.prompt, each.kind) for each in entries] == [
        ("hidden_0", 0, "array"),
        ("hidden_1", 1, "array"),
    ]
    _, value = plain(bench, PROMPTS[1])
    reply, buffers = bench.view(ViewParams(run=run, name="hidden_1"))
    header: Any = reply.view
    assert header.names == ("batch", "position", "feature")
    assert header.grid.rows.labels == ("The", " Colosseum", " is", " in")
    assert np.allclose(numbers(reply, buffers, header.grid)[0], value[0], atol=1e-5)
    tile, buffers = bench.tile(
        TileParams(run=run, name="hidden_1", down=1, across=2, index=(0, 0, 0), window=(1, 3, 8, 16), most=(9, 9))
    )
    assert tile.grid.rows.labels == (" Colosseum", " is")
    assert np.allclose(numbers(tile, buffers, tile.grid)[0], value[0, 1:3, 8:16], atol=1e-5)


def test_what_code_saves_is_shown_as_what_it_is_and_a_gradient_with_what_it_is_of(bench: Bench) -> None:
    code = """
slope = model.transformer.h[1].output.grad.save()
stream = model.transformer.h[1].output.save()
made = (model.transformer.h[1].output * 2).save()
model.lm_head.output[0, -1].max().backward()
"""
    run = ran(bench, prompts=PROMPTS[:1], interventions=(Code(id="c", code=code.strip()),))
    entries = {each.name: each.kind for each in bench.views(RunParams(run=run)).entries if each.name}
    assert entries == {"slope": "gradient", "stream": "residual", "made": "array"}
    saved = {each.name: f"{each.path}.{each.port}" for each in bench.result(RunParams(run=run)).saved}
    assert saved["slope"] == "transformer.h.1.output.grad"

    model: Any = wb.demo()
    ids = model.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    model.trace("The", trace=False)  # loads the weights
    found = model.module(ids, output_hidden_states=True)
    stream = found.hidden_states[2]
    slope = torch.autograd.grad(found.logits[0, -1].max(), stream)[0][0]
    reply, buffers = bench.view(ViewParams(run=run, name="slope"))
    header: Any = reply.view
    assert np.allclose(numbers(reply, buffers, header.norms)[0, 0], slope.norm(dim=-1), atol=1e-4)
    product = (slope * stream[0]).sum(-1).detach()
    assert np.allclose(numbers(reply, buffers, header.product)[0, 0], product, atol=1e-3)


def test_what_cannot_be_shown_is_said(bench: Bench) -> None:
    run = ran(bench)
    with pytest.raises(InputError, match="prompt 7 of run"):
        bench.view(ViewParams(run=run, prompt=7))
    with pytest.raises(InputError, match="hidden_0 is shown as one of array, residual, mlp, not as logits"):
        bench.view(ViewParams(run=run, name="hidden_0", kind="logits"))
    with pytest.raises(InputError, match="saved no 'other'"):
        bench.view(ViewParams(run=run, name="other"))
    with pytest.raises(InputError, match="unknown option 'heads' of 'attention'; it has layer, head"):
        wb.look(wb.demo(), "attention", prompt="The", heads=1)
    with pytest.raises(InputError, match="unknown kind of view 'picture'"):
        wb.look(torch.eye(2), "picture")  # type: ignore[arg-type]


# ---- in a kernel


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Kernel(tmp_path_factory.mktemp("ipython")) as kernel, kernel.client() as client:
        Page(client).cell("import json, workbench as wb\nmodel = wb.demo()")
        page = Page(client)
        yield page
        page.close()


def test_the_code_of_each_view_gives_it_again(page: Page) -> None:
    experiment = Experiment(model="model", prompts=PROMPTS, interventions=CARDS).model_dump(mode="json")
    run = page.result("run", experiment=experiment)["run"]
    assert page.ended(run)["state"] == "done"
    asked: list[dict[str, Any]] = [
        {"name": each["name"], "kind": kind}
        for each in page.result("views", run=run)["entries"]
        for kind in (each["kinds"] or [each["kind"]])
    ]
    asked += [
        {"kind": "attention", "layer": 1, "head": 2, "prompt": 1},
        {"kind": "mlp", "layer": 0, "neurons": [7], "position": 2},
        {"name": "hidden_0", "kind": "array", "down": 2, "across": 1, "index": [0, 0, 0], "merged": "largest"},
    ]
    assert {each["kind"] for each in asked} == {"residual", "attention", "logits", "mlp", "gradient", "array"}
    for each in asked:
        header = page.result("view", run=run, **each)["view"]
        assert header["code"].startswith(f"wb.look({run}, {each['kind']!r}")
        printed = page.cell(f"view = {header['code']}\nprint(view.header.model_dump_json(), len(view.to_dataframe()))")
        again, rows = printed.strip().rsplit(" ", 1)
        assert json.loads(again) == header, header["code"]
        assert int(rows) > 0

    page.begin("wb.runs()[-1]")
    shown = page.wait(lambda message: message["msg_type"] == "execute_result")["content"]["data"]
    assert shown["text/plain"].startswith(f"run {run} · ")
    assert shown[MIME]["views"] == 4  # two saved values, the lens, attention


def looked(page: Page, code: str) -> dict[str, Any]:
    """The view that a cell shows, as the page finds it in the output."""
    cell = page.begin(code)
    page.end(cell)
    (shown,) = (
        message["content"]["data"]
        for message in page.heard
        if message["parent_header"].get("msg_id") == cell and message["msg_type"] == "execute_result"
    )
    inside = shown["text/html"].split(f'<script type="{MIME}">')[1].split("</script>")[0]
    return json.loads(inside)["views"][0]


def test_what_is_no_runs_is_looked_at_otherwise_while_it_is_there(page: Page) -> None:
    page.cell("import torch\nvalue = torch.arange(24.0).reshape(2, 3, 4)")
    kept = looked(page, "wb.look(value)")
    assert kept["header"]["code"] == "wb.look(value, 'array')"
    asked = kept["params"] | {"down": 2, "across": 1, "index": [1, 0, 0]}
    header = page.result("view", **asked)["view"]
    assert header["code"] == "wb.look(value, 'array', down=2, across=1, index=(1, 0, 0))"
    assert (header["grid"]["rows"]["size"], header["grid"]["columns"]["size"]) == (4, 3)
    of = {name: asked[name] for name in ("run", "name", "part")}
    tile = page.result("tile", **of, down=1, across=2, index=[1, 0, 0], window=[1, 3, 0, 2], most=[9, 9])
    assert (tile["grid"]["rows"]["start"], tile["grid"]["rows"]["size"], tile["grid"]["columns"]["size"]) == (1, 2, 2)
    page.cell("del value")
    assert "no longer there" in page.fault("view", **asked)["message"]
    assert "in another kernel" in page.fault("view", **(asked | {"run": -1}))["message"]

    kept = looked(page, f"wb.look(model, 'attention', prompt={PROMPTS[1]!r}, layer=1)")
    assert kept["header"]["code"] == f"wb.look(model, 'attention', prompt={PROMPTS[1]!r}, layer=1)"
    header = page.result("view", **(kept["params"] | {"layer": 2}))["view"]
    assert header["title"] == "attention of layer 2"
    page.cell(f"view = {header['code']}")
    assert page.cell("print(view.header.layer)").strip() == "2"


def test_a_tensor_has_the_tokens_of_a_prompt() -> None:
    model = wb.demo()
    view = wb.look(torch.zeros(4, 7), "array", model=model, prompt="The Colosseum is in")
    assert view.header.grid.rows.labels == ("The", " Colosseum", " is", " in")  # type: ignore[union-attr]
    with pytest.raises(InputError, match="give model="):
        wb.look(torch.zeros(4, 7), prompt="The")


# ---- widgets


def test_the_program_is_no_part_of_a_widget(bench: Bench) -> None:
    widget = of_views([wb.look(torch.eye(3))])
    assert isinstance(widget, Widget)
    state = widget.get_state()
    assert len(state["_esm"]) < 1500
    assert state["kept"]["views"][0]["header"]["kind"] == "array"
    program = Path(wb.__file__).parent / "views" / "static" / "widget.js"
    if program.exists():  # it is built with the panel
        assert program.stat().st_size <= 250_000


def test_sliders_run_an_experiment_again() -> None:
    model: Any = wb.demo()
    card = Scale(id="a", at=Target(path="transformer.h.2.mlp"), factor=1.0)
    experiment = Experiment(model="model", prompts=PROMPTS[:1], interventions=(card,))
    assert set(numbers_of(experiment)) == {"temperature", "generate", "factor"}
    sliders = experiment.interact(model, factor=(0, 2))
    assert sliders.wait() is not None
    ids = model.tokenizer(PROMPTS[0], return_tensors="pt").input_ids  # the first run has loaded the weights
    for factor in (1.0, 0.0, 1.5):
        sliders.sliders["factor"].value = factor
        outcome = sliders.wait()
        assert sliders.fault is None
        hook = model.module.transformer.h[2].mlp.register_forward_hook(lambda m, a, out, factor=factor: out * factor)
        with torch.no_grad():
            expected = model.module(ids).logits[0, -1]
        hook.remove()
        assert torch.allclose(outcome.next_logits[0], expected, atol=1e-4)
        p, id = expected.softmax(-1).max(-1)
        assert f"factor {factor:g} · " in sliders.headline
        assert f"{model.tokenizer.decode([int(id)]).strip()} {float(p):.2f}" in sliders.headline
        stays = sliders._repr_mimebundle_()  # in the notebook, where no kernel draws the sliders
        assert f"factor {factor:g} · " in stays["text/html"]
        assert stays["application/vnd.workbench.view+json"]["widget"] == sliders.model_id
    sliders.close()


def test_sliders_say_what_they_cannot_move() -> None:
    card = Scale(id="a", at=Target(path="transformer.h.2.mlp"))
    experiment = Experiment(model="model", prompts=PROMPTS[:1], interventions=(card,))
    model = wb.demo()
    with pytest.raises(
        InputError, match="no card has a number 'std'; the experiment has temperature, generate, factor"
    ):
        experiment.interact(model, std=(0, 1))
    with pytest.raises(InputError, match="the range is"):
        experiment.interact(model, factor=(2, 0))
    with pytest.raises(InputError, match="name a number"):
        experiment.interact(model)
    with pytest.raises(InputError, match="no model named 'model' here"):
        experiment.interact(factor=(0, 2))
    assert with_numbers(experiment, {"factor": 0.5}).interventions[0].factor == 0.5  # type: ignore[union-attr]
