"""The experiment as data: what was clicked, frozen, versioned, and the same in Python and TypeScript.

One dataclass a kind. Tensors are named here, never held. The JSON schema of these models is the source of
`labextension/src/generated/`, so a field added here appears in the panel's types by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Immutable, and strict about unknown fields: a typo in a saved file is named, not swallowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Target(Frozen):
    """Where an intervention applies."""

    path: str = Field(description="module path below the model, '' is the model itself")
    port: Literal["output", "input"] = "output"
    positions: tuple[int, ...] | None = Field(default=None, description="token positions; null means all")


class Card(Frozen):
    """What every intervention has."""

    id: str = Field(description="stable while the card lives; unique in its experiment")
    at: Target
    enabled: bool = True


class Save(Card):
    """Keep a value after the run, under a Python name."""

    kind: Literal["save"] = "save"
    name: str = Field(description="the Python name the value is saved under")


class Ablate(Card):
    """Remove what a module says."""

    kind: Literal["ablate"] = "ablate"
    mode: Literal["zero", "mean"] = Field(default="zero", description="zero, or the mean over positions")


Intervention = Annotated[Save | Ablate, Field(discriminator="kind")]


class Experiment(Frozen):
    """One run, written down: which model, which prompt, which interventions in which order."""

    version: Literal[1] = 1
    model: str = Field(description="the model's name in the kernel")
    prompt: str = ""
    interventions: tuple[Intervention, ...] = ()
