"""Sets up a checkout: the environment, the panel, a browser for its tests. Uses the standard library alone.

Each step is skipped when the files it depends on have not changed since it last succeeded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAMPS = ROOT / ".make"
VENV = ROOT / ".venv"
BIN = VENV / "bin"


def main() -> None:
    os.chdir(ROOT)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    require_python()
    step("Python environment", ["pyproject.toml", "constraints.txt", "scripts/setup.py"], environment)
    if (ROOT / "package.json").exists():
        require_node()
        step("npm packages", ["package.json", "package-lock.json"], node_modules)
        sources = [str(path) for path in sorted((ROOT / "labextension").rglob("*")) if is_source(path)]
        step("JupyterLab extension", [*sources, "package.json", "tsconfig.json"], labextension)
    step("workbench itself, editable", ["pyproject.toml", "package.json"], editable)
    step("Chromium for the browser tests", ["scripts/chromium.py"], chromium)


def is_source(path: Path) -> bool:
    return path.is_file() and "lib" not in path.relative_to(ROOT / "labextension").parts


def step(name: str, depends: Iterable[str], work: Callable[[], None]) -> None:
    """Do the work unless it was done for exactly these files."""
    STAMPS.mkdir(exist_ok=True)
    stamp = STAMPS / name.replace(" ", "-").replace(",", "")
    digest = hashlib.sha256()
    for file in depends:
        path = ROOT / file
        digest.update(file.encode() + (path.read_bytes() if path.exists() else b""))
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    print(f"· {name} …")
    start = time.monotonic()
    work()
    stamp.write_text(digest.hexdigest())
    print(f"  {name}: {time.monotonic() - start:.0f} s")


def run(*command: str | Path) -> None:
    """Run a command; what it says is shown only when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-6000:], sep="\n")
        stop(f"`{' '.join(map(str, command))}` failed with status {done.returncode}; its last words stand above")


def stop(message: str) -> None:
    sys.exit(f"make: {message}")


def require_python() -> None:
    if sys.version_info < (3, 11):
        stop(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try `make PYTHON=python3.12 …`")


def require_node() -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        stop("Node 20 or newer with npm is needed for the panel; get it from your system's packages or nodejs.org")
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(said.lstrip("v").split(".")[0]) < 20:
        stop(f"Node 20 or newer is needed, this is {said}")


def environment() -> None:
    if not (BIN / "python").exists():
        try:
            venv.create(VENV, with_pip=True)
        except (subprocess.CalledProcessError, ImportError):
            stop("Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv")
    run(BIN / "python", "-m", "pip", "install", "-q", "-c", "constraints.txt", *requirements())


def requirements() -> list[str]:
    """All that pyproject.toml asks for, so that the package itself can be installed last, when the panel is built."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in ("test", "dev"):
        asked += project["project"]["optional-dependencies"][extra]
    return asked


def node_modules() -> None:
    run("npm", "ci", "--no-audit", "--no-fund")


def labextension() -> None:
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    run("npm", "run", "--silent", "build:prod")


def editable() -> None:
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    run(BIN / "python", "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "-e", ".")
    built = ROOT / "workbench" / "labextension"
    if not built.exists():
        return
    link = VENV / "share" / "jupyter" / "labextensions" / "workbench"
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() or link.is_file():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    link.symlink_to(built, target_is_directory=True)


def chromium() -> None:
    sys.path.insert(0, str(ROOT))
    from scripts.chromium import find

    if find() is not None:
        return
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "chromium")
    else:
        run(BIN / "python", "-m", "playwright", "install", "chromium")


if __name__ == "__main__":
    main()
