"""Gradients: a backward call inside a run, which computes what was asked for and lets it be read and changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.engine.plan import GradSite, SitePlan
from workbench.graph.node import Node, call_text

if TYPE_CHECKING:
    from workbench.engine.execution import Execution
    from workbench.engine.frame import Frame


def backward(run: Execution, frame: Frame, node: Node, loss: Tensor, args: list[Any], kwargs: dict[str, Any]) -> None:
    """`loss.backward(...)` for the gradients that the trace asks for and the parameters that are the user's own.

    The model's parameters get no `.grad`, unless nothing at all was asked for: then this is PyTorch's own backward.
    """
    asked = {site: here for site, here in frame.plan.grads.items() if site.backward == node.id}
    settings = dict(zip(("gradient", "retain_graph", "create_graph", "inputs"), args, strict=False)) | kwargs
    own = _users_leaves(run, settings.pop("inputs", None))
    if not asked and not own:
        loss.backward(**settings)
        return
    if not loss.requires_grad:
        raise RuntimeError(
            "this has no gradient: nothing it was computed from requires one. Ask for the .grad of a value that it "
            "depends on, or set requires_grad = True on one, before it is computed"
        )
    handles = []
    inputs: list[Tensor] = []
    flows = any(here.edited or here.swapped for here in asked.values())
    parts: list[tuple[SitePlan, Any]] = []
    try:
        for site, here in asked.items():
            tensor = _tensor(run, site)
            part = run.parts.get(id(tensor))
            whole = tensor if part is None else part[1]
            if not whole.requires_grad:
                raise RuntimeError(
                    f"{call_text(run.plan.graph.nodes[site.node])} has no gradient: it does not require one, "
                    "and nothing that it was computed from does"
                )
            if flows:  # what is changed must be changed on the way
                handles.append(whole.register_hook(_hook(frame, here, part)))
            parts.append((here, part))
            inputs.append(whole)
        found = torch.autograd.grad(
            loss,
            [*inputs, *own],
            settings.get("gradient"),
            retain_graph=settings.get("retain_graph"),
            create_graph=bool(settings.get("create_graph")),
            allow_unused=True,
        )
    finally:
        for handle in handles:
            handle.remove()
    if not flows:
        for (here, part), grad in zip(reversed(parts), reversed(found[: len(inputs)]), strict=True):
            if grad is not None:
                _hook(frame, here, part)(grad)
    for leaf, grad in zip(own, found[len(inputs) :], strict=True):
        if grad is not None:
            leaf.grad = grad if leaf.grad is None else leaf.grad + grad


def _tensor(run: Execution, site: GradSite) -> Tensor:
    value = run.env[site.node]
    if not isinstance(value, Tensor):
        raise TypeError(
            f"only a tensor has a gradient; {call_text(run.plan.graph.nodes[site.node])} is a {type(value).__name__}"
        )
    return value


def _hook(frame: Frame, here: SitePlan, part: Any) -> Any:
    def hook(grad: Tensor) -> Tensor | None:
        before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(grad.requires_grad)
        try:
            if part is None:
                return frame.reach_gradient(here, grad)
            cut = part[2]
            new = frame.reach_gradient(here, cut.take(grad))
            if new is None:
                return None
            whole = grad.clone()
            cut.put(whole, new)
            return whole
        finally:
            torch._C._set_grad_enabled(before)

    return hook


def _users_leaves(run: Execution, inputs: Any) -> list[Tensor]:
    """Tensors that gradients are summed into: those the user made or named, never the model's own parameters."""
    found = [inputs] if isinstance(inputs, Tensor) else list(inputs or ())
    found += run.trained
    found += [each for each in (reference() for reference in run.parameters) if each is not None]
    found += [each for each in run.bindings.values() if isinstance(each, Tensor)]
    unique = {id(each): each for each in found if each.is_leaf and each.requires_grad}
    return list(unique.values())
