"""Pages: what a person sees who opens the server's address: hosted models, the queue, what runs; and its API.

Both are whole as they are sent: no program, no other address, so that they open in a closed network too.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.server.desk import Desk

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">{more}<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ground: #fff; --text: #222; --line: #8883; --soft: #666; --accent: #1976d2;
  --good: #2e7d32; --block: #8881; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #111; --text: #ddd; --soft: #999; --accent: #64b5f6;
  --good: #81c784; --block: #fff1; }} }}
body {{ font: 15px/24px system-ui, sans-serif; max-width: 880px; margin: 40px auto; padding: 0 16px;
  background: var(--ground); color: var(--text); }}
h1 {{ font-size: 20px; margin: 0 0 4px; }} h2 {{ font-size: 15px; margin: 32px 0 8px; }}
p {{ margin: 0 0 8px; color: var(--soft); }} a {{ color: var(--accent); text-decoration: none; }}
a:hover {{ text-decoration: underline; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; margin: 0 0 8px; }}
td, th {{ text-align: left; vertical-align: top; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line);
  font-weight: normal; }}
th {{ color: var(--soft); font-size: 13px; }}
td:first-child {{ white-space: nowrap; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
td.number:last-child, th.number:last-child {{ padding-right: 0; }}
code, pre {{ font: 13px/24px ui-monospace, monospace; }}
pre {{ margin: 0; padding: 12px 16px; background: var(--block); border-radius: 4px; overflow-x: auto; }}
.soft {{ color: var(--soft); }}
.now::before, .ready::before, .rest::before {{ content: ""; display: inline-block; width: 8px; height: 8px;
  margin-right: 8px; border-radius: 4px; background: var(--good); }}
.now::before {{ background: var(--accent); }}
.rest::before {{ background: none; box-shadow: inset 0 0 0 1px var(--soft); }}
.three {{ table-layout: fixed; }} .three td {{ white-space: normal; overflow-wrap: anywhere; }}
.three th:first-child {{ width: 26%; }} .three th:nth-child(2) {{ width: 26%; }}
.verb {{ display: inline-block; min-width: 72px; color: var(--accent); font-weight: 600; }}
h2 code {{ font-size: 14px; font-weight: 600; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""

_STATUS = """<p>{state} · {counts} · <a href="/docs">the API</a></p>
<h2>Hosted models</h2>
<div class="wide"><table><tr><th>model<th>state<th class="number">size<th class="number">queued<th
class="number">jobs done</tr>
{models}</table></div>{memory}
<h2>Running</h2>{running}
<h2>Queue</h2>{queue}
<h2>Use it</h2>
<pre>import workbench as wb

