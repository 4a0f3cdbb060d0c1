"""The floor under all browser tests: JupyterLab opens, a notebook opens, a cell runs, a kernel restarts."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser import lab as do
from tests.browser.server import Lab


def test_a_cell_runs(page: Page, lab: Lab) -> None:
    do.open_notebook(page, do.write_notebook(lab.folder, "one.ipynb", ""))
    expect(page).to_have_title("one.ipynb - JupyterLab")
    assert do.run_cell(page, "1+1") == "2"
    assert do.run_cell(page, "for word in ('a', 'b'):\n    print({'word': word})") == "{'word': 'a'}\n{'word': 'b'}"


def test_all_cells_run_and_an_error_is_seen(page: Page, lab: Lab) -> None:
    do.open_notebook(page, do.write_notebook(lab.folder, "all.ipynb", "x = 20", "x + 1", "1 / 0"))
    do.run_all(page)
    assert do.output(do.cells(page).nth(1)) == "21"
    assert "ZeroDivisionError" in do.output(do.cells(page).nth(2))


def test_a_restart_forgets_and_a_reload_does_not(page: Page, lab: Lab) -> None:
    do.open_notebook(page, do.write_notebook(lab.folder, "again.ipynb", ""))
    do.run_cell(page, "kept = 'still here'")
    do.reload(page)
    assert do.run_cell(page, "kept") == "'still here'"
    do.restart_kernel(page)
    assert "NameError" in do.run_cell(page, "kept")


def test_two_notebooks_have_kernels_of_their_own(page: Page, lab: Lab) -> None:
    do.write_notebook(lab.folder, "second.ipynb", "")
    do.open_notebook(page, do.write_notebook(lab.folder, "first.ipynb", ""))
    do.run_cell(page, "mine = 1")
    do.open_another(page, "second.ipynb")
    assert "NameError" in do.run_cell(page, "mine")
    do.show_notebook(page, "first.ipynb")
    assert do.run_cell(page, "mine") == "1"
