"""Two runs side by side: saved values, next tokens, what was written, and what around them was another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from torch import Tensor

from workbench.experiment.comparison import Compared, Comparison, TokenPair, compared, in_words, summed_up
from workbench.jupyter.environment import differences
from workbench.jupyter.messages import PromptResult
from workbench.jupyter.record import Record

Vocabulary = Sequence[Tensor | None]
"""For each prompt the probabilities `(vocabulary,)` of its next token, None where they are no longer held."""


def two(one: Record, other: Record) -> Comparison:
    """What a run and another were made of, and what came of them."""
    found, tokens = predictions(one.prompts, other.prompts, vocabulary(one), vocabulary(other))
    pairs = (*compared(one.values(), other.values()), *found)
    return Comparison(
        equal=all(each.equal for each in pairs),
        text=summed_up(pairs),
        values=pairs,
        tokens=tokens,
        experiment=in_words(one.experiment, other.experiment),
        environment=differences(one.environment, other.environment),
    )


def vocabulary(record: Record) -> Vocabulary:
    """What a run's model thought of every token, while it is held."""
    logits = record.outcome.next_logits if record.outcome is not None else []
    return [None if each is None else each.detach().cpu().double().softmax(-1) for each in logits]


def predictions(
    left: Sequence[PromptResult], right: Sequence[PromptResult], knows: Vocabulary = (), knew: Vocabulary = ()
) -> tuple[tuple[Compared, ...], tuple[tuple[TokenPair, ...], ...]]:
    """In what two runs' predictions differ, prompt by prompt, and their most probable tokens side by side.

    Args:
        left: what became of the first run's prompts; `right` of the other's.
        knows: the first run's probabilities of all tokens, `knew` the other's, where they are held. Without them a
            token that a run does not list is only known to be at most as probable as its least listed one.
    """
    found: list[Compared] = []
    tokens = []
    for number, (one, other) in enumerate(zip(left, right, strict=False)):
        of = f" of prompt {number + 1}" if max(len(left), len(right)) > 1 else ""
        whole = [side[number] if number < len(side) else None for side in (knows, knew)]
        rows = _rows(one, other, whole)
        tokens.append(rows)
        if rows:
            found.append(_tokens(f"next tokens{of}", one, other, whole, rows))
        if one.measure_after is not None and other.measure_after is not None:
            gap = abs(one.measure_after - other.measure_after)
            text = f"{one.measure_after:.4g} and {other.measure_after:.4g}"
            found.append(Compared(name=f"measure{of}", equal=gap == 0, difference=gap, text=text))
        texts = ["".join(step.token for step in each.generated) for each in (one, other)]
        if any(texts):
            same = texts[0] == texts[1]
            text = "the same" if same else f"{texts[0]!r} and {texts[1]!r}"
            found.append(Compared(name=f"generated text{of}", equal=same, text=text))
    return tuple(found), tuple(tokens)


def _rows(one: PromptResult, other: PromptResult, whole: Vocabulary) -> tuple[TokenPair, ...]:
    """The tokens that either run lists, the most probable of either first."""
    words = {top.id: top.token for top in chain(one.after, other.after)}
    listed = [{top.id: top.probability for top in each.after} for each in (one, other)]

    def known(side: int, id: int) -> float | None:
        all_of_them = whole[side]
        return listed[side].get(id) if all_of_them is None else float(all_of_them[id])

    pairs = [TokenPair(token=words[id], id=id, left=known(0, id), right=known(1, id)) for id in words]
    return tuple(sorted(pairs, key=lambda pair: -max(pair.left or 0.0, pair.right or 0.0)))


def _tokens(
    name: str, one: PromptResult, other: PromptResult, whole: Vocabulary, rows: tuple[TokenPair, ...]
) -> Compared:
    """How far the probabilities are apart: of all tokens where both are held, else of those that are listed."""
    here, there = whole
    if here is not None and there is not None and here.shape == there.shape:
        gap, how = float((here - there).abs().max()), "up to"
    else:
        least = [min((top.probability for top in each.after), default=1.0) for each in (one, other)]
        known = [abs(row.left - row.right) for row in rows if row.left is not None and row.right is not None]
        beyond = [row.left - least[1] for row in rows if row.left is not None and row.right is None]
        beyond += [row.right - least[0] for row in rows if row.right is not None and row.left is None]
        gap = max((*known, *beyond), default=0.0)
        how = "at least" if gap in beyond else "up to"
    same = gap == 0 and all(row.left is not None and row.right is not None for row in rows)
    text = "the same" if same else f"probabilities differ by {how} {gap:.3g}"
    return Compared(name=name, equal=same, difference=gap, text=text)
