"""What a run is measured by: one number on its next token, and what each intervention did to the values it works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.engine.values import first_tensor
from workbench.errors import InputError
from workbench.graph.operations import Operation, register
from workbench.recorder import require

Metric = Literal["logit_difference", "probability", "rank", "kl"]
NEEDS: dict[str, int] = {"logit_difference": 2, "probability": 1, "rank": 1, "kl": 0}
"""How many answers each metric takes."""


def measure(metric: Metric, answers: Sequence[int | str] = ()) -> Any:
    """A number on the token after the prompt, as the model with all interventions written so far predicts it.

    Args:
        metric: "logit_difference" of the first answer and the second; "probability" of the answer; its "rank", 1 for
            the most probable; or "kl", the divergence in nats of the prediction from that of the clean run, in which
            nothing is changed: KL(clean ‖ changed).
        answers: tokens, as text with its leading space or as id.

    Returns:
        a traced number; save it to have it after the run.

    Raises:
        InputError: another number of answers than the metric takes, or text that is not one token.

    Example:
        >>> import workbench as wb
        >>> model = wb.demo()
        >>> with model.trace("The Eiffel Tower is in the city of"):
        ...     rank = wb.measure("rank", [" Paris"]).save()
        >>> rank
        1.0
    """
    recorder = require("measure(...)")
    root: Any = recorder.root
    ids = token_ids(getattr(root, "tokenizer", None), metric, answers)
    clean = None
    if metric == "kl":
        assert recorder.aside is not None
        with recorder.aside(None):
            clean = root.output
    return recorder.add(MEASURE, (root.output, clean, metric, ids))


def token_ids(tokenizer: Any, metric: str, answers: Sequence[int | str]) -> list[int]:
    """The answers as token ids. Raises `InputError` as `measure` does."""
    if metric not in NEEDS:
        raise InputError(f"there is no metric {metric!r}; one of {', '.join(NEEDS)}")
    if len(answers) != NEEDS[metric]:
        what = f"{NEEDS[metric]} answer token{'s' if NEEDS[metric] != 1 else ''}"
        raise InputError(f"the metric {metric} takes {what}, not {len(answers)}; choose them among the next tokens")
    return [each if isinstance(each, int) else _one_token(tokenizer, each) for each in answers]


def _one_token(tokenizer: Any, text: str) -> int:
    if tokenizer is None:
        raise InputError(f"this model has no tokenizer, so give the answer {text!r} as a token id")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        cure = f" Is a leading space meant, {' ' + text!r}?" if text and not text.startswith(" ") else ""
        raise InputError(f"the answer {text!r} is {len(ids)} tokens, not one; choose the first of them.{cure}")
    return int(ids[0])


def measured(logits: Tensor, clean: Tensor | None, metric: str, ids: Sequence[int]) -> float:
    """The number, from logits `(vocabulary,)`.

    Example:
        >>> import torch
        >>> measured(torch.tensor([1.0, 3.0]), None, "logit_difference", [1, 0])
        2.0
    """
    logits = logits.detach().double()
    if metric == "logit_difference":
        return float(logits[ids[0]] - logits[ids[1]])
    if metric == "rank":
        return float(int((logits > logits[ids[0]]).sum()) + 1)
    if metric == "probability":
        return float(logits.softmax(-1)[ids[0]])
    return 0.0 if clean is None else divergence(clean, logits)


def divergence(clean: Tensor, changed: Tensor) -> float:
    """KL(clean ‖ changed) in nats, of two rows of logits."""
    before, after = (each.detach().double().log_softmax(-1) for each in (clean, changed))
    terms = before.exp() * (before - after)
    return float(torch.where(before.exp() > 0, terms, torch.zeros_like(terms)).sum())


def next_logits(output: Any) -> Tensor | None:
    """The logits `(vocabulary,)` of the token after a prompt, from what a causal language model returned.

    None for what has no `logits` of shape `(batch, position, vocabulary)`.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else None
    return logits[0, -1].clone() if isinstance(logits, Tensor) and logits.ndim == 3 else None


def _measured(output: Any, clean: Any, metric: str, ids: list[int]) -> float:
    logits = next_logits(output)
    if logits is None:
        raise ValueError("this model gives no logits of shape (batch, position, vocabulary), so there is no next token")
    return measured(logits, None if clean is None else next_logits(clean), metric, ids)


# ---- what an intervention did


def held(value: Tensor, index: Any) -> tuple[Tensor, Tensor] | None:
    """What `change` compares with: a value's sum of squares, and its part `value[index]` as it is now.

    None where there is no such part; the statement that goes on to write there says so in the user's own line.
    """
    try:
        return _squares(value), value[index].clone()
    except (IndexError, TypeError, ValueError, RuntimeError):
        return None


def change(before: tuple[Tensor, Tensor] | None, value: Tensor, index: Any) -> Tensor:
    """How many numbers of a part are others than they were, how many the value has, its squares' sum before and after.

    Returns:
        `(4,)` in float64, on MPS in float32. A NaN that was one before is no change.

    Example:
        >>> import torch
        >>> value = torch.tensor([3.0, 4.0])
        >>> before = held(value, 0)
        >>> value[0] = 0
        >>> change(before, value, 0).tolist()
        [1.0, 2.0, 25.0, 16.0]
    """
    if before is None:
        return torch.zeros(4, dtype=torch.float64)
    squares, old = before
    new, changed = value[index], torch.zeros((), device=value.device)
    if old.shape == new.shape:
        same = old == new
        if old.is_floating_point():
            same |= old.isnan() & new.isnan()
        changed = (~same).sum()
    count = torch.full_like(squares, value.numel())
    return torch.stack((changed.to(squares.dtype), count, squares, _squares(value)))


def seen(value: Any) -> Tensor:
    """As `change`, of a value that is only read."""
    tensor = first_tensor(value)
    return torch.tensor([0, 0 if tensor is None else tensor.numel(), 0, 0], dtype=torch.float64)


def _squares(value: Tensor) -> Tensor:
    sizes = value.detach().abs() if value.is_complex() else value.detach()
    return sizes.to(torch.float32 if value.device.type == "mps" else torch.float64).square().sum()  # MPS has no float64


HELD = register(Operation("held", held))
CHANGE = register(Operation("change", change))
SEEN = register(Operation("seen", seen))
MEASURE = register(Operation("measure", _measured))
NEXT_LOGITS = register(Operation("next_logits", next_logits))
