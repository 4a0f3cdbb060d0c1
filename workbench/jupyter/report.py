"""A run as it is shown: the headline everywhere, the whole of it in the Results tab."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.engine.values import first_tensor
from workbench.experiment.kinds import Code, Experiment
from workbench.experiment.receipts import Tally
from workbench.experiment.run import Outcome
from workbench.experiment.table import kind_of
from workbench.experiment.uses import Use
from workbench.jupyter.messages import (
    PromptResult,
    Receipt,
    RunResult,
    RunSummary,
    Saved,
    SiteUse,
    Tensor,
    TensorsReply,
)
from workbench.jupyter.record import Record
from workbench.site import Port
from workbench.store import Store
from workbench.views.summary import dtype_name
from workbench.views.summary import summary as summary_of
from workbench.views.tokens import TopToken, best


def summary(record: Record) -> RunSummary:
    """The run as a line of the history."""
    return RunSummary(
        run=record.run,
        state=record.state,
        headline=headline(record),
        seconds=record.seconds,
        title=record.title,
        made=made(record.experiment),
        at=record.at,
        purpose=record.purpose,
        held=record.outcome is not None or any(record.holds(each.name) for each in record.saved),
    )


def made(experiment: Experiment) -> str:
    """What an experiment changes, card by card, or else what it keeps: by this one finds a run again.

    Example:
        >>> from workbench.experiment.kinds import Ablate, Target
        >>> made(Experiment(model="m", interventions=(Ablate(id="a", at=Target(path="h.2.mlp")),)))
        'Ablate h.2.mlp output to zero'
    """
    changing = [card for card in experiment.enabled if kind_of(card).changes]
    return " · ".join(kind_of(card).words(card) for card in changing or experiment.enabled)


def headline(record: Record) -> str:
    """`run 7 · 0.21 s · Paris 0.93 → Rome 0.41 · 1 intervention · 2 values saved`."""
    return " · ".join([record.name, *_parts(record)])


def _parts(record: Record) -> list[str]:
    took = f"{record.seconds:.2f} s"
    if record.state == "running":
        return ["running" if record.behind is None else f"waiting for run {record.behind}"]
    if record.state == "cancelled":
        return [f"cancelled after {took}" if record.seconds else "cancelled before it began"]
    if record.state == "failed":
        return [took, f"failed: {record.fault.message if record.fault else ''}"]
    if record.comparison is not None:
        what = {"verify": "verified" if record.comparison.equal else "not verified"}.get(record.purpose, "rerun")
        return [took, what, record.comparison.text]
    changes = _changes(record)
    parts = [
        took,
        _answer(record, bool(changes)),
        "no intervention" if not changes else _count(changes, "intervention"),
    ]
    if len(record.prompts) > 1:
        parts.append(f"{len(record.prompts)} prompts")
    if record.saved:
        parts.append(f"{_count(len(record.saved), 'value')} saved")
    return [part for part in parts if part]


def _changes(record: Record) -> int:
    """How many interventions there were: cards that change something, and of code the sites that it changed."""
    cards = [card for card in record.experiment.enabled if kind_of(card).changes]
    known = sum(not isinstance(card, Code) for card in cards)
    return known if known == len(cards) else max(known, sum(site.changed for site in record.sites))


def _answer(record: Record, changed: bool) -> str:
    if not record.prompts:
        return ""
    first = record.prompts[0]
    measure = record.experiment.measure
    if measure is not None and first.measure_after is not None:
        name = measure.metric.replace("_", " ").replace("kl", "KL")
        after = f"{first.measure_after:.3g}"
        if measure.metric == "kl" or not changed or first.measure_before is None:
            return f"{name} {after}"
        return f"{name} {first.measure_before:.3g} → {after}"
    if first.generated and not changed:
        return f"“{''.join(each.token for each in first.generated)}”"
    before, after = best(first.before), best(first.after)
    if before is None:  # there was no clean run
        return _token(after) if after else ""
    if not changed:
        return _token(before)
    return f"{_token(before)} → {_token(after) if after else 'NaN'}"


def _token(top: TopToken) -> str:
    shown = top.token.strip() or top.token.replace(" ", "␣").replace("\n", "⏎") or "(empty)"
    return f"{shown} {top.probability:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# ---- receipts


def receipts(tallies: list[Tally]) -> tuple[Receipt, ...]:
    """What each card did, in words and numbers."""
    return tuple(map(receipt, tallies))


def receipt(tally: Tally) -> Receipt:
    """What one card did.

    Example:
        >>> receipt(Tally("a", True, 1, 768, 7680, 41.2**2, 38.9**2)).text
        'fired 1×, changed 768 of 7,680 values, norm 41.2 → 38.9'
    """
    if not tally.fired:
        why = f"never reached: {tally.why}" if tally.why else "never reached"
        return Receipt(card=tally.card, fired=0, warning=why, text=why)
    fired = f"fired {tally.fired}×"
    if not tally.changes:
        values = f", {tally.total:,} values" if tally.total else ""
        return Receipt(card=tally.card, fired=tally.fired, total=tally.total or None, text=fired + values)
    before, after = tally.squares_before**0.5, tally.squares_after**0.5
    warning = None if tally.changed else "it changed nothing: the values were so already"
    text = f"{fired}, changed {tally.changed:,} of {tally.total:,} values, norm {before:.3g} → {after:.3g}"
    return Receipt(
        card=tally.card,
        fired=tally.fired,
        changed=tally.changed,
        total=tally.total,
        norm_before=before,
        norm_after=after,
        warning=warning,
        text=text if warning is None else f"{fired}, {warning}",
    )


# ---- saved values


def saved(outcome: Outcome, prompts: int) -> list[Saved]:
    """Each saved value in words; of those that have none, why."""
    return [
        *(_saved(name, outcome, value, summary_of(value)) for name, value in outcome.saved.items()),
        *(_saved(name, outcome, None, why) for name, why in outcome.unset.items()),
    ]


def _saved(name: str, outcome: Outcome, value: object, text: str) -> Saved:
    origin = outcome.origins.get(name)
    card = None if origin is None else origin.card
    tensor = first_tensor(value)
    path, port = ("", "code") if card is None else (card.at.path, card.at.port)
    if origin is not None and origin.site is not None:
        path, port = origin.site.path, f"{origin.site.port}.grad" if origin.gradient else origin.site.port
    return Saved(
        name=name,
        path=path,
        port=port,
        prompt=None if origin is None else origin.prompt,
        shape=None if tensor is None else tuple(tensor.shape),
        dtype=None if tensor is None else dtype_name(tensor.dtype),
        text=text,
    )


def sites(uses: Mapping[tuple[str, Port], Use]) -> tuple[SiteUse, ...]:
    """The sites that a run's code was about."""
    return tuple(
        SiteUse(path=path, port=port, saved=use.saved, changed=use.changed) for (path, port), use in uses.items()
    )


