"""Kinds: as what a value is best looked at, by one table: from where it is, what its axes are, and its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.engine.axes import Axes
from workbench.errors import WorkbenchError
from workbench.site import Site
from workbench.views.header import Kind


@dataclass(frozen=True)
class Facts:
    """What is known of a model that tells its values apart; what is not known is None or empty.

    `sites` are places by what they hold: "residual", "logits", "neurons".
    """

    width: int | None = None
    vocabulary: int | None = None
    sites: tuple[tuple[str, Site], ...] = ()

    def at(self, what: str, site: Site | None) -> bool:
        return site is not None and (what, site._replace(step=0, call=0)) in self.sites


Case = Callable[[Tensor, Site | None, Axes | None, Facts], bool]


def _attention(value: Tensor, site: Site | None, roles: Axes | None, facts: Facts) -> bool:
    if value.ndim not in (3, 4) or not value.is_floating_point() or not value.numel():
        return False
    if roles is not None and len(roles.positions) == 2:
        return roles.positions == (value.ndim - 2, value.ndim - 1)
    if value.shape[-1] != value.shape[-2] or value.numel() > 1 << 26:
        return False
    sums = value.detach().float().sum(-1)
    return bool(((sums - 1).abs() < 1e-2).all())


def _logits(value: Tensor, site: Site | None, roles: Axes | None, facts: Facts) -> bool:
    return facts.at("logits", site) or (
        facts.vocabulary is not None and 1 <= value.ndim <= 3 and value.shape[-1] == facts.vocabulary
    )


def _neurons(value: Tensor, site: Site | None, roles: Axes | None, facts: Facts) -> bool:
    return facts.at("neurons", site) and value.ndim in (2, 3)


def _residual(value: Tensor, site: Site | None, roles: Axes | None, facts: Facts) -> bool:
    return facts.at("residual", site) and value.ndim in (2, 3)


def _streamlike(value: Tensor, site: Site | None, roles: Axes | None, facts: Facts) -> bool:
    return facts.width is not None and value.ndim in (2, 3) and value.shape[-1] == facts.width


def _features(value: Tensor, site: Site | None, roles: Axes | None, facts: Facts) -> bool:
    return value.ndim in (2, 3) and not value.is_complex()


TABLE: tuple[tuple[Kind, Case, bool], ...] = (
    # kind, when, whether it is what is shown first
    ("attention", _attention, True),
    ("logits", _logits, True),
    ("mlp", _neurons, True),
    ("residual", _residual, True),
    ("array", lambda value, site, roles, facts: True, True),
    ("residual", _streamlike, False),
    ("mlp", _features, False),
)
"""The first line that holds is the kind; those that hold further down can be chosen."""


def kind_of(value: Tensor, site: Site | None = None, roles: Axes | None = None, facts: Facts | None = None) -> Kind:
    """As what a value is shown first.

    Args:
        value: the saved tensor.
        site: where it is from.
        roles: which of its axes are the batch and positions, where a scan has told.
        facts: what is known of the model.

    Example:
        >>> import torch
        >>> kind_of(torch.eye(4)[None]), kind_of(torch.randn(3, 5))
        ('attention', 'array')
    """
    return kinds_of(value, site, roles, facts)[0]


def kinds_of(
    value: Tensor,
    site: Site | None = None,
    roles: Axes | None = None,
    facts: Facts | None = None,
    gradient: bool = False,
) -> tuple[Kind, ...]:
    """As what a value can be shown, first what it is shown as unless asked; `gradient` says that it is one."""
    known = facts or Facts()
    if value.is_meta or value.layout is not torch.strided or value.is_quantized:
        return ("array",)
    if gradient:
        return ("gradient", "array") if value.ndim in (2, 3) else ("array",)
    holds: list[Kind] = [kind for kind, case, _ in TABLE if case(value, site, roles, known)]
    return tuple(dict.fromkeys(holds))


def facts_of(model: Any) -> Facts:
    """What a model's standard names say of its values; nothing where it has none.

    Example:
        >>> import workbench as wb
        >>> facts = facts_of(wb.demo("gpt2"))
        >>> facts.width, facts.vocabulary, facts.at("neurons", Site("transformer.h.0.mlp.c_proj", "input"))
        (128, 970, True)
    """
    try:
        unembed, down = model.unembed, model.names.family.down
        layers = [layer.path for layer in model.layers]
    except (WorkbenchError, AttributeError):
        return Facts()
    sites = [("residual", Site(path, port)) for path in layers for port in ("input", "output")]
    sites += [("neurons", Site(f"{path}.{down}", "input")) for path in layers if down]
    weight = getattr(unembed.module, "weight", None)
    vocabulary, width = (None, None) if weight is None or weight.ndim != 2 else weight.shape
    return Facts(width, vocabulary, (*sites, ("logits", Site(unembed.path, "output"))))
