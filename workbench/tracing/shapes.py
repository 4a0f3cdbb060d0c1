"""Shapes: what a trace's values will look like, asked while it is still being written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.engine.fakes import evaluate
from workbench.engine.scan import NOWHERE, Inside, Scan, bare
from workbench.engine.values import shape_text
from workbench.errors import DeferredError, NotTracingError, WorkbenchError, located
from workbench.graph.node import Node
from workbench.graph.source import location
from workbench.recorder import Recorder, not_recording

ScanOf = Callable[[int, Inside], Scan]
"""The scan of one of a trace's invokes, by number, which looks at these calls inside forwards too."""


class Shapes:
    """Fake values of a recorder's nodes; each pass of a session has its own scan."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._scans: dict[int, ScanOf] = {}  # block → its scans
        self._known: dict[int, dict[int, Any]] = {}  # block → fake values by node, all of one kind
        self._bare: Scan | None = None

    def register(self, block: int, scan_of: ScanOf) -> None:
        """Where a block's scans come from."""
        self._scans[block] = scan_of

    def fake(self, id: int) -> Any:
        """A node's fake value; an error of the node itself is raised as it will be in the run."""
        recorder = self._recorder
        node = recorder.nodes[id]
        scan = self._scan(node)
        if not scan.known:
            raise NotTracingError(f"shapes are {scan.how}")
        known = self._known.setdefault(node.block, {})
        try:
            with not_recording():
                return evaluate(scan, recorder.nodes, id, recorder.bindings, known, self._site)
        except WorkbenchError:
            raise
        except Exception as error:
            line = location(node.line)
            raise located(error, f"{error}\nWhile working out the shape of {node} — {line.text}", line) from error

    def check(self, id: int) -> None:
        """Run one node on fake values, as it is written: an error of it is raised on the user's own line."""
        recorder = self._recorder
        node = recorder.nodes[id]
        try:
            scan = self._scan(node)
            if scan.known:
                with not_recording():
                    known = self._known.setdefault(node.block, {})
                    evaluate(scan, recorder.nodes, id, recorder.bindings, known, self._site)
        except DeferredError:
            return  # known only in the run
        except Exception as error:
            line = location(node.line)
            raise located(error, f"{error}\nWhile validating {node} — {line.text}", line) from error

    def release(self) -> None:
        """Let go of all fake values."""
        self._scans.clear()
        self._known.clear()

    def _scan(self, node: Node, inside: Inside = NOWHERE) -> Scan:
        blocks, block = self._recorder.blocks, node.block
        if blocks[block].kind == "steps":
            block = blocks[block].parent or 0
        scan_of = self._scans.get(block)
        if scan_of is not None:
            return scan_of(node.invoke, inside)
        if self._bare is None:
            self._bare = bare()
        return self._bare

    def _site(self, node: Node) -> Any:
        """What the scan of a site's own invoke says of it."""
        site = node.args[0]
        scan = self._scan(node, frozenset({(site.path, site.inside)}) if site.inside else NOWHERE)
        if not scan.known:
            raise NotTracingError(f"shapes are {scan.how}")
        if site.step or self._recorder.blocks[node.block].kind == "steps":
            raise DeferredError(
                f"the shape of {site} at a later step is known only in the run: of step 0 it is "
                f"{shape_text(scan.values.get(site._replace(step=0)))}"
            )
        if site not in scan.values:
            raise DeferredError(f"{site} has no shape: the scan of this input never reached it")
        return scan.values[site]
