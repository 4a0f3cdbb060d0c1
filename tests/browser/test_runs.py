"""What a run is about and what came of it: measures, several prompts, generation, the history, comparing two."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.desk import (
    EIFFEL,
    SOON,
    act,
    card,
    cards,
    choose,
    code,
    entry_of,
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


def number(page: Page) -> str:
    """Of the last run."""
    found = re.search(r"run (\d+)", panel(page).get_by_role("status").inner_text())
    assert found
    return found[1]


def test_answers_are_clicked_and_a_metric_is_chosen(desk: Page) -> None:
    page = desk
    act(page, "transformer.h.2.mlp", "Ablate")
    panel(page).get_by_role("button", name="token 7 of").click()
    search(page, "")
    run(page)
    reading(page, "Results")
    table = results(page).get_by_role("table", name="Next token probabilities")
    table.get_by_role("button", name="Paris").click()
    measure = panel(page).get_by_role("group", name="Measure")
    expect(measure.get_by_role("button", name="Remove answer Paris")).to_be_visible()
    table.get_by_role("button", name="London").click()  # a second answer: what sets them apart
    expect(measure.get_by_role("combobox", name="Metric")).to_have_value("logit_difference")
    headline = run(page).inner_text()
    assert re.search(r"logit difference -?[\d.]+ → -?[\d.]+", headline), headline
    expect(results(page)).to_contain_text(re.compile(r"logit difference Paris − London: -?[\d.e+]+ → -?[\d.e+]+"))
    choose(measure, "Metric", "rank of the first answer, 1 is the most probable")
    assert re.search(r"rank 1 → \d", run(page).inner_text())
    choose(measure, "Metric", "probability of the first answer")
    assert re.search(r"probability 0\.9\d* → ", run(page).inner_text())
    choose(measure, "Metric", "KL divergence from the clean run, in nats")
    assert re.search(r"KL [\d.]+", run(page).inner_text())
    choose(measure, "Metric", "logit difference of the first answer and the second")
    for word in (" Paris", " Berlin", " Rome"):  # or typed, and taken away again
        measure.get_by_role("textbox", name="Answer token").fill(word)
        measure.get_by_role("textbox", name="Answer token").press("Enter")
    measure.get_by_role("button", name="Remove answer Berlin").click()
    expect(measure.get_by_role("button", name="Remove answer Berlin")).to_have_count(0)
    expect(measure.get_by_role("button", name="Remove answer Rome")).to_be_visible()
    shot(page, "measure")


def test_several_prompts_stand_aligned_and_run_in_one_pass(desk: Page) -> None:
    page = desk
    panel(page).get_by_role("button", name="+ prompt").click()
    panel(page).get_by_role("textbox", name="Prompt 2").fill(COLOSSEUM)
    tokens = panel(page).get_by_role("group", name="Tokens")
    expect(tokens.get_by_role("button", name="prompt 2 token 6 of")).to_be_visible(timeout=SOON)

    def column(name: str) -> float:
        box = tokens.get_by_role("button", name=name, exact=True).bounding_box()
        assert box
        return box["x"]

    # What corresponds stands in one column though the prompts are of unequal length.
    assert column("token 7 of") == column("prompt 2 token 6 of")
    assert column("token 3 is") == column("prompt 2 token 2 is")
    act(page, "transformer.h.2.mlp", "Ablate")
    search(page, "")
    ablate = card(page, "Ablate transformer.h.2.mlp")
    offer(ablate, "prompt")
    choose(ablate, "Prompt", "prompt 2")
    tokens.get_by_role("button", name="prompt 2 token 6 of").click()
    expect(code(page)).to_contain_text("with tracer.invoke(", timeout=SOON)
    act(page, "transformer.h.3", "Save output")
    search(page, "")
    headline = run(page).inner_text()
    assert "2 prompts" in headline
    reading(page, "Results")
    for each in ("1", "2"):
        expect(results(page).get_by_role("region", name=f"Next token · prompt {each}")).to_be_visible()
    shot(page, "prompts")
    panel(page).get_by_role("button", name="Remove prompt 2").click()
    expect(panel(page).get_by_role("textbox", name="Prompt 2")).to_have_count(0)


def test_a_generation_is_seen_step_by_step(desk: Page) -> None:
    page = desk
    panel(page).get_by_role("button", name="generate…").click()
    panel(page).get_by_role("textbox", name="New tokens").fill("2")
    act(page, "transformer.h.2.mlp", "Ablate")
    search(page, "")
    ablate = card(page, "Ablate transformer.h.2.mlp")
    offer(ablate, "steps")
    write(ablate, "Steps", "0")
    expect(code(page)).to_contain_text("max_new_tokens=2", timeout=SOON)
    run(page)
    reading(page, "Results")
    steps = results(page).get_by_role("table", name="Generated tokens by step")
    expect(steps.get_by_role("columnheader")).to_have_count(2)
    expect(steps.get_by_role("row", name=re.compile("^before"))).to_contain_text("Paris")
    expect(steps.get_by_role("row", name=re.compile("^after"))).to_be_visible()
    expect(ablate).to_contain_text("fired 1×")
    shot(page, "generated")


def test_the_history_is_named_compared_reopened_and_thinned(desk: Page) -> None:
    page = desk
    act(page, "transformer.h.0", "Save output")
    search(page, "")
    run(page)
    clean = number(page)
    act(page, "transformer.h.2.mlp", "Ablate")
    search(page, "")
    run(page)
    ablated = number(page)

    history = reading(page, "History")
    entry = entry_of(history, clean)
    entry.hover()
    entry.get_by_role("button", name=f"Rename run {clean}").click()
    name = history.get_by_role("textbox", name=f"Name of run {clean}")
    name.fill("as it is")
    name.press("Enter")
    expect(history.get_by_role("list", name="History")).to_contain_text("as it is")

    compare = history.get_by_role("button", name="Compare", exact=True)
    expect(compare).to_be_disabled()
    history.get_by_role("checkbox", name=f"Choose run {clean}").check()
    history.get_by_role("checkbox", name=f"Choose run {ablated}").check()
    shot(page, "history")
    compare.click()
    two = page.get_by_role("region", name="Comparison")
    expect(two).to_contain_text("as it is")
    expect(two.get_by_role("table", name="Next token of both runs")).to_contain_text("Paris")
    expect(two.get_by_role("region", name="Saved values compared")).to_contain_text("equal")  # layer 0 is before it
    expect(two).to_contain_text("Ablate")
    shot(page, "compare")

    # Read again, taken back into the panel, deleted.
    history = reading(page, "History")
    entry.get_by_role("button", name=re.compile(f"run {clean} ·")).click()
    expect(panel(page).get_by_role("status")).to_contain_text(f"run {clean} · ")
    cards(page).first.focus()
    page.keyboard.press("Delete")
    entry.hover()
    entry.get_by_role("button", name=f"Open run {clean} in the panel").click()
    expect(panel(page).get_by_role("alert")).to_contain_text(f"Opened from run {clean}.")
    expect(cards(page)).to_have_count(1)
    expect(card(page, "Save transformer.h.0")).to_be_visible()
    expect(panel(page).get_by_role("textbox", name="Prompt", exact=True)).to_have_value(EIFFEL)
    entry.hover()
    entry.get_by_role("button", name=f"Delete run {clean}").click()
    expect(history.get_by_role("list", name="History")).not_to_contain_text("as it is")
