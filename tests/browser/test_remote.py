"""*Remote* in the panel: an experiment run on a real server, what it hosts, and a server that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import lab as do
from tests.browser.desk import EIFFEL, SOON, act, card, code, panel, results, row, run, shot
from tests.browser.server import Lab
from tests.serving import GPT2, serving


def test_the_panels_run_on_a_server(page: Page, lab: Lab, tmp_path: Path) -> None:
    with serving(tmp_path, GPT2) as server:
        server.ready()
        do.open_notebook(page, do.write_notebook(lab.folder, "remote.ipynb", ""))
        do.run_cell(
            page, f'import workbench as wb\nwb.CONFIG.API.HOST = "{server.host}"\nmodel = wb.LanguageModel("{GPT2}")'
        )
        expect(panel(page).get_by_role("combobox", name="Model")).to_have_value("model", timeout=SOON)
        panel(page).get_by_role("textbox", name="Prompt").fill(EIFFEL)
        expect(row(page, "lm_head")).to_contain_text("1×8×", timeout=SOON)  # the rows stand
        act(page, "transformer.h.2.mlp", "Ablate")
        act(page, "transformer.h.3", "Save output")
        where = panel(page).get_by_role("group", name="Where it runs")
        where.get_by_role("button", name="Remote").click()
        there = panel(page).get_by_role("group", name="Server")
        expect(there).to_contain_text(f"127.0.0.1:{server.port} · no queue", timeout=SOON)
        expect(there.get_by_role("list", name="Models of the server")).to_have_text(GPT2)
        expect(code(page)).to_contain_text("remote=True", timeout=SOON)
        headline = run(page).inner_text()
        assert "Paris" in headline
        assert "1 value saved" in headline
        told = "fired 1×, changed 1,024 of 1,024 values"
        expect(card(page, "Ablate transformer.h.2.mlp")).to_contain_text(told)
        # What came back is looked at without the weights, which stay where they are.
        h3 = results(page).get_by_role("group", name="h3", exact=True)
        expect(h3).to_contain_text("norms only", timeout=SOON)
        expect(h3.get_by_role("img")).to_be_visible()
        shot(page, "remote")
        expect(there).to_be_visible()
        assert do.run_cell(page, "next(model.module.parameters()).is_meta, wb.runs()[-1].saved.keys()").startswith(
            "(True"
        )
        where.get_by_role("button", name="Local").click()
        expect(code(page)).not_to_contain_text("remote=True", timeout=SOON)
        expect(there).to_have_count(0)
        where.get_by_role("button", name="Remote").click()
        expect(there).to_contain_text("no queue", timeout=SOON)
    expect(there).to_contain_text(re.compile("no server answers|has not answered"), timeout=SOON)
    expect(panel(page).get_by_role("button", name="Run", exact=True)).to_be_disabled()
    shot(page, "remote-gone")
