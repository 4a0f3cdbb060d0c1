"""The wheel that users get: built here, installed into a fresh environment, found by JupyterLab, imported."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from workbench.server.auth import Keys

ROOT = Path(__file__).parents[1]
EXTENSION = "share/jupyter/labextensions/workbench"


@dataclass(frozen=True)
class Installed:
    """A fresh environment with the wheel in it, away from the checkout and from the user's own Jupyter."""

    place: Path
    folder: Path

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What this environment's Python says, on both channels."""
        return self.run(str(self.place / "bin" / "python"), *words)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What a program of this environment says."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "JUPYTER"))}
        clean = kept | {"HOME": str(self.folder), "JUPYTER_DATA_DIR": str(self.folder), "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=self.folder, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout with its built panel."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel alone; what it depends on is borrowed from the environment of the tests."""
    fresh = Installed(tmp_path_factory.mktemp("env"), tmp_path_factory.mktemp("away"))
    venv.create(fresh.place, symlinks=True)
    borrowed = sysconfig.get_path("purelib")
    (site,) = fresh.place.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(borrowed)
    pip = [sys.executable, "-m", "pip", "--python", str(fresh.place / "bin" / "python")]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return fresh


def test_the_wheel_carries_the_panel_and_the_demo_models_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    data = "workbench-0.1.0.data/data"
    assert f"{data}/{EXTENSION}/package.json" in names
    assert f"{data}/{EXTENSION}/install.json" in names
    assert any(name.startswith(f"{data}/{EXTENSION}/static/remoteEntry.") for name in names)
    for model in ("gpt2", "llama"):
        assert f"workbench/models/demo/{model}/model.safetensors" in names
        assert f"workbench/models/demo/{model}/config.json" in names
        assert f"workbench/models/demo/{model}/tokenizer.json" in names
    for program in ("views/static/widget.js", "views/static/page.js", "jupyter/widget.js"):
        assert f"workbench/{program}" in names
    rooms = {name.split("/")[0] for name in names}
    assert rooms == {"workbench", "workbench-0.1.0.dist-info", "workbench-0.1.0.data"}
    assert [name for name in names if "node_modules" in name or "__pycache__" in name or "/tests/" in name] == []
    assert len(names) == len(set(names))


def test_jupyterlab_finds_the_extension_of_the_wheel(installed: Installed) -> None:
    said = installed.python("-c", "from jupyterlab.labextensions import main; main()", "list")
    here = (said.stdout + said.stderr).split(f"{installed.place / 'share/jupyter/labextensions'}\n")[1]
    line = next(line for line in here.splitlines() if line.split()[:1] == ["workbench"])
    assert "enabled" in line
    assert "OK" in line


def test_the_package_of_the_wheel_is_the_one_that_is_imported(installed: Installed) -> None:
    where, answer = installed.python("-c", ANSWER).stdout.splitlines()
    assert Path(where).is_relative_to(installed.place)
    assert answer == " Paris"


def test_the_command_that_the_readme_names_is_there(installed: Installed) -> None:
    """`workbench key NAME` gives a key that the file then knows; `workbench serve` says what it takes."""
    program = str(installed.place / "bin" / "workbench")
    key = installed.run(program, "key", "ann", "--keys", "keys").stdout.strip()
    assert Keys(installed.folder / "keys").who(f"Bearer {key}") == "ann"
    assert "--tensor-parallel N" in installed.run(program, "serve", "--help").stdout


ANSWER = """
import workbench as wb
model = wb.demo()
with model.trace("The Eiffel Tower is in the city of"):
    answer = model.lm_head.output[0, -1].argmax().save()
print(wb.__file__)
print(model.tokenizer.decode(answer.value))
"""
