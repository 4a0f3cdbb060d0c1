"""The experiment as data: what was clicked, frozen, versioned, and the same in Python and TypeScript.

One dataclass a kind. Tensors are named here, never held. The JSON schema of these models is the source of
`labextension/src/generated/`, so a field added here appears in the panel's types by itself; titles, units, bounds and
words in it are what a form is drawn from, so that a page can draw one for a kind that it has never heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from workbench.experiment.migrations import migrated
from workbench.subscript import normal

VERSION = 2


class Frozen(BaseModel):
    """Immutable, and strict about unknown fields: a typo in a saved file is named, not swallowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


def shown(widget: str, **more: Any) -> dict[str, Any]:
    """How a form shows a field: which widget, and the unit, placeholder or words for its values."""
    return {"widget": widget, **more}


STEPS = r"^(\d+|\d*:\d*(:[1-9]\d*)?)$"


class Target(Frozen):
    """Where an intervention applies."""

    path: str = Field(description="module path below the model, '' is the model itself")
    port: Literal["output", "input"] = Field(default="output", title="side")
    positions: tuple[int, ...] | None = Field(
        default=None, title="tokens", description="token positions; null means all", json_schema_extra=shown("tokens")
    )
    heads: tuple[int, ...] | None = Field(
        default=None,
        title="heads",
        description="heads of an attention module, before they are put together; null means the whole value",
        json_schema_extra=shown("heads"),
    )
    neurons: tuple[int, ...] | None = Field(
        default=None,
        title="neurons",
        description="neurons of an MLP, before they are put together; null means the whole value",
        json_schema_extra=shown("neurons"),
    )
    index: str | None = Field(
        default=None,
        title="slice",
        description="any index, as Python writes it behind the value; instead of tokens",
        json_schema_extra=shown("index", placeholder="[:, -1, :10]"),
    )
    prompt: int | None = Field(
        default=None, ge=0, description="which prompt of the run; null means all", json_schema_extra=shown("prompt")
    )
    steps: str | None = Field(
        default=None,
        pattern=STEPS,
        description="which steps of a generation, as '0', '1:3' or ':'; null means the kind's own",
        json_schema_extra=shown("steps", placeholder=":"),
    )

    @field_validator("index", mode="after")
    @classmethod
    def _normal(cls, index: str | None) -> str | None:
        return normal(index) if index else None


class Card(Frozen):
    """What every intervention has."""

    id: str = Field(description="stable while the card lives; unique in its experiment")
    enabled: bool = True
    note: str = Field(default="", description="a comment, in words", json_schema_extra=shown("note"))

    @field_validator("note", mode="after")
    @classmethod
    def _lines(cls, note: str) -> str:
        """Only what a Python comment can hold."""
        lines = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in note.split("\n")]
        return "\n".join(lines) if any(lines) else ""


class Placed(Card):
    """What every intervention at a module has."""

    at: Target


class Save(Placed):
    """Keep a value after the run, under a Python name."""

    kind: Literal["save"] = "save"
    name: str = Field(
        title="name", description="the Python name the value is saved under", json_schema_extra=shown("name")
    )


class Ablate(Placed):
    """Remove what a module says."""

    kind: Literal["ablate"] = "ablate"
    mode: Literal["zero", "mean", "reference", "resample"] = Field(
        default="zero",
        title="to",
        description="what stands there instead",
        json_schema_extra=shown(
            "choice",
            words={
                "zero": "zero",
                "mean": "its mean over positions",
                "reference": "its mean over another prompt",
                "resample": "values drawn from another prompt",
            },
        ),
    )
    source: str | None = Field(
        default=None,
        title="other prompt",
        description="the prompt whose values are taken; resampling without one draws from the prompt's own positions",
        json_schema_extra=shown("text", when={"mode": ["reference", "resample"]}),
    )
    seed: int = Field(
        default=0, ge=0, description="of the draw", json_schema_extra=shown("seed", when={"mode": ["resample"]})
    )


class Set(Placed):
    """Put a number, or a tensor, in place of a value."""

    kind: Literal["set"] = "set"
    value: Annotated[float, Field(allow_inf_nan=False)] | str = Field(
        default=0.0,
        title="to",
        description="a number, or the name of a kept tensor",
        json_schema_extra=shown("number or tensor"),
    )


class Scale(Placed):
    """Multiply a value."""

    kind: Literal["scale"] = "scale"
    factor: float = Field(
        allow_inf_nan=False,
        default=2.0,
        title="by",
        description="what it is multiplied by",
        json_schema_extra=shown("number", unit="×", step=0.1),
    )


class AddNoise(Placed):
    """Add Gaussian noise to a value."""

    kind: Literal["add_noise"] = "add_noise"
    std: float = Field(
        allow_inf_nan=False,
        default=1.0,
        ge=0,
        title="standard deviation",
        description="of the noise, in the value's own units",
        json_schema_extra=shown("number", step=0.1),
    )
    seed: int = Field(default=0, ge=0, title="seed", description="of the noise", json_schema_extra=shown("seed"))


