"""The kinds of card as a page needs them: titles, badges, and the JSON schemas that its forms are drawn from."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

from workbench.experiment.kinds import KINDS, Card, Code, Measure, Target
from workbench.experiment.table import TABLE
from workbench.jupyter.messages import KindInfo, KindsReply


@cache
def kinds() -> KindsReply:
    """All kinds, in the order in which they are offered.

    Example:
        >>> [kind.title for kind in kinds().kinds][:3]
        ['Save', 'Ablate', 'Set']
    """
    return KindsReply(
        kinds=tuple(map(_info, KINDS)),
        target=_schema(Target),
        measure=_schema(Measure),
    )


def _info(card: type[Card]) -> KindInfo:
    kind = card.model_fields["kind"].default
    new = {
        name: field.get_default(call_default_factory=True)
        for name, field in card.model_fields.items()
        if not field.is_required() and name not in ("id", "enabled", "kind")
    }
    return KindInfo(
        kind=kind,
        title=kind.replace("_", " ").capitalize(),
        symbol=TABLE[card].symbol,
        description=(card.__doc__ or "").split("\n")[0],
        changes=TABLE[card].changes and card is not Code,  # code may, but does not by itself
        form=_schema(card),
        new=new,
    )


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(mode="serialization")