wb.CONFIG.API.HOST = "{host}"
{key}model = wb.LanguageModel("{first}")
with model.trace("The Eiffel Tower is in the city of", remote=True):
    logits = model.lm_head.output[:, -1].save()</pre>"""

_KEY = 'wb.CONFIG.set_default_api_key("…")  # once; the operator gives it\n'


def _whole(title: str, body: str, more: str = "") -> str:
    return _PAGE.format(title=html.escape(title), body=body, more=more)


# ---- status


def status_page(desk: Desk, host: str) -> str:
    """The page. Whose a job is, and what it computes, is not on it.

    Args:
        desk: the server.
        host: the address by which it was asked.
    """
    seats = desk.workers.loaded()
    queued = desk.scheduler.in_turn()
    rows = []
    for model in desk.settings.models:
        own = [seat for seat in seats if model.key in seat["models"]]
        kind, state = "rest", "on disk, loaded when asked for" if desk.ready.is_set() else "being opened"
        if own:
            kind, state = ("now", "running") if any(seat["busy"] for seat in own) else ("ready", "ready")
        bytes = max((seat["bytes"] for seat in own if len(seat["models"]) == 1), default=None)
        waiting = sum(model.key in row.models for row in queued)
        done = sum(seat["done"] for seat in own)
        rows.append(
            f'<tr><td><code>{html.escape(model.key)}</code><td class="{kind}">{state}'
            f'<td class="number">{_bytes(bytes)}<td class="number">{waiting}<td class="number">{done}</tr>'
        )
    counts = desk.store.counts()
    held = sum(seat["bytes"] for seat in seats)
    budget = desk.settings.memory
    body = _STATUS.format(
        state="ready" if desk.ready.is_set() else "the models are being opened",
        counts=f"{counts.get('COMPLETED', 0)} completed, {counts.get('ERROR', 0)} ended in an error",
        models="\n".join(rows),
        memory="" if budget is None else f"<p>{_bytes(held)} of {_bytes(budget)} are taken</p>",
        running=_jobs([(row.id, row.models, row.started or row.created) for row in desk.scheduler.running.values()]),
        queue=_jobs([(row.id, row.models, row.created) for row in queued]),
        host=html.escape(host.rstrip("/")),
        key=_KEY if desk.keys.needed else "",
        first=html.escape(desk.settings.models[0].key),
    )
    return _whole("workbench server", body, '<meta http-equiv="refresh" content="5">')


def _jobs(jobs: list[tuple[str, list[str], float]], most: int = 20) -> str:
    if not jobs:
        return "<p>nothing</p>"
    now = time.time()
    lines = [
        f"<tr><td><code>{id[:8]}</code><td><code>{html.escape(' + '.join(models))}</code>"
        f'<td class="number">{_duration(now - since)}</tr>'
        for id, models, since in jobs[:most]
    ]
    more = f"<p>and {len(jobs) - most} more</p>" if len(jobs) > most else ""
    return f'<table><tr><th>job<th>model<th class="number">for</tr>{"".join(lines)}</table>{more}'


def _duration(seconds: float) -> str:
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _bytes(count: int | None) -> str:
    if count is None:
        return "–"
    size, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"


# ---- the API


def api_page(schema: dict[str, Any]) -> str:
    """An OpenAPI description as a page to read."""
    info = schema["info"]
    parts = [
        f"<p>version {_text(info['version'])} · "
        '<a href="/">status</a> · <a href="/openapi.json">this as OpenAPI</a></p>'
        f"<p>{_text(info['description'])}</p>"
    ]
    for path, ways in schema["paths"].items():
        parts += [_operation(verb, path, each) for verb, each in ways.items()]
    kinds = schema["components"]["schemas"]
    parts += [_kind(name, kinds[name]) for name in kinds if "properties" in kinds[name]]
    return _whole("workbench server: the API", "\n".join(parts))


def _operation(verb: str, path: str, each: dict[str, Any]) -> str:
    given = [
        (_code(one["name"]), f"{_type(one['schema'])}, in the {one['in']}", _words(one.get("description", "")))
        for one in each.get("parameters", ())
    ]
    for kind, body in each.get("requestBody", {}).get("content", {}).items():
        given.append((_code(kind), f"{_type(body['schema'])}, the body", ""))
    answers = []
    for code, answer in sorted(each["responses"].items()):
        forms = [f"{_type(content.get('schema', {}))} as {_code(kind)}" for kind, content in _told(answer)]
        answers.append((_code(code), ", ".join(forms), _words(answer["description"])))
    return (
        f'<h2><span class="verb">{verb.upper()}</span><code>{_text(path)}</code></h2>'
        f"<p>{_words(each.get('description') or each['summary'])}</p>"
        + _table(("asked with", "type", ""), given)
        + _table(("answered", "type", ""), answers)
    )


def _told(answer: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The forms of an answer, without those about which nothing is said beside another."""
    forms = answer.get("content", {})
    said = {kind: content for kind, content in forms.items() if content.get("schema")}
    return (said or forms).items()


def _kind(name: str, schema: dict[str, Any]) -> str:
    rows = [
        (_code(field), _type(each), _words(each.get("description", ""))) for field, each in schema["properties"].items()
    ]
    about = f"<p>{_words(schema['description'])}</p>" if schema.get("description") else ""
    return f'<h2 id="{_text(name)}"><code>{_text(name)}</code></h2>{about}' + _table(("field", "type", ""), rows)


def _type(schema: dict[str, Any]) -> str:
    """A type in words; of an object of ours, a link to it."""
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "contentSchema" in schema:
        return _type(schema["contentSchema"])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(_code(str(each)) for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("format") or schema.get("type", "")
    return _text({"null": "none", "": ""}.get(kind, kind) if isinstance(kind, str) else " or ".join(kind))


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{head}" for head in heads)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}</tr>" for row in rows)
    return f'<table class="three"><tr>{top}</tr>{lines}</table>'


def _text(words: str) -> str:
    return html.escape(words)


def _code(words: str) -> str:
    return f"<code>{_text(words)}</code>"


def _words(words: str) -> str:
    """A sentence, in which what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", _text(words))
