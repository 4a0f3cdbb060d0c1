"""Header: what the page is told of a view, as JSON; its numbers travel beside it as bytes, by `buffer` number.

One class a kind. The page's types are generated from these, so a field added here appears there by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workbench.experiment.kinds import Frozen

Kind = Literal["residual", "attention", "logits", "mlp", "gradient", "array"]
KINDS: tuple[Kind, ...] = ("residual", "attention", "logits", "mlp", "gradient", "array")


class Axis(Frozen):
    """What the cells of a picture are along one side: `size` cells from `start`, each of `step` numbers."""

    name: str = Field(description="position, feature, layer, head, query, key, …")
    size: int = Field(description="cells")
    start: int = Field(default=0, description="index of the first number")
    step: int = Field(default=1, description="numbers merged into one cell")
    length: int = Field(description="numbers along the whole axis, seen or not")
    labels: tuple[str, ...] = Field(
        default=(), description="a word for each cell, such as its token; empty for numbers"
    )


class Grid(Frozen):
    """A picture's numbers, row-major; NaN and Inf stay what they are. With `sheets`, as many pictures one by one."""

    rows: Axis
    columns: Axis
    sheets: int = 1
    dtype: Literal["float32", "float16"] = "float32"
    buffer: int
    scale: Literal["diverging", "sequential"] = Field(description="about zero, or from zero")
    limit: float = Field(description="where the colours end, on both sides of zero or above it")
    clipped: int = Field(default=0, description="finite numbers of the picture beyond the limit")
    nan: int = 0
    infinite: int = 0
    merged: Literal["mean", "largest"] = Field(default="mean", description="how a cell stands for several numbers")
    unit: str = Field(default="", description="what a number is: probability, norm, nats")
    texts: tuple[str, ...] = Field(default=(), description="a word in each cell, row-major")
    causal: bool = Field(default=False, description="what is right of the diagonal does not exist")


class Header(Frozen):
    """What every view has."""

    title: str
    tokens: tuple[str, ...] = Field(default=(), description="the prompt's tokens, by which positions are named")
    code: str = Field(default="", description="Python that gives this view")
    note: str = Field(default="", description="what one has to know to read it; a reason where something is missing")
    kinds: tuple[Kind, ...] = Field(default=(), description="as what else the value can be looked at")
    bytes: int = Field(default=0, description="of the value itself, in the kernel")


class ArrayView(Header):
    """Any tensor: two axes as a picture, the others at an index each."""

    kind: Literal["array"] = "array"
    shape: tuple[int, ...]
    names: tuple[str, ...] = Field(description="a name for each axis")
    dtype: str
    text: str = Field(description="its statistics in one line")
    down: int | None = Field(description="axis that runs down; null where there is only one")
    across: int | None = Field(description="axis that runs to the right; null for a single number")
    index: tuple[int, ...] = Field(description="for each axis the index it stands at; of no meaning for the two shown")
    grid: Grid | None = Field(description="null where there is nothing to draw")


class ResidualView(Header):
    """The residual stream: how large it is, and what the model would say if it stopped here."""

    kind: Literal["residual"] = "residual"
    norms: Grid
    """(layer, position)."""
    lens: Grid | None = Field(description="(layer, position), the top token's probability, its text in each cell")
    runners: tuple[tuple[str, ...], ...] = Field(
        default=(), description="by cell, row-major: the likeliest tokens after the first, each with its probability"
    )


class HeadScore(Frozen):
    """What a head does, in numbers between 0 and 1, but for the entropy in nats."""

    head: int
    entropy: float
    previous: float = Field(description="attention to the token before")
    first: float = Field(description="attention to the first token")
    itself: float
    induction: float | None = Field(description="to what came after the same token before; null if none came twice")


class AttentionView(Header):
    """The heads of one layer: small pictures of all, one of them large."""

    kind: Literal["attention"] = "attention"
    layer: int | None
    layers: int = Field(default=1, description="of the model; 1 where the value is of one layer only")
    batch: int = Field(default=0, description="row of the batch")
    rows: int = Field(default=1, description="rows of the batch")
    thumbs: Grid
    """A sheet for each head, (query, key), small."""
    pattern: Grid
    """Sheets as `heads` says, (query, key), whole where there is room for it."""
    heads: tuple[int, ...] = Field(description="heads that `pattern` holds")
    scores: tuple[HeadScore, ...]


class Candidate(Frozen):
    """A next token, before and after: its probability and its rank, 1 for the likeliest."""

    token: str
    id: int
    before: float | None
    before_rank: int | None
    after: float
    after_rank: int


class LogitsAt(Frozen):
    """The next token after one position."""

    position: int
    kl: float | None = Field(description="KL divergence of after from before, in nats; null without a before")
    entropy: float = Field(description="of after, in nats")
    top: tuple[Candidate, ...]


class LogitsView(Header):
    """The most probable next tokens by position; never the whole vocabulary."""

    kind: Literal["logits"] = "logits"
    vocabulary: int
    at: tuple[LogitsAt, ...] = Field(description="one for each position that is shown")


class NeuronsView(Header):
    """The neurons of an MLP that answer most, and one of them over the text."""

    kind: Literal["mlp"] = "mlp"
    layer: int | None
    layers: int = 1
    width: int = Field(description="how many neurons there are")
    neurons: tuple[int, ...] = Field(description="of the rows of `grid`, the strongest first, then what was asked for")
    at: tuple[int, ...] = Field(description="at which position each is strongest")
    grid: Grid
    """(neuron, position)."""


class GradientView(Header):
    """How a number at the end depends on the values here: how much, and in which direction."""

    kind: Literal["gradient"] = "gradient"
    of: str = Field(description="what was differentiated")
    norms: Grid
    """(layer, position), norm of the gradient."""
    product: Grid | None = Field(description="(layer, position), activation × gradient, summed over features")


AnyView = Annotated[
    ArrayView | ResidualView | AttentionView | LogitsView | NeuronsView | GradientView, Field(discriminator="kind")
]
