"""LanguageModel: a Hugging Face causal language model with its tokenizer, opened by name, folder, or as it stands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from workbench.engine.axes import LARGE, SMALL, Axes, Known, Sizes
from workbench.engine.batching import Rows
from workbench.engine.execution import Passing
from workbench.engine.values import map_tensors
from workbench.envoy import Envoy, ModulePaths
from workbench.errors import InputError
from workbench.models.base import NNsight, Prepared
from workbench.models.generation import Generation
from workbench.models.naming import STANDARD, standard
from workbench.models.opening import DEMO, Opening
from workbench.models.tokens import encode, in_vocabulary, padding, pieces, positions_of, widened
from workbench.site import Site
from workbench.tracing.tracer import Tracer

GENERATOR = "generator"


class LanguageModel(NNsight):
    """A causal language model that takes text.

    Opening by name or folder reads only the configuration: weights are on the meta device until the first run that
    needs them, so the module tree and all shapes are there at once.

    Args:
        model: a hub id, a folder, `"workbench/demo-gpt2"`, a `PreTrainedConfig` (modules and shapes, no weights), or a
            model that is loaded already.
        tokenizer: the tokenizer, when it is not the one that lies beside the model.
        dispatch: load the weights at once.
        rename: other names for modules, as for `NNsight`.
        kwargs: passed on to `from_pretrained` (`dtype`, `device_map`, `revision`, `quantization_config`, …).
            `automodel="AutoModelForMaskedLM"` chooses the class; else the configuration's architecture does.

    Raises:
        InputError: nothing can be opened under this name.

    Example:
        >>> import workbench as wb
        >>> model = wb.LanguageModel("workbench/demo-gpt2")
        >>> with model.trace("The Eiffel Tower is in the city of"):
        ...     logits = model.lm_head.output[:, -1].save()
        >>> model.tokenizer.decode(logits.argmax(-1))
        ' Paris'
    """

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any = None,
        dispatch: bool = False,
        rename: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        own = self.__dict__
        own["_opening"] = None
        module = model
        if not isinstance(model, nn.Module):
            opening = Opening(model, kwargs)
            tokenizer = opening.tokenizer() if tokenizer is None else tokenizer
            module = opening.weights() if dispatch else opening.modules()
            own["_opening"] = None if dispatch else opening
        own["tokenizer"] = tokenizer
        takes = inspect.signature(module.forward).parameters
        own["_takes_positions"] = "position_ids" in takes
        own["_takes_mask"] = "attention_mask" in takes or any(each.kind is each.VAR_KEYWORD for each in takes.values())
        super().__init__(module, rename)
        self._give_generator()

    def tokens(self, prompt: Any) -> list[str]:
        """The prompt's tokens as text, each with its leading space."""
        ids = encode(self.tokenizer, prompt)["input_ids"]
        return pieces(self.tokenizer, ids[0].tolist())

    def _ready(self) -> nn.Module:
        with self._lock:
            if self._opening is not None:
                loaded = self._opening.weights()
                chosen = getattr(getattr(self._module, "config", None), "_attn_implementation", None)
                if chosen and chosen != loaded.config._attn_implementation:  # by set_attn_implementation, before
                    loaded.set_attn_implementation(chosen)
                self._rebind(loaded)
                self.__dict__["_opening"] = None
        return self._module

    def _prepare(self, *inputs: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not inputs and any(isinstance(value, Tensor) for value in options.values()):
            return (), options  # inputs by name: input_ids=, pixel_values=
        if len(inputs) != 1:
            raise InputError(f"a language model takes one prompt (or one list of prompts), not {len(inputs)} arguments")
        encoded = encode(self.tokenizer, inputs[0], **options)
        size = getattr(getattr(self._module, "config", None), "vocab_size", None)
        if size and _length(encoded):
            in_vocabulary(encoded["input_ids"], size)
        if not self._takes_positions:
            encoded.pop("position_ids", None)
        elif _length(encoded) and encoded["input_ids"].shape[0] > 1:
            # Each row has positions of its own, as in a larger batch, so that an edit of one row's stays its own.
            encoded.setdefault("position_ids", positions_of(_mask(encoded)))
        return (), self._masked(encoded)

    def _masked(self, encoded: dict[str, Any]) -> dict[str, Any]:
        """Without an attention mask where the model takes none."""
        if not self._takes_mask and "attention_mask" in encoded:
            if not encoded["attention_mask"].all():
                raise InputError(
                    f"{type(self._module).__name__}.forward takes no attention_mask, so prompts of unequal length "
                    "cannot share a pass: run each length in a trace of its own"
                )
            del encoded["attention_mask"]
        return encoded

    # ---- standard names

    def __getattr__(self, name: str) -> Any:
        if name in STANDARD and "_module" in self.__dict__ and not hasattr(self.__dict__["_module"], name):
            return standard(self._root, name)
        return super().__getattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *STANDARD})

    # ---- several prompts in one pass

    def _batch(self, prepared: Prepared) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """All invokes' prompts as one call: shorter ones are padded behind their end, so that each one's positions
        are the same as alone."""
        return self._joined(prepared, left=False)

    def _joined(self, prepared: Prepared, left: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if len(prepared) == 1 or not all(_length(kwargs) for _, kwargs in prepared):
            return super()._batch(prepared)
        width = max(_length(kwargs) for _, kwargs in prepared)
        pad = padding(self.tokenizer)
        joined: Prepared = []
        for args, kwargs in prepared:
            mask = _mask(kwargs)
            named = {**kwargs, "attention_mask": mask}
            if self._takes_positions:
                named.setdefault("position_ids", positions_of(mask))
            joined.append((args, self._masked(widened(named, width, pad, left))))
        return super()._batch(joined)

    def _rows(self, prepared: Prepared) -> list[Rows] | None:
        rows = super()._rows(prepared)
        if rows is None:
            return None
        lengths = [_length(kwargs) for _, kwargs in prepared]
        return [each._replace(length=own, width=max(lengths)) for each, own in zip(rows, lengths, strict=True)]

    def _sizes(self) -> tuple[Sizes, Sizes]:
        longest = getattr(getattr(self._module, "config", None), "max_position_embeddings", None) or LARGE.length
        return (SMALL, LARGE) if longest >= LARGE.length else (Sizes(3, 11), Sizes(5, 13))

    def _sized(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], sizes: Sizes
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        whole = tuple(kwargs["input_ids"].shape) if _length(kwargs) else None

        def sized(tensor: Tensor) -> Tensor:
            if not tensor.ndim:
                return tensor
            if whole is not None and tuple(tensor.shape[:2]) == whole:
                return tensor.new_ones((sizes.batch, sizes.length, *tensor.shape[2:]))
            return tensor.new_ones((sizes.batch, *tensor.shape[1:]))

        return map_tensors(sized, args), map_tensors(sized, kwargs)

    # ---- generation

    def generate(
        self,
        *inputs: Any,
        trace: bool = True,
        scan: bool = False,
        validate: bool = False,
        invoker_args: Mapping[str, Any] | None = None,
        stream: bool | Callable[[list[str]], object] = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a generation: the body is recorded, and runs with the model as it writes token after token.

        A module is met once in each step: step 0 reads the whole prompt, each later one a single new token.
        `module.next()` moves on to the next step, `with tracer.iter[1:3]:` and `with tracer.all():` are blocks that
        are run in several. `model.generator.output` is what was generated, the prompts' tokens before it:
        token ids `(batch, position)`.

        Args:
            inputs: as for `trace`; several by `tracer.invoke(...)`.
            trace: False runs at once and returns the tokens.
            scan: as for `trace`, of step 0; as are `validate` and `invoker_args`.
            stream: True prints the text as it comes; a function is called in each step with the new text of each row.
            seed: for sampling; the random state of the session is as before afterwards.
            kwargs: for the model's own `generate`: `max_new_tokens` (1 unless given), `do_sample`, `num_beams`, …

        Example:
            >>> import workbench as wb
            >>> model = wb.demo("gpt2")
            >>> with model.generate("The Eiffel Tower is in the city of", max_new_tokens=2):
            ...     first = model.lm_head.output.argmax(-1).save()
            ...     tokens = model.generator.output.save()
            >>> bool(first[0, -1] == tokens[0, -2])
            True
        """
        kwargs |= {"stream": stream} if stream else {}
        kwargs |= {} if seed is None else {"seed": seed}
        options = dict(invoker_args or {})
        self._say_training()
        if trace:
            return Tracer(self, inputs, kwargs, options, scan=scan, validate=validate, kind="generate")
        with Tracer(self, inputs, kwargs, options, scan=scan, validate=validate, kind="generate"):
            result = self._generated().save()
        return result.value

    def _give_generator(self) -> None:
        """A module beside the model through which passes what it generates."""
        if hasattr(self._module, "generate") and "generator" not in self._children:
            self.__dict__["_apart"].add(GENERATOR)
            self.__dict__["generator"] = Envoy(nn.Identity(), GENERATOR, self)

    def _generated(self) -> Any:
        if "generator" not in self._root.__dict__:
            return super()._generated()
        return self._root.__dict__["generator"].output

    def _passing(self, prepared: Prepared, kwargs: dict[str, Any], generate: bool = False) -> Passing:
        if not generate or not hasattr(self._module, "generate"):
            return super()._passing(prepared, kwargs, generate)
        module = self.__dict__["_module"] = self._base._ready()
        args, named = self._joined(prepared, left=True)
        named.pop("position_ids", None)  # generation counts them itself
        generation = Generation(module, self.tokenizer, kwargs)
        rows = self._rows(prepared)
        layout = None
        if rows is not None:
            rows = [each._replace(left=True) for each in rows]
            given = {
                Site(GENERATOR, "output"): Known(
                    {(): Axes(0, (1,), times=generation.returned)}, trim=generation.trimmed
                )
            }
            layout = self._layout(args, named, given, generation.times)
        generator = self._root.__dict__["generator"]._module
        return Passing(
            lambda: generation.run(self._placed(module, named)),
            ModulePaths(self._root),
            rows,
            layout=layout,
            finish=generator,
            ended=generation.ended,
        )

    def _forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return module(*args, **self._placed(module, kwargs))

    def _placed(self, module: nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Inputs where the model's weights are."""
        device = next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in kwargs.items()}


def _length(kwargs: Mapping[str, Any]) -> int:
    """How many positions a prompt's inputs have; 0 where they are not tokens."""
    ids = kwargs.get("input_ids")
    return ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else 0


def _mask(kwargs: Mapping[str, Any]) -> Tensor:
    mask = kwargs.get("attention_mask")
    return torch.ones_like(kwargs["input_ids"]) if mask is None else mask


def demo(name: str = "gpt2") -> LanguageModel:
    """A small model that ships with the package and knows some facts; no download.

    Args:
        name: "gpt2" or "llama", two architectures trained on the same facts.

    Example:
        >>> import workbench as wb
        >>> wb.demo().tokens("The Eiffel Tower")
        ['The', ' Eiffel', ' Tower']
    """
    return LanguageModel(DEMO + name)
