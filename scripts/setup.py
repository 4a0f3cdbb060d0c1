"""Makes the checkout ready: environment, Python packages, the panel, the package itself, and a Chromium for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from scripts import chromium, needs
from scripts.steps import PYTHON, ROOT, STAMPS, VENV, Failure, fingerprint, run, say, step

PROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
EXTENSION = ROOT / "workbench" / "labextension"
INSTALLED = VENV / "share" / "jupyter" / "labextensions" / "workbench"
NPM_FILES = [ROOT / name for name in ("package.json", "package-lock.json", ".npmrc")]

NETWORK = "Is the network there? What was already fetched is kept; run the same command again."


def everything(browser: bool, panel: bool = True) -> None:
    """All that `make lab` needs.

    Args:
        browser: also what the browser tests need.
        panel: without it, only what writes the panel's types needs, since the panel may not build without them.
    """
    needs.check()
    shared = VENV.is_symlink()
    if shared:
        say(".venv is a link: used as it is, nothing is installed into it")
    else:
        step("environment", "environment in .venv", environment, of=f"{sys.version_info[:2]} {VENV}", gives=PYTHON)
        packages()
    npm()
    if not panel:
        return
    build()
    if shared:
        link(STAMPS / "share" / "labextensions" / "workbench")
    else:
        workbench()
    if browser:
        a_chromium()


def environment() -> None:
    """A fresh environment, also where one of another Python or from another folder stands."""
    run("environment", sys.executable, "-m", "venv", "--clear", VENV)


def packages() -> None:
    """Everything pyproject.toml names, in the tested versions."""
    project = tomllib.loads(PROJECT.read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(each for extra in extras.values() for each in extra if not each.startswith("workbench[")),
    ]
    step(
        "packages",
        "Python packages (some minutes the first time)",
        lambda: run("packages", PYTHON, "-m", "pip", "install", "-c", CONSTRAINTS, *wanted, hint=NETWORK),
        of=fingerprint(CONSTRAINTS, *wanted, sys.version),
        gives=VENV / "bin" / "jupyter-lab",
    )


def npm() -> None:
    """What builds and checks the panel."""
    step(
        "npm",
        "npm packages (a minute the first time)",
        lambda: run("npm", "npm", "ci", hint=NETWORK),
        of=fingerprint(*NPM_FILES),
        gives=ROOT / "node_modules" / ".package-lock.json",
    )


def build() -> None:
    """The labextension, built into workbench/labextension."""
    sources = [ROOT / "labextension", *sorted(ROOT.glob("tsconfig*.json")), *NPM_FILES]
    step(
        "panel",
        "the panel",
        lambda: run("panel", "npm", "run", "build:prod"),
        of=fingerprint(*sources),
        gives=EXTENSION / "package.json",
    )


def workbench() -> None:
    """The package, editable, and its extension as a link, so that a rebuilt panel is there at the next reload."""
    step("workbench", "workbench itself", install, of=fingerprint(PROJECT, str(ROOT)), gives=INSTALLED / "package.json")


def install() -> None:
    """pip first: it copies the extension, and must not write through the link that then takes the copy's place."""
    if INSTALLED.is_symlink():
        INSTALLED.unlink()
    run("workbench", PYTHON, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    link(INSTALLED)


def link(place: Path) -> None:
    """The built panel at the place, instead of whatever is there."""
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(EXTENSION, target_is_directory=True)


def a_chromium() -> None:
    """One that starts: the machine's, else by apt where we may, else Playwright's own."""
    try:
        found = chromium.find()
    except FileNotFoundError as error:
        raise Failure(str(error)) from error
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        step("apt", "Chromium by apt-get", apt)
        found = chromium.find()
    if found is None:
        with_system_libraries = ["--with-deps"] if os.geteuid() == 0 and shutil.which("apt-get") else []
        fetch = [PYTHON, "-m", "playwright", "install", *with_system_libraries, "chromium"]
        step("playwright", "Chromium by Playwright", lambda: run("playwright", *fetch, hint=NO_CHROMIUM), of="chromium")
    step(
        "chromium",
        f"Chromium starts ({found or 'the one by Playwright'})",
        lambda: run("chromium", PYTHON, "-m", "scripts.chromium", hint=NO_CHROMIUM),
        of=fingerprint(found or "playwright", CONSTRAINTS),
    )


NO_CHROMIUM = """\
The browser tests need a Chromium or Chrome that starts.
  Debian           apt-get install chromium
  Ubuntu           .venv/bin/python -m playwright install --with-deps chromium
  macOS            brew install --cask chromium
One in an unusual place is named with: make CHROMIUM=/path/to/chromium test"""


def apt() -> None:
    """Not a fault when it fails: Playwright's own is tried next."""
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdin": subprocess.DEVNULL}
    STAMPS.mkdir(exist_ok=True)
    with (STAMPS / "apt.log").open("wb") as log:
        for words in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.call(["apt-get", *words], stdout=log, stderr=log, **quiet)


def clean() -> None:
    """Removes what was built and installed; an environment that is a link stays."""
    built = [
        STAMPS,
        EXTENSION,
        ROOT / "node_modules",
        ROOT / "labextension" / "lib",
        ROOT / "workbench" / "views" / "static",
        ROOT / "test-results",
        ROOT / "dist",
    ]
    for place in [*built, *(() if VENV.is_symlink() else (VENV,))]:
        if place.exists():
            say(f"removing {place.relative_to(ROOT)}")
            shutil.rmtree(place)
