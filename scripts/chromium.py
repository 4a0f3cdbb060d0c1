"""Finds a Chromium for the browser tests, and gets one when the machine has none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = (
    "/usr/bin/chromium",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
# The first three let it run in a container; the others keep it from asking the network for anything of its own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    """The path of a Chromium or Chrome of this machine that answers; None when there is none.

    `CHROMIUM=/path` comes before all others. Playwright's own copy is not looked for here: Playwright finds it itself.
    """
    asked = os.environ.get("CHROMIUM")
    if asked:
        if not answers(asked):
            raise FileNotFoundError(f"CHROMIUM={asked} does not answer to --version")
        return asked
    candidates = [path for name in NAMES if (path := shutil.which(name))]
    candidates += [place for place in PLACES if Path(place).exists()]
    return next((path for path in candidates if answers(path)), None)


def answers(path: str) -> bool:
    """Whether it runs at all: Ubuntu has a stub by this name that only tells where else to look."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.returncode == 0


def main() -> None:
    """Starts it once and closes it: says here, and not in the middle of the tests, that something is missing."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        playwright.chromium.launch(executable_path=find(), args=list(FLAGS)).close()


if __name__ == "__main__":
    main()