class Steer(Placed):
    """Add a direction: the difference of two prompts here, or a kept tensor."""

    kind: Literal["steer"] = "steer"
    toward: str | None = Field(
        default=None, title="toward", description="a prompt of what is wanted", json_schema_extra=shown("text")
    )
    away: str | None = Field(
        default=None, title="away from", description="a prompt of its opposite", json_schema_extra=shown("text")
    )
    tensor: str | None = Field(
        default=None,
        title="or tensor",
        description="the name of a kept tensor, or a .safetensors file, instead of two prompts",
        json_schema_extra=shown("tensor"),
    )
    factor: float = Field(
        allow_inf_nan=False,
        default=1.0,
        title="factor",
        description="how much of it",
        json_schema_extra=shown("number", unit="×", step=0.5),
    )


class Patch(Placed):
    """Put another prompt's value, or one of an earlier run, in place of this one."""

    kind: Literal["patch"] = "patch"
    source: str | None = Field(
        default=None,
        title="from prompt",
        description="the prompt the value is taken from",
        json_schema_extra=shown("text"),
    )
    source_positions: tuple[int, ...] | None = Field(
        default=None,
        title="its tokens",
        description="positions in the other prompt; null means the same ones",
        json_schema_extra=shown("tokens", of="source"),
    )
    tensor: str | None = Field(
        default=None,
        title="or tensor",
        description="the name of a kept tensor, such as 'run 3/hidden', instead of a prompt",
        json_schema_extra=shown("tensor"),
    )


class Log(Placed):
    """Write a line while the run goes."""

    kind: Literal["log"] = "log"
    show: Literal["norm", "mean", "value", "shape"] = Field(
        default="norm",
        title="show",
        json_schema_extra=shown(
            "choice", words={"norm": "its norm", "mean": "its mean", "value": "the value", "shape": "its shape"}
        ),
    )
    text: str = Field(
        default="",
        title="text",
        description="before the value; empty for the site's name",
        json_schema_extra=shown("text"),
    )


class Code(Card):
    """Python of your own, kept word for word."""

    kind: Literal["code"] = "code"
    code: str = Field(default="", title="Python", json_schema_extra=shown("code"))
    where: Literal["inside", "before", "after"] = Field(
        default="inside",
        title="where",
        json_schema_extra=shown(
            "choice", words={"before": "before the run", "inside": "in the trace", "after": "after the run"}
        ),
    )
    prompt: int | None = Field(
        default=None, ge=0, description="which prompt of the run; null means all", json_schema_extra=shown("prompt")
    )

    @field_validator("code", mode="after")
    @classmethod
    def _lines_of_code(cls, code: str) -> str:
        """Python's own line ends, and no empty lines around it."""
        return code.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


Intervention = Annotated[
    Save | Ablate | Set | Scale | AddNoise | Steer | Patch | Log | Code, Field(discriminator="kind")
]

KINDS: tuple[type[Card], ...] = (Save, Ablate, Set, Scale, AddNoise, Steer, Patch, Log, Code)
"""In the order in which they are offered."""


class Measure(Frozen):
    """What a run is about, as one number: of the next token after the prompt."""

    metric: Literal["logit_difference", "probability", "rank", "kl"] = Field(
        default="logit_difference",
        json_schema_extra=shown(
            "choice",
            words={
                "logit_difference": "logit difference of the first answer and the second",
                "probability": "probability of the first answer",
                "rank": "rank of the first answer, 1 is the most probable",
                "kl": "KL divergence from the clean run, in nats",
            },
        ),
    )
    answers: tuple[int | str, ...] = Field(
        default=(),
        description="tokens, as text with its leading space or as id",
        json_schema_extra=shown("tokens", of="vocabulary"),
    )


class Experiment(Frozen):
    """One run, written down: which model, which prompts, which interventions in which order, and what is measured."""

    version: Literal[2] = VERSION
    model: str = Field(description="the model's name in the kernel")
    prompts: tuple[str, ...] = Field(default=("",), min_length=1, description="in one pass; prompt_0, prompt_1, …")
    generate: int = Field(default=0, ge=0, le=4096, description="new tokens; 0 is a plain pass")
    temperature: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="of sampling; 0 takes the most probable token"
    )
    seed: int | None = Field(default=None, ge=0, description="of all that is random; null leaves it to chance")
    measure: Measure | None = None
    interventions: tuple[Intervention, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, data: Any) -> Any:
        return migrated(data) if isinstance(data, Mapping) else data

    @property
    def enabled(self) -> tuple[Intervention, ...]:
        """The cards that are switched on."""
        return tuple(card for card in self.interventions if card.enabled)

    def interact(self, model: Any = None, **ranges: tuple[float, ...]) -> Any:
        """Sliders in a cell for numbers of the cards: the experiment is run again as they move.

        Args:
            model: what it is run on; the kernel's, by its name, where left out.
            ranges: a number's name and its range, `(from, to)` or `(from, to, step)`. A name that several cards have
                moves all of them.

        Raises:
            InputError: a number that no card has, or a range that is none.

        Example:
            >>> import workbench as wb
            >>> card = Scale(id="a", at=Target(path="transformer.h.2.mlp"))
            >>> experiment = Experiment(model="model", prompts=("The Eiffel Tower is in",), interventions=(card,))
            >>> sliders = experiment.interact(wb.demo(), factor=(0, 2))
            >>> sliders.wait().next_logits[0].shape
            torch.Size([970])
        """
        from workbench.jupyter.interact import interact

        return interact(self, model, **ranges)
