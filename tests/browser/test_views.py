"""Every view: what is read off its picture is what plain PyTorch gives; and what it does when it is pointed at."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from torch import Tensor

import workbench as wb
from tests.browser import lab as do
from tests.browser import server
from tests.browser.desk import EIFFEL, SOON, act, open_demo, panel, reading, results, run, search, shot
from tests.browser.server import Lab

AXE = server.ROOT / "node_modules" / "axe-core" / "axe.min.js"


def loaded() -> Any:
    """The demo model with its weights."""
    model: Any = wb.demo()
    model.trace("The", trace=False)
    return model


class Plain:
    """The same pass by transformers alone, and by hooks on its modules: layer 2's MLP gives nothing."""

    def __init__(self) -> None:
        model = loaded()
        module = model.module
        module.set_attn_implementation("eager")
        ids = model.tokenizer(EIFFEL, return_tensors="pt").input_ids
        self.tokenizer = model.tokenizer
        self.neurons: list[Tensor] = []
        blocks = module.transformer.h
        hooks = [
            blocks[2].mlp.register_forward_hook(lambda _, args, out: torch.zeros_like(out)),
            blocks[1].mlp.c_proj.register_forward_pre_hook(lambda _, args: self.neurons.append(args[0].detach())),
            blocks[1].mlp.register_forward_hook(lambda _, args, out: setattr(self, "mlp", out.detach())),
        ]
        found = module(ids, output_hidden_states=True, output_attentions=True)
        for hook in hooks:
            hook.remove()
        self.streams = torch.cat(found.hidden_states[:-1]).detach()  # (embedding and layers 0 to 2, position, feature)
        self.patterns = torch.cat(found.attentions).detach()  # (layer, head, query, key)
        self.logits = found.logits[0].detach()
        with torch.no_grad():
            self.lens = module.lm_head(module.transformer.ln_f(self.streams)).softmax(-1)
            self.clean = module(ids).logits[0]
        self.gradient = torch.autograd.grad(found.logits[0, -1].max(), found.hidden_states[2])[0][0]
        self.mlp: Tensor


@pytest.fixture(scope="module")
def plain() -> Plain:
    return Plain()


def view(page: Page, name: str | re.Pattern[str]) -> Locator:
    return results(page).get_by_role("region", name=name, exact=isinstance(name, str))


def hover(canvas: Locator, row: int, column: int) -> str:
    """Point at a cell; what is said of it."""
    size = re.search(r", (\d+) by (\d+)$", canvas.get_attribute("aria-label") or "")
    assert size is not None
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    canvas.hover(position=middle(row, column, int(size[1]), int(size[2]), box["width"], box["height"]))
    return readout(canvas).inner_text()


def middle(row: int, column: int, rows: int, columns: int, width: float, height: float) -> Any:
    return {"x": (column + 0.5) * width / columns, "y": (row + 0.5) * height / rows}


def readout(canvas: Locator) -> Locator:
    return canvas.locator("xpath=ancestor::div[contains(@class, 'wb-heat')]").get_by_role("status")


def numbers(text: str) -> list[float]:
    """The numbers that stand alone between dots."""
    parts = [part.removesuffix(" (mean)").replace("−", "-") for part in text.split(" · ")]
    return [float(part) for part in parts if re.fullmatch(r"[+-]?(\d[\d.e+-]*|Inf)|NaN", part)]


def shows(text: str, value: Tensor | float, tolerance: float = 1e-4) -> None:
    (found, *_) = numbers(text)
    assert math.isclose(found, float(value), rel_tol=tolerance, abs_tol=1e-6), (text, float(value))


def no_fault(page: Page) -> None:
    page.add_script_tag(path=AXE)
    found = page.evaluate("() => axe.run('.wb-results', {rules: {region: {enabled: false}}})")
    assert [(each["id"], [node["html"] for node in each["nodes"]][:2]) for each in found["violations"]] == []


def canvas(page: Page, name: str) -> Locator:
    return results(page).get_by_role("img", name=re.compile(f"^{re.escape(name)},"))


