"""Link: the two comms on which a page talks with this kernel.

On `workbench.rpc` the kernel only answers. On `workbench.events` it only speaks. They are two because ipykernel
hands a comm's next message to the shell that was last *spoken from* on it: after one word from a cell, the page's
requests would wait until that cell ends. A reply speaks from the shell (in JupyterLab a subshell) by which its
request came, which is kept in the context in which the handler is called; so work on other threads is done in a copy
of that context.

Registering costs nothing; what answering needs is imported when a page opens a comm.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import RLock
from typing import TYPE_CHECKING, Any

from workbench.jupyter.events import Pusher

if TYPE_CHECKING:
    from workbench.jupyter.bench import Bench

RPC = "workbench.rpc"
EVENTS = "workbench.events"

SLOW = frozenset({"code", "run", "shapes", "view", "views"})
"""Requests that may need a scan of a large model. They queue on a thread of their own, so that *Cancel* never waits."""

PAGES = 4
"""Pages that are told of events: one that is reloaded never says good-bye, so the oldest are let go."""


_current: Link | None = None


def current() -> Link | None:
    """This kernel's link; None outside a Jupyter kernel."""
    return _current


def register() -> None:
    """Make this kernel answer pages; outside a Jupyter kernel, nothing."""
    global _current
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    manager = getattr(getattr(shell, "kernel", None), "comm_manager", None)
    if manager is not None and RPC not in manager.targets:
        link = _current = Link(shell)
        manager.register_target(RPC, link.open_rpc)
        manager.register_target(EVENTS, link.open_events)


class Link:
    """The kernel's end. `shell` is IPython's, whose `user_ns` are the user's variables."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._lock = RLock()
        self._bench: Bench | None = None
        self._slow = ThreadPoolExecutor(1, "workbench requests")
        self._pages: list[tuple[Any, Pusher]] = []

    @property
    def bench(self) -> Bench:
        """What answers."""
        with self._lock:
            if self._bench is None:
                from workbench.jupyter.bench import Bench  # here, since `import workbench` is to be quick

                self._bench = Bench(lambda: self._shell.user_ns, self._emit)
            return self._bench

    # ---- requests

    def open_rpc(self, comm: Any, message: Mapping[str, Any]) -> None:
        """A page asks to be answered."""

        def handle(message: Mapping[str, Any]) -> None:
            request = message["content"]["data"]
            if request.get("method") in SLOW:
                self._slow.submit(copy_context().run, self._reply, comm, request)
            else:
                self._reply(comm, request)

        # Not by on_msg, which runs IPython's pre_execute and post_execute around each message: those belong to cells
        # (post_execute draws and closes the figures of the cell that is running meanwhile).
        comm.handle_msg = handle

    def _reply(self, comm: Any, request: Mapping[str, Any]) -> None:
        reply, buffers = answer(self.bench, request)
        comm.send(reply, buffers=buffers)

    # ---- events

    def open_events(self, comm: Any, message: Mapping[str, Any]) -> None:
        """A page asks to be told."""
        bench = self.bench
        pusher = Pusher(comm.send, copy_context())
        comm.on_close(lambda message: self._leave(comm))
        with self._lock:
            if not self._pages:
                bench.models_changed()
                self._shell.events.register("post_run_cell", self._after_cell)
            self._pages.append((comm, pusher))
            oldest = self._pages[0][0] if len(self._pages) > PAGES else None
        if oldest is not None:
            self._leave(oldest)
            oldest.close()

    def _leave(self, comm: Any) -> None:
        with self._lock:
            for page in [page for page in self._pages if page[0] is comm]:
                page[1].close()
                self._pages.remove(page)
                if not self._pages:
                    self._shell.events.unregister("post_run_cell", self._after_cell)

    def _emit(self, event: Any) -> None:
        data = event.model_dump(mode="json")
        with self._lock:
            for _, pusher in self._pages:
                pusher.push(data)

    def _after_cell(self, result: object) -> None:
        try:
            self.bench.models_changed()
        except Exception:  # whatever it is, it has no place under the user's cell
            logging.getLogger(__name__).exception("looking for models after a cell")


def answer(bench: Bench, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """The reply to a request, with its buffers; every error becomes a fault in words."""
    from workbench.experiment.fault import explain
    from workbench.jupyter.bench import Faulty

    id = request.get("id")
    try:
        result, buffers = bench.call(str(request.get("method")), request.get("params") or {})
        return {"id": id, "result": result}, buffers
    except Faulty as error:
        fault = error.fault
    except (Exception, KeyboardInterrupt) as error:
        fault = explain(error)
    return {"id": id, "fault": fault.model_dump(mode="json")}, []
