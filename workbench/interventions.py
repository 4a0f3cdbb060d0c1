"""What each kind of intervention means: one function over a model's modules and their values, used inside a trace.

All of them write in place, as `at.output[:, positions] = …` does: what reads the module later gets the new value, and a
value saved earlier changes with it unless it was cloned. Saving, setting and logging are one line of the language
already: `x = m.output.save()`, `m.output[:, -1] = 0`, `tracer.log(m.output)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

from workbench.envoy import Envoy
from workbench.errors import InputError
from workbench.graph import operations as ops
from workbench.models.naming import FIRST, View, standard
from workbench.models.positions import own_drawn, own_inputs, own_mean, own_positions
from workbench.numerics import FITTED, LIKE, NOISE
from workbench.proxy import Proxy
from workbench.recorder import Recorder, require
from workbench.subscript import indices

Choice = int | Sequence[int] | None
"""Positions, heads or neurons: one, several, or None for all."""
At = Envoy | Proxy | View


class Where(NamedTuple):
    """Which part of a value is meant."""

    positions: Choice = None
    heads: Choice = None
    neurons: Choice = None
    index: Any = None


def ablate(
    at: At,
    positions: Choice = None,
    mode: Literal["zero", "mean", "reference", "resample"] = "zero",
    *,
    source: Any = None,
    seed: int = 0,
    heads: Choice = None,
    neurons: Choice = None,
    index: Any = None,
) -> None:
    """Remove what a module says: its output becomes zero, a mean, or what it says elsewhere.

    Args:
        at: a module, whose first output tensor is meant, or a traced value of it, such as `m.input` or `m.output[1]`;
            a tensor `(batch, position, feature)`, or any tensor when `positions` is left out and `mode` is "zero".
        positions: which tokens, counted from 0, or from the end as -1, of each prompt its own; None for all.
        mode: "zero"; "mean" for the mean over all positions of the same prompt, `(batch, 1, feature)`; "reference" for
            the mean over the positions of another prompt; "resample" for the values at positions of another prompt,
            or without one of the same, that are drawn at random.
        source: the other prompt, which joins the same pass, or a tensor `(batch, position, feature)`.
        seed: of the draw.
        heads: of an attention module, which heads, before they are put together; None for the whole value.
        neurons: of an MLP, which neurons; None for the whole value.
        index: any index into the tensor, instead of positions, as `"[:, -1, :10]"` or Python's own index objects.

    Raises:
        InputError: an argument that cannot be used as given.
        NotTracingError: outside a trace.
        IndexError: while running, a position, head or neuron that is not there.

    Source: zero and mean ablation as in Wang et al. 2022, "Interpretability in the Wild" (arXiv 2211.00593), where the
    mean is over a reference distribution; resampling as in Chan et al. 2022, "Causal scrubbing".

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
    if mode not in ("zero", "mean", "reference", "resample"):
        raise InputError(f"ablate(mode={mode!r}): one of 'zero', 'mean', 'reference', 'resample'")
    if mode == "reference" and source is None:
        raise InputError('ablate(mode="reference") needs the other prompt: source="The Colosseum is in"')
    if source is not None and mode in ("zero", "mean"):
        raise InputError(f"ablate(mode={mode!r}) takes nothing from another prompt; leave source= out")
    site = located(at, Where(positions, heads, neurons, index))
    if mode == "zero":
        site.write(0)
    elif mode == "mean":
        site.write(_like(own_mean(site.value), site))
    elif mode == "reference":
        given: Any = source
        mean = site.elsewhere(source, own_mean) if isinstance(source, (str, list)) else given.mean(1, keepdim=True)
        site.write(_like(mean, site))
    else:
        there: tuple[Any, Any] = (source, None)  # a value, and what says where its own positions are
        if source is None:
            there = site.value, own_inputs()
        elif isinstance(source, (str, list)):
            there = site.elsewhere(source, lambda value: (value, own_inputs()))
        site.write(own_drawn(site.value, there[0], seed, there[1])[site.index])