def test_what_is_read_off_each_picture_is_what_plain_torch_gives(desk: Page, plain: Plain) -> None:
    page = desk
    act(page, "transformer.h.2.mlp", "Ablate")
    act(page, "transformer.h.1.mlp", "Save output")
    act(page, "transformer.h.1", "Save output")
    search(page, "")
    run(page)
    reading(page, "Results")

    # the logit lens: top token and probability; norms
    lens = canvas(page, "Picture of logit lens")
    expect(lens).to_be_visible(timeout=SOON)
    text = hover(lens, 2, 7)  # the row of layer 1: the first is the embedding
    p, id = plain.lens[2, 7].max(-1)
    assert text.startswith("layer 1 · position 7 ␣of · " + plain.tokenizer.decode([int(id)]).replace(" ", "␣")), text
    shows(text, p, 1e-4)
    assert f"norm {float(plain.streams[2, 7].norm()):.3f}"[:8] in text
    results(page).get_by_role("combobox", name="Show of logit lens").select_option("norms")
    shows(hover(lens, 3, 4), plain.streams[3, 4].norm(), 1e-4)
    results(page).get_by_role("combobox", name="Show of logit lens").select_option("lens")

    taken_away(page, view(page, "logit lens"), plain)

    # attention: pickers, hover, and the causal half that is not there
    attention = view(page, re.compile("^attention of layer"))
    attention.get_by_role("combobox", name="Layer").select_option("1")
    expect(view(page, "attention of layer 1")).to_be_visible(timeout=SOON)
    attention.get_by_role("combobox", name="Head").select_option("2")
    pattern = canvas(page, "Pattern of head 2")
    shows(hover(pattern, 6, 2), plain.patterns[1, 2, 6, 2], 1e-3)
    attention.get_by_role("button", name="head 3").click()
    pattern = canvas(page, "Pattern of head 3")
    shows(hover(pattern, 5, 1), plain.patterns[1, 3, 5, 1], 1e-3)
    entropy = torch.special.entr(plain.patterns[1, 3]).sum(-1).mean()
    expect(attention).to_contain_text(f"entropy {float(entropy):.2f}")

    # one selection runs through all: a click on a query is the position everywhere
    pattern.click(position=spot(pattern, 4, 0, 8, 8))
    expect(attention).to_contain_text("␣in looks at")
    expect(lens.locator("xpath=..").locator(".wb-pin")).to_have_count(1)

    # next tokens
    results(page).get_by_role("button", name="Next token by position", exact=True).click()
    tokens = view(page, "next token by position")
    tokens.get_by_role("button", name="after token 7 of").click()
    table = tokens.get_by_role("table", name="Next tokens after position 7")
    expect(table).to_be_visible()
    after, before = plain.logits[7].softmax(-1), plain.clean[7].softmax(-1)
    for id in after.topk(3).indices.tolist():
        word = plain.tokenizer.decode([id]).replace(" ", "␣")
        line = table.get_by_role("row").filter(has_text=word).first.inner_text()
        assert f"{float(before[id]):.3f}" in line, (word, line)
        assert f"{float(after[id]):.3f}" in line, (word, line)
    kl = (before * (before.log() - after.log())).sum()
    expect(tokens).to_contain_text(f"KL {float(kl):.3g} nats")

    # neurons of a layer: the strongest first, and one over the text
    results(page).get_by_role("button", name="Neurons", exact=True).click()
    neurons = view(page, re.compile("^neurons of layer"))
    neurons.get_by_role("combobox", name="Layer").select_option("1")
    expect(view(page, "neurons of layer 1")).to_be_visible(timeout=SOON)
    strongest = plain.neurons[0][0].abs().amax(0).topk(2).indices.tolist()
    text = hover(canvas(page, "Picture of neurons of layer 1"), 1, 3)
    assert text.startswith(f"neuron {strongest[1]} · position 3 ␣is"), text
    shows(text, plain.neurons[0][0, 3, strongest[1]], 1e-4)

    # gradients
    results(page).get_by_role("button", name="Gradients", exact=True).click()
    gradient = canvas(page, "Picture of gradient of the logit of ' London'")
    expect(gradient).to_be_visible(timeout=SOON)
    text = hover(gradient, 1, 7)
    shows(text, (plain.gradient * plain.streams[2])[7].sum(), 1e-3)
    assert f"norm {float(plain.gradient[7].norm()):.3f}"[:9] in text

    # any array: one of the saved values, and the other seen as an array
    shows(hover(canvas(page, "Picture of h1_mlp"), 5, 77), plain.mlp[0, 5, 77])
    results(page).get_by_role("combobox", name="View h1 as").select_option("array")
    h1 = results(page).get_by_role("img", name=re.compile("^Picture of h1, 8 by 128"))
    expect(h1).to_be_visible(timeout=SOON)
    shows(hover(h1, 2, 100), plain.streams[2, 2, 100])
    page.mouse.move(5, 5)
    no_fault(page)
    shot(page, "views-light")
    do.theme(page, "JupyterLab Dark")
    no_fault(page)
    shot(page, "views-dark")
    do.theme(page, "JupyterLab Light")


