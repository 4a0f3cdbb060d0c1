"""One list of checks that every family of models goes through, beside the bare module and plain hooks.

Opening and scanning have their own files; `tests/conftest.py` prints what was seen as a table. Several invokes share a
pass here, of unequal length, and each is to have the values that its prompts have alone: hidden states, attention
patterns, logits, gradients, and what every single module takes and gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from tests.families import FAMILIES, family, prompts
from workbench.engine.values import first_tensor, placed

TOLERANCE = 2e-5


def open_family(name: str, attention: str = "eager") -> Any:
    module: Any = family(name)[0]
    if name != "mamba" and (attention, name) != ("sdpa", "gemma2"):  # which has no other attention than eager
        module.set_attn_implementation(attention)
    return wb.LanguageModel(module)


def alone(model: wb.LanguageModel, prompt: Any, more: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """What passes each module when the bare model is called on these prompts only."""
    _, kwargs = model._prepare(prompt)
    if "input_ids" in kwargs and model._takes_mask:  # where several are run, each has one
        kwargs.setdefault("attention_mask", torch.ones_like(kwargs["input_ids"]))
    seen: dict[tuple[str, str], Any] = {}
    handles = []
    for path, module in model.module.named_modules():

        def before(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            seen.setdefault((path, "input"), first.clone())

        def after(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
            # as it is now: a model that sees puts other things in its vision tower's output afterwards
            seen.setdefault((path, "output"), dict(output) if isinstance(output, dict) else output)

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))
    try:
        with torch.no_grad():
            model.module(**{**kwargs, **more})
    finally:
        for handle in handles:
            handle.remove()
    return seen


def own(tensor: Tensor, mask: Tensor) -> Tensor:
    """Only what stands at a prompt's tokens: what padding within a list of prompts gives is no one's."""
    batch, length = mask.shape
    shape = tuple(tensor.shape)
    if mask.all() or not shape:
        return tensor
    if shape[:2] == (batch, length):  # (batch, position, …)
        return tensor[mask.bool()]
    if shape[0] == batch * length:  # (batch · position, …)
        return tensor[mask.flatten().bool()]
    if len(shape) == 4 and shape[0] == batch and shape[2] == length:  # (batch, head, query, …)
        return tensor.transpose(1, 2)[mask.bool()]
    if len(shape) == 3 and shape[0] == batch and shape[2] >= length:  # (batch, channel, position)
        return tensor[..., :length].transpose(1, 2)[mask.bool()]
    return tensor


def differences(ours: Any, beside: Any, mask: Tensor) -> list[str]:
    """Where two values differ, by place."""
    found, expected = dict(placed(ours)), dict(placed(beside))
    said = []
    for where in expected:
        if where not in found and where[0] == "image_hidden_states":  # the patches of all images in one axis
            continue
        if where not in found:
            said.append(f"{where}: missing")
        elif found[where].shape != expected[where].shape:
            said.append(f"{where}: {tuple(found[where].shape)}, alone {tuple(expected[where].shape)}")
        elif expected[where].is_floating_point():
            theirs = own(expected[where], mask)
            error = (own(found[where], mask) - theirs).abs()
            if not (error.nan_to_num(0) <= TOLERANCE * theirs.abs().clamp(min=1)).all():
                said.append(f"{where}: differs by {error.max()}")
    return said


def mixes(path: str) -> bool:
    """Whether a module has all prompts' tokens in one axis, sorted by expert; `test_batches` has what is said then."""
    return ".experts" in path