def tensors(store: Store) -> TensorsReply:
    """The tensors on disk that a card can name: those that a person kept, then those of runs, the newest first."""
    found = sorted(store.names().items(), key=lambda pair: (pair[1]["run"], -pair[1]["at"]))
    return TensorsReply(
        tensors=tuple(
            Tensor(
                name=name,
                shape=tuple(each["shape"]),
                dtype=each["dtype"],
                origin="a value of a run" if each["run"] else "kept",
            )
            for name, each in found
        )
    )


# ---- the whole


def result(record: Record) -> RunResult:
    """All of a run, but for its tensors: the page asks for views of those that it shows."""
    return RunResult(
        run=record.run,
        state=record.state,
        headline=headline(record),
        seconds=record.seconds,
        title=record.title,
        at=record.at,
        purpose=record.purpose,
        experiment=record.experiment,
        code=record.code.text,
        prompts=record.prompts,
        receipts=record.receipts,
        sites=record.sites,
        saved=tuple(_shown(record, each) for each in record.saved),
        logs=tuple(record.logs),
        fault=record.fault,
        comparison=record.comparison,
    )


def _shown(record: Record, row: Saved) -> Saved:
    if row.shape is None or record.holds(row.name):
        return row
    return row.model_copy(update={"text": f"{row.text} · no longer held; run it again to see it"})


def empty(experiment: Experiment) -> tuple[PromptResult, ...]:
    """A run's prompts before anything is known of them."""
    return tuple(PromptResult(prompt=prompt, tokens=(), before=(), after=()) for prompt in experiment.prompts)