def taken_away(page: Page, lens: Locator, plain: Plain) -> None:
    """Its code, its numbers and its picture, by the menu of a view."""

    def take(item: str) -> None:
        lens.get_by_role("button", name="Take logit lens away").click()
        lens.get_by_role("button", name=item, exact=True).click()

    def download(item: str) -> bytes:
        with page.expect_download() as waiting:
            take(item)
        return Path(waiting.value.path()).read_bytes()

    take("Copy code")
    expect(lens).to_contain_text("copied")
    assert re.fullmatch(r"wb\.look\(\d+, 'residual'\)", page.evaluate("() => navigator.clipboard.readText()"))
    rows = list(csv.DictReader(download("CSV").decode().splitlines()))
    (found,) = (each for each in rows if each["layer"] == "layer 1" and each["position"] == "7")
    assert float(found["norm"]) == pytest.approx(float(plain.streams[2, 7].norm()), rel=1e-4)
    assert float(found["p"]) == pytest.approx(float(plain.lens[2, 7].max()), rel=1e-4)
    picture = download("SVG").decode()
    assert picture.startswith("<svg")
    assert ">layer 1</text>" in picture
    assert download("PNG").startswith(b"\x89PNG")


def spot(canvas: Locator, row: int, column: int, rows: int, columns: int) -> Any:
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    return middle(row, column, rows, columns, box["width"], box["height"])


START = """() => ({
    activation: performance.getEntriesByName('workbench:start')[0].duration,
    files: performance.getEntriesByType('resource').filter(each => each.name.includes('/extensions/workbench/'))
        .map(each => [each.name.split('/').pop(), each.duration, each.decodedBodySize])
})"""
"""What our extension adds to JupyterLab's start."""

WATCH = """() => new PerformanceObserver(
    list => (window.tasks ??= []).push(...list.getEntries().map(each => each.duration))
).observe({type: 'longtask'})"""

LARGE = """
with model.trace("The Eiffel Tower"):
    one = model.transformer.h[0].output[0, 0, :]
    large = (one.repeat(8)[:, None] * one.repeat(32)[None, :]).save()
    huge = one.repeat(128).expand(126, 4096, 16384).save()
    odd = (one[:8] / (one[:8] * 0)).reshape(2, 4).save()
"""


