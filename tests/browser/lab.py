"""What a person does in JupyterLab, for browser tests: open a notebook, type into a cell, run it, restart the kernel.

Every helper takes the page and works on the notebook in front; nothing reaches behind the page.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page, expect

KERNEL = "Python 3 (ipykernel)"
STARTING = 60_000  # ms: JupyterLab in a cold browser, or a kernel on a busy machine
RUNNING = 120_000  # ms: a cell; the first one in a kernel imports torch


def write_notebook(folder: Path, name: str, *cells: str) -> str:
    """A notebook file of code cells in `folder`; returns its name."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": KERNEL, "language": "python"}},
    )
    nbformat.write(notebook, folder / name)
    return name


def open_notebook(page: Page, name: str, *, reset: bool = True, workspace: str = "") -> Locator:
    """Opens JupyterLab on one notebook and waits for its kernel; `reset` closes what was open before.

    Pages of one workspace keep what is open in one place: a page that others are opened beside needs one of its own.
    """
    page.goto(f"lab{workspace and '/workspaces/'}{workspace}/tree/{name}{'?reset' if reset else ''}")
    return connected(page)


def open_another(page: Page, name: str) -> Locator:
    """Opens a second notebook, beside the first, from the file browser."""
    page.get_by_role("listitem", name=re.compile(rf"^Name: {re.escape(name)}\b")).dblclick()
    expect(page.get_by_role("main").get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
    return connected(page)


def show_notebook(page: Page, name: str) -> Locator:
    """Brings the tab of an open notebook to the front."""
    page.get_by_role("main").get_by_role("tab", name=name).click()
    return notebook(page)


def reload(page: Page) -> Locator:
    """Reloads the page, as a person does, and waits until the notebook is connected again."""
    page.reload()
    return connected(page)


def connected(page: Page) -> Locator:
    """Waits until the notebook in front is there and its kernel answers."""
    expect(notebook(page)).to_be_visible(timeout=STARTING)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0, timeout=STARTING)
    answering = page.get_by_role("contentinfo").get_by_role("button", name=re.compile(r"\| Idle$"))
    expect(answering).to_be_visible(timeout=STARTING)
    wait_idle(page)
    return notebook(page)


def notebook(page: Page) -> Locator:
    """The notebook in front."""
    return page.locator(".jp-NotebookPanel:visible").first


def cells(page: Page) -> Locator:
    """The cells of the notebook in front, top to bottom."""
    return notebook(page).locator(".jp-Notebook .jp-Cell")


def wait_idle(page: Page, timeout: float = RUNNING) -> None:
    """Returns when the notebook in front has a kernel and the kernel has nothing to do.

    The kernel's name is looked at first: a notebook without a kernel shows an idle one.
    """
    expect(notebook(page).locator("[data-jp-item-name=kernelName]")).to_have_text(KERNEL, timeout=timeout)
    expect(kernel_status(page)).to_have_attribute("data-status", "idle", timeout=timeout)


def kernel_status(page: Page) -> Locator:
    """The sign in the notebook's toolbar; its `data-status` is the kernel's state."""
    return notebook(page).locator(".jp-Notebook-ExecutionIndicator")


def run_cell(page: Page, code: str, timeout: float = RUNNING) -> str:
    """Types `code` into an empty cell at the end, runs it, and gives what it printed or returned as text."""
    return run(page, write_cell(page, code), timeout)


def write_cell(page: Page, code: str) -> Locator:
    """Types `code` into an empty cell at the end of the notebook, adding one when there is none."""
    count = cells(page).count()
    last = cells(page).nth(count - 1)
    if not is_empty(last):
        notebook(page).get_by_role("button", name="Click to add a cell.").click()
        expect(cells(page)).to_have_count(count + 1)
        last = cells(page).nth(count)
    editor = last.locator(".cm-content")
    editor.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(code)  # as a paste does: no closing bracket or indentation is added
    expect(editor).to_have_text(code.replace("\n", ""))
    return last


def is_empty(cell: Locator) -> bool:
    """Whether it is a code cell without code; waits for its editor, which JupyterLab makes a moment after the cell."""
    if "jp-CodeCell" not in (cell.get_attribute("class") or ""):
        return False
    editor = cell.locator(".cm-content")
    expect(editor).to_be_visible()
    return not editor.inner_text().strip()


def run(page: Page, cell: Locator, timeout: float = RUNNING) -> str:
    """Runs one cell and gives its output as text; an error in it is text too.

    By the toolbar's button: keyboard shortcuts are not there yet in the first moments of a page.
    """
    cell.locator(".cm-content").click()
    notebook(page).get_by_role("button", name="Run this cell and advance").click()
    expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=timeout)
    wait_idle(page, timeout)
    return output(cell)


def run_all(page: Page, timeout: float = RUNNING) -> None:
    """Runs every cell, from the menu, and waits for the last one."""
    prompts = notebook(page).locator(".jp-CodeCell .jp-InputPrompt")
    before = prompts.first.inner_text()
    menu(page, "Run", "Run All Cells")
    expect(prompts.first).not_to_have_text(before, timeout=timeout)
    expect(prompts.filter(has_text="[*]")).to_have_count(0, timeout=timeout)
    wait_idle(page, timeout)


def output(cell: Locator) -> str:
    """What a cell shows below its code, as text."""
    return "\n".join(cell.locator(".jp-OutputArea-output").all_inner_texts()).strip()


def restart_kernel(page: Page) -> None:
    """Restarts the kernel of the notebook in front, agreeing when asked."""
    notebook(page).get_by_role("button", name="Restart the kernel", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(kernel_status(page)).not_to_have_attribute("data-status", "idle")
    wait_idle(page)


def change_kernel(page: Page) -> None:
    """Gives the notebook in front another kernel, of the same kind, as *Kernel, Change Kernel…* does."""
    menu(page, "Kernel", "Change Kernel…")
    dialog = page.locator(".jp-Dialog")
    dialog.get_by_role("combobox").select_option(label=KERNEL)
    dialog.locator("button.jp-mod-accept").click()
    expect(dialog).to_have_count(0)
    wait_idle(page)


def theme(page: Page, name: str) -> None:
    """Chooses a theme from the Settings menu."""
    page.get_by_role("menubar").get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item").filter(has_text=re.compile("^Theme")).hover()
    page.get_by_role("menuitem", name=name, exact=True).click()
    expect(page.locator(f"body[data-jp-theme-name='{name}']")).to_have_count(1)


def side_width(page: Page, width: int) -> None:
    """Drags the edge of the right side bar until the panel is as wide, or as narrow as it can be."""
    panel = page.get_by_role("region", name="Workbench", exact=True).bounding_box()
    assert panel is not None
    y = panel["y"] + panel["height"] / 2
    page.mouse.move(panel["x"] - 1, y)
    page.mouse.down()
    page.mouse.move(panel["x"] + panel["width"] - width, y, steps=8)
    page.mouse.up()


def menu(page: Page, name: str, item: str) -> None:
    """Chooses an item of the main menu."""
    page.get_by_role("menubar").get_by_role("menuitem", name=name, exact=True).click()
    page.get_by_role("menu").get_by_role("menuitem", name=item, exact=True).click()
