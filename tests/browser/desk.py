"""One notebook with the demo model and the panel beside it, for tests that need nothing else: opened once."""

from __future__ import annotations

import os
import re
import shutil

from playwright.sync_api import Locator, Page, expect

from tests.browser import lab as do
from tests.browser import server

SOON = 60_000  # ms: a kernel that imports torch first
TOUR = ("receipts", "verified", "compare")  # what the README shows, when `make picture` asks for it
EIFFEL = "The Eiffel Tower is in the city of"


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Workbench", exact=True)


def tree(page: Page) -> Locator:
    return panel(page).get_by_role("tree", name="Modules")


def row(page: Page, path: str) -> Locator:
    return tree(page).get_by_role("treeitem", name=re.compile(rf"^{re.escape(path)} · "))


def cards(page: Page) -> Locator:
    return panel(page).get_by_role("list", name="Interventions").get_by_role("listitem")


def code(page: Page) -> Locator:
    return panel(page).get_by_role("region", name="Code")


def results(page: Page) -> Locator:
    return page.get_by_role("main").get_by_role("region", name="Results")


def open_demo(page: Page, lab: server.Lab, name: str, workspace: str = "") -> None:
    """A notebook with the demo model in its kernel, and the panel that found it."""
    do.open_notebook(page, do.write_notebook(lab.folder, name, ""), workspace=workspace)
    do.run_cell(page, "import workbench as wb\nmodel = wb.demo()")
    expect(panel(page).get_by_role("combobox", name="Model")).to_have_value("model", timeout=SOON)


def search(page: Page, text: str) -> None:
    panel(page).get_by_role("searchbox", name="Filter modules").fill(text)


def act(page: Page, path: str, action: str) -> None:
    """Find a module by the filter, point at its row, click an action on it, or choose one of the others."""
    search(page, path)
    row(page, path).hover()
    at_once = row(page, path).get_by_role("button", name=action, exact=True)
    if action in ("Save output", "Ablate"):
        at_once.click()
    else:
        more(page, path).get_by_role("button", name=action, exact=True).click()


def more(page: Page, path: str) -> Locator:
    """All actions at a row."""
    row(page, path).get_by_role("button", name="More actions").click()
    return page.get_by_role("toolbar", name=re.compile("^Actions on "))


def run(page: Page) -> Locator:
    """Press Run, and wait for the headline of a run that was not there before."""
    status = panel(page).get_by_role("status")
    before = re.search(r"run (\d+)", status.inner_text())
    panel(page).get_by_role("button", name="Run", exact=True).click()
    number = r"\d+" if before is None else rf"(?!{before[1]}\b)\d+"
    expect(status).to_contain_text(re.compile(rf"run {number} · .* s · "), timeout=SOON)
    return status


def clear(page: Page) -> None:
    """Nothing made, nothing searched: the panel as it was first seen, but for its history."""
    search(page, "")
    for _ in range(cards(page).count()):
        cards(page).first.focus()
        page.keyboard.press("Delete")
    expect(cards(page)).to_have_count(0)
    measure = panel(page).get_by_role("combobox", name="Metric")
    if measure.input_value():
        measure.select_option("")
    for name in ("Do not generate", "Remove prompt 2", "Dismiss"):
        button = panel(page).get_by_role("button", name=name)
        if button.count():
            button.click()
    panel(page).get_by_role("textbox", name="Prompt", exact=True).fill(EIFFEL)
    panel(page).get_by_role("button", name="fold", exact=True).click()
    expect(row(page, "lm_head")).to_contain_text("1×8×970", timeout=SOON)


def shot(page: Page, name: str) -> None:
    server.RESULTS.mkdir(exist_ok=True)
    path = server.RESULTS / f"{name}.png"
    page.screenshot(path=path)
    if name in TOUR and os.environ.get("WORKBENCH_PICTURE"):
        shutil.copy(path, server.ROOT / "docs" / f"tour-{name}.png")


def hand(page: Page) -> Locator:
    """What stands below the tree of the module in hand."""
    return panel(page).get_by_role("note", name="The module in hand")


def card(page: Page, name: str) -> Locator:
    """A card by its kind and place: `Ablate transformer.h.0.mlp`."""
    return panel(page).get_by_role("list", name="Interventions").get_by_role("listitem", name=name, exact=True)


def write(card: Locator, label: str, text: str) -> None:
    """Fill in a part of a card's sentence."""
    card.get_by_label(label, exact=True).fill(text)


def choose(card: Locator, label: str, words: str) -> None:
    card.get_by_role("combobox", name=label, exact=True).select_option(label=words)


def offer(card: Locator, part: str) -> None:
    """Add a part that the card has not yet: heads, neurons, slice, prompt, steps, note."""
    card.click(position={"x": 60, "y": 10})
    card.get_by_role("button", name=f"+{part}").click()


def reading(page: Page, tab: str) -> Locator:
    """Turn to a tab of the Results: its panel."""
    main = page.get_by_role("main")
    main.get_by_role("tablist", name="Runs").get_by_role("tab", name=re.compile(f"^{tab}")).click()
    # The last: JupyterLab's dock around it is a tab panel too, and may be called Results as well.
    return main.get_by_role("tabpanel", name=re.compile(f"^{tab}")).last


def copied(page: Page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


def entry_of(history: Locator, run: str) -> Locator:
    """A run's line in the history."""
    return history.get_by_role("list", name="History").get_by_role("listitem", name=f"run {run}", exact=True)
