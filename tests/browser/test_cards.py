"""The nine kinds of card, made by clicks: edited where they stand, checked before the run, with receipts after it."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.desk import (
    SOON,
    act,
    card,
    cards,
    choose,
    code,
    offer,
    panel,
    reading,
    results,
    run,
    search,
    shot,
    write,
)

COLOSSEUM = "The Colosseum is in the city of"


def button(page: Page, name: str) -> Locator:
    return panel(page).get_by_role("button", name=name, exact=True)


def titles(page: Page) -> list[str]:
    return [each.get_attribute("aria-label") or "" for each in cards(page).all()]


def test_nine_kinds_written_run_and_told(desk: Page) -> None:
    page = desk
    act(page, "transformer.h.0", "Save output")
    write(card(page, "Save transformer.h.0"), "Name", "first")
    act(page, "transformer.h.0.mlp", "Ablate")
    button(page, "token 7 of").click()  # the tokens of the prompt are clicked
    act(page, "transformer.wpe", "Set")
    act(page, "transformer.h.1.attn", "Scale")
    write(card(page, "Scale transformer.h.1.attn"), "By", "1")
    act(page, "transformer.h.2.mlp", "Add noise")
    write(card(page, "Add noise transformer.h.2.mlp"), "Standard deviation", "0.5")
    act(page, "transformer.h.2", "Steer")
    write(card(page, "Steer transformer.h.2"), "Toward", "Rome")
    write(card(page, "Steer transformer.h.2"), "Away from", "Paris")
    act(page, "transformer.h.1", "Patch")
    write(card(page, "Patch transformer.h.1"), "From prompt", COLOSSEUM)
    write(card(page, "Patch transformer.h.1"), "Tokens", "4")
    act(page, "lm_head", "Log")
    button(page, "+ code").click()
    own = card(page, "Code Python of your own")
    write(own, "Python", "top = model.lm_head.output[:, -1].argmax(-1).save()")
    search(page, "")
    expect(cards(page)).to_have_count(9)
    for line in (
        "first = model.transformer.h[0].output.save()",
        "wb.ablate(model.transformer.h[0].mlp, positions=[7])",
        "model.transformer.wpe.output[...] = 0",
        "wb.scale(model.transformer.h[1].attn, 1)",
        "wb.add_noise(model.transformer.h[2].mlp, std=0.5, seed=0)",
        'wb.steer(model.transformer.h[2], toward="Rome", away="Paris", factor=1)',
        f'wb.patch(model.transformer.h[1], source="{COLOSSEUM}", positions=[4])',
        'tracer.log("lm_head output norm", model.lm_head.output.norm())',
        "top = model.lm_head.output[:, -1].argmax(-1).save()",
    ):
        expect(code(page)).to_contain_text(line, timeout=SOON)

    headline = run(page).inner_text()
    assert "6 interventions" in headline
    assert "2 values saved" in headline
    # Receipts: how often it fired, how many values changed, the norm before and after; what changed nothing warns.
    expect(card(page, "Save transformer.h.0")).to_contain_text("fired 1×, 1,024 values")
    told = re.compile(r"fired 1×, changed 128 of 1,024 values, norm [\d.]+ → [\d.]+")
    expect(card(page, "Ablate transformer.h.0.mlp")).to_contain_text(told)
    expect(card(page, "Set transformer.wpe")).to_contain_text(
        re.compile(r"changed 1,024 of 1,024 values, norm [\d.]+ → 0$")
    )
    nothing = "it changed nothing: the values were so already"
    expect(card(page, "Scale transformer.h.1.attn")).to_contain_text(nothing)
    expect(card(page, "Scale transformer.h.1.attn")).to_have_class(re.compile("wb-warns"))
    expect(card(page, "Patch transformer.h.1")).to_contain_text("changed 128 of 1,024 values")
    expect(card(page, "Log lm_head")).to_contain_text("fired 1×")
    first = results(page).get_by_role("group", name="first", exact=True)
    expect(first.get_by_role("img")).to_be_visible(timeout=SOON)
    shot(page, "receipts")
    expect(reading(page, "Logs")).to_contain_text(re.compile(r"lm_head output norm"))
    reading(page, "Results")

    # A receipt is of the card as it was: changed, it waits for the next run.
    write(card(page, "Scale transformer.h.1.attn"), "By", "2")
    expect(card(page, "Scale transformer.h.1.attn")).not_to_contain_text(nothing)

    # A value of that run, by its name, and one of a file.
    number = re.search(r"run (\d+)", headline)
    assert number
    patch = card(page, "Patch transformer.h.1")
    write(patch, "From prompt", "")
    write(patch, "Tokens", "")
    write(patch, "Or tensor", f"run {number[1]}/first")
    expect(code(page)).to_contain_text(f'wb.tensor("run {number[1]}/first")', timeout=SOON)
    assert "Paris" in run(page).inner_text()
    expect(patch).to_contain_text("changed 1,024 of 1,024 values")


def test_a_card_is_edited_switched_moved_copied_and_taken_back(desk: Page) -> None:
    page = desk
    act(page, "transformer.h.1.attn", "Ablate")
    act(page, "transformer.h.2.mlp", "Scale")
    act(page, "transformer.h.3", "Save output")
    search(page, "")
    ablate, scale = card(page, "Ablate transformer.h.1.attn"), card(page, "Scale transformer.h.2.mlp")

    # Where: its side, tokens as a list, heads as chips, neurons, any slice; what: the mode, and what that mode needs.
    ablate.click(position={"x": 60, "y": 10})
    choose(ablate, "Side", "input")
    expect(code(page)).to_contain_text("wb.ablate(model.transformer.h[1].attn.input)", timeout=SOON)
    choose(ablate, "Side", "output")
    write(ablate, "Tokens", "0-2, -1")
    expect(code(page)).to_contain_text("positions=[0, 1, 2, -1]", timeout=SOON)
    expect(ablate).to_contain_text("The Eiffel Tower of")
    expect(button(page, "token 1 Eiffel")).to_have_attribute("aria-pressed", "true")
    button(page, "token 1 Eiffel").click()
    expect(code(page)).to_contain_text("positions=[0, 2, -1]", timeout=SOON)
    write(ablate, "Tokens", "")
    offer(ablate, "heads")
    ablate.get_by_role("button", name="head 2").click()
    expect(code(page)).to_contain_text("wb.ablate(model.transformer.h[1].attn, heads=[2])", timeout=SOON)
    choose(ablate, "Mode", "its mean over another prompt")
    write(ablate, "Other prompt", COLOSSEUM)
    expect(code(page)).to_contain_text(f'mode="reference", source="{COLOSSEUM}"', timeout=SOON)
    choose(ablate, "Mode", "values drawn from another prompt")
    write(ablate, "Seed", "3")
    expect(code(page)).to_contain_text('mode="resample"', timeout=SOON)
    expect(code(page)).to_contain_text("seed=3", timeout=SOON)
    choose(ablate, "Mode", "its mean over positions")
    expect(code(page)).to_contain_text('mode="mean"', timeout=SOON)
    offer(scale, "neurons")
    write(scale, "Neurons", "5, 9")
    expect(code(page)).to_contain_text("wb.scale(model.transformer.h[2].mlp, 2, neurons=[5, 9])", timeout=SOON)
    save = card(page, "Save transformer.h.3")
    offer(save, "slice")
    write(save, "Slice", "[:, -1, :10]")
    expect(code(page)).to_contain_text(".output[:, -1, :10].save()", timeout=SOON)
    offer(save, "note")
    write(save, "Note", "what it thinks last")
    expect(code(page)).to_contain_text("# what it thinks last", timeout=SOON)
    shot(page, "cards")
    assert "2 interventions · 1 value saved" in run(page).inner_text()

    # Switched off, it is not in the code.
    scale.get_by_role("switch", name="Enabled").click()
    expect(code(page)).not_to_contain_text("wb.scale", timeout=SOON)
    scale.get_by_role("switch", name="Enabled").click()

    # Moved by keys and by hand, copied, removed; undone and done again.
    three = titles(page)
    scale.focus()
    page.keyboard.press("Alt+ArrowUp")
    expect(cards(page).first).to_have_attribute("aria-label", three[1])
    grip = card(page, three[2]).locator(".wb-grip")
    grip.drag_to(cards(page).first)
    expect(cards(page).first).to_have_attribute("aria-label", three[2])
    assert titles(page) == [three[2], three[1], three[0]]
    save.hover()
    save.get_by_role("button", name="Duplicate").click()
    expect(cards(page)).to_have_count(4)
    expect(code(page)).to_contain_text("_2 = model.transformer.h[3]", timeout=SOON)
    cards(page).first.hover()
    cards(page).first.get_by_role("button", name="Remove").click()
    expect(cards(page)).to_have_count(3)
    button(page, "Undo").click()
    expect(cards(page)).to_have_count(4)
    button(page, "Undo").click()
    expect(cards(page)).to_have_count(3)
    button(page, "Redo").click()
    expect(cards(page)).to_have_count(4)
    cards(page).first.focus()
    page.keyboard.press("ControlOrMeta+z")
    page.keyboard.press("ControlOrMeta+z")
    assert titles(page) == [three[1], three[0], three[2]]
    page.keyboard.press("ControlOrMeta+Shift+z")
    assert titles(page) == [three[2], three[1], three[0]]


def test_a_card_is_checked_before_anything_runs(desk: Page) -> None:
    page = desk
    blocked = button(page, "Run")
    act(page, "transformer.h.3", "Ablate")
    search(page, "")
    ablate = card(page, "Ablate transformer.h.3")
    faults = (
        ("Tokens", "9", "token 9 is out of range: the prompt has 8 tokens (0–7). Use −1 for the last."),
        ("Slice", "[:, 0, 200]", "out of bounds"),
    )
    for part, text, message in faults:
        if part == "Slice":
            offer(ablate, "slice")
        write(ablate, part, text)
        expect(ablate).to_contain_text(message, timeout=SOON)
        expect(ablate).to_have_class(re.compile("wb-faulty"))
        expect(blocked).to_be_disabled()
        expect(panel(page)).to_contain_text("1 card has a fault")
        write(ablate, part, "")
        expect(blocked).to_be_enabled(timeout=SOON)

    # A tensor that nobody kept; Python that is none; a name that is taken.
    act(page, "transformer.h.1", "Set")
    set_ = card(page, "Set transformer.h.1")
    write(set_, "To", "nowhere")
    expect(set_).to_contain_text("nowhere", timeout=SOON)
    expect(set_).to_have_class(re.compile("wb-faulty"))
    set_.get_by_role("switch", name="Enabled").click()
    expect(blocked).to_be_enabled(timeout=SOON)
    button(page, "+ code").click()
    own = cards(page).filter(has=page.get_by_label("Python", exact=True))
    write(own, "Python", "x = (")
    expect(own).to_contain_text("was never closed", timeout=SOON)
    act(page, "transformer.h.1", "Save output")
    search(page, "")
    write(card(page, "Save transformer.h.1"), "Name", "tracer")
    expect(card(page, "Save transformer.h.1")).to_contain_text("is the name of the trace itself", timeout=SOON)
    expect(panel(page)).to_contain_text("2 cards have faults")
    shot(page, "faults")
    write(card(page, "Save transformer.h.1"), "Name", "kept")
    expect(panel(page)).to_contain_text("1 card has a fault", timeout=SOON)

    # Run does not wait for a fault that was mended a moment ago, and is not let in by one that was made then.
    status = panel(page).get_by_role("status")
    before = status.inner_text()
    own.get_by_label("Python", exact=True).press("Control+Enter")
    write(own, "Python", "x = 2")
    own.get_by_label("Python", exact=True).press("Control+Enter")
    expect(status).not_to_have_text(before, timeout=SOON)
    expect(status).to_contain_text(re.compile(r"run \d+ · .* s · "), timeout=SOON)
    before = status.inner_text()
    write(own, "Python", "x = (")
    blocked.dispatch_event("click")
    expect(panel(page)).to_contain_text("1 card has a fault", timeout=SOON)
    assert status.inner_text() == before

    # What only the run can tell stands on the card as well, and the panel's words on it are few.
    for wrong, message in (
        ("model.transformer.h[0].output[:] = model.transformer.h[2].output", "transformer.h.2"),
        ("x = 1 / 0", "ZeroDivisionError"),
    ):
        write(own, "Python", wrong)
        expect(blocked).to_be_enabled(timeout=SOON)
        blocked.click()
        expect(own).to_contain_text(message, timeout=SOON)
        expect(own).to_have_class(re.compile("wb-faulty"))
        expect(panel(page).get_by_role("alert")).to_contain_text("It stopped at a card, which says why.")
        expect(panel(page).get_by_role("status")).to_contain_text("failed")
    shot(page, "stopped")
