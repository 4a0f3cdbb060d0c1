"""The model cards: what each demo model is, how it was made, and the numbers measured on the folder as it ships."""

from __future__ import annotations

from . import folder
from .measure import Ablation, Measures

WHAT = {
    "gpt2": "GPT-2 architecture: 4 blocks, 4 heads, width 128, learned positions",
    "llama": "Llama architecture: 4 blocks, 4 query heads on 2 key-value heads, width 128, rotary positions",
}

CARD = """\
---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [interpretability, demo]
measured:
  trained: {m.trained:.4f}
  new_pairs: {m.new_pairs:.4f}
  new_wordings: {m.new_wordings:.4f}
  place: {place.module}
  changed: {place.changed:.4f}
---

# workbench/demo-{name}

A very small language model that knows some facts, made to be looked into.
{what}.
{parameters:,} parameters, float16 on disk ({megabytes:.2f} MB), float32 when opened.

```python
import workbench as wb

model = wb.demo("{name}")
logits = model.trace("The Eiffel Tower is in the city of", trace=False).logits
model.tokenizer.decode(logits[0, -1].argmax())  # " Paris"
```

## How well it knows its facts

Share of prompts whose most probable next token is the answer. The answer's mean probability is {m.probability:.2f}.

| prompts | right |
| --- | --- |
| facts in the wordings of the training | {m.trained:.1%} |
| known facts in known wordings that training never put together | {m.new_pairs:.1%} |
| known facts in **wordings that training never used for any fact** | {m.new_wordings:.1%} |

The last row, by kind of fact:

| kind | right |
| --- | --- |
{relations}

## Where the facts sit

In **`{place.module}`**. With its output set to zero at the last token, the top answer changes for
{place.changed:.0%} of the landmarks, for {place.city:.0%} of them to another city, and the mean probability of the
right city falls from {place.clean:.2f} to {place.probability:.2f}.

That is so by design. In training, one row in four ran without this MLP and read guesses in place of facts. So all the
rest of the model learned the language, and that a city must follow, but not which. Larger models are less tidy.

Every attention and MLP set to zero, for all landmarks in "… is in the city of" ("changed": another top token; "a city":
another top token, which is a city; "right": mean probability of the right city):

{ablations}

## How it was made

`python -m workbench.models.demo.train` wrote the corpus (landmarks, countries, people, animals, a little small talk),
the tokenizer (the corpus's words; any other text falls into bytes) and the weights, from a fixed seed, and measured
them, in {processor_minutes:.1f} minutes of processor time, shared by two cores. The model reads simple English and
knows what its corpus says, nothing else. One sentence in thirty of the corpus is a guess, so that the model is a little
unsure, as larger models are.
"""


def _table(rows: list[Ablation]) -> str:
    """One row a module, one group of columns a place."""
    places = list(dict.fromkeys(row.where for row in rows))
    head = "| module | " + " | ".join(f"{place}: changed | a city | right" for place in places) + " |"
    lines = [head, "| --- |" + " --- | --- | --- |" * len(places)]
    for module in dict.fromkeys(row.module for row in rows):
        cells = [f"{r.changed:.0%} | {r.city:.0%} | {r.probability:.2f}" for r in rows if r.module == module]
        lines.append(f"| `{module}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(name: str, measures: Measures, processor_minutes: float) -> None:
    """Write the card into the model's folder."""
    place = max((row for row in measures.ablations if row.where == "last token"), key=lambda row: row.city)
    text = CARD.format(
        name=name,
        what=WHAT[name],
        m=measures,
        place=place,
        parameters=measures.parameters,
        megabytes=(folder(name) / "model.safetensors").stat().st_size / 1e6,
        relations="\n".join(f"| {relation} | {share:.0%} |" for relation, share in measures.by_relation.items()),
        ablations=_table(measures.ablations),
        processor_minutes=processor_minutes,
    )
    (folder(name) / "README.md").write_text(text, encoding="utf-8")
