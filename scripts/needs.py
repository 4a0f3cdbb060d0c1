"""What the machine must bring along: Node, npm and Python's venv; said in words, with the cure, when it does not."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys

from scripts.steps import Failure, say

NODE = 20
NPM = 9

GET_NODE = """\
  Debian, Ubuntu   apt-get install nodejs npm   (where that gives an old one: https://nodejs.org/en/download)
  macOS            brew install node
  elsewhere        https://nodejs.org/en/download"""

NO_VENV = f"""\
This Python ({sys.executable}) cannot make environments: its venv or ensurepip module is missing.
  Debian, Ubuntu   apt-get install python{sys.version_info.major}.{sys.version_info.minor}-venv"""


def check() -> None:
    """Raises a Failure that names everything missing; else says in one line what was found."""
    node, npm = version("node"), version("npm")
    faults = [
        too_old("Node", node, NODE) or too_old("npm", npm, NPM),  # a newer Node brings a newer npm
        None if venv_works() else NO_VENV,
    ]
    if any(faults):
        raise Failure("\n".join(filter(None, faults)))
    say(f"Python {sys.version.split()[0]}, Node {node}, npm {npm}")


def version(program: str) -> str | None:
    """What the program says its version is; None when there is no such program, or it does not run."""
    path = shutil.which(program)
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    found = re.search(r"\d+(\.\d+)+", said.stdout)
    return found[0] if found else None


def too_old(name: str, found: str | None, least: int) -> str | None:
    """The fault in words, or None where there is none."""
    if found is not None and int(found.split(".")[0]) >= least:
        return None
    has = f"this machine has {found}" if found else "this machine has none"
    cure = (
        GET_NODE
        if name == "Node"
        else f"  npm install --global npm@latest, or a newer Node, which brings its own:\n{GET_NODE}"
    )
    return f"workbench needs {name} {least} or newer to build its panel; {has}.\n{cure}"


def venv_works() -> bool:
    """Whether this Python can make an environment with pip in it: Debian ships it apart."""
    return all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
