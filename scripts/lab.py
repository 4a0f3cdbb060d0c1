"""Opens JupyterLab on the first notebook; the panel comes up by itself beside it."""

from __future__ import annotations

import os
from typing import NoReturn

from scripts.steps import PYTHON, ROOT, environment

NOTEBOOK = "notebooks/first_look.ipynb"


def become(flags: list[str]) -> NoReturn:
    """Turns this process into JupyterLab, so that Ctrl-C and signals reach it and nobody else."""
    allowed = ["--ServerApp.allow_root=True"] if os.geteuid() == 0 else []
    # As the address, and not as an argument: then it is also in the address that is printed where there is no browser.
    start = [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url=/lab/tree/{NOTEBOOK}"]
    words = ["-m", "jupyterlab", *start, *allowed, *flags]
    # A layout of its own: another project's open tabs do not come up here, and on the first start the panel does.
    settings = {"JUPYTERLAB_WORKSPACES_DIR": str(ROOT / ".jupyter" / "workspaces")} | environment()
    os.chdir(ROOT)
    os.execve(PYTHON, [str(PYTHON), *words], settings)
