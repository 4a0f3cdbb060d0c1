"""Models as they come: plain modules that are offered for wrapping, and one of 60,000 modules that opens at once."""

from __future__ import annotations

import json
import os
import re

from playwright.sync_api import Page, expect

from tests.browser import lab as do
from tests.browser import server
from tests.browser.desk import SOON, panel, row, search, shot, tree

PLAIN = """
import torch, transformers, workbench as wb
from torch import nn
net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=970)
hugging = transformers.GPT2LMHeadModel(config)
"""
LARGE = """
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.Sequential(*[nn.Linear(1, 1) for _ in range(8)])
        self.mlp = nn.Sequential(*[nn.Linear(1, 1) for _ in range(9)])
body = nn.Module()
body.layers = nn.ModuleList([Block() for _ in range(3000)])
body.a_part_with_a_name_that_is_longer_than_any_panel_is_wide = nn.Sequential(nn.Linear(1, 1))
large = wb.NNsight(body)
"""
ALONE = "WORKBENCH_BENCH" in os.environ  # nothing else computes: `make bench` holds it to what is wanted
OPEN = 150 if ALONE else 2000  # ms, from choosing the model until its rows are drawn
LONG = 50 if ALONE else 250  # ms of one task while scrolling


DRAWN = "workbench:tree drawn"
SCROLL = """async () => {
    const tasks = [];
    const observer = new PerformanceObserver(list => tasks.push(...list.getEntries().map(each => each.duration)));
    observer.observe({ entryTypes: ['longtask'] });
    const tree = document.querySelector('.wb-tree');
    tree.scrollTop = 0;
    const frames = [];
    let last = performance.now();
    for (let step = 0; step < 120; step += 1) {
        tree.scrollTop += step < 60 ? 240 : 20000;
        await new Promise(done => requestAnimationFrame(done));
        const now = performance.now();
        frames.push(now - last);
        last = now;
    }
    await new Promise(done => setTimeout(done, 400));
    observer.disconnect();
    return { frames, tasks };
}"""


def measured(page: Page) -> list[float]:
    """Milliseconds from choosing a model until its rows were drawn, each time."""
    return page.evaluate("name => performance.getEntriesByName(name).map(each => each.duration)", DRAWN)


def scrolled(page: Page) -> tuple[list[float], list[float]]:
    """Milliseconds of each frame and of each long task while the tree is scrolled; the best of three, for the machine
    may be busy with something else."""
    found: list[tuple[list[float], list[float]]] = []
    for _ in range(3):
        seen = page.evaluate(SCROLL)
        found.append((sorted(seen["frames"]), seen["tasks"]))
        if not seen["tasks"]:
            break
    return min(found, key=lambda each: max(each[1], default=0))


def test_plain_modules_are_wrapped_and_60_000_modules_open_and_scroll(page: Page, lab: server.Lab) -> None:
    do.open_notebook(page, do.write_notebook(lab.folder, "models.ipynb", ""))
    do.run_cell(page, PLAIN)
    models = panel(page).get_by_role("combobox", name="Model")
    expect(models).to_be_enabled(timeout=SOON)
    models.select_option("net")
    expect(panel(page)).to_contain_text("model = wb.NNsight(net)", timeout=SOON)
    models.select_option("hugging")
    expect(panel(page)).to_contain_text("wb.NNsight(hugging)", timeout=SOON)
    shot(page, "wrap")
    models.select_option("net")
    expect(panel(page)).to_contain_text("model = wb.NNsight(net)", timeout=SOON)
    panel(page).get_by_role("button", name="Insert as cell").click()
    do.run(page, do.cells(page).filter(has_text="model = wb.NNsight(net)"))
    expect(models).to_have_value("model", timeout=SOON)
    expect(row(page, "0")).to_contain_text("Linear", timeout=SOON)

    do.run_cell(page, LARGE)
    expect(models.get_by_role("option", name=re.compile("^large"))).to_have_count(1, timeout=SOON)
    opened: list[float] = []
    for _ in range(4):
        models.select_option("model")
        expect(row(page, "layers")).to_have_count(0)
        page.evaluate("performance.clearMeasures()")
        models.select_option("large")
        expect(row(page, "layers")).to_be_visible(timeout=SOON)
        page.wait_for_function("name => performance.getEntriesByName(name).length", arg=DRAWN)
        opened += measured(page)
    shot(page, "large")

    panel(page).get_by_role("button", name="expand", exact=True).click()
    expect(row(page, "layers.0")).to_be_visible()
    frames, tasks = scrolled(page)
    shot(page, "scrolled")
    search(page, "*longer*")
    expect(row(page, "a_part_with_a_name_that_is_longer_than_any_panel_is_wide")).to_be_visible()
    expect(tree(page).get_by_role("treeitem")).to_have_count(3)
    shot(page, "long-paths")
    search(page, "")
    found = {
        "opened": [round(each) for each in opened],
        "frame": round(frames[len(frames) // 2], 1),
        "slowest frame": round(frames[-1], 1),
        "long tasks": [round(each) for each in tasks],
    }
    server.RESULTS.mkdir(exist_ok=True)
    (server.RESULTS / "tree.json").write_text(json.dumps(found))
    print(found)
    assert min(opened) <= OPEN, found
    assert not [each for each in tasks if each > LONG], found
