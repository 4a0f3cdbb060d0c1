"""Generation: a model's own `generate`, watched as it goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.engine.batching import Rows
from workbench.errors import InputError
from workbench.models.tokens import padding
from workbench.tracing.progress import Bar

LATER = "workbench_later"
"""Among the arguments of a scan: what is wanted is a step after the one that reads the prompt."""


def forward_later(module: Any, kwargs: dict[str, Any]) -> Any:
    """Read a text, then one token behind it, which finds what is remembered of the text in a cache."""
    read = module(**kwargs, use_cache=True)
    name = next(each for each in ("past_key_values", "cache_params") if getattr(read, each, None) is not None)
    then: dict[str, Any] = {name: read[name], "use_cache": True}
    mask = kwargs.get("attention_mask")
    if "decoder_input_ids" in kwargs:
        then |= {"attention_mask": mask, "decoder_input_ids": kwargs["decoder_input_ids"][:, :1]}
        then["encoder_outputs"] = (read.encoder_last_hidden_state,)
    else:
        then["input_ids"] = kwargs["input_ids"][:, :1]
        if mask is not None:
            then["attention_mask"] = torch.cat([mask, mask[:, :1]], 1)
    return module(**then)


class Generation:
    """One call of `generate`.

    `steps` is how many new tokens there will be at most, `times` how often each prompt's row is in the batch (beams,
    several samples of one prompt), `returned` how many sequences each prompt gives. With `answers` a decoder writes
    apart from the prompt. `room` is how many tokens the model has positions for, if they are learned.
    """

    def __init__(
        self, module: Any, tokenizer: Any, options: dict[str, Any], answers: bool = False, room: int | None = None
    ) -> None:
        options = dict(options)
        self._answers = answers
        self._room = room
        self._begun = self._width = 0
        self._module = module
        self._tokenizer = tokenizer
        self._stream: Any = options.pop("stream", False)
        self._seed: int | None = options.pop("seed", None)
        self._options = options
        if not options.keys() & {"max_new_tokens", "max_length", "generation_config"}:
            options["max_new_tokens"] = 1
        config = options.get("generation_config") or module.generation_config
        self.steps: int = options.get("max_new_tokens") or getattr(config, "max_new_tokens", None) or 0
        beams = options.get("num_beams") or getattr(config, "num_beams", None) or 1
        self.returned: int = options.get("num_return_sequences") or getattr(config, "num_return_sequences", None) or 1
        self.times = max(beams, self.returned)
        self.cached = bool(options.get("use_cache", getattr(config, "use_cache", True)) is not False)
        ends = options.get("eos_token_id", getattr(config, "eos_token_id", None))
        self._ends = torch.tensor([] if ends is None else ends, dtype=torch.long).reshape(-1)
        self._done: Tensor | None = None
        if getattr(config, "pad_token_id", None) is None and "pad_token_id" not in options:
            options["pad_token_id"] = padding(tokenizer)
        self.filler: int = options.get("pad_token_id", getattr(config, "pad_token_id", 0))

    def run(self, inputs: dict[str, Any]) -> Any:
        """Generate for these prompts."""
        from transformers import StoppingCriteriaList

        criteria = self._options.get("stopping_criteria") or []
        bar = None if self._stream else Bar(self.steps or None, "generating", "token")
        watch = _Watch(self._see, bar)
        options = {**self._options, "stopping_criteria": StoppingCriteriaList([*criteria, watch])}
        device = next(self._module.parameters()).device
        self._ends = self._ends.to(device)
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices) if self._seed is not None else nullcontext(), bar or nullcontext():
            if self._seed is not None:
                torch.manual_seed(self._seed)
            try:
                return self._module.generate(**inputs, **options)
            except (IndexError, RuntimeError) as error:
                self._explain(error)
                raise

    def _explain(self, error: Exception) -> None:
        """Say it in words where there were no more positions; what the user's own line raised says so itself."""
        if self._room is None or self._width <= self._room or getattr(error, "location", None) is not None:
            return
        raise InputError(
            f"the text has grown to {self._width:,} tokens, and this model has positions for {self._room:,}: give "
            f"max_new_tokens={self._room - self._begun + 1} or less"
        ) from error

    def ended(self, rows: Rows) -> bool:
        """Whether all of an invoke's rows have come to their end."""
        return self.times == 1 and self._done is not None and bool(self._done[rows.start : rows.stop].all())

    def trimmed(self, tokens: Tensor, rows: Rows) -> Tensor:
        """An invoke's tokens up to the end of its longest text: alone, generation would have ended there."""
        begun = rows.answer if self._answers else rows.length
        ends = torch.isin(tokens[:, begun:], self._ends).cummax(1).values.all(0)
        return tokens[:, : begun + int((~ends).sum()) + 1]

    def _see(self, tokens: Tensor) -> None:
        """Look at what is written so far, after each step."""
        self._width = tokens.shape[1]
        self._begun = self._begun or self._width - 1
        last = torch.isin(tokens[:, -1], self._ends)
        self._done = last if self._done is None else self._done | last
        if self._stream:
            self._shown(tokens[:, -1])

    def _shown(self, tokens: Tensor) -> None:
        texts = [self._tokenizer.decode([token]) for token in tokens.tolist()]
        if callable(self._stream):
            self._stream(texts)
        else:
            print(*texts, sep="\t", end="", flush=True)


class Written(NamedTuple):
    """What several generations wrote, put together: `path` is the site of it, `filler` stands behind an ended text, and
    each prompt has `returned` texts."""

    path: str
    filler: int
    returned: int

    def evened(self, values: list[Any]) -> list[Any]:
        """The same with tokens `(batch, position)` of one length."""
        return [self._longer(each, max(map(_width, values))) for each in values]

    def _longer(self, value: Any, width: int) -> Any:
        missing = width - _width(value)
        if not missing:
            return value
        if not isinstance(value, Tensor):
            return type(value)(**{**value, "sequences": self._longer(value["sequences"], width)})
        return torch.nn.functional.pad(value, (0, missing), value=self.filler)


def _width(value: Any) -> int:
    return (value if isinstance(value, Tensor) else value["sequences"]).shape[1]


class _Watch:
    """Asked after each step whether to stop, which it never wants: it sees how far generation is."""

    def __init__(self, see: Callable[[Tensor], None], bar: Bar | None) -> None:
        self._see = see
        self._bar = bar

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self._see(input_ids)
        if self._bar is not None:
            self._bar.update()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
