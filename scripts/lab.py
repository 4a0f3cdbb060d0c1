"""Opens JupyterLab on the first notebook; the panel comes up by itself beside it."""

from __future__ import annotations

import os
from typing import NoReturn

from scripts.steps import PYTHON, ROOT, environment

NOTEBOOK = ROOT / "notebooks" / "first_look.ipynb"


def become(flags: list[str]) -> NoReturn:
    """Turns this process into JupyterLab, so that Ctrl-C and signals reach it and nobody else."""
    allowed = ["--ServerApp.allow_root=True"] if os.geteuid() == 0 else []
    words = ["-m", "jupyterlab", str(NOTEBOOK), f"--ServerApp.root_dir={ROOT}", *allowed, *flags]
    os.chdir(ROOT)
    os.execve(PYTHON, [str(PYTHON), *words], environment())
