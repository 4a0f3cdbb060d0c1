"""For everyone: no violation that axe knows of in any state of the panel, and a whole experiment by keyboard alone."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser import lab as do
from tests.browser.desk import EIFFEL, SOON, act, card, cards, code, offer, panel, reading, row, run, search, shot, tree
from tests.browser.server import ROOT

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
PLACES = ("#workbench-panel", "#workbench-results", ".wb-float")


def violations(page: Page) -> str:
    """What axe finds in our places; JupyterLab's own are JupyterLab's."""
    if not page.evaluate("() => 'axe' in window"):
        page.add_script_tag(path=AXE)
    found = page.evaluate(
        """async places => {
            const include = places.filter(each => document.querySelector(each)).map(each => [each]);
            const found = await axe.run({ include }, { rules: { region: { enabled: false } } });
            return found.violations.flatMap(each =>
                each.nodes.map(node => `${each.id}: ${each.help}: ${node.html.slice(0, 160)} ${node.failureSummary}`));
        }""",
        PLACES,
    )
    return "\n".join(found)


def test_axe_finds_nothing_in_any_state(desk: Page) -> None:
    page = desk
    act(page, "transformer.h.2.attn", "Ablate")
    act(page, "transformer.h.3", "Save output")
    act(page, "lm_head", "Log")
    panel(page).get_by_role("button", name="+ code").click()
    card(page, "Code Python of your own").get_by_label("Python", exact=True).fill("x = 1")
    offer(card(page, "Ablate transformer.h.2.attn"), "heads")
    panel(page).get_by_role("button", name="generate…").click()
    panel(page).get_by_role("button", name="+ prompt").click()
    panel(page).get_by_role("textbox", name="Prompt 2").fill("The Colosseum is in the city of")
    expect(panel(page).get_by_role("button", name="prompt 2 token 6 of")).to_be_visible(timeout=SOON)
    search(page, "h.2")
    run(page)
    for tab in ("Results", "History", "Compare", "Logs"):
        reading(page, tab)
        assert violations(page) == ""
    do.theme(page, "JupyterLab Dark")
    assert violations(page) == ""
    for tab in ("History", "Results"):
        reading(page, tab)
        assert violations(page) == ""
    do.theme(page, "JupyterLab Light")
    row(page, "transformer.h.2").click(button="right")
    expect(page.get_by_role("toolbar", name="Actions on transformer.h.2")).to_be_visible()
    assert violations(page) == ""
    page.keyboard.press("Escape")
    card(page, "Ablate transformer.h.2.attn").get_by_label("Tokens", exact=True).fill("99")
    expect(card(page, "Ablate transformer.h.2.attn")).to_contain_text("out of range", timeout=SOON)
    assert violations(page) == ""


def test_an_experiment_by_keyboard_alone(desk: Page) -> None:
    page = desk
    keys = page.keyboard

    def tab_to(name: str, role: str | None = None, back: bool = False) -> None:
        """Tab until what has the focus has this name, as a person without a pointer does."""
        for _ in range(60):
            keys.press("Shift+Tab" if back else "Tab")
            found = page.evaluate(
                """() => {
                    const here = document.activeElement;
                    return [here.getAttribute('aria-label') ?? here.textContent,
                            here.getAttribute('role') ?? here.tagName.toLowerCase()];
                }"""
            )
            if found[0].strip() == name and role in (None, found[1]):
                return
        raise AssertionError(f"sixty times Tab, and never at {name}")

    panel(page).get_by_role("combobox", name="Model").focus()
    tab_to("Prompt", "textarea")
    keys.press("ControlOrMeta+a")
    keys.type("The Colosseum is in the city of")
    expect(row(page, "lm_head")).to_contain_text("1×7×", timeout=SOON)
    tab_to("Filter modules")
    keys.type("h.2.mlp")
    expect(row(page, "transformer.h.2.mlp")).to_be_visible()
    keys.press("ArrowDown")
    chosen = tree(page).get_by_role("treeitem", selected=True)
    expect(chosen).to_have_attribute("aria-label", re.compile(r"^transformer\.h\.2\.mlp · "))  # not what leads to it
    keys.press("Shift+F10")
    actions = page.get_by_role("toolbar", name="Actions on transformer.h.2.mlp")
    expect(actions.get_by_role("button", name="Save output")).to_be_focused()
    keys.press("ArrowDown")
    keys.press("Enter")
    expect(card(page, "Ablate transformer.h.2.mlp")).to_be_visible()
    expect(tree(page)).to_be_focused()

    tab_to("Ablate transformer.h.2.mlp", "li")
    tab_to("Tokens")
    keys.type("-1")
    expect(code(page)).to_contain_text("positions=[-1]", timeout=SOON)
    tab_to("Run", "button")
    keys.press("Enter")
    expect(panel(page).get_by_role("status")).to_contain_text(re.compile(r"Rome .* → "), timeout=SOON)
    expect(cards(page).first).to_contain_text("changed 128 of 896 values")
    tab_to("Copy")
    keys.press("Enter")
    expect(code(page)).to_contain_text("copied")
    tab_to("Ablate transformer.h.2.mlp", "li", back=True)
    keys.press(" ")
    expect(card(page, "Ablate transformer.h.2.mlp").get_by_role("switch")).to_have_attribute("aria-checked", "false")
    keys.press("Delete")
    expect(cards(page)).to_have_count(0)
    shot(page, "keys")
    search(page, "")
    panel(page).get_by_role("textbox", name="Prompt", exact=True).fill(EIFFEL)
