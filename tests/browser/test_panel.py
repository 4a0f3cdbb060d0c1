"""The line from a click to a tensor and back, driven in a real JupyterLab as a person would."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser import lab as do
from tests.browser.desk import EIFFEL, SOON, act, cards, open_demo, panel, row, run, shot
from tests.browser.server import Lab


def _close(row: str, probability: float) -> bool:
    """Whether a row of the table shows this probability, to the places that it shows."""
    return any(abs(float(number) - probability) <= 0.006 for number in re.findall(r"\d\.\d+", row))


def test_a_click_reaches_a_tensor_and_comes_back_as_code(page: Page, lab: Lab) -> None:
    open_demo(page, lab, "line.ipynb")
    expect(panel(page)).to_contain_text("not loaded")  # shapes come from the configuration alone
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    expect(panel(page).get_by_role("button", name="token 7 of")).to_be_visible(timeout=SOON)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)

    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL + " Paris")
    expect(row(page, "lm_head")).to_contain_text("1×9×", timeout=SOON)  # shapes follow the prompt
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)

    act(page, "transformer.h.0.mlp", "Ablate")
    act(page, "transformer.h.1", "Save output")
    expect(cards(page)).to_have_count(2)
    panel(page).get_by_role("searchbox", name="Filter modules").fill("")
    code = panel(page).get_by_role("region", name="Code")
    expect(code).to_contain_text("wb.ablate(model.transformer.h[0].mlp)", timeout=SOON)
    expect(code).to_contain_text(".output.save()")

    headline = run(page).inner_text()
    assert "Paris" in headline
    assert "1 intervention" in headline
    results = page.get_by_role("main").get_by_role("region", name="Results")
    expect(results).to_be_visible()
    expect(results.get_by_role("img", name=re.compile("Picture of")).first).to_be_visible(timeout=SOON)
    table = results.get_by_role("table", name="Next token probabilities")
    before = {each.inner_text() for each in table.get_by_role("row").all()}
    assert any("Paris" in each for each in before)
    name = re.search(r"(\w+) = model\.transformer\.h\[1\]\.output\.save\(\)", code.inner_text())
    assert name is not None
    shot(page, "line")

    # The same numbers from the inserted cell: the summary under Results is of the same tensor.
    code.get_by_role("button", name="Insert as cell").click()
    inserted = do.cells(page).filter(has_text="wb.ablate(model.transformer.h[0].mlp)")
    expect(inserted).to_have_count(1)
    do.run(page, inserted)
    same = f"torch.equal({name[1]}.value, wb.runs()[-1].saved['{name[1]}'])"
    assert do.run_cell(page, f"import torch\nprint({same}, tuple({name[1]}.value.shape))") == "True (1, 8, 128)"
    summary = results.get_by_role("region", name=f"Saved {name[1]}").inner_text()
    assert "(1, 8, 128)" in summary

    # And so do the probabilities: the table's "after" is the softmax of the logits that the same edit gives in a cell.
    top = do.run_cell(
        page,
        f"with model.trace({EIFFEL!r}):\n"
        "    model.transformer.h[0].mlp.output[:] = 0\n"
        "    logits = model.lm_head.output[0, -1].save()\n"
        "p, ids = logits.softmax(-1).topk(3)\n"
        "print(*[f'{model.tokenizer.decode([int(i)]).strip()} {float(q):.3f}' for i, q in zip(ids, p)], sep='|')",
    )
    shown = " ".join(" ".join(before).split())
    for word, probability in (each.rsplit(" ", 1) for each in top.split("|")):
        assert any(word in row and _close(row, float(probability)) for row in before), (word, probability, shown)

    do.reload(page)
    expect(panel(page).get_by_role("combobox", name="Model")).to_have_value("model", timeout=SOON)
    expect(panel(page).get_by_role("textbox", name="Prompt")).to_have_value(EIFFEL)
    expect(cards(page)).to_have_count(2)
    expect(panel(page).get_by_role("status")).to_have_text(headline, timeout=SOON)
    expect(page.get_by_role("main").get_by_role("region", name="Results")).to_contain_text("Paris")
    shot(page, "reloaded")


def test_restart_second_notebook_and_busy_kernel(page: Page, lab: Lab) -> None:
    do.write_notebook(lab.folder, "other.ipynb", "")
    open_demo(page, lab, "first.ipynb")
    panel(page).get_by_role("textbox", name="Prompt").fill("The Colosseum is in the city of")
    expect(row(page, "lm_head")).to_contain_text("1×7×", timeout=SOON)

    # A cell sleeps; the panel is answered meanwhile.
    cell = do.write_cell(page, "import time\ntime.sleep(8)\nprint('slept')")
    cell.locator(".cm-content").click()
    do.notebook(page).get_by_role("button", name="Run this cell and advance").click()
    panel(page).get_by_role("textbox", name="Prompt").fill("The Colosseum is in the city of Rome")
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=5_000)
    assert do.output(cell) == ""
    do.wait_idle(page)

    do.restart_kernel(page)
    expect(panel(page)).to_contain_text("import workbench as wb", timeout=SOON)
    do.run_cell(page, "import workbench as wb\nagain = wb.demo('llama')")
    expect(panel(page).get_by_role("combobox", name="Model")).to_have_value("again", timeout=SOON)
    expect(panel(page).get_by_role("textbox", name="Prompt")).to_have_value("The Colosseum is in the city of Rome")

    do.open_another(page, "other.ipynb")
    expect(panel(page)).to_contain_text("other.ipynb")
    expect(panel(page)).to_contain_text("To begin, run these two lines", timeout=SOON)
    shot(page, "empty")
    do.show_notebook(page, "first.ipynb")
    expect(panel(page).get_by_role("combobox", name="Model")).to_have_value("again", timeout=SOON)


def test_a_fault_stands_on_its_card_in_words(desk: Page) -> None:
    page = desk
    panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
    expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)
    act(page, "transformer.h.0.mlp", "Ablate")
    panel(page).get_by_role("button", name="token 7 of").click()
    expect(panel(page).get_by_role("region", name="Code")).to_contain_text("positions=[7]", timeout=SOON)
    panel(page).get_by_role("textbox", name="Prompt").fill("The Eiffel Tower")
    expect(cards(page).first).to_contain_text("token 7 is out of range: the prompt has 3 tokens", timeout=SOON)
    expect(panel(page).get_by_role("button", name="Run", exact=True)).to_be_disabled()
    shot(page, "fault")
    cards(page).first.get_by_role("switch", name="Enabled").click()
    expect(panel(page).get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=SOON)
    cards(page).first.get_by_role("button", name="Remove").click()
    expect(cards(page)).to_have_count(0)