def scale(
    at: At,
    factor: float,
    positions: Choice = None,
    *,
    heads: Choice = None,
    neurons: Choice = None,
    index: Any = None,
) -> None:
    """Multiply what a module says.

    Args:
        at: as for `ablate`, as are the others.
        factor: what it is multiplied by.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Identity())
        >>> with model.trace(torch.ones(1, 2, 1)):
        ...     wb.scale(model, 3.0, positions=-1)
        ...     out = model.output.save()
        >>> out.flatten()
        tensor([1., 3.])
    """
    site = located(at, Where(positions, heads, neurons, index))
    site.write(site.value[site.index] * factor)


def add_noise(
    at: At,
    std: float = 1.0,
    positions: Choice = None,
    *,
    seed: int = 0,
    heads: Choice = None,
    neurons: Choice = None,
    index: Any = None,
) -> None:
    """Add Gaussian noise to what a module says; the same noise each time, whatever else is drawn at random.

    The noise is drawn for the whole value, so that choosing fewer positions leaves that of the others as it was.

    Args:
        at: as for `ablate`, as are the others.
        std: its standard deviation.
        seed: of the noise.

    Source: Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (arXiv 2202.05262), which corrupts
    the subject's embeddings so.

    Example:
        >>> import torch, workbench as wb
        >>> model = wb.NNsight(torch.nn.Identity())
        >>> with model.trace(torch.zeros(1, 2, 3)):
        ...     wb.add_noise(model, std=0.1, positions=0, seed=1)
        ...     out = model.output.save()
        >>> bool(out[0, 0].abs().min() > 0), bool(out[0, 1].abs().max() > 0)
        (True, False)
    """
    if std < 0:
        raise InputError(f"add_noise(std={std}): a standard deviation is not negative")
    site = located(at, Where(positions, heads, neurons, index))
    noise = require("add_noise").add(NOISE, (site.value, std, seed))
    site.write(site.value[site.index] + noise[site.index])


def steer(
    at: At,
    vector: Any = None,
    *,
    toward: str | None = None,
    away: str | None = None,
    factor: float = 1.0,
    positions: Choice = None,
    heads: Choice = None,
    neurons: Choice = None,
    index: Any = None,
) -> None:
    """Add a direction to what a module says: a vector, or the difference of what it says at two prompts' last tokens.

    Args:
        at: as for `ablate`, as are the others.
        vector: `(feature,)`, or any shape that the part it is added to can be given.
        toward: instead of a vector, a prompt of what is wanted; it joins the same pass, as does `away`.
        away: a prompt of its opposite; without one the value toward which is steered is added as it is.
        factor: how much of it.

    Source: Turner et al. 2023, "Activation Addition" (arXiv 2308.10248), Panickssery et al. 2023, "Steering Llama 2
    via Contrastive Activation Addition" (arXiv 2312.06681).

    Example:
        >>> import workbench as wb
        >>> model = wb.demo()
        >>> with model.trace("The Eiffel Tower is in the city of"):
        ...     wb.steer(model.transformer.h[2], toward="Rome", away="Paris", factor=4.0)
        ...     logits = model.lm_head.output[:, -1].save()
        >>> logits.shape
        torch.Size([1, 970])
    """
    if (vector is None) == (toward is None and away is None):
        raise InputError("steer(...) adds a vector, or the difference of two prompts: toward=… and away=…; give one")
    site = located(at, Where(positions, heads, neurons, index))
    part: Any
    if vector is None:
        wanted: Any
        opposite: Any
        wanted, opposite = (None if prompt is None else site.elsewhere(prompt)[:, -1:] for prompt in (toward, away))
        part = _like(-opposite if wanted is None else wanted if opposite is None else wanted - opposite, site)
    else:
        part = require("steer").add(FITTED, (site.value, vector, site.index))
    site.write(site.value[site.index] + part * factor)