def test_large_and_odd_tensors(page: Page, lab: Lab) -> None:
    open_demo(page, lab, "large.ipynb")
    cell = do.write_cell(page, LARGE.strip())
    cell.locator(".cm-content").click(button="right")
    page.get_by_role("menuitem", name="Open in Workbench").click()
    expect(panel(page).get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=SOON)
    costs = page.evaluate(START)
    assert costs["activation"] < 200, costs  # 20 ms where nothing else runs
    page.evaluate(WATCH)
    run(page)
    model = loaded()
    ids = model.tokenizer("The Eiffel Tower", return_tensors="pt").input_ids
    with torch.no_grad():
        one = model.module(ids, output_hidden_states=True).hidden_states[1][0, 0]
    large = one.repeat(8)[:, None] * one.repeat(32)[None, :]
    canvas = results(page).get_by_role("img", name="Picture of large, 512 by 1024")
    expect(canvas).to_be_visible(timeout=SOON)
    shows(hover(canvas, 100, 300), large[200:202, 1200:1204].mean(), 1e-4)
    took = page.evaluate(
        "() => performance.getEntriesByName('workbench:view').map(each => [each.detail, each.duration])"
    )
    blocked = page.evaluate("() => window.tasks ?? []")
    (server.RESULTS / "views-times.json").write_text(
        json.dumps({"views": took, "longer than 50 ms": blocked, "start": costs}, indent=1)
    )
    assert dict(took)["large"] < 1500, took  # 300 ms where nothing else runs

    of_large = view(page, "large")
    of_large.get_by_role("button", name="Enlarge").click()
    expect(results(page).get_by_role("img", name="Picture of large, 512 by 1024")).to_be_visible()
    expect(of_large).to_contain_text("rows 256–767 of 1,024", timeout=SOON)
    shows(hover(canvas, 10, 20), large[266, 1024 + 40 : 1024 + 42].mean(), 1e-4)

    huge = results(page).get_by_role("img", name=re.compile("^Picture of huge, "))
    expect(huge).to_be_visible(timeout=SOON)
    of_huge = view(page, "huge")
    of_huge.get_by_role("slider", name="axis 0").fill("90")
    for _ in range(4):
        of_huge.get_by_role("button", name="Enlarge").click()
        page.wait_for_timeout(150)
    expect(of_huge).to_contain_text("of 16,384", timeout=SOON)
    text = hover(huge, 3, 5)
    first, last = map(int, re.search(r"axis 2 (\d+)(?:–(\d+))?", text).groups(default="0"))  # type: ignore[union-attr]
    columns = one.repeat(128)[first : max(first, last) + 1]
    shows(text, columns.mean(), 1e-4)

    odd = results(page).get_by_role("img", name="Picture of odd, 2 by 4")
    expected = (one[:8] / 0).reshape(2, 4)
    assert ("+Inf" if expected[0, 1] > 0 else "−Inf") in hover(odd, 0, 1)
    expect(view(page, "odd")).to_contain_text("8 Inf")
    shot(page, "views-large")


def exported(folder: Path) -> str:
    """A notebook with two views in it, as HTML that knows no kernel."""
    import nbformat
    from nbconvert import HTMLExporter

    model: Any = wb.demo()
    shown = [
        wb.look(model, "attention", prompt=EIFFEL, layer=1),
        wb.look(model, "residual", prompt=EIFFEL),
    ]
    cells = []
    for each in shown:
        output = nbformat.v4.new_output("display_data", data=dict(each._repr_mimebundle_()))
        cells.append(nbformat.v4.new_code_cell("wb.look(…)", outputs=[output]))
    notebook = nbformat.v4.new_notebook(cells=cells)
    html, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    assert html.count('<script type="module">') == 1  # the program once, not once for each view
    path = folder / "exported.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>exported</title>{html}")
    return path.as_uri()


def test_an_exported_notebook_shows_its_views_and_switches_heads(browser: Any, plain: Plain, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 1400})
    page.goto(exported(tmp_path))
    attention = page.get_by_role("region", name="attention of layer 1")
    expect(attention).to_be_visible(timeout=SOON)
    attention.get_by_role("combobox", name="Head").select_option("3")
    pattern = attention.get_by_role("img", name=re.compile("^Pattern of head 3"))
    shows(hover(pattern, 5, 1), plain.patterns[1, 3, 5, 1], 1e-3)
    expect(page.get_by_role("region", name="logit lens")).to_contain_text("Paris")
    page.screenshot(path=server.RESULTS / "views-exported.png", full_page=True)
    page.close()
