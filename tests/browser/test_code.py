"""The code of the cards: its three forms, what is done with it, the proof that it is equal, and the way back."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Locator, Page, expect

from tests.browser import lab as do
from tests.browser.desk import (
    EIFFEL,
    SOON,
    act,
    card,
    cards,
    code,
    copied,
    entry_of,
    panel,
    reading,
    results,
    run,
    search,
    shot,
    write,
)
from tests.browser.server import Lab


def verified(page: Page) -> Locator:
    return code(page).get_by_role("note")


def context_menu(page: Page, cell: Locator, item: str) -> None:
    cell.locator(".cm-content").click(button="right")
    page.get_by_role("menuitem", name=item, exact=True).click()


def test_three_forms_copied_saved_and_verified(desk: Page, lab: Lab) -> None:
    page = desk
    act(page, "transformer.h.2.mlp", "Ablate")
    act(page, "transformer.h.3", "Save output")
    write(card(page, "Save transformer.h.3"), "Name", "hidden")
    search(page, "")
    forms = code(page).get_by_role("group", name="Form of the code")
    forms.get_by_role("button", name="%%trace").click()
    expect(code(page)).to_contain_text(f'%%trace model "{EIFFEL}"', timeout=SOON)
    code(page).get_by_role("button", name="Copy").click()
    expect(code(page)).to_contain_text("copied")
    assert copied(page).splitlines()[1:] == [
        "wb.ablate(model.transformer.h[2].mlp)",
        "hidden = model.transformer.h[3].output.save()",
    ]
    forms.get_by_role("button", name="script").click()
    expect(code(page)).to_contain_text("import workbench as wb", timeout=SOON)
    expect(code(page)).to_contain_text('model = wb.demo("gpt2")')
    expect(code(page)).to_contain_text("# Ablate transformer.h.2.mlp output to zero")
    shot(page, "script")
    forms.get_by_role("button", name="with", exact=True).click()
    expect(code(page)).to_contain_text("with model.trace(", timeout=SOON)
    # A long line is not broken; it is read by moving sideways.
    editor = code(page).locator(".cm-content")
    assert editor.evaluate("node => getComputedStyle(node).whiteSpace") == "pre"

    code(page).get_by_role("button", name="Save .py").click()
    expect(code(page)).to_contain_text("saved as desk-experiment.py")
    assert "wb.ablate(model.transformer.h[2].mlp)" in (lab.folder / "desk-experiment.py").read_text()
    code(page).get_by_role("button", name=".ipynb").click()
    expect(code(page)).to_contain_text("saved as desk-experiment.ipynb")
    notebook = json.loads((lab.folder / "desk-experiment.ipynb").read_text())
    assert "wb.ablate(model.transformer.h[2].mlp)" in "".join(notebook["cells"][0]["source"])
    code(page).get_by_role("button", name="Save .py").click()  # nothing is ever written over
    expect(code(page)).to_contain_text("saved as desk-experiment-2.py")

    run(page)
    code(page).get_by_role("button", name="Verify").click()
    expect(verified(page)).to_contain_text("✓", timeout=SOON)
    expect(verified(page)).to_contain_text("equal")
    shot(page, "verified")
    panel(page).get_by_role("button", name="token 7 of").click()
    expect(verified(page)).to_contain_text("before the last change", timeout=SOON)


def test_a_cell_is_lifted_to_cards_and_goes_back_as_a_cell(desk: Page) -> None:
    page = desk
    cell = do.write_cell(
        page,
        f"with model.trace({EIFFEL!r}) as tracer:\n"
        "    wb.ablate(model.transformer.h[2].mlp, positions=[-1])\n"
        "    hidden = model.transformer.h[3].output.save()\n"
        '    tracer.log("norm", model.transformer.h[3].output.norm())\n'
        "    odd = hidden.relu().sum().save()",
    )
    context_menu(page, cell, "Open in Workbench")
    expect(cards(page)).to_have_count(4, timeout=SOON)
    expect(panel(page).get_by_role("alert")).to_contain_text("4 cards, 1 of them code")
    expect(card(page, "Ablate transformer.h.2.mlp")).to_contain_text("token")
    own = card(page, "Code odd = hidden.relu().sum().save()")
    expect(own.get_by_label("Python", exact=True)).to_have_value("odd = hidden.relu().sum().save()")  # word for word
    expect(code(page)).to_contain_text("odd = hidden.relu().sum().save()", timeout=SOON)
    shot(page, "lifted")
    assert "2 values saved" in run(page).inner_text()

    # And back into the notebook, where it gives the same.
    code(page).get_by_role("button", name="Insert as cell").click()
    inserted = do.cells(page).filter(has_text="with model.trace(").last
    do.run(page, inserted)
    number = re.search(r"run (\d+)", panel(page).get_by_role("status").inner_text())
    assert number
    same = "float(odd) == float(next(r for r in wb.runs() if r.number == {0}).saved['odd'])"
    assert do.run_cell(page, same.format(number[1])) == "True"


def test_a_cell_that_traces_is_in_the_panel(desk: Page) -> None:
    page = desk
    do.run_cell(page, "%load_ext workbench")
    cell = do.write_cell(
        page,
        f'%%trace model "{EIFFEL}" --name by-cell\n'
        "wb.ablate(model.transformer.h[2].mlp, positions=[-1])\n"
        "hidden = model.transformer.h[3].output.save()\n"
        'tracer.log("norm", hidden.norm())',
    )
    do.run(page, cell)
    assert do.run_cell(page, "hidden.shape").endswith("([1, 8, 128])")
    expect(panel(page).get_by_role("status")).to_contain_text("1 value saved", timeout=SOON)
    expect(reading(page, "Results")).to_contain_text("hidden")
    expect(reading(page, "Logs")).to_contain_text("norm")
    expect(reading(page, "History").get_by_role("list", name="History")).to_contain_text("by-cell")
    shot(page, "trace")


def test_a_run_goes_into_a_capsule_and_comes_out_the_same(desk: Page, lab: Lab) -> None:
    page = desk
    act(page, "transformer.h.2.mlp", "Ablate")
    act(page, "transformer.h.3", "Save output")
    search(page, "")
    found = re.search(r"run (\d+)", run(page).inner_text())
    assert found
    number = found[1]
    history = reading(page, "History")
    entry = entry_of(history, number)
    entry.hover()
    entry.get_by_role("button", name=f"Save run {number} as a capsule").click()
    name = f"run-{number}.capsule"
    expect(panel(page).get_by_role("alert")).to_contain_text(f"Run {number} was saved as {name}", timeout=SOON)
    assert (lab.folder / name).stat().st_size > 1000
    history.get_by_role("textbox", name="Capsule file").fill(name)
    history.get_by_role("button", name="Open capsule").click()
    capsule = history.get_by_role("group", name=f"Capsule {name}")
    expect(capsule).to_contain_text("GPT2LMHeadModel")
    expect(capsule).to_contain_text("torch")
    expect(capsule).to_contain_text("This kernel is as the one it was made in.")
    shot(page, "capsule")
    capsule.get_by_role("button", name="Rerun and compare").click()
    expect(panel(page).get_by_role("status")).to_contain_text("rerun", timeout=SOON)
    reading(page, "Results")
    compared = results(page).get_by_role("region", name="Saved values compared")
    expect(compared).to_contain_text("h3")
    expect(compared).to_contain_text("equal")
    shot(page, "rerun")
