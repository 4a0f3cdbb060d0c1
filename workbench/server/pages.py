"""Pages: what a person sees who opens the server's address: hosted models, the queue, what runs."""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.server.desk import Desk

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5"><title>workbench server</title>
<style>
:root {{ color-scheme: light dark; --line: #8883; --soft: #777; --accent: #1976d2; --good: #2e7d32; }}
@media (prefers-color-scheme: dark) {{ :root {{ --soft: #999; --accent: #64b5f6; --good: #81c784; }} }}
body {{ font: 15px/24px system-ui, sans-serif; max-width: 880px; margin: 40px auto; padding: 0 16px; }}
h1 {{ font-size: 20px; margin: 0 0 4px; }} h2 {{ font-size: 15px; margin: 32px 0 8px; }}
p {{ margin: 0 0 8px; color: var(--soft); }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); font-weight: normal; }}
th {{ color: var(--soft); font-size: 13px; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; }}
code {{ font: 13px/24px ui-monospace, monospace; }} pre {{ padding: 12px 16px; background: #8881; overflow-x: auto; }}
.good {{ color: var(--good); }} .soft {{ color: var(--soft); }}
</style>
<h1>workbench server</h1>
<p>{state} · {counts} · <a href="/docs">the API</a></p>
<h2>Hosted models</h2>
<table><tr><th>model<th>state<th class="number">size<th class="number">queued<th class="number">jobs done</tr>
{models}</table>
<h2>Running</h2>{running}
<h2>Queue</h2>{queue}
<h2>Use it</h2>
<pre>import workbench as wb

wb.CONFIG.API.HOST = "http://{host}"
model = wb.LanguageModel("{first}")
with model.trace("The Eiffel Tower is in the city of", remote=True):
    logits = model.lm_head.output[:, -1].save()</pre>
"""


def status_page(desk: Desk) -> str:
    """The page. Whose a job is, and what it computes, is not on it."""
    seats = desk.workers.loaded()
    queued = desk.scheduler.queued()
    rows = []
    for model in desk.settings.models:
        own = [seat for seat in seats if model.key in seat["models"]]
        busy = any(seat["busy"] for seat in own)
        state = "running" if busy else "ready" if own else "on disk, loaded when asked for"
        bytes = max((seat["bytes"] for seat in own if len(seat["models"]) == 1), default=None)
        waiting = sum(model.key in row.models for row in queued)
        done = sum(seat["done"] for seat in own)
        rows.append(
            f'<tr><td><code>{html.escape(model.key)}</code><td class="{"good" if own else "soft"}">{state}'
            f'<td class="number">{_bytes(bytes)}<td class="number">{waiting}<td class="number">{done}</tr>'
        )
    counts = desk.store.counts()
    first = desk.settings.models[0].key
    return _PAGE.format(
        state="ready" if desk.ready.is_set() else "the models are being opened",
        counts=f"{counts.get('COMPLETED', 0)} completed, {counts.get('ERROR', 0)} ended in an error",
        models="\n".join(rows),
        running=_jobs([(row.id, row.models, row.started or row.created) for row in desk.scheduler.running.values()]),
        queue=_jobs([(row.id, row.models, row.created) for row in queued]),
        host=html.escape(f"{desk.settings.host}:{desk.settings.port}"),
        first=html.escape(first),
    )


def _jobs(jobs: list[tuple[str, list[str], float]], most: int = 20) -> str:
    if not jobs:
        return "<p>nothing</p>"
    now = time.time()
    lines = [
        f"<tr><td><code>{id[:8]}</code><td><code>{html.escape(' + '.join(models))}</code>"
        f'<td class="number">{max(0.0, now - since):.1f} s</tr>'
        for id, models, since in jobs[:most]
    ]
    more = f"<p>and {len(jobs) - most} more</p>" if len(jobs) > most else ""
    return f'<table><tr><th>job<th>model<th class="number">for</tr>{"".join(lines)}</table>{more}'


def _bytes(count: int | None) -> str:
    if count is None:
        return "–"
    size, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
