"""Execute: one request, run in this process on models that are loaded here, to its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.engine.execution import Execution
from workbench.graph.limits import Limits
from workbench.graph.package import Outcome, Request
from workbench.graph.source import text
from workbench.server.guard import Checked, Models, Watched


def execute(
    request: Request, models: Models, limits: Limits, log: Callable[[str], None], fitting: set[bytes] | None = None
) -> tuple[Outcome, Checked]:
    """Run a request.

    Args:
        request: what is to be run.
        models: those that are loaded here, by key.
        limits: what it may use.
        log: told of each line.
        fitting: forms of requests for which it is known already that they fit; this one's is added.

    Raises what the user's own statements raise, with their line, and `Refused` for what may not be run.
    """
    checked = Checked(request, models, limits)
    if fitting is None or request.form not in fitting:
        checked.predict()
        if fitting is not None and len(fitting) < _FORMS:
            fitting.add(request.form)
    run = Watched(checked, bounded(log, limits))
    if request.kind == "session":
        run.run_session()
    else:
        run.run_pass(checked.model._passing(list(request.inputs), dict(request.options), request.kind == "generate"))
    return outcome_of(request, run), checked


_FORMS = 10_000


def outcome_of(request: Request, run: Execution) -> Outcome:
    """What a run gave, with a reason for each kept node that has no value."""
    saved = run.saved
    reasons = {id: run.reason(id) for id in request.graph.saved if id not in saved}
    idle = [(str(site), text(node.line), why) for site, node, why in run.idle()]
    return Outcome(dict(saved), reasons, dict(request.names), idle)


def bounded(log: Callable[[str], None], limits: Limits) -> Callable[[str], None]:
    """A log that passes on so many lines and bytes, says once that there were more, and drops the rest."""
    lines, size, full = 0, 0, False

    def passed(line: Any) -> None:
        nonlocal lines, size, full
        if full:
            return
        line = str(line)
        lines, size = lines + 1, size + len(line)
        if lines > limits.log_lines or size > limits.log_bytes:
            full = True
            log(
                f"… the lines behind are dropped: {limits.log_lines} lines and {limits.log_bytes} letters are passed on"
            )
            return
        log(line)

    return passed
