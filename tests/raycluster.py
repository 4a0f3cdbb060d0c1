"""A real Ray cluster of our own: a head without processors, and two nodes, each in a network namespace where the system
allows that, else on this machine's loopback. All its processes are in groups that we started, and end with them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import ROOT, free_port

IP = shutil.which("ip") or "/usr/sbin/ip"
RAY = Path(sys.executable).with_name("ray")


class Network:
    """A bridge, and a namespace for each node; `None` addresses where the system has no namespaces for us."""

    def __init__(self, nodes: int) -> None:
        _sweep()
        self._name = f"wb{os.getpid()}" if nodes else f"wb{os.getpid()}x"
        third = (os.getpid() + (not nodes)) % 250
        self.head = f"10.213.{third}.1"
        self.nodes = [f"10.213.{third}.{2 + index}" for index in range(nodes)]
        self.spaces: list[str | None] = [f"{self._name}n{index}" for index in range(nodes)]
        try:
            self._make()
        except (OSError, subprocess.CalledProcessError):
            self.close()
            self.head, self.nodes = "127.0.0.1", ["127.0.0.1"] * nodes
            self.spaces = [None for _ in range(nodes)]

    @property
    def namespaces(self) -> bool:
        """Whether each node has a network of its own."""
        return None not in self.spaces

    def _make(self) -> None:
        bridge = f"{self._name}b"
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{self.head}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for index, (space, address) in enumerate(zip(self.spaces, self.nodes, strict=True)):
            assert space is not None
            here, there = f"{self._name}h{index}", f"{self._name}t{index}"
            _ip("netns", "add", space)
            _ip("link", "add", here, "type", "veth", "peer", "name", there)
            _ip("link", "set", here, "master", bridge, "up")
            _ip("link", "set", there, "netns", space)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", there)
            _ip("-n", space, "link", "set", there, "up")
            _ip("-n", space, "route", "add", "default", "via", self.head)

    def close(self) -> None:
        _forget(self._name)


def _ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True)


def _forget(name: str) -> None:
    with contextlib.suppress(OSError):
        for each in Path("/run/netns").glob(f"{name}n*"):
            subprocess.run([IP, "netns", "del", each.name], capture_output=True)
        for each in Path("/sys/class/net").glob(f"{name}[bht]*"):
            subprocess.run([IP, "link", "del", each.name], capture_output=True)


def _sweep() -> None:
    """What a run that was killed has left."""
    for each in Path("/sys/class/net").glob("wb*b"):
        pid = each.name[2:-1].rstrip("x")
        if pid.isdigit() and not Path("/proc", pid).exists():
            _forget(each.name[:-1])


class Node:
    """One `ray start`, in a process group of its own."""

    def __init__(self, log: Path, space: str | None, surroundings: dict[str, str], *words: str) -> None:
        self.log = log
        self.space = space
        self._surroundings = surroundings
        self._words = words
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        inside = [IP, "netns", "exec", self.space] if self.space else []
        with self.log.open("wb") as file:
            process = subprocess.Popen(
                [*inside, sys.executable, str(RAY), "start", *self._words, "--block", "--disable-usage-stats",
                 "--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=false", *_ports()],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self._surroundings,
                start_new_session=True,
            )  # fmt: skip
        with contextlib.suppress(OSError):  # before others: Ray gives its own helpers 15 seconds to start, and no more
            Path(f"/proc/{process.pid}/autogroup").write_text("-15")
        return process

    def wait(self, tries: int = 4, seconds: float = 100) -> None:
        """Wait until it stands; one that fell, since its helpers were late on a busy machine, is started again."""
        end = time.monotonic() + seconds
        rose = False
        while "Ray runtime started" not in self.log.read_text():
            raylet = bool(self.processes("raylet/raylet"))
            rose = rose or raylet
            if self._process.poll() is not None or (rose and not raylet) or time.monotonic() > end:
                assert tries > 1, self.log.read_text()
                self.kill()
                self._process = self._start()
                return self.wait(tries - 1, seconds)
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut would: the group, and what its workers have started in groups of their own."""
        groups = {self._process.pid, *(os.getpgid(pid) for pid in self.processes())}
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._process.wait()

    def processes(self, *words: str) -> list[int]:
        """Its processes, or those with all these words in their command, by session and by parent."""
        found = {self._process.pid}
        parents = {pid: ppid for pid, ppid in _parents()}
        while more := {pid for pid, ppid in parents.items() if ppid in found and pid not in found}:
            found |= more
        return [
            pid for pid in found if all(word in _command(pid) for word in words) and Path("/proc", str(pid)).exists()
        ]


def _ports() -> list[str]:
    """Ports of its own for what a node would else wait for: its agents are slow to start on a busy machine."""
    names = (
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
    )
    return [f"--{name}={free_port()}" for name in names]


def _parents() -> Iterator[tuple[int, int]]:
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                yield int(each.name), int((each / "stat").read_text().rpartition(")")[2].split()[1])


def _command(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class Cluster:
    """A head and its nodes."""

    def __init__(self, network: Network, cpus: int = 1, mode: str = "token") -> None:
        self._network = network
        self._cpus = cpus
        self.folder = Path(tempfile.mkdtemp(prefix="wbr-", dir="/tmp"))  # short: sockets lie in it
        self.port = free_port()
        self.address = f"{network.head}:{self.port}"
        self.surroundings = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": mode,
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_enable_metrics_collection": "0",
        }
        self._count = 0
        self.head: Node | None = None
        self.nodes: list[Node | None] = [None] * len(network.nodes)

    def _log(self) -> Path:
        self._count += 1
        path = self.folder / f"{self._count}.log"
        path.touch()
        return path

    def start(self, nodes: int | None = None) -> None:
        """Start what is not there, or only so many of the nodes, and wait until it is."""
        if self.head is None:
            self.head = Node(
                self._log(), None, self.surroundings, "--head", "--port", str(self.port), "--node-ip-address",
                self._network.head, "--temp-dir", str(self.folder / "ray"), "--num-cpus=0",
                "--object-store-memory=80000000", "--include-dashboard=false",
            )  # fmt: skip
            self.head.wait()
        for index, node in enumerate(self.nodes[:nodes]):
            if node is None:
                self.nodes[index] = made = Node(
                    self._log(), self._network.spaces[index], self.surroundings, "--address", self.address,
                    "--node-ip-address", self._network.nodes[index], f"--num-cpus={self._cpus}",
                    "--object-store-memory=80000000",
                )  # fmt: skip
                made.wait()  # one after the other: together they would be slower

    def kill_head(self) -> None:
        if self.head is not None:
            self.head.kill()
            self.head = None

    def kill_node(self, index: int) -> None:
        node = self.nodes[index]
        if node is not None:
            node.kill()
            self.nodes[index] = None

    def close(self) -> None:
        for index in range(len(self.nodes)):
            self.kill_node(index)
        self.kill_head()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def cluster(nodes: int = 2, cpus: int = 1, mode: str = "token", begin: int | None = None) -> Iterator[Cluster]:
    """A cluster for the time of a block; with `begin` only so many of its nodes are started."""
    network = Network(nodes)
    made = Cluster(network, cpus, mode)
    try:
        made.start(begin)
        yield made
    finally:
        made.close()
        network.close()
