"""What the panel shows when things are not as they should be: another kernel, a fault, a slow run, little room."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Page, expect

from tests.browser import lab as do
from tests.browser.desk import EIFFEL, SOON, act, cards, open_demo, panel, reading, row, run, search, shot, tree
from tests.browser.server import Lab

ODD = """
import time, torch, workbench as wb

class Odd(torch.nn.Module):
    mood = "well"
    steps = 200
    def forward(self, x):
        if type(x) is torch.Tensor:  # not while shapes are worked out
            if self.mood == "broken":
                raise ValueError("the valve is stuck")
            if self.mood == "slow":
                for _ in range(self.steps):
                    time.sleep(0.05)
        return x

inside = wb.demo()
inside.trace("The", trace=False)
inside.module.transformer.drop = Odd()
model = wb.LanguageModel(inside.module, tokenizer=inside.tokenizer)
"""


def status(page: Page):
    return panel(page).get_by_role("status")


def test_another_kernel_has_no_models_until_it_makes_some(page: Page, lab: Lab) -> None:
    open_demo(page, lab, "change.ipynb")
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)
    do.change_kernel(page)
    expect(panel(page)).to_contain_text("To begin, run these two lines", timeout=SOON)
    expect(panel(page).get_by_role("combobox", name="Model")).to_be_disabled()
    expect(tree(page)).to_have_count(0)
    do.run_cell(page, "import workbench as wb\nnewer = wb.demo('llama')")
    expect(panel(page).get_by_role("combobox", name="Model")).to_have_value("newer", timeout=SOON)
    expect(panel(page).get_by_role("textbox", name="Prompt")).to_have_value(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)
    assert "Paris" in run(page).inner_text()


def test_a_fault_of_the_run_and_a_run_that_is_cancelled(page: Page, lab: Lab) -> None:
    do.open_notebook(page, do.write_notebook(lab.folder, "odd.ipynb", ""))
    do.run_cell(page, ODD + "Odd.mood = 'broken'")
    model = panel(page).get_by_role("combobox", name="Model")
    expect(model).to_be_enabled(timeout=SOON)
    model.select_option("model")
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)
    act(page, "transformer.h.0.mlp", "Ablate")
    panel(page).get_by_role("button", name="Run", exact=True).click()
    expect(status(page)).to_have_text(re.compile(r"run 1 · .* s · failed$"), timeout=SOON)
    expect(panel(page).get_by_role("alert")).to_contain_text("ValueError: the valve is stuck")
    shot(page, "failed")

    # A slow run: a bar, the panel and the cells go on, log lines come as they are written, Cancel ends it.
    act(page, "transformer.wte", "Log")
    do.run_cell(page, "Odd.mood = 'slow'; Odd.steps = 100")
    panel(page).get_by_role("button", name="Run", exact=True).click()
    expect(panel(page).get_by_role("progressbar", name="Progress")).to_be_visible(timeout=5_000)
    expect(panel(page)).to_contain_text(re.compile(r"clean run 1/2 · \d s"))
    shot(page, "progress")
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL + " Paris")
    search(page, "lm_head")
    expect(row(page, "lm_head")).to_contain_text("1×9×", timeout=5_000)
    assert do.run_cell(page, "6 * 7") == "42"
    expect(reading(page, "Logs")).to_contain_text("transformer.wte output norm", timeout=20_000)
    expect(status(page)).to_contain_text("running")
    asked = time.monotonic()
    panel(page).get_by_role("button", name="Cancel").click()
    expect(status(page)).to_contain_text("cancelled after", timeout=5_000)
    assert time.monotonic() - asked < 2
    expect(panel(page).get_by_role("progressbar", name="Progress")).to_have_count(0)

    do.run_cell(page, "Odd.mood = 'well'")
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    search(page, "lm_head")
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)
    assert "Paris" in run(page).inner_text()


def test_a_narrow_panel_in_the_dark(desk: Page) -> None:
    page = desk
    do.theme(page, "JupyterLab Dark")
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)
    act(page, "transformer.h.0.mlp", "Ablate")
    act(page, "transformer.h.1", "Save output")
    panel(page).get_by_role("searchbox", name="Filter modules").fill("")
    run(page)
    shot(page, "dark")
    do.side_width(page, 240)
    box = panel(page).bounding_box()
    assert box is not None
    assert box["width"] <= 260
    shot(page, "narrow")
    wide = panel(page).evaluate(
        """panel => [...panel.querySelectorAll('.wb-body, .wb-section, .wb-card, .wb-row, .wb-tokens, .wb-run *')]
            .filter(each => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX === 'visible'
                && each.clientWidth > 0)
            .map(each => each.className + ' ' + each.scrollWidth + ' > ' + each.clientWidth)"""
    )
    assert wide == []
    edge = panel(page).evaluate(
        """panel => [...panel.querySelectorAll('button, input, select, textarea')]
            .filter(each => each.getBoundingClientRect().right > panel.getBoundingClientRect().right + 1)
            .map(each => each.textContent || each.getAttribute('aria-label'))"""
    )
    assert edge == []
    do.side_width(page, 340)
    do.theme(page, "JupyterLab Light")
    expect(cards(page)).to_have_count(2)
