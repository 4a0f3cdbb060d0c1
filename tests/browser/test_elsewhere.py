"""The workbench and its views in cells: in Notebook 7, JupyterLab, marimo, a saved notebook and an exported one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbconvert import HTMLExporter
from playwright.sync_api import Locator, Page, expect

from tests.browser import lab as do
from tests.browser import server
from tests.browser.desk import EIFFEL, SOON
from tests.browser.server import Lab
from tests.browser.test_views import AXE, Plain, hover, shows
from tests.browser.test_views import plain as plain  # the fixture

VALUE = torch.arange(24.0).reshape(2, 3, 4)
CELLS = (
    "import torch, workbench as wb\nmodel = wb.demo()\nvalue = torch.arange(24.0).reshape(2, 3, 4)",
    "wb.show(model)",
    f"wb.look(model, 'attention', prompt={EIFFEL!r}, layer=1)",
    "wb.look(value)",
    "wb.show(wb.runs()[-1])",
    "from workbench.experiment.kinds import Experiment, Scale, Target\n"
    "louder = Scale(id='a', at=Target(path='transformer.h.2.mlp'), factor=1.0)\n"
    f"Experiment(model='model', prompts=({EIFFEL!r},), interventions=(louder,)).interact(factor=(0, 2))",
)
ABLATED = "transformer.h.2.mlp"


def works(shown: Locator) -> None:
    """In the workbench that is shown, a card is made of a row of the tree, run, and read."""
    expect(shown.get_by_role("combobox", name="Model")).to_have_value("model", timeout=SOON)
    shown.get_by_role("textbox", name="Prompt", exact=True).fill(EIFFEL)
    expect(shown.get_by_role("button", name="token 7 of")).to_be_visible(timeout=SOON)
    shown.get_by_role("searchbox", name="Filter modules").fill(ABLATED)
    row = shown.get_by_role("treeitem", name=re.compile(rf"^{re.escape(ABLATED)} · "))
    row.hover()
    row.get_by_role("button", name="Ablate", exact=True).click()
    expect(shown.get_by_role("listitem", name=f"Ablate {ABLATED}")).to_be_visible()
    shown.get_by_role("button", name="Run", exact=True).click()
    expect(shown.get_by_role("status").filter(has_text="Paris 0.94 → London").first).to_be_visible(timeout=SOON)
    lens = shown.get_by_role("img", name=re.compile("^Picture of logit lens"))
    expect(lens).to_be_visible(timeout=SOON)
    assert "␣London" in hover(lens, 4, 7)


def switches_heads(attention: Locator, pattern: torch.Tensor) -> None:
    """Its head picker, and what is read off each head's picture, which is `(head, query, key)`."""
    for head in (2, 3):
        attention.get_by_role("combobox", name="Head").select_option(str(head))
        picture = attention.get_by_role("img", name=re.compile(f"^Pattern of head {head}"))
        shows(hover(picture, 5, 1), pattern[head, 5, 1], 1e-3)


def kept(page: Page, name: str | re.Pattern[str]) -> Locator:
    return page.locator(".wb-kept").get_by_role("group", name=name, exact=isinstance(name, str))


def picture_of(view: Locator) -> Locator:
    return view.get_by_role("img", name=re.compile("^Picture of"))


def faults(page: Page, *places: str) -> list[str]:
    """What axe finds in these places, also where they stand in a shadow tree."""
    page.add_script_tag(path=AXE)
    found: list[str] = []
    for each in page.locator(", ".join(places)).filter(visible=True).all():
        told = each.evaluate("element => axe.run(element, {rules: {region: {enabled: false}}})")
        assert told["passes"], "axe looked at nothing"
        found += [f"{fault['id']}: {node['html'][:160]}" for fault in told["violations"] for node in fault["nodes"]]
    return found


def save(page: Page) -> None:
    page.wait_for_timeout(1500)  # until what has changed is put into the notebook
    do.cells(page).first.locator(".cm-content").click()
    with page.expect_response(lambda each: each.request.method == "PUT" and "/api/contents/" in each.url):
        page.keyboard.press("ControlOrMeta+s")


