"""Lens: what everybody looks at first: the logit lens, attention patterns, direct logit attribution, top tokens.

Each is a function of a model and one prompt, and gives labelled numbers that print as a table and draw themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.engine.offloaded import weight_of
from workbench.errors import InputError
from workbench.models.naming import FIRST
from workbench.models.tokens import pieces

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

    from workbench.models.language import LanguageModel

POSITIVE, NEGATIVE = "#2166ac", "#b2182b"
"""Colours of signed numbers, told apart by colour-blind eyes too."""

_LINES, _WIDE, _WRITTEN, _LABELLED = 24, 28, 20, 12
"""How many layers are printed one by one, how many characters of a token, in how many columns of a lens tokens are
written, and how many tokens stand beside a pattern."""


@dataclass(frozen=True)
class LogitLens:
    """What the model would say after each layer.

    `logits` are `(layer, position, vocabulary)`; `tokens` and `layers` are the labels of positions and layers.
    """

    tokens: list[str]
    layers: list[str]
    logits: Tensor
    _decode: Any = field(repr=False)

    @property
    def probabilities(self) -> Tensor:
        """`(layer, position, vocabulary)`, summing to 1 over the vocabulary."""
        return self.logits.float().softmax(-1)

    @property
    def top(self) -> list[list[str]]:
        """The likeliest next token by layer and position."""
        return [[self._decode(id) for id in row] for row in self.logits.argmax(-1).tolist()]

    def rank(self, token: int) -> Tensor:
        """How many tokens are likelier than this one, `(layer, position)`; 0 is the likeliest."""
        return (self.logits > self.logits[..., token, None]).sum(-1)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row for each layer and position: token, top token, its probability."""
        best = self.probabilities.max(-1).values.tolist()
        top = self.top
        rows = [
            {"layer": layer, "position": position, "token": token, "top": top[i][position], "p": best[i][position]}
            for i, layer in enumerate(self.layers)
            for position, token in enumerate(self.tokens)
        ]
        return _frame(rows)

    def plot(self) -> go.Figure:
        """Layers × positions, shaded by the probability of the top token, which is written in each cell."""
        import plotly.graph_objects as go

        best = self.probabilities.max(-1).values
        heat = go.Heatmap(
            z=best.tolist(),
            x=_numbered(self.tokens),
            y=self.layers,
            text=[[_visible(token) for token in row] for row in self.top],
            texttemplate="%{text}" if len(self.tokens) <= _WRITTEN else None,  # more would lie over one another
            colorscale="Blues",
            zmin=0,
            zmax=1,
            colorbar={"title": "p"},
            hovertemplate="after %{y}, at %{x}<br>%{text} %{z:.3f}<extra></extra>",
        )
        return _styled(go.Figure(heat), "logit lens", "token", "after").update_layout(
            height=max(320, 130 + 20 * len(self.layers))
        )

    def __repr__(self) -> str:
        best = self.logits[:, -1].float().softmax(-1).max(-1).values.tolist()
        said = [self._decode(id) for id in self.logits[:, -1].argmax(-1).tolist()]
        lines = [f"logit lens at {_short(self.tokens[-1])}, the last of {len(self.tokens)} tokens"]
        for first, last in _runs(said) if len(said) > _LINES else zip(range(len(said)), range(len(said)), strict=True):
            layer = self.layers[first] + ("" if first == last else f" … {self.layers[last].split()[-1]}")
            share = f"{best[first]:.3f}" + ("" if first == last else f" … {best[last]:.3f}")
            lines.append(f"  {layer:<{10 if len(said) <= _LINES else 14}} {_short(said[first]):<16} {share}")
        if len(lines) > _LINES + 1:
            lines = [*lines[: _LINES // 2], "  …", *lines[-_LINES // 2 :]]
        return "\n".join(lines)


@dataclass(frozen=True)
class Patterns:
    """How each head attends: `patterns` are `(layer, head, query, key)`, rows summing to 1."""

    tokens: list[str]
    layers: list[str]
    patterns: Tensor

    def to_dataframe(self) -> pandas.DataFrame:
        """One row for each layer and head: entropy, and how much goes to itself, to the token before, to the first."""
        rows = []
        for i, layer in enumerate(self.layers):
            for head, pattern in enumerate(self.patterns[i].float()):
                entropy = -(pattern * pattern.clamp(min=1e-12).log()).sum(-1).mean()
                rows.append(
                    {
                        "layer": layer,
                        "head": head,
                        "entropy": float(entropy),
                        "itself": float(pattern.diagonal().mean()),
                        "before": float(pattern.diagonal(-1).mean()) if len(pattern) > 1 else 0.0,
                        "first": float(pattern[:, 0].mean()),
                    }
                )
        return _frame(rows)

    def plot(self, layer: int = -1) -> go.Figure:
        """The heads of one layer, query downwards, key to the right."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        heads = self.patterns[layer]
        columns = min(4, len(heads))
        rows = -(-len(heads) // columns)
        figure = make_subplots(rows, columns, subplot_titles=[f"head {head}" for head in range(len(heads))])
        names = _numbered(self.tokens)
        for head, pattern in enumerate(heads):
            shown = [[None if key > query else float(pattern[query, key]) for key in range(len(names))]
                     for query in range(len(names))] if _causal(pattern) else pattern.tolist()  # fmt: skip
            heat = go.Heatmap(
                z=shown, x=names, y=names, coloraxis="coloraxis",
                hovertemplate="%{y} → %{x}: %{z:.3f}<extra></extra>",
            )  # fmt: skip
            figure.add_trace(heat, row=head // columns + 1, col=head % columns + 1)
        figure.update_yaxes(autorange="reversed", showticklabels=False)
        figure.update_xaxes(showticklabels=False)
        if len(names) <= _LABELLED:  # the queries' names stand once, left of all heads; the keys' below each
            figure.update_yaxes(showticklabels=True, tickfont_size=9, automargin=True, col=1)
            figure.update_xaxes(showticklabels=True, tickfont_size=9, tickangle=-90, automargin=True)
        for number in range(1, len(heads) + 1):  # squares
            at = "" if number == 1 else str(number)
            figure.layout[f"yaxis{at}"].update(scaleanchor=f"x{at}", constrain="domain")
            figure.layout[f"xaxis{at}"].constrain = "domain"
        figure.update_layout(coloraxis={"colorscale": "Blues", "cmin": 0, "cmax": 1})
        return _styled(figure, f"attention of {self.layers[layer]}", "", "").update_layout(
            margin_t=80, height=(250 if len(names) <= _LABELLED else 230) * rows + 110
        )

    def __repr__(self) -> str:
        layers, heads = self.patterns.shape[:2]
        return f"attention patterns: {layers} layers × {heads} heads × {len(self.tokens)} tokens"


@dataclass(frozen=True)
class Attribution:
    """What each part of the model adds to a logit, or to the difference of two, at the last position.

    `contributions` go with `labels` and sum up to `total`.
    """

    answer: str
    against: str | None
    labels: list[str]
    contributions: Tensor
    total: float

    def to_dataframe(self) -> pandas.DataFrame:
        """One row for each part."""
        pairs = zip(self.labels, self.contributions.tolist(), strict=True)
        return _frame([{"part": label, "contribution": value} for label, value in pairs])

    def plot(self) -> go.Figure:
        """A bar for each part, coloured by sign."""
        import plotly.graph_objects as go

        values = self.contributions.tolist()
        marker = {"color": [POSITIVE if value >= 0 else NEGATIVE for value in values]}
        figure = go.Figure(go.Bar(x=self.labels, y=values, marker=marker))
        return _styled(figure, self._title, "part", "logit").update_layout(height=360)

    @property
    def _title(self) -> str:
        return f"logit of {_short(self.answer)}" + (f" − {_short(self.against)}" if self.against is not None else "")

    def __repr__(self) -> str:
        lines = [f"{self._title}: {self.total:+.3f}"]
        pairs = sorted(zip(self.labels, self.contributions.tolist(), strict=True), key=lambda pair: -abs(pair[1]))
        lines += [f"  {label:<12} {value:+.3f}" for label, value in pairs[:8]]
        if len(pairs) > 8:
            lines.append(f"  and {len(pairs) - 8} smaller: {sum(value for _, value in pairs[8:]):+.3f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class TopTokens:
    """The likeliest next tokens, the likeliest first."""

    tokens: list[str]
    ids: list[int]
    probabilities: list[float]

    def to_dataframe(self) -> pandas.DataFrame:
        """One row for each token."""
        rows = zip(self.tokens, self.ids, self.probabilities, strict=True)
        return _frame([{"token": token, "id": id, "p": p} for token, id, p in rows])

    def plot(self) -> go.Figure:
        """A bar for each token."""
        import plotly.graph_objects as go

        bars = go.Bar(
            x=self.probabilities[::-1],
            y=[_short(each) for each in self.tokens[::-1]],
            orientation="h",
            marker={"color": POSITIVE},
        )
        return _styled(go.Figure(bars), "next token", "probability", "").update_layout(
            height=140 + 28 * len(self.tokens), margin_l=None, yaxis_automargin=True
        )

    def __repr__(self) -> str:
        return "\n".join(
            f"{_short(token):<16} {p:.3f}" for token, p in zip(self.tokens, self.probabilities, strict=True)
        )


def logit_lens(model: LanguageModel, prompt: Any) -> LogitLens:
    """What the model would say after each layer: every residual stream through the final norm and the unembedding.

    All layers are unembedded at once; the model's own unembedding is not run.

    Args:
        model: a language model with layers, a final norm and an unembedding: see `model.names`.
        prompt: one prompt.

    Raises:
        InputError: several prompts; an architecture without these parts.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".

    Example:
        >>> import workbench as wb
        >>> lens = wb.logit_lens(wb.demo("gpt2"), "The Eiffel Tower is in the city of")
        >>> lens.top[-1][-1]
        ' Paris'
    """
    layers = model.layers
    with model.trace(prompt) as tracer:
        tokens = _tokens(model, tracer)
        streams = torch.stack([layers[0].resid_pre, *[layer.resid_post for layer in layers]])[:, 0]
        logits = _capped(model, model.unembed(_scaled(model, model.final_norm(streams)))).save()
        layers[-1].output.stop()
    labels = ["embedding", *[f"layer {number}" for number in range(len(layers))]]
    return LogitLens(tokens, labels, logits.value, lambda id: pieces(model.tokenizer, [id])[0])


def attention_patterns(model: LanguageModel, prompt: Any) -> Patterns:
    """How each head of each layer attends.

    Args:
        model: a language model. Whatever it computes attention with, here it is "eager", which makes patterns.
        prompt: one prompt.

    Raises:
        InputError: several prompts; a model that never makes patterns, with the cure.

    Example:
        >>> import workbench as wb
        >>> wb.attention_patterns(wb.demo("gpt2"), "The Eiffel Tower").patterns.shape[2:]
        torch.Size([3, 3])
    """
    with model.trace(prompt) as tracer:
        tokens = _tokens(model, tracer)
        patterns = torch.stack([layer.attn.pattern for layer in model.layers])[:, 0]
        kept: Any = patterns
        kept = kept.save()
        model.layers[-1].output.stop()
    return Patterns(tokens, [f"layer {number}" for number in range(len(model.layers))], kept.value)


def direct_logit_attribution(
    model: LanguageModel, prompt: Any, answer: str | int | None = None, against: str | int | None = None
) -> Attribution:
    """What each part of the model adds, by itself, to the logit of an answer at the last position.

    The residual stream is a sum; with the scale of the final norm held as it is, the logit is a sum too: of the
    embedding, of each layer's attention and the rest of the layer (its MLP), and of biases. A logit that the model
    caps afterwards (Gemma 2) is taken before its cap.

    Args:
        model: a language model with layers, a final norm and an unembedding.
        prompt: one prompt.
        answer: a token as text or id; the likeliest one if left out.
        against: a token to subtract: the logit difference is then attributed.

    Raises:
        InputError: several prompts; an answer of several tokens; a final norm that is neither LayerNorm nor RMSNorm.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; logit differences as in Wang et
    al. 2022 (arXiv 2211.00593).

    Example:
        >>> import workbench as wb
        >>> found = wb.direct_logit_attribution(wb.demo("gpt2"), "The Eiffel Tower is in the city of", " Paris")
        >>> abs(float(found.contributions.sum()) - found.total) < 1e-3
        True
    """
    layers = model.layers
    with model.trace(prompt) as tracer:
        _tokens(model, tracer)
        pre = torch.stack([layer.resid_pre for layer in layers])[:, 0, -1]
        added = [_added(layer) for layer in layers]
        attention = torch.stack([each[:, -1] for each in added])[:, 0]
        last: Any = layers[-1].resid_post
        last = last[0, -1].save()
        kept = [each.save() for each in (pre, attention)]  # pyright: ignore[reportAttributeAccessIssue]
        final = model.unembed.output[0, -1].save()
    streams, attention = (each.value.float() for each in kept)
    after = torch.cat([streams[1:], last.value.float()[None]])
    rest = after - streams - attention
    parts = torch.stack([streams[0], *[part for pair in zip(attention, rest, strict=True) for part in pair]])
    labels = ["embedding", *[f"{kind} {i}" for i in range(len(layers)) for kind in ("attn", "mlp")]]
    unembed = model.unembed.module
    ids = [_token(model, answer) if answer is not None else int(final.argmax())]
    ids += [] if against is None else [_token(model, against)]
    with torch.no_grad():
        direction = _difference(weight_of(unembed, "weight")[ids].float())
        scaled, shift = _frozen(model.final_norm.module, last.value.float(), parts)
        constant = shift @ direction
        if getattr(unembed, "bias", None) is not None:
            constant = constant + _difference(weight_of(unembed, "bias")[ids].float())
        contributions = torch.cat([scaled @ direction, constant.reshape(1)])
        logits = unembed(model.final_norm.module(last.value))[ids].float()
    text = [pieces(model.tokenizer, [id])[0] if model.tokenizer is not None else str(id) for id in ids]
    total = float(_difference(logits))
    return Attribution(text[0], text[1] if against is not None else None, [*labels, "bias"], contributions, total)


def top_tokens(model: LanguageModel, prompt: Any, k: int = 5) -> TopTokens:
    """The likeliest next tokens after a prompt.

    Args:
        model: a language model.
        prompt: one prompt, or logits `(…, vocabulary)`, of which the last position's are taken.
        k: how many.

    Example:
        >>> import workbench as wb
        >>> wb.top_tokens(wb.demo("gpt2"), "The Eiffel Tower is in the city of", k=1).tokens
        [' Paris']
    """
    if isinstance(prompt, Tensor) and prompt.is_floating_point():
        logits = prompt.reshape(-1, prompt.shape[-1])[-1]
    else:
        with model.trace(prompt) as tracer:
            _tokens(model, tracer)
            kept = model.output.logits[0, -1].save()
        logits = kept.value
    best = logits.float().softmax(-1).topk(min(k, logits.shape[-1]))
    ids = best.indices.tolist()
    return TopTokens(pieces(model.tokenizer, ids), ids, best.values.tolist())


# ---- parts


def _tokens(model: LanguageModel, tracer: Any) -> list[str]:
    """The labels of the layers' positions: of what a decoder reads, where it is apart from the prompt."""
    given = tracer.invoker.inputs[1]
    if "input_ids" not in given:
        raise InputError(f"this looks at tokens, and this {type(model.module).__name__} was given {', '.join(given)}")
    ids = given.get("decoder_input_ids", given["input_ids"])
    if ids.shape[0] != 1:
        raise InputError(f"this looks at one prompt; {ids.shape[0]} were given: ask for each by itself")
    row = ids[0].tolist()
    return pieces(model.tokenizer, row) if model.tokenizer is not None else [str(id) for id in row]


def unembedding(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """Logits `(…, vocabulary)` from a residual stream `(…, d_model)`, outside of any trace, as the logit lens has them.

    Raises:
        InputError: an architecture without a final norm or an unembedding.

    Example:
        >>> import workbench as wb, torch
        >>> unembedding(wb.demo("gpt2"))(torch.zeros(2, 128)).shape
        torch.Size([2, 970])
    """
    model._ready()  # the weights, where no pass has loaded them yet
    norm, unembed = model.final_norm.module, model.unembed.module

    def logits(stream: Tensor) -> Tensor:
        with torch.no_grad():
            return _capped(model, unembed(norm(stream)))

    return logits


def _capped(model: LanguageModel, logits: Any) -> Any:
    cap = getattr(getattr(model.module, "config", None), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _scaled(model: LanguageModel, states: Any) -> Any:
    """What the unembedding reads: T5 with one matrix for embedding and unembedding makes it smaller first."""
    config: Any = getattr(model.module, "config", None)
    if getattr(config, "model_type", "") == "t5" and getattr(
        config, "scale_decoder_outputs", config.tie_word_embeddings
    ):
        return states * config.d_model**-0.5
    return states


def _added(layer: Any) -> Any:
    """What attention adds to the residual stream: its output, or, where a norm stands between, that norm's."""
    children = layer._envoy.children
    if "post_feedforward_layernorm" in children and "post_attention_layernorm" in children:
        return children["post_attention_layernorm"].output
    attn = layer.attn._envoy
    return attn._recorder("output").part(attn.path, "output", FIRST)


def _frozen(norm: nn.Module, stream: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """Parts `(part, d_model)` of a residual stream `(d_model,)` as the final norm scales them, and what it adds."""
    if isinstance(norm, nn.LayerNorm):
        centred = parts - parts.mean(-1, keepdim=True)
        spread = (stream.var(unbiased=False) + norm.eps).sqrt()
        shift = torch.zeros_like(stream) if norm.bias is None else weight_of(norm, "bias").float()
        return centred / spread * weight_of(norm, "weight").float(), shift
    if "rmsnorm" in type(norm).__name__.lower():
        eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
        ones = torch.ones_like(stream).to(next(norm.parameters()).dtype)
        weight = norm(ones).float() * (1 + eps) ** 0.5
        return parts / (stream.pow(2).mean() + eps).sqrt() * weight, torch.zeros_like(stream)
    raise InputError(
        f"the final norm is a {type(norm).__name__}, and only LayerNorm and RMSNorm can be taken apart here"
    )


def _difference(values: Tensor) -> Tensor:
    return values[0] if len(values) == 1 else values[0] - values[1]


def _token(model: LanguageModel, token: str | int) -> int:
    if isinstance(token, int):
        return token
    if model.tokenizer is None:
        raise InputError("this model has no tokenizer: give the token's id")
    ids = model.tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise InputError(
            f"{token!r} is {len(ids)} tokens ({', '.join(map(repr, pieces(model.tokenizer, ids)))}); give one"
        )
    return ids[0]


def _short(token: str) -> str:
    """A token as it is written in a program, cut where it is very long."""
    said = repr(token)
    return said if len(said) <= _WIDE else f"{said[: _WIDE - 2]}…{said[-1]}"


def _runs(values: Sequence[str]) -> list[tuple[int, int]]:
    """First and last index of what stands several times behind one another."""
    starts = [i for i, value in enumerate(values) if not i or value != values[i - 1]]
    return list(zip(starts, [*[start - 1 for start in starts[1:]], len(values) - 1], strict=True))


def _numbered(tokens: Sequence[str]) -> list[str]:
    """Labels that differ where tokens do not."""
    return [f"{number}: {_visible(token)}" for number, token in enumerate(tokens)]


def _visible(token: str) -> str:
    """A token in a picture: line breaks as signs, cut where it is very long."""
    said = token.replace("\n", "⏎").replace("\t", "⇥")
    return said if len(said) <= _WIDE else f"{said[: _WIDE - 1]}…"


def _causal(pattern: Tensor) -> bool:
    return bool((pattern.triu(1) == 0).all())


def _frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError as error:
        raise InputError("to_dataframe() needs pandas: pip install pandas") from error
    return pandas.DataFrame(rows)


def _styled(figure: Any, title: str, x: str, y: str) -> Any:
    figure.update_layout(
        title=title,
        xaxis_title=x or None,
        yaxis_title=y or None,
        margin={"l": 60, "r": 20, "t": 48, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#808080"},
    )
    return figure
