"""What an experiment does, written once more with plain PyTorch hooks and no engine: the tests' own account of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.experiment.kinds import Ablate, Experiment, Save


def by_hand(module: nn.Module, experiment: Experiment, **inputs: Tensor) -> tuple[dict[str, Any], Any]:
    """The saved values by name, and the model's output."""
    saved: dict[str, Any] = {}
    handles = []
    sites: dict[tuple[str, str], list[Save | Ablate]] = {}
    for card in experiment.interventions:
        if card.enabled:
            assert isinstance(card, Save | Ablate), f"{card.kind} is not known by hand"
            sites.setdefault((card.at.path, card.at.port), []).append(card)
    for (path, port), cards in sites.items():
        target = module.get_submodule(path)
        if port == "output":
            handles.append(target.register_forward_hook(_output_hook(cards, saved)))
        else:
            handles.append(target.register_forward_pre_hook(_input_hook(cards, saved), with_kwargs=True))
    try:
        with torch.no_grad():
            return saved, module(**inputs)
    finally:
        for handle in handles:
            handle.remove()


def _output_hook(cards: Sequence[Save | Ablate], saved: dict[str, Any]) -> Any:
    return lambda module, args, output: _through(output, cards, saved)


def _input_hook(cards: Sequence[Save | Ablate], saved: dict[str, Any]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and isinstance(args[0], Tensor):
            return (_through(args[0], cards, saved), *args[1:]), kwargs
        name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
        return args, {**kwargs, name: _through(kwargs[name], cards, saved)}

    return hook


def _through(value: Any, cards: Sequence[Save | Ablate], saved: dict[str, Any]) -> Any:
    """A value as it leaves a site: each card in turn."""
    for card in cards:
        if isinstance(card, Save):
            saved[card.name] = _kept(value, card.at.positions)
        elif isinstance(value, Tensor):
            value = ablated(value, card.at.positions, card.mode)
        elif isinstance(value, tuple):
            value = (ablated(value[0], card.at.positions, card.mode), *value[1:])
        else:  # a model's own output, a dictionary
            first = next(iter(value))
            value = type(value)(**{**value, first: ablated(value[first], card.at.positions, card.mode)})
    return value


def _kept(value: Any, positions: Sequence[int] | None) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.clone() if positions is None else torch.stack([value[:, each] for each in positions], dim=1)


def ablated(value: Tensor, positions: Sequence[int] | None, mode: str) -> Tensor:
    """Zero, or the mean over positions, written out position by position."""
    new = value.clone()
    if mode == "zero" and positions is None:
        return new.zero_()
    for position in range(value.shape[1]) if positions is None else positions:
        new[:, position] = (
            0 if mode == "zero" else sum(value[:, each] for each in range(value.shape[1])) / value.shape[1]
        )
    return new