def test_in_notebook_7_then_jupyterlab_then_without_a_kernel(page: Page, lab: Lab, browser: Any, plain: Plain) -> None:
    do.write_notebook(lab.folder, "seven.ipynb", *CELLS)
    page.goto("notebooks/seven.ipynb")
    expect(do.notebook(page)).to_be_visible(timeout=SOON)
    do.wait_idle(page)
    expect(do.cells(page)).to_have_count(len(CELLS))
    for cell in do.cells(page).all()[:4]:
        do.run(page, cell)
    shown = page.locator(".jp-OutputArea .wb-app")
    expect(shown).to_be_visible(timeout=do.RUNNING)
    works(shown)
    do.run(page, do.cells(page).nth(4))
    expect(kept(page, "logit lens")).to_be_visible(timeout=SOON)  # the run in a cell
    switches_heads(kept(page, "attention of layer 1").first, plain.patterns[1])

    do.run(page, do.cells(page).nth(5))
    sliders = do.cells(page).nth(5).locator(".jp-OutputArea")
    expect(sliders).to_contain_text("factor 1 · Paris", timeout=SOON)
    sliders.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(sliders).to_contain_text("factor 0 · Paris 0.94 → London 0.21", timeout=SOON)
    after = plain.logits[7].softmax(-1)
    london = sliders.get_by_role("row").filter(has_text="London")
    expect(london).to_contain_text(f"{float(after.max()):.3f}")
    assert faults(page, ".jp-OutputArea .wb-app", ".wb-kept") == []
    page.screenshot(path=server.RESULTS / "views-notebook7.png")
    save(page)

    # the same notebook and kernel in JupyterLab: what is chosen is asked for again
    do.open_notebook(page, "seven.ipynb", workspace="seven")
    expect(page.locator(".jp-OutputArea .wb-app")).to_be_visible(timeout=SOON)
    attention = kept(page, re.compile("^attention of layer")).first
    attention.get_by_role("combobox", name="Layer").select_option("2")
    expect(kept(page, "attention of layer 2")).to_be_visible(timeout=SOON)
    switches_heads(attention, plain.patterns[2])
    value = kept(page, "array")
    value.get_by_role("slider", name="batch").fill("1")
    picture = picture_of(value)
    page.wait_for_timeout(500)
    shows(hover(picture, 2, 3), VALUE[1, 2, 3])
    value.get_by_role("combobox", name="Axis down").select_option("0")
    expect(value.get_by_role("img", name=re.compile("^Picture of array, 2 by 4"))).to_be_visible(timeout=SOON)
    shows(hover(picture, 1, 3), VALUE[1, 0, 3])
    save(page)
    page.screenshot(path=server.RESULTS / "views-jupyterlab.png")

    # a copy of it that no kernel is found for
    notebook = nbformat.read(lab.folder / "seven.ipynb", as_version=4)
    notebook.metadata = {"kernelspec": {"name": "none-such", "display_name": "None such", "language": "none-such"}}
    nbformat.write(notebook, lab.folder / "alone.ipynb")
    page.goto("lab/workspaces/alone/tree/alone.ipynb?reset")
    page.get_by_role("dialog").get_by_role("button", name="No Kernel").click(timeout=SOON)
    expect(page.locator(".wb-app")).to_have_count(0)
    looked_at_alone(page, plain)
    assert faults(page, ".wb-kept") == []
    page.screenshot(path=server.RESULTS / "views-alone.png")

    # and exported, in a browser that knows no Jupyter and no network
    for theme in ("light", "dark"):
        html, _ = HTMLExporter(theme=theme).from_notebook_node(notebook)
        assert html.count(".workbench-view:not([data-drawn])") == 1  # one program for all views
        path = lab.folder / f"alone-{theme}.html"
        path.write_text(html)
        bare = browser.new_context(offline=True, viewport={"width": 1100, "height": 1400}).new_page()
        bare.goto(path.as_uri())
        looked_at_alone(bare, plain)
        assert faults(bare, ".workbench-view") == []
        bare.screenshot(path=server.RESULTS / f"views-exported-{theme}.png", full_page=True)
        bare.context.close()


def looked_at_alone(page: Page, plain: Plain) -> None:
    """The last views of a notebook that nobody answers for: numbers, heads, and no more than that."""
    attention = kept(page, "attention of layer 2").first
    expect(attention).to_be_visible(timeout=SOON)
    switches_heads(attention, plain.patterns[2])
    value = kept(page, "array")
    shows(hover(picture_of(value), 1, 3), VALUE[1, 0, 3])
    tokens = page.get_by_role("group", name="next token", exact=True)  # where the sliders stood
    expect(page.locator(".wb-kept").filter(has=tokens)).to_contain_text("factor 0 · Paris 0.94 → London 0.21")
    expect(tokens.get_by_role("row").filter(has_text="London")).to_contain_text(
        f"{float(plain.logits[7].softmax(-1).max()):.3f}"
    )
    lenses = kept(page, "logit lens")
    expect(lenses).to_have_count(2)  # of the workbench in a cell, and of the run
    for lens in lenses.all():
        text = hover(picture_of(lens), 2, 7)
        shows(text, plain.lens[2, 7].max(), 1e-3)


APP = f"""
import marimo

app = marimo.App()

@app.cell
def _():
    import workbench as wb
    model = wb.demo()
    return model, wb

@app.cell
def _(model, wb):
    wb.show(model)
    return

@app.cell
def _(model, wb):
    wb.look(model, "attention", prompt={EIFFEL!r}, layer=1)
    return

if __name__ == "__main__":
    app.run()
"""


@pytest.fixture
def marimo(tmp_path: Path) -> Iterator[str]:
    """The address of an app of marimo's."""
    path = tmp_path / "app.py"
    path.write_text(APP)
    port = server.free_port()
    log = server.RESULTS / "marimo.log"
    server.RESULTS.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "marimo", "run", str(path), "--headless", "--no-token", "--port", str(port)]
    environment: Any = server.settings(tmp_path) | {"PYTHONPATH": str(server.ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(address, timeout=5)
                break
            except (urllib.error.URLError, TimeoutError):
                assert time.monotonic() < end, log.read_text()[-2000:]
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_in_marimo(browser: Any, marimo: str, plain: Plain) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    try:
        page.goto(marimo)
        shown = page.locator(".wb-app")
        expect(shown).to_be_visible(timeout=do.RUNNING)
        works(shown)
        attention = page.get_by_role("group", name=re.compile("^attention of layer")).last
        switches_heads(attention, plain.patterns[1])
        attention.get_by_role("combobox", name="Layer").select_option("2")
        expect(page.get_by_role("group", name="attention of layer 2")).to_be_visible(timeout=SOON)
        switches_heads(attention, plain.patterns[2])
        assert faults(page, ".wb-app", ".wb-kept") == []
    finally:
        page.screenshot(path=server.RESULTS / "views-marimo.png", full_page=True)
        page.close()
