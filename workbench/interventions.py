"""What each kind of intervention means: one function over a model's modules and their values, used inside a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from workbench.envoy import Envoy
from workbench.errors import InputError
from workbench.models.naming import FIRST
from workbench.proxy import Proxy
from workbench.recorder import require

Positions = int | Sequence[int] | None


def ablate(at: Envoy | Proxy, positions: Positions = None, mode: Literal["zero", "mean"] = "zero") -> None:
    """Remove what a module says: its output becomes zero, or the same at every position.

    Works in place, as `at.output[:, positions] = 0` does: what reads the module later gets the ablated value, and a
    value saved earlier changes with it unless it was cloned.

    Args:
        at: a module, whose first output tensor is meant, or a traced value of it, such as `m.input` or `m.output[1]`;
            a tensor `(batch, position, feature)`, or any tensor when `positions` is left out and `mode` is "zero".
        positions: which tokens, counted from 0, or from the end as -1; None for all.
        mode: "zero", or "mean" for the mean over all positions of the same prompt, `(batch, 1, feature)`.

    Raises:
        InputError: an argument that cannot be used as given.
        NotTracingError: outside a trace.
        IndexError: while running, a position that the prompt does not have.

    Source: zero and mean ablation as in Wang et al. 2022, "Interpretability in the Wild" (arXiv 2211.00593), where the
    mean is over a reference distribution; here it is over the positions of the prompt.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity()))
        >>> with model.trace(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])):
        ...     wb.ablate(model[0], positions=-1)
        ...     out = model.output.save()
        >>> out
        tensor([[[1., 2.],
                 [0., 0.]]])
    """
    if mode not in ("zero", "mean"):
        raise InputError(f"ablate(mode={mode!r}): one of 'zero', 'mean'")
    index = _index(positions)
    value = tensor_of(at)
    value[index] = 0 if mode == "zero" else value.mean(1, keepdim=True)


def tensor_of(at: Envoy | Proxy) -> Any:
    """The traced tensor an intervention works on: a module's first output tensor, or the first in a traced value."""
    if isinstance(at, Envoy):
        at = at.output
    elif not isinstance(at, Proxy):
        raise InputError(
            f"an intervention is made at a module or a value of it, such as model.h[0] or model.h[0].input; "
            f"this is a {type(at).__name__}"
        )
    return require("an intervention").add(FIRST, (at,))


def _index(positions: Positions) -> Any:
    """Positions as an index into `(batch, position, feature)`."""
    if positions is None:
        return ...
    chosen = [positions] if isinstance(positions, int) else list(positions)
    if not chosen:
        raise InputError("positions is empty; leave it out for all positions")
    wrong = [each for each in chosen if not isinstance(each, int) or isinstance(each, bool)]
    if wrong:
        raise InputError(f"positions are whole numbers, as in positions=[0, -1]; {wrong[0]!r} is none")
    return (slice(None), chosen)
