"""Observe: what a view of a whole run needs, read in a pass of its own when somebody looks.

A pass is given as `run(keep)`, which calls `keep()` once inside the trace, after whatever the pass changes: so the
values are those that the interventions left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import InputError
from workbench.lens import unembedding
from workbench.models.tokens import pieces
from workbench.views.array import array
from workbench.views.attention import attention
from workbench.views.gradient import gradient
from workbench.views.header import Kind
from workbench.views.logits import logits
from workbench.views.mlp import mlp
from workbench.views.residual import residual
from workbench.views.view import View

Pass = Callable[[Callable[[], None]], None]


@dataclass(frozen=True)
class Subject:
    """One prompt of a model in a pass: `run` is with what the person changed, `clean` without, if that differs."""

    model: Any
    tokens: tuple[str, ...]
    run: Pass
    clean: Pass | None = None

    def decode(self, id: int) -> str:
        return pieces(self.model.tokenizer, [id])[0] if self.model.tokenizer is not None else str(id)

    @property
    def layers(self) -> list[str]:
        return [f"layer {number}" for number in range(len(self.model.layers))]


def subject(model: Any, prompt: Any) -> Subject:
    """A prompt as the model has it, with nothing changed.

    Example:
        >>> import workbench as wb
        >>> subject(wb.demo("gpt2"), "The Eiffel Tower").tokens
        ('The', ' Eiffel', ' Tower')
    """

    def run(keep: Callable[[], None]) -> None:
        with model.trace(prompt):
            keep()

    return Subject(model, tuple(model.tokens(prompt)), run)


def values(run: Pass, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What `make` reads inside the pass, by name."""
    kept: dict[str, Any] = {}
    run(lambda: kept.update({name: value.save() for name, value in make().items()}))
    return {name: value.value for name, value in kept.items()}


def look(kind: Kind, of: Subject, **options: Any) -> View:
    """A view of a whole pass.

    Args:
        kind: "residual", "attention", "logits", "mlp" or "gradient".
        options: of the kind: `layer` and `head` (attention), `layer`, `neurons` and `position` (mlp).

    Raises:
        InputError: an architecture without what is looked at, with the reason.

    Example:
        >>> import workbench as wb
        >>> of = subject(wb.demo("gpt2"), "The Eiffel Tower is in the city of")
        >>> look("residual", of).header.lens.texts[-1]
        ' Paris'
    """
    return OF[kind](of, **options)


def _residual(of: Subject) -> View:
    layers = of.model.layers

    def read() -> dict[str, Any]:
        return {"streams": torch.stack([layers[0].resid_pre, *[layer.resid_post for layer in layers]])[:, 0]}

    found = values(of.run, read)
    return residual(
        found["streams"], of.tokens, layers=["embedding", *of.layers], unembed=unembedding(of.model), decode=of.decode,
        title="logit lens",
    )  # fmt: skip


def _attention(of: Subject, layer: int | None = None, head: int | None = None, batch: int = 0) -> View:
    number = _layer(of, layer)
    found = values(of.run, lambda: {"pattern": of.model.layers[number].attn.pattern})
    return attention(
        found["pattern"],
        of.tokens,
        layer=number,
        layers=len(of.model.layers),
        head=head,
        title=f"attention of layer {number}",
    )


def _logits(of: Subject) -> View:
    def read() -> dict[str, Any]:
        return {"logits": of.model.output.logits[0]}

    after = values(of.run, read)["logits"]
    before = None if of.clean is None else values(of.clean, read)["logits"]
    return logits(after, before, decode=of.decode, tokens=of.tokens, title="next token by position")


def _mlp(of: Subject, layer: int | None = None, neurons: tuple[int, ...] = (), position: int | None = None) -> View:
    number = _layer(of, layer)
    found = values(of.run, lambda: {"neurons": of.model.layers[number].mlp.neurons[0]})
    return mlp(found["neurons"], of.tokens, layer=number, layers=len(of.model.layers), also=neurons, at=position)


def _gradient(of: Subject) -> View:
    layers = of.model.layers

    def read() -> dict[str, Any]:
        streams = [layer.resid_post for layer in layers]
        last = of.model.output.logits[0, -1]
        found = {f"grad {number}": stream.grad for number, stream in enumerate(streams)}
        found |= {f"value {number}": stream for number, stream in enumerate(streams)}
        best = last.argmax()
        last.max().backward()
        return {**found, "best": best}

    kept = values(of.run, read)
    gradients, activations = (
        torch.stack([kept[f"{what} {number}"].detach()[0] for number in range(len(layers))])
        for what in ("grad", "value")
    )
    answer = of.decode(int(kept["best"]))
    return gradient(
        gradients, activations, of.tokens, layers=of.layers, of=f"the logit of {answer!r}",
        title=f"gradient of the logit of {answer!r}",
    )  # fmt: skip


def _layer(of: Subject, layer: int | None) -> int:
    count = len(of.model.layers)
    return count - 1 if layer is None else max(0, min(layer, count - 1))


OF: dict[Kind, Callable[..., View]] = {
    "residual": _residual,
    "attention": _attention,
    "logits": _logits,
    "mlp": _mlp,
    "gradient": _gradient,
}


def as_kind(
    kind: Kind, value: Tensor, tokens: tuple[str, ...], model: Any, weights: bool = True, **options: Any
) -> View:
    """A tensor as a view of this kind; `options` are the kind's own.

    Args:
        weights: the model's weights may be asked for; else they are elsewhere, and a residual stream has norms only.

    Raises:
        InputError: the value has no such shape.
    """
    if kind == "array":
        return array(value, tokens=tokens, **{name: each for name, each in options.items() if name in OF_ARRAYS})
    found = _as_kind(kind, value, tokens, model, weights, **options)
    rows = len(value) if value.ndim == (4 if kind == "attention" else 3) else 1
    return View(found.header.model_copy(update={"batch": options.get("batch", 0), "rows": rows}), found.buffers)


def _as_kind(kind: Kind, value: Tensor, tokens: tuple[str, ...], model: Any, weights: bool, **options: Any) -> View:
    title = options.pop("title", "")
    batch = options.pop("batch", 0)
    decode = Subject(model, tokens, lambda keep: None).decode if getattr(model, "tokenizer", None) is not None else str
    if kind == "attention":
        return attention(value, tokens, title=title, batch=batch, head=options.get("head"))
    if kind == "logits":
        return logits(value, decode=decode, tokens=tokens, title=title, batch=batch)
    if kind == "mlp":
        return mlp(value, tokens, title=title, batch=batch, also=options.get("neurons", ()), at=options.get("position"))
    if not 0 <= batch < (len(value) if value.ndim == 3 else 1):
        raise InputError(f"row {batch} of a batch of {len(value) if value.ndim == 3 else 1}")
    row = value[batch] if value.ndim == 3 else value
    if kind == "gradient":
        there = options.get("activations")
        beside = None if there is None or there.shape != value.shape else there[batch] if value.ndim == 3 else there
        of = "activation × gradient" if beside is not None else ""
        return gradient(row, beside, tokens, layers=[title or "0"], of=of, title=title)
    readable = row.shape[-1] == _width(model)
    unembed = unembedding(model) if readable and weights else None
    note = "" if weights or not readable else "norms only: the logit lens needs the model's weights, which are not here"
    return residual(row, tokens, layers=[title or "0"], unembed=unembed, decode=decode, title=title, note=note)


ARRAY = ("down", "across", "index", "merged")
OF_ARRAYS = (*ARRAY, "names", "title")


def _width(model: Any) -> int | None:
    from workbench.views.kinds import facts_of

    return None if model is None else facts_of(model).width
