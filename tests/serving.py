"""A real server in a process of its own, on this machine only, ended by its own number."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from workbench.server.sandbox import die_with_parent

ROOT = Path(__file__).parents[1]
GPT2, LLAMA = "workbench/demo-gpt2", "workbench/demo-llama"


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Serving:
    """One server: its address, its folder, and a hand on its process."""

    def __init__(
        self, folder: Path, *words: str, port: int | None = None, surroundings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.host = f"http://127.0.0.1:{self.port}"
        self._words = words
        self._surroundings = dict(surroundings or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> Serving:
        """Start it; with `wait` until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workbench.cli", "serve", *self._words,
                 "--port", str(self.port), "--data", str(self.folder / "data")],
                cwd=ROOT, stdout=log, stderr=log, preexec_fn=die_with_parent,  # also where the tests are killed
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self._surroundings},
            )  # fmt: skip
        if wait:
            self.wait()
        return self

    def wait(self, seconds: float = 120) -> None:
        """Wait until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process is not None
            assert self._process.poll() is None, self.log
            try:
                httpx.get(self.host, timeout=5, trust_env=False)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"no answer: {self.log}")

    def ready(self, *keys: str, key: str | None = None, seconds: float = 120) -> Serving:
        """Wait until all its models have been opened."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if "the models are being opened" not in httpx.get(self.host, trust_env=False).text:
                return self
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.log}")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "server.log").read_text()


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Serving]:
    """A server for the time of a block."""
    server = Serving(folder, *words).start()
    try:
        yield server
    finally:
        server.stop()
