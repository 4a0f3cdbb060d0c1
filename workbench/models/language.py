"""LanguageModel: a Hugging Face model with its tokenizer, opened by name, folder, or as it stands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from workbench.engine.axes import LARGE, SMALL, Axes, Known, Sizes
from workbench.engine.batching import Rows
from workbench.engine.execution import Passing
from workbench.engine.scan import NOWHERE, Inside, Scan
from workbench.engine.values import map_tensors
from workbench.envoy import Envoy, ModulePaths
from workbench.errors import InputError
from workbench.models import containers  # noqa: F401  (registers how outputs and caches travel)
from workbench.models.attention import PATTERN, eager
from workbench.models.base import NNsight, Prepared
from workbench.models.generation import LATER, Generation, Written, forward_later
from workbench.models.images import IMAGES, Sight
from workbench.models.naming import STANDARD, base_of, standard
from workbench.models.opening import DEMO, Opening
from workbench.models.tokens import (
    DECODED,
    decoded_length,
    encode,
    in_vocabulary,
    padding,
    pieces,
    positions_learned,
    positions_of,
    started,
    widened,
    within_positions,
)
from workbench.site import Site
from workbench.tracing.elsewhere import Where
from workbench.tracing.tracer import Tracer

GENERATOR = "generator"
EAGER = "workbench_eager"
"""Among the arguments of a scan: attention patterns are looked at."""


class LanguageModel(NNsight):
    """A language model that takes text: one that goes on with it, fills gaps in it, or answers it in a text of its own.

    Opening by name or folder reads only the configuration: weights are on the meta device until the first run that
    needs them, so the module tree and all shapes are there at once.

    A model with an encoder and a decoder (T5, BART) reads the prompt with its encoder. Its decoder begins with the
    model's own start token unless `decoder_input_ids=` gives it token ids or a text, which follows the start token:
    `model.trace("a prompt", decoder_input_ids="the answer")`, or the same in `tracer.invoke(...)`.

    Args:
        model: a hub id, a folder, `"workbench/demo-gpt2"`, a `PreTrainedConfig` (modules and shapes, no weights), or a
            model that is loaded already.
        tokenizer: the tokenizer, when it is not the one that lies beside the model.
        processor: what makes the input of images, when it is not the one that lies beside the model.
        dispatch: load the weights at once.
        rename: other names for modules, as for `NNsight`.
        kwargs: passed on to `from_pretrained` (`dtype`, `device_map`, `revision`, `quantization_config`, …).
            `automodel="AutoModelForMaskedLM"` chooses the class; else the configuration's architecture does.
            `distributed_config=DistributedConfig(tp_plan="auto")` divides the model over the processes that `torchrun`
            started: each runs the same code, and sees and writes every value whole.

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
        processor: Any = None,
        dispatch: bool = False,
        rename: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        own = self.__dict__
        own["_opening"] = None
        own["_opened_as"] = str(model) if isinstance(model, (str, PathLike)) else None
        module: Any = model
        find = None
        tokenizer = getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer
        if not isinstance(model, nn.Module):
            opening = Opening(model, kwargs)
            find = opening.processor
            tokenizer = opening.tokenizer() if tokenizer is None else tokenizer
            module = opening.weights() if dispatch else opening.modules()
            own["_opening"] = None if dispatch else opening
        own["tokenizer"] = tokenizer
        takes = inspect.signature(base_of(module)[1].forward).parameters
        own["_decodes"] = "decoder_input_ids" in takes
        own["_room"] = positions_learned(module)
        own["_takes_last"] = "logits_to_keep" in takes
        # Some count the positions of images and text by themselves, in three directions.
        own["_takes_positions"] = "position_ids" in takes and not hasattr(_body(module), "get_rope_index")
        own["_sight"] = Sight(type(base_of(module)[1]).__name__, takes, processor, find)
        own["_takes_mask"] = "attention_mask" in takes or any(each.kind is each.VAR_KEYWORD for each in takes.values())
        super().__init__(module, rename)
        self._give_generator()

    def trace(self, *inputs: Any, invoker_args: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Open a trace of a prompt, as `NNsight.trace` does of any input.

        In a list, prompts that are shorter than others are padded before their beginning (behind their end, where an
        encoder reads them): `value[:, -1]` is the last token of each, but `value[:, 0]` is padding in some. Write
        `value[own_positions(value, 0)]` (`workbench.models.positions`) for the first token of each; interventions such
        as `wb.ablate(…, positions=0)` do. Across `tracer.invoke(...)`s, positions are always each prompt's own.

        Args:
            inputs: a prompt: text, a list of texts, token ids, chat messages, what a tokenizer returned; an image, or a
                list of images, for a model that sees; inputs by name if left out: `input_ids=`, `pixel_values=`.
            invoker_args: for the tokenizer, as `{"max_length": 10, "truncation": True}`.
            kwargs: `batch_size`, `scan`, `validate`, `trace` as there; `images` that go with a text;
                `decoder_input_ids` of a model with a decoder apart; anything else is the forward's.

        Example:
            >>> import workbench as wb
            >>> model = wb.demo("gpt2")
            >>> with model.trace(["The Eiffel Tower is in the city of", "The Colosseum is in the city of"]):
            ...     best = model.lm_head.output[:, -1].argmax(-1).save()
            >>> model.tokenizer.batch_decode(best[:, None])
            [' Paris', ' Rome']
        """
        return super().trace(*inputs, invoker_args=_routed(inputs, invoker_args, kwargs), **kwargs)

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
        prompt, answer, images = inputs[0], options.pop(DECODED[0], None), options.pop(IMAGES, None)
        if isinstance(prompt, Mapping) and DECODED[0] in prompt:
            prompt, answer = {name: value for name, value in prompt.items() if name != DECODED[0]}, prompt[DECODED[0]]
        left = not self._decodes
        encoded = self._sight.encode(prompt, images, left, options)
        if encoded is None:
            encoded = encode(self.tokenizer, prompt, left=left, **options)
        config: Any = getattr(self._module, "config", None)
        if hasattr(config, "get_text_config"):
            config = config.get_text_config()
        size = getattr(config, "vocab_size", None)
        if size and _length(encoded):
            in_vocabulary(encoded["input_ids"], size)
        if self._room is not None and _length(encoded) and "position_ids" not in encoded:
            within_positions(encoded["input_ids"], self._room)
        if not self._takes_positions:
            encoded.pop("position_ids", None)
        elif _length(encoded) and encoded["input_ids"].shape[0] > 1:
            # Each row has positions of its own, as in a larger batch, so that an edit of one row's stays its own.
            encoded.setdefault("position_ids", positions_of(_mask(encoded)))
        if self._decodes and _length(encoded):
            encoded[DECODED[0]] = self._answered(answer, encoded["input_ids"].shape[0])
        return (), self._masked(encoded)

    @property
    def processor(self) -> Any:
        """What makes the input of images, for a model that sees; None where there is none."""
        return self._sight.processor

    def _answered(self, answer: Any, rows: int) -> Tensor:
        """What the decoder reads of each of these prompts: `(batch, position)`."""
        if isinstance(answer, Tensor):
            return answer if answer.ndim > 1 else answer[None]
        start = started(self._module, answer)
        if answer is None:
            return torch.full((rows, 1), start)
        written = isinstance(answer, str) or (isinstance(answer, (list, tuple)) and isinstance(answer[0], str))
        read = encode(self.tokenizer, answer, left=False, **({"add_special_tokens": False} if written else {}))
        ids = read["input_ids"]
        return torch.cat([ids.new_full((ids.shape[0], 1), start), ids], 1) if written else ids

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
        answer = max(decoded_length(kwargs) for _, kwargs in prepared)
        pad = padding(self.tokenizer)
        joined: Prepared = []
        for args, kwargs in prepared:
            mask = _mask(kwargs)
            named = {**kwargs, "attention_mask": mask}
            if self._takes_positions:
                named.setdefault("position_ids", positions_of(mask))
            named = widened(named, width, pad, left)
            joined.append((args, self._masked(widened(named, answer, pad, False, DECODED) if answer else named)))
        return super()._batch(joined)

    def _rows(self, prepared: Prepared) -> list[Rows] | None:
        rows = super()._rows(prepared)
        if rows is None:
            return None
        lengths = [_length(kwargs) for _, kwargs in prepared]
        answers = [decoded_length(kwargs) for _, kwargs in prepared]
        return [
            each._replace(length=own, width=max(lengths), answer=answer, answers=max(answers))
            for each, own, answer in zip(rows, lengths, answers, strict=True)
        ]

    def _sizes(self) -> tuple[Sizes, Sizes]:
        longest = getattr(getattr(self._module, "config", None), "max_position_embeddings", None) or LARGE.length
        return (SMALL, LARGE) if longest >= LARGE.length else (Sizes(3, 11, 7), Sizes(5, 13, 8))

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

        answers = {name: value for name, value in kwargs.items() if name in DECODED and isinstance(value, Tensor)}
        named = map_tensors(sized, {name: value for name, value in kwargs.items() if name not in answers})
        for name, value in answers.items():
            named[name] = value.new_ones((sizes.batch, sizes.answer, *value.shape[2:]))
        return map_tensors(sized, args), named

    # ---- generation

    def generate(
        self,
        *inputs: Any,
        trace: bool = True,
        scan: bool = False,
        validate: bool = False,
        batch_size: int | None = None,
        invoker_args: Mapping[str, Any] | None = None,
        stream: bool | Callable[[list[str]], object] = False,
        seed: int | None = None,
        remote: Where = False,
        blocking: bool = True,
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
            batch_size: prompts of the list that are run at once; what is saved is joined. Half as many where memory
                runs out.
            stream: True prints the text as it comes; a function is called in each step with the new text of each row.
            seed: for sampling; the random state of the session is as before afterwards.
            remote: as for `trace`, as is `blocking`.
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
        options = _routed(inputs, invoker_args, kwargs)
        self._say_training()
        made = Tracer(
            self,
            inputs,
            kwargs,
            options,
            scan=scan,
            validate=validate,
            batch_size=batch_size,
            kind="generate",
            remote=remote,
            blocking=blocking,
        )
        if trace:
            return made
        with made:
            result = self._generated().save()
        return result.value if blocking else made.job

    def _give_generator(self) -> None:
        """A module beside the model through which passes what it generates."""
        if hasattr(self._module, "generate") and "generator" not in self._children:
            self.__dict__["_apart"].add(GENERATOR)
            self.__dict__["generator"] = Envoy(nn.Identity(), GENERATOR, self)

    def _written(self, options: dict[str, Any]) -> Written:
        generation = Generation(self._module, self.tokenizer, options)
        return Written(GENERATOR, generation.filler, generation.returned)

    def _generated(self) -> Any:
        if "generator" not in self._root.__dict__:
            return super()._generated()
        return self._root.__dict__["generator"].output

    def _passing(self, prepared: Prepared, kwargs: dict[str, Any], generate: bool = False) -> Passing:
        if not generate or not hasattr(self._module, "generate"):
            passing = super()._passing(prepared, kwargs, generate)
            passing.around = self._around
            return passing
        module = self.__dict__["_module"] = self._base._ready()
        left = not self._decodes  # an answer does not stand behind its prompt
        args, named = self._joined(prepared, left=left)
        named.pop("position_ids", None)  # generation counts them itself
        generation = Generation(module, self.tokenizer, kwargs, answers=self._decodes, room=self._room)
        rows = self._rows(prepared)
        if len({decoded_length(kwargs) for _, kwargs in prepared}) > 1:
            raise InputError(
                "the answers that these prompts begin with (decoder_input_ids) have different lengths, and one "
                "generation cannot go on with them together: generate for each length by itself"
            )
        layout = None
        if rows is not None:
            rows = [each._replace(left=left) for each in rows]
            written = Axes(0, (1,) if left else (), times=generation.returned)
            given = {Site(GENERATOR, "output"): Known({(): written}, trim=generation.trimmed)}
            layout = self._layout(args, named, given, generation.times)
        generator = self._root.__dict__["generator"]._module
        return Passing(
            lambda: generation.run(self._placed(module, named)),
            ModulePaths(self._root),
            rows,
            layout=layout,
            finish=generator,
            ended=generation.ended,
            stepping=base_of(module)[0],
            divided=self._divided(args, named),
            around=self._around,
        )

    def _around(self, calls: Iterable[str]) -> AbstractContextManager[None]:
        """Patterns are made by eager attention alone."""
        return eager(self._root.module) if PATTERN in calls else nullcontext()

    def _scan(self, args: tuple[Any, ...], kwargs: dict[str, Any], inside: Inside = NOWHERE) -> Scan:
        if any(name == PATTERN for _, name in inside):
            kwargs = kwargs | {EAGER: 1}
        return super()._scan(args, kwargs, inside)

    def _forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop(EAGER, 0):  # here, since a scan runs a copy of the model
            with eager(module):
                return self._forward(module, *args, **kwargs)
        if kwargs.pop(LATER, 0):
            return forward_later(module, self._placed(module, kwargs))
        return module(*args, **self._placed(module, kwargs))

    def _scan_step(self, prepared: Any, options: dict[str, Any], step: int, inside: Inside = NOWHERE) -> Scan:
        generation = Generation(self._module, self.tokenizer, options)
        args, kwargs = self._joined([prepared], left=not self._decodes)
        kwargs = {name: _repeated(value, generation.times) for name, value in kwargs.items() if name != "position_ids"}
        if self._takes_last:  # as transformers does
            kwargs["logits_to_keep"] = options.get("logits_to_keep", 1)
        if not step:
            return self._scan(args, kwargs, inside)
        only = DECODED if self._decodes else None
        length = decoded_length(kwargs) if self._decodes else _length(kwargs)
        cached = generation.cached  # else each step reads all of the text anew
        kwargs = widened(kwargs, length + step - (1 if cached else 0), padding(self.tokenizer), False, only)
        return self._scan(args, kwargs | ({LATER: 1} if cached else {}), inside)

    def _placed(self, module: nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Inputs where the model's weights are."""
        device = next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in kwargs.items()}


def _routed(inputs: tuple[Any, ...], invoker_args: Mapping[str, Any] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for preparing the prompt, with those among the others that go with a prompt; they are taken out."""
    given = {name: kwargs.pop(name) for name in (DECODED[0], IMAGES) if inputs and name in kwargs}
    return {**given, **(invoker_args or {})}


def _body(module: nn.Module) -> nn.Module:
    return getattr(base_of(module)[1], "model", module)


def _length(kwargs: Mapping[str, Any]) -> int:
    """How many positions a prompt's inputs have; 0 where they are not tokens."""
    ids = kwargs.get("input_ids")
    return ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else 0


def _repeated(value: Any, times: int) -> Any:
    return value.repeat_interleave(times, 0) if times > 1 and isinstance(value, Tensor) and value.ndim else value


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
