"""Shapes: what a trace's values will look like, asked while it is still being written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.engine.fakes import evaluate
from workbench.engine.scan import NOWHERE, Inside, Scan, bare
from workbench.engine.values import Untold, Where, map_placed, placed
from workbench.errors import DeferredError, NotTracingError, WorkbenchError, located
from workbench.graph.node import Node
from workbench.graph.source import location
from workbench.recorder import Recorder, not_recording
from workbench.site import Site

ScanOf = Callable[[int, Inside, int], Scan]
"""The scan of one of a trace's invokes, by number, which looks at these calls inside forwards too, at a step of a
generation."""


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

    def _scan(self, node: Node, inside: Inside = NOWHERE, step: int = 0) -> Scan:
        blocks, block = self._recorder.blocks, node.block
        if blocks[block].kind == "steps":
            block = blocks[block].parent or 0
        scan_of = self._scans.get(block)
        if scan_of is not None:
            return scan_of(node.invoke, inside, step)
        if self._bare is None:
            self._bare = bare()
        return self._bare

    def _site(self, node: Node) -> Any:
        """What the scan of a site's own invoke says of it."""
        site = node.args[0]
        steps = self._recorder.spans.get(node.block)
        if steps is None:
            return self._at_step(node, site._replace(step=0), site.step)
        # A block of steps: the prompt is read in step 0; later steps are alike, but for what looks back at all of them.
        start, stop, stride = steps
        seen = [each for each in (start, start + stride, start + 2 * stride) if stop is None or each < stop]
        values = [self._at_step(node, site._replace(step=0), each) for each in seen]
        shapes = [dict(placed(value)) for value in values]

        def told(where: Where, tensor: Any) -> Any:
            here = [each[where].shape if where in each else None for each in shapes]
            if all(shape == tensor.shape for shape in here):
                return tensor
            sizes = ", ".join(f"{tuple(shape or ())} in step {step}" for shape, step in zip(here, seen, strict=True))
            why = f"the shape of {site} is another in each step of this block: {sizes}"
            if not where:
                raise DeferredError(why)
            return Untold(why)

        return map_placed(told, values[0])

    def _at_step(self, node: Node, site: Site, step: int) -> Any:
        inside = frozenset({(site.path, site.inside)}) if site.inside else NOWHERE
        scan = self._scan(node, inside, step)
        if not scan.known:
            raise NotTracingError(f"shapes are {scan.how}")
        met = site
        if Site("", "output", 1) in scan.values:  # a later step, after the pass that reads what came before it
            before = self._scan(node, inside)
            calls = sum(each._replace(call=0) == site._replace(call=0) for each in before.values)
            met = site._replace(call=calls + site.call)
        if met not in scan.values:
            when = f" at step {step}" if step else ""
            raise DeferredError(f"{site}{when} has no shape: the scan of this input never reached it")
        return scan.values[met]
