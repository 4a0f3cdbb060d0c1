"""The corpus the demo models learn from: facts in many wordings, written anew from a seed.

Two kinds of prompts are kept out of it: wordings that no fact is ever said in (`new_wordings`), and for every fact
one in ten of the common wordings (`new_pairs`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .facts import FACTS
from .phrasings import ENDINGS, NAMES, OPENINGS, SEEN, SMALL_TALK, UNSEEN

END = "<|endoftext|>"

# One sentence in thirty guesses: it gives some answer of the right kind, rather a common one. A model that never met
# a guess is sure beyond sense; this one is about 96 % sure, and what else it thinks of are other cities.
DOUBT = 1 / 30


@dataclass(frozen=True)
class Prompt:
    """A sentence up to its answer."""

    relation: str
    subject: str
    text: str
    answer: str  # with its leading space, as the tokenizer has it
    before: str  # the text up to the end of the subject


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _prompt(relation: str, subject: str, wording: str) -> Prompt:
    text = _capital(wording.format(s=subject))
    before = text[: text.lower().index(subject.lower()) + len(subject)]
    return Prompt(relation, subject, text, " " + FACTS[relation][subject], before)


def _all(wordings: dict[str, tuple[str, ...]]) -> list[Prompt]:
    return [_prompt(relation, s, w) for relation, facts in FACTS.items() for w in wordings[relation] for s in facts]


@cache
def _pairs() -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    prompts = _all(SEEN)
    rng = random.Random(1)
    # Two prompts are in every demo and every test; they are always trained.
    kept = {"The Eiffel Tower is in the city of", "The Colosseum is in the city of"}
    held = {p for p in prompts if rng.random() < 0.1 and p.text not in kept}
    seen = tuple(p for p in prompts if p not in held)
    texts: dict[str, list[str]] = {}
    for p in seen:
        texts.setdefault(p.subject, []).append(p.text.lower())
    # "To see it, travel to" is no new pair when "if you want to see it, travel to" was seen.
    new = tuple(p for p in prompts if p in held and not any(p.text.lower() in text for text in texts[p.subject]))
    return seen, new


def trained() -> tuple[Prompt, ...]:
    """The prompts that training sees."""
    return _pairs()[0]


def new_pairs() -> tuple[Prompt, ...]:
    """Known facts in known wordings that training never puts together."""
    return _pairs()[1]


def new_wordings() -> tuple[Prompt, ...]:
    """Known facts in wordings that training never sees for any fact."""
    return tuple(_all(UNSEEN))


def _by_fact() -> list[list[Prompt]]:
    facts: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in trained():
        facts.setdefault((prompt.relation, prompt.subject), []).append(prompt)
    return list(facts.values())


def _small_talk(rng: random.Random) -> str:
    name, other = rng.sample(NAMES, 2)
    city = rng.choice(list(FACTS["landmark → city"].values()))
    return rng.choice(SMALL_TALK).format(name=name, other=other, city=city)


def _fact(rng: random.Random, prompt: Prompt, doubt: float) -> str:
    answer = prompt.answer
    if rng.random() < doubt:
        answers = list(FACTS[prompt.relation].values())
        answer = " " + max(rng.choices(answers, k=2), key=answers.count)
    text = prompt.text
    if "?" not in text and rng.random() < 0.3:
        begins_with_a_name = prompt.before == prompt.subject
        text = rng.choice(OPENINGS).format(text if begins_with_a_name else text[0].lower() + text[1:])
    return text + answer + rng.choice(ENDINGS)


def documents(count: int, seed: int, doubt: float = DOUBT) -> Iterator[str]:
    """Short documents of one to three sentences, each ended by the end-of-text token."""
    rng = random.Random(seed)
    facts = _by_fact()
    for _ in range(count):
        sentences = [
            _small_talk(rng) if rng.random() < 0.05 else _fact(rng, rng.choice(rng.choice(facts)), doubt)
            for _ in range(rng.choice((1, 1, 2, 3)))
        ]
        yield " ".join(sentences) + END
