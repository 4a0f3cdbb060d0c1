"""When the line to the kernel breaks while it computes: it cannot be reached, or it is restarted."""

from __future__ import annotations

import re

from playwright.sync_api import Page, WebSocketRoute, expect

from tests.browser import lab as do
from tests.browser.desk import EIFFEL, SOON, act, card, cards, panel, reading, row, run, search, shot
from tests.browser.server import Lab
from tests.browser.test_states import ODD


def status(page: Page):
    return panel(page).get_by_role("status")


def press_run(page: Page) -> None:
    panel(page).get_by_role("button", name="Run", exact=True).click()
    expect(panel(page).get_by_role("progressbar", name="Progress")).to_be_visible(timeout=10_000)


def test_nothing_is_lost_when_the_line_the_kernel_or_both_go(page: Page, lab: Lab) -> None:
    lines: list[WebSocketRoute] = []
    away = False

    def through(route: WebSocketRoute) -> None:
        if away:
            route.close(code=1011, reason="away")
        else:
            route.connect_to_server()
            lines.append(route)

    page.route_web_socket(re.compile("/channels"), through)
    do.open_notebook(page, do.write_notebook(lab.folder, "line-cut.ipynb", ""))
    do.run_cell(page, ODD)
    model = panel(page).get_by_role("combobox", name="Model")
    expect(model).to_be_enabled(timeout=SOON)
    model.select_option("model")
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)
    act(page, "transformer.h.2.mlp", "Ablate")
    act(page, "transformer.h.3", "Save output")
    search(page, "")
    headline = run(page).inner_text()

    # The line is cut while a run goes: the run goes on, and its result is there once the line is mended.
    do.run_cell(page, "Odd.mood = 'slow'; Odd.steps = 60")
    press_run(page)
    away = True
    lines[-1].close(code=1011, reason="cut")
    expect(panel(page).get_by_role("alert")).to_contain_text("The line to the kernel was cut", timeout=10_000)
    shot(page, "cut")
    away = False
    expect(status(page)).to_contain_text(re.compile(r"run 2 · .* s · Paris"), timeout=SOON)
    expect(panel(page).get_by_role("alert")).to_have_count(0)

    # The kernel is restarted while a run goes: said in words; what was made stays, and so does the history.
    press_run(page)
    do.restart_kernel(page)
    expect(panel(page).get_by_role("alert")).to_contain_text("Run 3 was lost: the kernel was restarted", timeout=SOON)
    shot(page, "restarted")
    do.run_cell(page, ODD)
    expect(model).to_be_enabled(timeout=SOON)
    model.select_option("model")
    expect(panel(page).get_by_role("textbox", name="Prompt")).to_have_value(EIFFEL)
    expect(card(page, "Ablate transformer.h.2.mlp")).to_be_visible()
    expect(cards(page)).to_have_count(2)
    history = reading(page, "History").get_by_role("list", name="History")
    expect(history.get_by_role("listitem", name="run 2", exact=True)).to_be_visible(timeout=SOON)
    history.get_by_role("button", name=re.compile("^run 1 ·")).click()
    expect(status(page)).to_have_text(headline)
    expect(reading(page, "Results")).to_contain_text("h3")  # its tensors are on disk

    # The kernel dies by itself: it is started again, and the panel says so.
    do.run_cell(page, "Odd.mood = 'slow'")
    press_run(page)
    cell = do.write_cell(page, "import os; os._exit(1)")
    cell.locator(".cm-content").click()
    do.notebook(page).get_by_role("button", name="Run this cell and advance").click()
    died = re.compile(r"Run \d was lost: the kernel died and was started again")
    expect(panel(page).get_by_role("alert")).to_contain_text(died, timeout=SOON)
    shot(page, "died")
    page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    expect(panel(page)).to_contain_text("To begin, run these two lines", timeout=SOON)
