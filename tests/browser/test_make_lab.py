"""`make lab` as a new person meets it: the notebook opens with the panel beside it, and a click changes an answer.

`make picture` takes the README's picture here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import lab as do
from tests.browser import server
from tests.browser.desk import EIFFEL, act, panel, results, row, run

NOTEBOOK = server.ROOT / "notebooks" / "first_look.ipynb"
ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+/)(lab/tree/\S+)\?token=(\w+)")


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[re.Match[str]]:
    """The address that `make lab` prints, while it runs; the notebook is put back as it was."""
    server.RESULTS.mkdir(exist_ok=True)
    log = server.RESULTS / "make-lab.log"
    command = ["make", "lab", f"LABFLAGS=--no-browser --ServerApp.port={server.free_port()}"]
    before = NOTEBOOK.read_bytes()
    with log.open("wb") as out:
        made = subprocess.Popen(
            command,
            cwd=server.ROOT,
            env=server.settings(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield address(log, made)
    finally:
        os.killpg(made.pid, signal.SIGTERM)  # the group that was made for it: make, and JupyterLab under it
        made.wait(30)
        NOTEBOOK.write_bytes(before)


def address(log: Path, made: subprocess.Popen[bytes], seconds: float = 240) -> re.Match[str]:
    """What the log says of where to go; fails with the log when it never says it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and made.poll() is None:
        found = ADDRESS.search(log.read_text())
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"make lab printed no address:\n{log.read_text()[-3000:]}")


def test_make_lab_opens_the_notebook_with_the_panel(
    printed: re.Match[str], signed_in: Callable[[str, str], Page]
) -> None:
    url, path, token = printed.groups()
    assert path == "lab/tree/notebooks/first_look.ipynb"
    page = signed_in(url, token)
    page.goto(f"{path}?token={token}")
    do.connected(page)
    expect(panel(page)).to_be_visible()

    do.run_all(page)
    expect(panel(page).get_by_role("combobox", name="Model")).to_have_value("model", timeout=do.RUNNING)
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=do.RUNNING)  # the rows stand
    act(page, "transformer.h.2.mlp", "Ablate")
    act(page, "transformer.h.3", "Save output")
    panel(page).get_by_role("searchbox", name="Filter modules").fill("")
    headline = run(page).inner_text()
    assert re.search(r"Paris .* → London", headline), headline

    kept = results(page).get_by_role("group", name="h3", exact=True)
    expect(kept.get_by_role("img")).to_be_visible(timeout=do.RUNNING)
    take_picture(page, server.RESULTS / "panel.png")
    if os.environ.get("WORKBENCH_PICTURE"):
        shutil.copy(server.RESULTS / "panel.png", server.ROOT / "docs" / "panel.png")


def take_picture(page: Page, path: Path) -> None:
    """Of the trace and its answer, the panel and the results; without the file browser."""
    page.get_by_role("tab", name=re.compile("File Browser")).click()
    do.cells(page).filter(has_text="hidden = ").locator(".cm-content").click()
    page.screenshot(path=path)
