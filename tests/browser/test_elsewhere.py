"""The workbench and its views outside JupyterLab: in Notebook 7, and in marimo."""

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

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import lab as do
from tests.browser import server
from tests.browser.desk import EIFFEL, SOON
from tests.browser.server import Lab
from tests.browser.test_views import hover, numbers

CELLS = (
    "import workbench as wb\nmodel = wb.demo()",
    "wb.show(model)",
    f"wb.look(model, 'attention', prompt={EIFFEL!r}, layer=1)",
)


def works(shown: Locator) -> None:
    """In the workbench that is shown, a run is made and read."""
    expect(shown.get_by_role("combobox", name="Model")).to_have_value("model", timeout=SOON)
    shown.get_by_role("textbox", name="Prompt", exact=True).fill(EIFFEL)
    expect(shown.get_by_role("button", name="token 7 of")).to_be_visible(timeout=SOON)
    expect(shown.get_by_role("treeitem").first).to_be_visible()
    shown.get_by_role("button", name="Run", exact=True).click()
    expect(shown.get_by_role("status").filter(has_text="Paris").first).to_be_visible(timeout=SOON)
    lens = shown.get_by_role("img", name=re.compile("^Picture of logit lens"))
    expect(lens).to_be_visible(timeout=SOON)
    text = hover(lens, 4, 7)
    assert "␣Paris" in text, text
    assert 0.9 < numbers(text)[0] < 1, text


def switches_heads(attention: Locator) -> None:
    attention.get_by_role("combobox", name="Head").select_option("2")
    pattern = attention.get_by_role("img", name=re.compile("^Pattern of head 2"))
    assert numbers(hover(pattern, 0, 0))[0] == pytest.approx(1)


def test_in_notebook_7(page: Page, lab: Lab) -> None:
    do.write_notebook(lab.folder, "seven.ipynb", *CELLS)
    page.goto("notebooks/seven.ipynb")
    expect(do.notebook(page)).to_be_visible(timeout=SOON)
    do.wait_idle(page)
    expect(do.cells(page)).to_have_count(len(CELLS))
    for cell in do.cells(page).all():
        do.run(page, cell)
    shown = page.locator(".jp-OutputArea .wb-app")
    expect(shown).to_be_visible(timeout=do.RUNNING)
    works(shown)
    switches_heads(page.locator(".jp-OutputArea").get_by_role("region", name="attention of layer 1"))
    shown.scroll_into_view_if_needed()
    page.screenshot(path=server.RESULTS / "views-notebook7.png")


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


def test_in_marimo(browser: Any, marimo: str) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    try:
        page.goto(marimo)
        shown = page.locator(".wb-app")
        expect(shown).to_be_visible(timeout=do.RUNNING)
        works(shown)
        switches_heads(page.get_by_role("region", name="attention of layer 1").last)
    finally:
        page.screenshot(path=server.RESULTS / "views-marimo.png", full_page=True)
        page.close()
