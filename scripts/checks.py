"""Runs the project's checks one after the other, says what each is and how long it took, and stops at the first failure."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable

CHECKS: dict[str, list[list[str]]] = {
    "lint": [[PYTHON, "-m", "ruff", "format", "--check", "-q", "."], [PYTHON, "-m", "ruff", "check", "-q", "."]],
    "types": [[PYTHON, "-m", "pyright"]],
    "units": [[PYTHON, "-m", "pytest", "--ignore", "tests/browser"]],
    "notebooks": [[PYTHON, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "notebooks"]],
}
if (ROOT / "package.json").exists():
    CHECKS["types"] += [["npm", "run", "--silent", "check"], ["npm", "run", "--silent", "types:check"]]
if (ROOT / "tests" / "browser").exists():
    CHECKS["browser"] = [[PYTHON, "-m", "pytest", "tests/browser"]]


def main(names: list[str]) -> None:
    """Run the named checks, or all."""
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in names or CHECKS:
        for command in CHECKS[name]:
            shown = " ".join("python" if part == PYTHON else part for part in command)
            print(f"· {name}: {shown}", flush=True)
            start = time.monotonic()
            status = subprocess.run(command, check=False).returncode
            print(f"  {time.monotonic() - start:.0f} s", flush=True)
            if status:
                sys.exit(f"make: the check '{name}' failed (`{shown}`, status {status})")
    print("all checks passed")


if __name__ == "__main__":
    main(sys.argv[1:])