def masks(model: Any, given: list[Any]) -> list[Tensor]:
    """Where each invoke's own tokens are; images are all there."""
    prepared = [model._prepare(prompt)[1] for prompt in given]
    return [each.get("attention_mask", next(iter(each.values()))[:, :1].flatten(1) * 0 + 1) for each in prepared]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trace_reads_what_plain_hooks_read(name: str) -> None:
    """At every module, on inputs by name, some of them padded."""
    module, inputs = family(name)
    model: Any = wb.LanguageModel(module)
    seen: dict[str, Any] = {}
    handles = []
    for path, each in module.named_modules():

        def after(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
            seen.setdefault(path, output)

        handles.append(each.register_forward_hook(after))
    with torch.no_grad():
        module(**inputs)
    for handle in handles:
        handle.remove()
    with model.trace(**inputs):
        ours = {path: model.find(path).output.save() for path in seen}
    for path, value in ours.items():
        found, expected = [dict(placed(each)) for each in (value.value, seen[path])]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[where].nan_to_num(), expected[where].nan_to_num()) for where in found), path


@pytest.mark.parametrize("name", FAMILIES)
def test_each_invoke_has_what_it_has_alone(name: str) -> None:
    model = open_family(name)
    more = {"output_hidden_states": True} | ({} if name == "mamba" else {"output_attentions": True})
    given = prompts(name)
    beside = [alone(model, prompt, more) for prompt in given]
    paths = [path for path, _ in model.module.named_modules() if (path, "output") in beside[0]]
    saved: list[dict[tuple[str, str], Any]] = []
    with model.trace(**more) as tracer:
        for prompt in given:
            with tracer.invoke(prompt):
                envoys = {path: model.find(path) for path in paths}
                outputs = {(path, "output"): envoy.output.save() for path, envoy in envoys.items()}
                inputs = {(path, "input"): envoy.input.save() for path, envoy in envoys.items()}
                saved.append(outputs | inputs)
    wrong = []
    for index, (expected, mask) in enumerate(zip(beside, masks(model, given), strict=True)):
        for key, value in saved[index].items():
            if key in expected and not mixes(key[0]):
                wrong += [f"{index} {key} {each}" for each in differences(value.value, expected[key], mask)]
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "vit"])
def test_each_prompt_of_a_list_has_what_it_has_alone(name: str, attention: str) -> None:
    """Beside the bare model on that one prompt, without a mask, positions, or any other preparation of ours."""
    model = open_family(name, attention)
    given = prompts(name)
    with model.trace() as tracer:
        logits = []
        for prompt in given:
            with tracer.invoke(prompt):
                logits.append(model.output.logits.save())
    for prompt, ours in zip(given, logits, strict=True):
        named = prompt if isinstance(prompt, dict) else {"input_ids": prompt}
        for row, ids in enumerate(named["input_ids"]):
            inputs = {key: torch.as_tensor(value[row])[None] for key, value in named.items()}
            with torch.no_grad():
                plain = model.module(**inputs).logits
            mine = ours[row : row + 1] if name == "t5" else ours[row : row + 1, -len(ids) :]
            torch.testing.assert_close(mine, plain, rtol=1e-4, atol=2e-5)


def at_the_end(name: str, logits: Any) -> Any:
    """One logit of each prompt."""
    return logits[:, 1] if name == "vit" else logits[:, -1, 4]