def patch(
    at: At,
    source: Any,
    positions: Choice = None,
    *,
    source_positions: Choice = None,
    heads: Choice = None,
    neurons: Choice = None,
    index: Any = None,
) -> None:
    """Put another prompt's value, or a tensor, in place of what a module says.

    Args:
        at: as for `ablate`, as are the others.
        source: the other prompt, which joins the same pass and is not changed by it; or a tensor, such as one saved in
            an earlier run, of the shape of the whole value or of the part that is replaced.
        source_positions: the other prompt's positions, as many as `positions`; None for the same.

    Source: interchange interventions, Geiger et al. 2021 (arXiv 2106.02997); activation patching, Meng et al. 2022.

    Example:
        >>> import workbench as wb
        >>> model = wb.demo()
        >>> with model.trace("The Eiffel Tower is in the city of"):
        ...     wb.patch(model.transformer.h[3], source="The Colosseum is in the city of", positions=-1)
        ...     answer = model.lm_head.output[:, -1].argmax(-1).save()
        >>> model.tokenizer.decode(answer)
        ' Rome'
    """
    site = located(at, Where(positions, heads, neurons, index))
    if isinstance(source, (str, list)):
        chosen_there = Where(positions, heads, neurons)
        if source_positions is not None:
            chosen, given = _chosen(positions, "positions"), _chosen(source_positions, "source_positions")
            if chosen is None or given is None or len(chosen) != len(given):
                raise InputError(
                    "source_positions are as many as positions: patch(…, positions=[3], source_positions=[4])"
                )
            chosen_there = Where(source_positions, heads, neurons)
        inside = site.index if index is not None else None
        site.write(
            site.elsewhere(source, lambda value: value[_index(chosen_there, value) if inside is None else inside])
        )
    else:
        if source_positions is not None:
            raise InputError("source_positions are of another prompt; of a tensor, choose them by indexing it")
        site.write(require("patch").add(FITTED, (site.value, source, site.index)))


def heads(at: At) -> Any:
    """What each head of an attention module gives, before they are put together: `(batch, position, head, d_head)`.

    Args:
        at: an attention module, or a layer that has one.

    Example:
        >>> import workbench as wb
        >>> model = wb.demo("llama")
        >>> with model.trace("The Eiffel Tower"):
        ...     second = wb.heads(model.model.layers[0].self_attn)[:, :, 1].save()
        >>> second.shape
        torch.Size([1, 3, 32])
    """
    return _layer_of(_envoy(at), "heads").attn.heads


def neurons(at: At) -> Any:
    """What each neuron of an MLP gives, before they are put together: `(batch, position, neuron)`.

    Args:
        at: an MLP, or a layer that has one.

    Example:
        >>> import workbench as wb
        >>> model = wb.demo()
        >>> with model.trace("The Eiffel Tower"):
        ...     first = wb.neurons(model.transformer.h[0].mlp)[:, :, 0].save()
        >>> first.shape
        torch.Size([1, 3])
    """
    return _layer_of(_envoy(at), "neurons").mlp.neurons


# ---- the place


class Located(NamedTuple):
    """A tensor of the trace, which part of it is meant, and how it is read for another input."""

    value: Any
    index: Any
    read: Callable[[], Any]

    def write(self, new: Any) -> None:
        self.value[self.index] = new

    def elsewhere(self, source: str | list[Any], part: Callable[[Any], Any] | None = None) -> Any:
        """The same site's value for another prompt, or what `part` makes of it where that prompt is the open invoke."""
        aside = require("another prompt").aside
        with aside(source if isinstance(source, str) else tuple(source)) if aside is not None else nullcontext():
            value = self.read()
            return value if part is None else part(value)


def located(at: At, where: Where) -> Located:
    """The tensor that an intervention at a place works on, the index of the part that is meant, and how to read it for
    another input."""
    if isinstance(at, Proxy) and (where.heads is not None or where.neurons is not None):
        raise InputError(
            "heads and neurons are chosen at a module, such as model.transformer.h[2].attn, not at its value"
        )
    if where.heads is not None and where.neurons is not None:
        raise InputError("a value is of heads or of neurons; choose one of them")
    if where.index is not None and where[:3] != (None, None, None):
        raise InputError("an index says it all: leave positions, heads and neurons out, or leave out the index")
    if where.index is None:
        read: Callable[[], Any] = _again(at, tensor_of)
        if where.heads is not None:
            read = lambda: heads(at)  # noqa: E731
        elif where.neurons is not None:
            read = lambda: neurons(at)  # noqa: E731
        value = tensor_of(at) if where.heads is None and where.neurons is None else read()
        return Located(value, _index(where, value), read)
    path = indices(where.index) if isinstance(where.index, str) else (where.index,)
    inner: Callable[[Any], Any] = lambda each: _inside(each, path[:-1]) if len(path) > 1 else tensor_of(each)  # noqa: E731
    return Located(inner(at), path[-1], _again(at, inner))


