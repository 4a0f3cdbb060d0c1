"""Uses: which sites of the model a piece of code is about, whoever wrote it: read from what was recorded."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.graph import operations as ops
from workbench.graph.node import Node
from workbench.recorder import Recorder
from workbench.site import Port, Site


@dataclass
class Use:
    """What is done with one site: it is read at least."""

    saved: bool = False
    changed: bool = False


def used(recorder: Recorder, start: int, found: dict[tuple[str, Port], Use]) -> None:
    """Take in what was recorded since `start`, in the invoke that is open; other prompts' values are only read."""
    for node in recorder.nodes[start:]:
        site = _site_of(node, recorder) if node.op is ops.SITE or node.id in recorder.saved else None
        if site is not None:
            use = found.setdefault((site.path, site.port), Use())
            use.saved |= node.id in recorder.saved
        changed = _changed(node, recorder)
        if changed is not None:
            found.setdefault((changed.path, changed.port), Use()).changed = True


def whole(node: Node, recorder: Recorder) -> tuple[Site, bool] | None:
    """The site that a value is all of, and whether it is the gradient there; None for what was worked out from one."""
    gradient = node.op is ops.GRAD
    if gradient:
        node = recorder.nodes[node.refs[0]]
    return (node.args[0], gradient) if node.op is ops.SITE else None


def _site_of(node: Node, recorder: Recorder, copies: bool = True) -> Site | None:
    """The site that a value is of, is a part of, or is a copy of."""
    while node.op is not ops.SITE:
        copy = copies and node.op.name == "method" and node.args[1] == "clone"
        if not (node.op.views or copy) or not node.refs:
            return None
        node = recorder.nodes[node.refs[0]]
    return node.args[0]


def _changed(node: Node, recorder: Recorder) -> Site | None:
    """The site that a node writes to."""
    if node.op is ops.SWAP:
        return node.args[0]
    if node.op is ops.SKIP:
        return node.args[0]._replace(port="output")
    return _site_of(recorder.nodes[node.refs[0]], recorder, copies=False) if node.op.writes and node.refs else None