@pytest.mark.parametrize("name", FAMILIES)
def test_edits_and_gradients_stay_in_their_invoke(name: str) -> None:
    model = open_family(name)
    given = prompts(name)

    def write(prompt: Any) -> tuple[Any, Any, Any]:
        hidden = model.layers[1].resid_post
        hidden[:, -1] *= 1.5
        # No zeros: before a norm their gradient is a thousandfold, and so is its rounding.
        hidden[:, 0] = torch.linspace(-1, 1, hidden.shape[-1])
        logits = model.output.logits
        return logits.save(), hidden.grad.save(), at_the_end(name, logits).sum()

    beside = []
    for prompt in given:
        with model.trace(prompt):
            logits, grad, loss = write(prompt)
            loss.backward()
        beside.append((logits.value, grad.value))
    with model.trace() as tracer:
        written, losses = [], []
        for prompt in given:
            with tracer.invoke(prompt):
                logits, grad, loss = write(prompt)
                written.append((logits, grad))
                losses.append(loss)
        with tracer.invoke(given[0]):
            untouched = model.output.logits.save()
        sum(losses[1:], losses[0]).backward()
    for mask, ours, theirs in zip(masks(model, given), written, beside, strict=True):
        for mine, yours in zip(ours, theirs, strict=True):
            yours = own(yours, mask)
            size = max(1.0, yours.detach().abs().max().item())
            torch.testing.assert_close(own(mine.value, mask), yours, rtol=1e-4, atol=2e-5 * size)
    assert all(grad.abs().sum() > 0 for _, grad in beside)
    with torch.no_grad():
        plain = model.module(**model._prepare(given[0])[1]).logits
    torch.testing.assert_close(untouched.value, plain, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_autograds_own(name: str) -> None:
    model = open_family(name)
    module, inputs = model.module, family(name)[1]
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        first_tensor(output).retain_grad()  # type: ignore[union-attr]
        kept.append(first_tensor(output))  # type: ignore[arg-type]

    handle = model.layers[1].module.register_forward_hook(keep)
    for parameter in module.parameters():
        parameter.requires_grad_()
    at_the_end(name, module(**inputs).logits).sum().backward()
    handle.remove()
    module.zero_grad()
    with model.trace(**inputs):
        grad = model.layers[1].resid_post.grad.save()
        at_the_end(name, model.output.logits).sum().backward()
    torch.testing.assert_close(grad.value, kept[0].grad, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in module.parameters())


# ---- interventions


@contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A plain hook that changes the first tensor of what a module gives."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def logits_alone(model: Any, prompt: Any) -> Tensor:
    with torch.no_grad():
        return model.module(**model._prepare(prompt)[1]).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_ablating_in_one_invoke(name: str) -> None:
    """A layer's part at the last position, beside another invoke that is left as it is."""
    model = open_family(name, "sdpa")
    first, second, *_ = prompts(name)
    part = model.layers[2] if name == "mamba" else model.layers[2].attn

    def zeroed(output: Tensor) -> Tensor:
        output = output.clone()
        output[:, -1] = 0
        return output

    with hooked(part.module, zeroed):
        beside = logits_alone(model, first)
    with model.trace() as tracer:
        with tracer.invoke(second):
            untouched = model.output.logits.save()
        with tracer.invoke(first):
            wb.ablate(model.find(part.path), positions=-1)
            ours = model.output.logits.save()
    torch.testing.assert_close(ours.value, beside, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(untouched.value, logits_alone(model, second), rtol=1e-4, atol=2e-5)
    assert (beside - logits_alone(model, first)).abs().max() > 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_patching_between_invokes(name: str) -> None:
    """The residual stream at one prompt's last position is put in the place of another's, of another length."""
    model = open_family(name, "sdpa")
    first, second, *_ = prompts(name)
    layer = model.layers[1]
    with torch.no_grad():
        states: list[Tensor] = []
        with hooked(layer.module, lambda output: states.append(output) or output):
            model.module(**model._prepare(first)[1])

        def patched(output: Tensor) -> Tensor:
            output = output.clone()
            output[:, -1] = states[0][:, -1]
            return output

        with hooked(layer.module, patched):
            beside = logits_alone(model, second)
    for order in (0, 1):
        with model.trace() as tracer:
            if order:
                with tracer.invoke(first):
                    source = layer.resid_post
                with tracer.invoke(second):
                    layer.resid_post[:, -1] = source[:, -1]
                    ours = model.output.logits.save()
            else:  # patched from an invoke that is written after
                with tracer.invoke(second):
                    here = layer.resid_post
                    ours = model.output.logits.save()
                with tracer.invoke(first):
                    here[:, -1] = layer.resid_post[:, -1]
        torch.testing.assert_close(ours.value, beside, rtol=1e-4, atol=2e-5)
    assert (beside - logits_alone(model, second)).abs().max() > 1e-5
