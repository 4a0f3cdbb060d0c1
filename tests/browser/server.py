"""One real JupyterLab for the browser tests: a process of its own, on loopback, with nothing of the user's in it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "test-results"

CONFIG = """
c = get_config()
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: where it answers, its token, the folder it shows, the file it logs to."""

    url: str
    token: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]


def start(place: Path) -> Lab:
    """Starts JupyterLab inside `place` with copies of the notebooks, and returns once it answers."""
    folder = place / "work"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".*"))
    port, token = free_port(), secrets.token_hex(16)
    RESULTS.mkdir(exist_ok=True)
    log = RESULTS / "lab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                f"--ServerApp.root_dir={folder}",
                f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={token}",
            ],
            env=settings(place) | of_this_checkout(place),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    lab = Lab(f"http://127.0.0.1:{port}/", token, folder, log, process)
    try:
        wait_until_it_answers(lab)
    except BaseException:
        stop(lab)
        raise
    return lab


def stop(lab: Lab) -> None:
    """Ends the server by its own pid; it ends its kernels."""
    lab.process.terminate()
    try:
        lab.process.wait(20)
    except subprocess.TimeoutExpired:
        lab.process.kill()
        lab.process.wait()


def settings(place: Path) -> dict[str, str]:
    """An environment in which Jupyter keeps everything in `place`, and says nothing of news."""
    (place / "config").mkdir(parents=True, exist_ok=True)
    (place / "config" / "jupyter_server_config.py").write_text(CONFIG)
    notices = place / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notices.parent.mkdir(parents=True, exist_ok=True)
    notices.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    return os.environ | {
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
        "JUPYTER_DATA_DIR": str(place / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
        "IPYTHONDIR": str(place / "ipython"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def of_this_checkout(place: Path) -> dict[str, str]:
    """The package and the panel that are used are this checkout's, also where another's are installed."""
    extensions = place / "share" / "labextensions"
    extensions.mkdir(parents=True, exist_ok=True)
    (extensions / "workbench").symlink_to(ROOT / "workbench" / "labextension", target_is_directory=True)
    return {"JUPYTER_PATH": str(place / "share"), "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(lab: Lab, seconds: float = 60) -> None:
    """Returns when the server answers; says how it ended, or what it logged, when it does not."""
    request = urllib.request.Request(f"{lab.url}api/status", headers={"Authorization": f"token {lab.token}"})
    end = time.monotonic() + seconds
    while time.monotonic() < end and lab.process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: exit status {lab.process.poll()}\n{lab.log.read_text()[-3000:]}")
