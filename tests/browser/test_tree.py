"""The module tree as a person meets it: folds, searching, keys, badges, the dot of what did not fire, live shapes."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.desk import (
    EIFFEL,
    SOON,
    act,
    card,
    cards,
    copied,
    hand,
    more,
    panel,
    row,
    run,
    search,
    shot,
    tree,
)

FOLD = "transformer.h.0–3"


def stands_at(page: Page, path: str) -> None:
    """The row that is active, once it is drawn."""
    found = tree(page).get_by_role("treeitem", selected=True)
    expect(found).to_have_attribute("aria-label", re.compile(rf"^{re.escape(path)}"))


def unfold(page: Page, path: str) -> None:
    row(page, path).dblclick(position={"x": 6, "y": 12})
    expect(row(page, path)).to_have_attribute("aria-expanded", "true")


def test_rows_folds_and_apply_to_all(desk: Page) -> None:
    page = desk
    # A row says name, class and shape; where they differ, what goes in and what comes out; the rest stands below.
    expect(row(page, "lm_head")).to_have_attribute("aria-label", "lm_head · Linear · 1×8×128 → 1×8×970")
    row(page, "lm_head").click()
    expect(hand(page)).to_have_text("lm_headunembedLinear · 124k parameters · 1×8×128 → 1×8×970 · float32")

    # Repeats are one line, which opens; one of them opens by itself.
    unfold(page, "transformer")
    unfold(page, "transformer.h")
    expect(row(page, FOLD)).to_have_attribute("aria-label", f"{FOLD} · GPT2Block ×4 · 1×8×128")
    expect(row(page, "transformer.h.2")).to_have_count(0)
    unfold(page, FOLD)
    unfold(page, "transformer.h.2")
    expect(row(page, "transformer.h.2.mlp")).to_be_visible()
    expect(row(page, "transformer.h.1.mlp")).to_have_count(0)
    expect(row(page, "transformer.h.2")).to_contain_text("layers[2]")  # the standard name beside the model's own

    # An action on the fold is one on all; from one module "Apply to all" does the same.
    row(page, FOLD).hover()
    row(page, FOLD).get_by_role("button", name="Save output").click()
    expect(cards(page)).to_have_count(4)
    for layer in range(4):
        expect(card(page, f"Save transformer.h.{layer}")).to_be_visible()
    search(page, "transformer.h.2.mlp")
    row(page, "transformer.h.2.mlp").hover()
    actions = more(page, "transformer.h.2.mlp")
    actions.get_by_role("checkbox", name="Apply to all 4").click()
    shot(page, "actions")
    actions.get_by_role("button", name="Ablate", exact=True).click()
    expect(cards(page)).to_have_count(8)
    expect(card(page, "Ablate transformer.h.3.mlp")).to_have_count(1)

    # Badges stand on the module, and on the fold that hides it. Out of the search, what is in hand is still in sight.
    row(page, "transformer.h.2.mlp").click(position={"x": 6, "y": 12})
    search(page, "")
    expect(row(page, "transformer.h.2.mlp")).to_have_attribute("aria-label", re.compile("has ablate"))
    expect(row(page, "transformer.h.2")).to_have_attribute("aria-label", re.compile("has save"))
    tree(page).focus()
    page.keyboard.press("Home")
    row(page, FOLD).dblclick(position={"x": 6, "y": 12})
    expect(row(page, FOLD)).to_have_attribute("aria-label", re.compile("has (save, ablate|ablate, save)"))


def test_a_search_by_name_class_and_shape(desk: Page) -> None:
    page = desk
    search(page, "*mlp*")
    expect(row(page, "transformer.h.0.mlp")).to_be_visible()
    expect(row(page, "lm_head")).to_have_count(0)
    search(page, "layernorm 1")
    expect(row(page, "transformer.h.1.ln_1")).to_be_visible()
    expect(row(page, "transformer.h.0.ln_2")).to_have_count(0)
    search(page, "1×*×512")
    expect(row(page, "transformer.h.0.mlp.act")).to_be_visible()
    expect(row(page, "transformer.h.0.attn")).to_have_count(0)
    search(page, "nothing like this")
    expect(tree(page)).to_contain_text("No module matches “nothing like this”.")
    panel(page).get_by_role("searchbox", name="Filter modules").press("Escape")
    expect(row(page, "lm_head")).to_be_visible()


def test_the_keys_of_a_file_tree(desk: Page) -> None:
    page = desk
    press = page.keyboard.press
    search(page, "")
    panel(page).get_by_role("searchbox", name="Filter modules").press("ArrowDown")
    expect(tree(page)).to_be_focused()
    press("Home")
    stands_at(page, "model · ")
    press("ArrowDown")
    press("ArrowRight")
    press("ArrowRight")  # opens, then goes in
    stands_at(page, "transformer.wte")
    press("ArrowLeft")  # out, to the parent; once more closes it
    stands_at(page, "transformer · ")
    press("ArrowLeft")
    expect(row(page, "transformer")).to_have_attribute("aria-expanded", "false")
    press("ArrowRight")
    expect(row(page, "transformer")).to_have_attribute("aria-expanded", "true")
    press("l")
    press("m")
    stands_at(page, "lm_head")
    press("Home")
    press("End")
    stands_at(page, "lm_head")
    press("ControlOrMeta+c")
    assert copied(page) == "lm_head"
    press("Enter")  # a leaf: what can be done at it
    actions = page.get_by_role("toolbar", name="Actions on lm_head")
    expect(actions.get_by_role("button", name="Save output")).to_be_focused()
    press("l")
    expect(actions.get_by_role("button", name="Log")).to_be_focused()
    press("Escape")
    expect(tree(page)).to_be_focused()
    press("Enter")
    press("Enter")
    expect(card(page, "Save lm_head")).to_be_visible()
    more(page, "lm_head").get_by_role("button", name="Copy path").click()
    assert copied(page) == "lm_head"


def test_shapes_follow_the_prompt_and_a_dot_is_on_what_did_not_fire(desk: Page) -> None:
    page = desk
    prompt = panel(page).get_by_role("textbox", name="Prompt", exact=True)
    prompt.fill("The")
    expect(row(page, "lm_head")).to_contain_text("1×1×970", timeout=SOON)
    prompt.press_sequentially(" Eiffel Tower is", delay=20)
    expect(row(page, "lm_head")).to_contain_text("1×4×970", timeout=SOON)
    prompt.fill("")
    expect(panel(page)).to_contain_text("type a prompt to see shapes")
    prompt.fill(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×970", timeout=SOON)

    act(page, "transformer.h.0.mlp", "Save output")
    run(page)
    search(page, "h.0")
    silent = re.compile("not called in the last run")
    expect(row(page, "transformer.h.0.attn.attn_dropout")).to_have_attribute("aria-label", silent)
    for fired in ("transformer.h", "transformer.h.0", "transformer.h.0.attn", "transformer.h.0.mlp"):
        expect(row(page, fired)).not_to_have_attribute("aria-label", silent)
    row(page, "transformer.h.0.attn.attn_dropout").click()
    expect(hand(page)).to_contain_text("shape unknown, because: not called when this prompt is run")
    shot(page, "tree")
