"""What an experiment of any kind of card does, written once more with plain PyTorch hooks and no engine.

Each prompt is run alone, so that what several prompts have in one pass is compared with what each has by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workbench.experiment.kinds import Experiment, Intervention, Log, Placed, Save, Target

Site = tuple[str, str]


@dataclass
class Seen:
    """What was kept of one prompt: values by name (in several steps a list), logged numbers, logits, tokens written."""

    saved: dict[str, Any] = field(default_factory=dict)
    logged: list[Any] = field(default_factory=list)
    logits: Tensor | None = None
    written: list[int] = field(default_factory=list)


class Hands:
    """A bare model, its tokenizer, and tensors by name.

    Args:
        out: path of the projection that puts the heads together, below an attention module.
        down: the one that reads the neurons, below an MLP.
    """

    def __init__(
        self, module: nn.Module, tokenizer: Any, out: str, down: str, heads: int, tensors: Mapping[str, Tensor]
    ) -> None:
        self.module: Any = module
        self.tokenizer = tokenizer
        self.out, self.down, self.heads = out, down, heads
        self.tensors = tensors

    def run(self, e: Experiment, prompt: int) -> Seen:
        """One prompt of an experiment."""
        seen = Seen()
        sites: dict[Site, list[Intervention]] = defaultdict(list)
        for card in e.enabled:
            if isinstance(card, Placed) and card.at.prompt in (None, prompt):
                sites[self._site(card.at)].append(card)
        others = {text: self._clean(text, e.generate, list(sites)) for card in e.enabled for text in _texts(card)}

        def at(site: Site, step: int, value: Any) -> Any:
            for card in sites[site]:
                assert isinstance(card, Placed)
                if step in _steps(card, e.generate):
                    value = self._one(card, value, lambda text: others[text][site][step], seen, step, e.generate)
            return value

        seen.logits, seen.written = self._call(e.prompts[prompt], e.generate, list(sites), at)
        return seen

    def _one(self, card: Placed, value: Any, other: Callable[[str], Any], seen: Seen, step: int, generate: int) -> Any:
        if isinstance(card, Save):
            found = self._read(card.at, value)
            if card.at.steps is None or card.at.steps.isdigit():
                seen.saved[card.name] = found
            else:
                seen.saved.setdefault(card.name, []).append(found)
            return value
        if isinstance(card, Log):
            found = self._read(card.at, value)
            shown = {
                "norm": Tensor.norm,
                "mean": Tensor.mean,
                "shape": lambda each: each.shape,
                "value": lambda each: each,
            }
            seen.logged.append(shown[card.show](found))
            return value
        return self._changed(card, value, other)

    # ---- places

    def _site(self, at: Target) -> Site:
        if at.heads is not None:
            return f"{at.path}.{self.out}", "input"
        if at.neurons is not None:
            return f"{at.path}.{self.down}", "input"
        return at.path, at.port

    def _view(self, at: Target, tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (self.heads, -1)) if at.heads is not None else tensor

    def _read(self, at: Target, value: Any) -> Any:
        if at.index is not None:
            return eval(f"value{at.index}", {"value": value}).clone()
        if at.positions is None and at.heads is None and at.neurons is None:
            return value.clone() if isinstance(value, Tensor) else value
        tensor = self._view(at, _first(value))
        if at.positions is not None:
            tensor = torch.stack([tensor[:, each] for each in at.positions], 1)
        inner = at.heads if at.heads is not None else at.neurons
        return tensor if inner is None else torch.stack([tensor[:, :, each] for each in inner], 2)

    # ---- kinds

    def _changed(self, card: Any, value: Any, other: Callable[[str], Any]) -> Any:
        at = card.at
        whole = _first(value).clone()
        tensor = self._view(at, whole)
        new = self._new(card, tensor, lambda text: self._view(at, _first(other(text))))
        if at.index is not None:
            place = at.index.removeprefix("[0]") if isinstance(value, tuple) else at.index
            exec(f"tensor{place} = new" + ("" if isinstance(new, float) else place), {"tensor": tensor, "new": new})
        else:
            chosen = [each % tensor.shape[1] for each in at.positions or range(tensor.shape[1])]
            inner = at.heads if at.heads is not None else at.neurons
            for position in chosen:
                for part in [slice(None)] if inner is None else inner:
                    tensor[:, position, part] = new if isinstance(new, float) else new[:, position, part]
        return _with_first(value, whole)

    def _new(self, card: Any, tensor: Tensor, other: Callable[[str], Tensor]) -> Any:
        """What the whole value would be, were all of it meant; or one number."""
        length = tensor.shape[1]

        def repeated(row: Tensor) -> Tensor:
            return torch.cat([row] * length, 1)

        match card.kind:
            case "ablate" if card.mode == "zero":
                return 0.0
            case "ablate" if card.mode == "mean":
                return repeated(sum(tensor[:, each : each + 1] for each in range(length)) / length)  # type: ignore[arg-type]
            case "ablate" if card.mode == "reference":
                there = other(card.source)
                count = there.shape[1]
                return repeated(sum(there[:, each : each + 1] for each in range(count)) / count)  # type: ignore[arg-type]
            case "ablate":
                there = tensor.clone() if card.source is None else other(card.source)
                drawn = torch.randint(there.shape[1], (length,), generator=torch.Generator().manual_seed(card.seed))
                return torch.cat([there[:, each : each + 1] for each in drawn.tolist()], 1)
            case "set":
                return torch.ones_like(tensor) * self._tensor(card.value)
            case "scale":
                return tensor * card.factor
            case "add_noise":
                noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(card.seed))
                return tensor + noise * card.std
            case "steer" if card.tensor is not None:
                return tensor + self.tensors[card.tensor] * card.factor
            case "steer":
                toward, away = (0 if text is None else other(text)[:, -1:] for text in (card.toward, card.away))
                return tensor + card.factor * (toward - away)
            case "patch" if card.tensor is not None:
                return torch.ones_like(tensor) * self.tensors[card.tensor]
            case "patch":
                there, new = other(card.source), tensor.clone()
                given = card.at.positions
                if given is None and card.at.index is None:
                    return there
                if card.at.index is not None:
                    return there[:, -length:]  # what the index takes from the end is the same in both
                assert given is not None
                for position, source in zip(given, card.source_positions or given, strict=True):
                    new[:, position] = there[:, source]
                return new
        raise AssertionError(card.kind)

    def _tensor(self, value: float | str) -> Any:
        return self.tensors[value] if isinstance(value, str) else value

    # ---- the bare model

    def _clean(self, text: str, generate: int, sites: Sequence[Site]) -> dict[Site, list[Any]]:
        """What each site has in each step, where nothing is done."""
        found: dict[Site, list[Any]] = defaultdict(list)

        def keep(site: Site, step: int, value: Any) -> Any:
            found[site].append(value)
            return value

        self._call(text, generate, sites, keep)
        return found

    def _call(
        self, text: str, generate: int, sites: Sequence[Site], at: Callable[[Site, int, Any], Any]
    ) -> tuple[Tensor, list[int]]:
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        steps = -1
        logits: list[Tensor] = []

        def begin(*_: Any) -> None:
            nonlocal steps
            steps += 1

        handles = [self.module.register_forward_pre_hook(begin)]
        for site in dict.fromkeys(sites):
            target = self.module.get_submodule(site[0])
            if site[1] == "output":
                handles.append(target.register_forward_hook(lambda m, a, out, site=site: at(site, steps, out)))
            else:
                handles.append(target.register_forward_pre_hook(_of_input(site, lambda *a: at(*a), lambda: steps),
                                                                with_kwargs=True))  # fmt: skip
        handles.append(self.module.register_forward_hook(lambda m, a, out: logits.append(out.logits[0, -1].clone())))
        try:
            with torch.no_grad():
                given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                if not generate:
                    self.module(**given)
                    return logits[0], []
                written = self.module.generate(**given, max_new_tokens=generate, do_sample=False, pad_token_id=0)
                return logits[0], written[0, ids.shape[1] :].tolist()
        finally:
            for handle in handles:
                handle.remove()


def _of_input(site: Site, at: Callable[[Site, int, Any], Any], step: Callable[[], int]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (at(site, step(), args[0]), *args[1:]), kwargs
        name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
        return args, {**kwargs, name: at(site, step(), kwargs[name])}

    return hook


def _steps(card: Placed, generate: int) -> range:
    """Which steps a card is about: what it says; else all for what changes or logs, the first for what is saved or
    for places in the prompt."""
    at = card.at
    total = range(max(generate, 1))
    if not generate:
        return total
    if at.steps is None:
        return total[:1] if isinstance(card, Save) or at.positions is not None or at.index is not None else total
    if at.steps.isdigit():
        return total[int(at.steps) : int(at.steps) + 1]
    return total[slice(*(int(each) if each else None for each in at.steps.split(":")))]


def _texts(card: Any) -> list[str]:
    if getattr(card, "tensor", None) is not None or (card.kind == "ablate" and card.mode in ("zero", "mean")):
        return []
    return [text for name in ("source", "toward", "away") if (text := getattr(card, name, None))]


def _first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


def _with_first(value: Any, new: Tensor) -> Any:
    if isinstance(value, Tensor):
        return new
    if isinstance(value, tuple):
        return (new, *value[1:])
    return type(value)(**{**value, next(iter(value)): new})
