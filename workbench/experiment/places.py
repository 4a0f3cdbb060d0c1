"""Places: a target as Python reaches it, and as a person reads it."""

from __future__ import annotations

from workbench.experiment.kinds import Target


def value(at: Target, module: str) -> str:
    """The part that a target means: `model.h[2].output[:, [0, 2]]`, `wb.heads(model.h[2].attn)[:, :, [1]]`."""
    return base(at, module) + part(at)


def base(at: Target, module: str) -> str:
    """The whole value that a target is a part of."""
    if at.heads is not None:
        return f"wb.heads({module})"
    if at.neurons is not None:
        return f"wb.neurons({module})"
    return f"{module}.{at.port}"


def part(at: Target) -> str:
    """The index of a target, '' for the whole of it."""
    inner = at.heads if at.heads is not None else at.neurons
    if inner is None:
        return at.index or ("" if at.positions is None else f"[:, {list(at.positions)}]")
    if at.positions is None:
        return f"[:, :, {list(inner)}]"
    return f"[:, {[[each] for each in at.positions]}, {list(inner)}]"  # each position with each head


def argument(at: Target, module: str) -> str:
    """A target as the first argument of an intervention."""
    plain = at.port == "output" or at.heads is not None or at.neurons is not None
    return module if plain else f"{module}.input"


def chosen(at: Target) -> list[str]:
    """A target's further arguments."""
    found = [
        f"{name}={list(numbers)}"
        for name in ("positions", "heads", "neurons")
        if (numbers := getattr(at, name)) is not None
    ]
    return (
        found if at.index is None else [*found, f'index="{at.index}"' if '"' not in at.index else f"index={at.index!r}"]
    )


def words(at: Target, positions: bool = True) -> str:
    """`transformer.h.2.mlp output · tokens 0, 3`."""
    side = "heads" if at.heads is not None else "neurons" if at.neurons is not None else at.port
    where = f"{at.path or 'the model'} {side}" if side == at.port else at.path or "the model"
    if not positions:
        return where
    parts = [
        f"{noun if len(numbers) != 1 else noun.removesuffix('s')} {', '.join(map(str, numbers))}"
        for noun, numbers in (("tokens", at.positions), ("heads", at.heads), ("neurons", at.neurons))
        if numbers is not None
    ]
    parts += [at.index] if at.index else []
    parts += [f"prompt {at.prompt + 1}"] if at.prompt is not None else []
    parts += [] if at.steps is None else ["every step" if at.steps == ":" else f"steps {at.steps}"]
    return " · ".join([where, *parts])
