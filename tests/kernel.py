"""A real Jupyter kernel in a process of its own, and a page that talks with it by the messages JupyterLab sends."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0


class Comm:
    """One comm, opened by the page in a subshell of its own, as JupyterLab 4.6 does unless told otherwise."""

    def __init__(self, page: Page, target: str, subshell: str | None) -> None:
        self.page = page
        self.id = uuid4().hex
        self.subshell = subshell
        page.send("comm_open", {"comm_id": self.id, "target_name": target, "data": {}}, subshell)

    def send(self, data: dict[str, Any]) -> None:
        self.page.send("comm_msg", {"comm_id": self.id, "data": data}, self.subshell)

    def close(self) -> None:
        self.page.send("comm_close", {"comm_id": self.id, "data": {}}, self.subshell)


class Page:
    """A page that is connected to a kernel: its cells, its two comms, and all that the kernel has published to it."""

    def __init__(self, client: BlockingKernelClient, subshells: bool = True) -> None:
        self.client = client
        self.heard: list[dict[str, Any]] = []
        self.rpc = Comm(self, "workbench.rpc", self.subshell() if subshells else None)
        self.events = Comm(self, "workbench.events", self.subshell() if subshells else None)

    def send(self, kind: str, content: dict[str, Any], subshell: str | None = None) -> str:
        message = self.client.session.msg(kind, content)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def close(self) -> None:
        """Close the comms, and their subshells with them, as a page does that is left in peace."""
        for comm in (self.rpc, self.events):
            comm.close()
        self.listen(0.1)
        for comm in (self.rpc, self.events):
            if comm.subshell is not None:
                self.control("delete_subshell_request", {"subshell_id": comm.subshell})

    def subshell(self) -> str:
        """A new subshell's id."""
        return self.control("create_subshell_request", {})["subshell_id"]

    def control(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """A request on the control channel, and its reply."""
        message = self.client.session.msg(kind, content)
        self.client.control_channel.send(message)
        while True:
            reply = self.client.control_channel.get_msg(timeout=PATIENCE)
            if reply["parent_header"]["msg_id"] == message["header"]["msg_id"]:
                assert reply["content"]["status"] == "ok", reply
                return reply["content"]

    # ---- what was heard

    def wait(self, what: Callable[[dict[str, Any]], bool], patience: float = PATIENCE) -> dict[str, Any]:
        """The first published message of this kind, heard already or still to come."""
        for message in self.heard:
            if what(message):
                return message
        end = time.monotonic() + patience
        while time.monotonic() < end:
            message = self._hear(end - time.monotonic())
            if message is not None and what(message):
                return message
        raise AssertionError(f"not heard within {patience} s; last heard: {self.heard[-5:]}")

    def listen(self, seconds: float) -> None:
        """Hear what comes within some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._hear(end - time.monotonic())

    def _hear(self, patience: float) -> dict[str, Any] | None:
        try:
            message = self.client.get_iopub_msg(timeout=max(patience, 0.001))
        except queue.Empty:
            return None
        message["heard"] = time.monotonic()
        self.heard.append(message)
        return message

    def of(self, comm: Comm) -> list[dict[str, Any]]:
        """What was published on a comm."""
        return [message for message in self.heard if message["content"].get("comm_id") == comm.id]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind, in their order."""
        events = [event for message in self.of(self.events) for event in message["content"]["data"]["events"]]
        return [event for event in events if event["type"] == kind]

    # ---- what a person does

    def begin(self, code: str) -> str:
        """Run a cell, not waiting for it."""
        return self.send("execute_request", {"code": code, "silent": False, "allow_stdin": False})

    def cell(self, code: str) -> str:
        """Run a cell to its end; what it printed."""
        cell = self.begin(code)
        self.end(cell)
        return self.printed(cell)

    def prints(self, code: str, wanted: str, patience: float = PATIENCE) -> None:
        """Run a cell again and again until it prints what it will print once the kernel's threads are through."""
        end = time.monotonic() + patience
        while (printed := self.cell(code)) != wanted:
            assert time.monotonic() < end, f"still {printed!r} after {patience} s, not {wanted!r}"
            time.sleep(0.05)

    @contextmanager
    def busy(self, flag: Path) -> Iterator[str]:
        """A cell that runs for as long as the block does, whatever the machine's pace."""
        cell = self.begin(f"print('begun')\n{until(flag)}\nprint('ended')")
        self.wait(lambda message: self.printed(cell) == "begun\n")
        try:
            yield cell
            assert self.printed(cell) == "begun\n"
        finally:
            flag.touch()
            self.end(cell)

    def printed(self, cell: str) -> str:
        """What stands under a cell."""
        said = [message for message in self.heard if message["parent_header"].get("msg_id") == cell]
        return "".join(message["content"]["text"] for message in said if message["msg_type"] == "stream")

    def closed(self, comm: Comm) -> bool:
        """Whether the kernel has closed a comm."""
        return any(message["msg_type"] == "comm_close" for message in self.of(comm))

    def end(self, cell: str) -> None:
        """Wait until a cell has ended; its error is the test's."""
        message = self.wait(lambda message: _is_idle(message, cell) or _is_error(message, cell))
        assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """A request and its whole reply message."""
        id = uuid4().hex
        self.rpc.send({"id": id, "method": method, "params": params})
        return self.wait(lambda message: message["content"].get("data", {}).get("id") == id)

    def result(self, method: str, **params: Any) -> Any:
        """What a request gives."""
        data = self.ask(method, **params)["content"]["data"]
        assert "fault" not in data, data
        return data["result"]

    def fault(self, method: str, **params: Any) -> Any:
        """Why a request is refused."""
        return self.ask(method, **params)["content"]["data"]["fault"]

    def ended(self, run: int) -> dict[str, Any]:
        """Wait for the event that says a run has ended; its summary."""
        self.wait(
            lambda message: any(_ends(event, run) for event in message["content"].get("data", {}).get("events", ()))
        )
        return next(event["summary"] for event in self.told("run") if _ends(event, run))


def until(flag: Path) -> str:
    """Python that waits until a file is there, longer than any test waits for anything else."""
    there = f"pathlib.Path({str(flag)!r}).exists()"
    return f"import time, pathlib\nfor _ in range(4500):\n    if {there}: break\n    time.sleep(0.02)"


def _is_idle(message: dict[str, Any], parent: str) -> bool:
    return message["parent_header"].get("msg_id") == parent and message["content"].get("execution_state") == "idle"


def _is_error(message: dict[str, Any], parent: str) -> bool:
    return message["parent_header"].get("msg_id") == parent and message["msg_type"] == "error"


def _ends(event: dict[str, Any], run: int) -> bool:
    return event["type"] == "run" and event["summary"]["run"] == run and event["summary"]["state"] != "running"


class Kernel:
    """A kernel, started here and ended here."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "IPYTHONDIR": str(folder),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def __enter__(self) -> Self:
        self.manager.start_kernel(env=self.environment, cwd=str(ROOT))
        return self

    def __exit__(self, *error: object) -> None:
        self.manager.shutdown_kernel(now=True)

    def restart(self) -> None:
        """A new process, behind the same connection."""
        self.manager.restart_kernel(now=True, env=self.environment, cwd=str(ROOT))

    @contextmanager
    def client(self) -> Iterator[BlockingKernelClient]:
        """A connection, open until the block ends."""
        client = self.manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=PATIENCE)
            yield client
        finally:
            client.stop_channels()