def _inside(at: At, path: tuple[Any, ...]) -> Any:
    value: Any = at if isinstance(at, Proxy) else _envoy(at).output
    for index in path:
        value = value[index]
    return value


def _again(at: At, read: Callable[[Any], Any]) -> Callable[[], Any]:
    """How a site is read for another input of the same pass."""
    if not isinstance(at, Proxy):
        return lambda: read(at)
    recorder, id = require("an intervention"), at._node_id()
    return lambda: read(_retraced(recorder, id))


def _retraced(recorder: Recorder, id: int) -> Any:
    """A site, or a part of it, read once more for the invoke that is open now."""
    node = recorder.nodes[id]
    if node.op is ops.SITE:
        site = node.args[0]
        return recorder.site(site.path, site.port, site.inside)
    if node.op in (ops.FIRST_INPUT, ops.GETITEM, FIRST) and len(node.refs) == 1:
        return recorder.add(node.op, (_retraced(recorder, node.refs[0]), *node.args[1:]))
    raise InputError(
        "another prompt's value is read at a module or a site of it, such as model.h[0] or model.h[0].input, not at "
        "something computed from it"
    )


def _envoy(at: Any) -> Envoy:
    if isinstance(at, View):
        at = at.__dict__["_envoy"]
    if not isinstance(at, Envoy):
        raise InputError(
            f"an intervention is made at a module or a value of it, such as model.h[0] or model.h[0].input; "
            f"this is a {type(at).__name__}"
        )
    return at


def tensor_of(at: At) -> Any:
    """The traced tensor an intervention works on: a module's first output tensor, or the first in a traced value."""
    if not isinstance(at, Proxy):
        at = _envoy(at).output
    return require("an intervention").add(FIRST, (at,))


def _layer_of(envoy: Envoy, what: str) -> Any:
    """The layer that a module is in, under its standard name."""
    root = envoy._root
    layers = standard(root, "layers")
    stack = standard(root, "names").family.layers
    number = envoy.path.removeprefix(f"{stack}.").partition(".")[0]
    if not envoy.path.startswith(f"{stack}.") or not number.isdigit():
        raise InputError(f"{what} are chosen in a layer, such as {stack}.0; {envoy.path or 'the model'} is not in one")
    return layers[int(number)]


def _index(where: Where, value: Any) -> Any:
    """Positions, and heads or neurons, as an index into a traced value `(batch, position, …)`.

    Positions are each prompt's own, in a list of prompts of unequal length too.
    """
    positions = _chosen(where.positions, "positions")
    part = _chosen(where.heads, "heads") if where.heads is not None else _chosen(where.neurons, "neurons")
    if positions is None and part is None:
        return ...
    if positions is None:
        return (slice(None), slice(None), part)
    own = own_positions(value, positions)
    if part is None:
        return own
    if type(own) is not tuple:  # traced: rows and columns, each `(batch, position)`
        return (own[0][..., None], own[1][..., None], part)
    return (slice(None), [[each] for each in positions], part)  # each of the positions with each of the heads


def _chosen(choice: Choice, what: str) -> list[int] | None:
    if choice is None:
        return None
    chosen = [choice] if isinstance(choice, int) else list(choice)
    if not chosen:
        raise InputError(f"{what} is empty; leave it out for all {what}")
    wrong = [each for each in chosen if not isinstance(each, int) or isinstance(each, bool)]
    if wrong:
        raise InputError(f"{what} are whole numbers, as in {what}=[0, -1]; {wrong[0]!r} is none")
    return chosen


def _like(value: Any, site: Located) -> Any:
    """A value as large as the site's, repeated along axes of size 1, and of it the part that is meant."""
    return require("an intervention").add(LIKE, (site.value, value))[site.index]
