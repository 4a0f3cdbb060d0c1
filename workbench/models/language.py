"""LanguageModel: a Hugging Face causal language model with its tokenizer, opened by name, folder, or as it stands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.errors import InputError
from workbench.models import demo as demos
from workbench.models.base import NNsight
from workbench.models.tokens import encode, pieces

_DEMO = "workbench/demo-"


class LanguageModel(NNsight):
    """A causal language model that takes text.

    Opening by name or folder reads only the configuration: weights are on the meta device until the first run that
    needs them, so the module tree and all shapes are there at once.

    Args:
        model: a hub id, a folder, `"workbench/demo-gpt2"`, or a model that is loaded already.
        tokenizer: the tokenizer, when it is not the one that lies beside the model.
        dispatch: load the weights at once.
        rename: other names for modules, as for `NNsight`.
        kwargs: passed on to `from_pretrained` (`dtype`, `device_map`, `revision`, …).

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
        model: str | Path | nn.Module,
        *,
        tokenizer: Any = None,
        dispatch: bool = False,
        rename: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        own = self.__dict__
        if isinstance(model, nn.Module):
            own["_source"], own["_options"] = None, {}
            module = model
        else:
            own["_source"], own["_options"] = _resolve(str(model)), kwargs
            module = _open_meta(own["_source"], kwargs)
            if tokenizer is None:
                tokenizer = _open_tokenizer(own["_source"], kwargs)
        own["tokenizer"] = tokenizer
        own["_takes_positions"] = "position_ids" in inspect.signature(module.forward).parameters
        super().__init__(module, rename)
        if dispatch:
            self._ready()

    def tokens(self, prompt: Any) -> list[str]:
        """The prompt's tokens as text, each with its leading space."""
        ids = encode(self.tokenizer, prompt)["input_ids"]
        return pieces(self.tokenizer, ids[0].tolist())

    def _ready(self) -> nn.Module:
        with self._lock:
            if self._source is not None:
                loaded = _open_real(self._source, self._options)
                self._rebind(loaded)
                self.__dict__["_source"] = None
        return self._module

    def _prepare(self, *inputs: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if len(inputs) != 1:
            raise InputError(f"a language model takes one prompt (or one list of prompts), not {len(inputs)} arguments")
        encoded = encode(self.tokenizer, inputs[0], **options)
        if not self._takes_positions:
            encoded.pop("position_ids", None)
        return (), encoded

    def _batch(self, prepared: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        lengths = {kwargs["input_ids"].shape[1] for _, kwargs in prepared}
        if len(lengths) > 1:
            raise InputError(
                f"the invokes of this trace have prompts of {' and '.join(map(str, sorted(lengths)))} tokens; invokes "
                "share one pass only when their lengths agree: run each prompt in a trace of its own"
            )
        return super()._batch(prepared)

    def _forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        device = next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))
        moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in kwargs.items()}
        return module(*args, **moved)


def demo(name: str = "gpt2") -> LanguageModel:
    """A small model that ships with the package and knows some facts; no download.

    Args:
        name: "gpt2" or "llama", two architectures trained on the same facts.

    Example:
        >>> import workbench as wb
        >>> wb.demo().tokens("The Eiffel Tower")
        ['The', ' Eiffel', ' Tower']
    """
    return LanguageModel(_DEMO + name)


def _resolve(source: str) -> str:
    return str(demos.folder(source.removeprefix(_DEMO))) if source.startswith(_DEMO) else source


def _is_demo(source: str) -> bool:
    return Path(source).parent == Path(demos.__file__).parent


_HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code", "subfolder")


def _hub(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _HUB_ARGUMENTS if name in options}


def _open_meta(source: str, options: dict[str, Any]) -> nn.Module:
    """The model's modules without weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(source, **_hub(options))
    except (OSError, ValueError) as error:
        raise InputError(_cannot_open(source, error)) from error
    wanted = {name: options[name] for name in ("dtype", "attn_implementation", "trust_remote_code") if name in options}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, **wanted).eval()


def _open_real(source: str, options: dict[str, Any]) -> nn.Module:
    from transformers import AutoModelForCausalLM

    try:
        with _quiet() if _is_demo(source) else nullcontext():
            return AutoModelForCausalLM.from_pretrained(source, **options).eval()
    except (OSError, ValueError) as error:
        raise InputError(_cannot_open(source, error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar, which would outlive the blink it takes to open a small model, and stay in notebooks."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _open_tokenizer(source: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, **_hub(options))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source!r} has no tokenizer that can be opened ({_first_line(error)}); "
            "pass one with tokenizer=AutoTokenizer.from_pretrained(...)"
        ) from error


def _cannot_open(source: str, error: Exception) -> str:
    place = "the folder" if Path(source).is_dir() else "a model named"
    return (
        f"cannot open {place} {source!r}: {_first_line(error)}; give a folder with config.json and weights, "
        "a hub id that can be reached, or 'workbench/demo-gpt2', which needs no network"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
