"""Opening: a model found by name, folder or configuration: its modules at once, its weights when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.errors import InputError, MissingWeightsWarning
from workbench.graph.source import warn
from workbench.models import demo as demos

DEMO = "workbench/demo-"

_HUB = (
    "revision",
    "token",
    "cache_dir",
    "local_files_only",
    "trust_remote_code",
    "subfolder",
    "force_download",
    "proxies",
)
"""Arguments of `from_pretrained` that say where files come from: for configuration and tokenizer too."""

_MADE = ("attn_implementation", "dtype", "experts_implementation", "trust_remote_code")
"""Arguments that a model without weights is made with as well."""

_HEADS = {
    "ForPreTraining": ("AutoModelForPreTraining",),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", "AutoModelForImageTextToText"),
    "ForMaskedLM": ("AutoModelForMaskedLM",),
    "ForImageClassification": ("AutoModelForImageClassification",),
    "ForSequenceClassification": ("AutoModelForSequenceClassification",),
    "ForTokenClassification": ("AutoModelForTokenClassification",),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering",),
}
"""How an architecture's name ends → the classes of transformers that open such a model; any other is a causal one."""


class Opening:
    """One model to be opened: where from, and with which arguments of `from_pretrained`.

    Args:
        source: a hub id, a folder, a demo model's name, or a `PreTrainedConfig`, which has no weights.
        options: for `from_pretrained`. `automodel` chooses the class, as "AutoModelForMaskedLM"; else the
            configuration's own architecture does.

    Raises:
        InputError: nothing can be opened, in a sentence with the cure.
    """

    def __init__(self, source: Any, options: dict[str, Any]) -> None:
        self._options = dict(options)
        if "torch_dtype" in self._options:  # as it was called before
            before = self._options.pop("torch_dtype")
            if self._options.setdefault("dtype", before) != before:
                raise InputError(
                    f"dtype={self._options['dtype']} and torch_dtype={before} say different things; give dtype= alone"
                )
        self._automodel = self._options.pop("automodel", None)
        self._bare = hasattr(source, "model_type")
        self.name = source.model_type if self._bare else _resolved(str(source))
        self._adapter: Any = None
        self.config = source if self._bare else self._read_config()

    def _read_config(self) -> Any:
        from transformers import AutoConfig

        given = self._options.get("config")
        if given is not None:
            self._adapter = self._find_adapter()
            return given
        with self._words():
            try:
                return AutoConfig.from_pretrained(self.name, **self._hub)
            except (OSError, ValueError) as error:
                self._adapter = None if _unreachable(error) else self._find_adapter()
                if self._adapter is None:
                    raise
            return AutoConfig.from_pretrained(self._base, **self._hub)

    def _find_adapter(self) -> Any:
        """What peft knows of an adapter, where the source is one: such a folder or page names the model it is for."""
        from transformers.utils.peft_utils import find_adapter_config_file

        if Path(self.name).is_dir():
            found = Path(self.name, "adapter_config.json").is_file() and not Path(self.name, "config.json").is_file()
        else:
            try:
                found = find_adapter_config_file(self.name, **self._hub) is not None
            except (OSError, ValueError):
                found = False  # reading the configuration says what is wrong
        if not found:
            return None
        _need("peft", f"{self.name!r} is an adapter")
        from peft import PeftConfig

        with self._words():
            return PeftConfig.from_pretrained(self.name, **self._hub)

    @property
    def _base(self) -> str:
        """Where the model itself is."""
        return self.name if self._adapter is None else _resolved(str(self._adapter.base_model_name_or_path))

    @property
    def _hub(self) -> dict[str, Any]:
        return {name: self._options[name] for name in _HUB if name in self._options}

    @property
    def _class(self) -> Any:
        import transformers

        if self._automodel is not None:
            found = getattr(transformers, str(self._automodel), None)
            if found is None:
                raise InputError(
                    f"transformers has no {self._automodel!r}; automodel= names one, as AutoModelForCausalLM"
                )
            return found
        architecture = next(iter(getattr(self.config, "architectures", None) or ()), "")
        for ending, names in _HEADS.items():
            if architecture.endswith(ending):
                for name in names:
                    auto = getattr(transformers, name)
                    if type(self.config) in auto._model_mapping:
                        return auto
        return transformers.AutoModelForCausalLM

    # ---- what is opened

    def modules(self) -> nn.Module:
        """The model without weights: modules and shapes, no memory."""
        wanted = {name: self._options[name] for name in _MADE if name in self._options}
        if wanted.get("dtype") == "auto":
            del wanted["dtype"]
        with self._words(), torch.device("meta"):
            made = self._class.from_config(self.config, **wanted)
            if self._adapter is not None:
                from peft import inject_adapter_in_model

                self._adapter.inference_mode = True  # as transformers loads them
                inject_adapter_in_model(self._adapter, made)
            return made.eval()

    def weights(self) -> Any:
        """The model with its weights."""
        if self._bare:
            raise InputError(
                f"this {self.name} model was opened from a configuration alone, so it has no weights and cannot be "
                "run; its modules and shapes are there. Open a folder or a hub id, or give a model that has weights"
            )
        if self._options.get("device_map") is not None:
            _need("accelerate", "device_map= places weights")
        with self._words(), _quiet() if _is_demo(self.name) else nullcontext():
            found, info = self._class.from_pretrained(self.name, output_loading_info=True, **self._options)
        missing = sorted(info["missing_keys"])
        if missing:
            some = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            warn(
                f"{self.name!r} has no weights for {some}: a {type(found).__name__} needs them, and they were made at "
                "random, so what is computed from them means nothing. Choose the class whose weights are there, as "
                'automodel="AutoModel"',
                MissingWeightsWarning,
            )
        return found.eval()

    def tokenizer(self) -> Any:
        """The tokenizer beside the model; None for a configuration alone, and for models that take no text."""
        from transformers import AutoTokenizer

        if self._bare or (getattr(self.config, "vocab_size", None) is None and not hasattr(self.config, "text_config")):
            return None
        try:
            found = AutoTokenizer.from_pretrained(self._text(), **self._hub)
            if len(found) <= len(found.all_special_tokens):  # what transformers makes where there are no files
                raise ValueError("its files are not there")
        except (OSError, ValueError, ImportError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.name!r} has no tokenizer that can be opened ({_first_line(error)}); "
                "pass one with tokenizer=AutoTokenizer.from_pretrained(...)"
            ) from error
        return found

    def processor(self) -> Any:
        """What makes a model's input of images, beside the model."""
        from transformers import AutoImageProcessor, AutoProcessor

        reads = getattr(self.config, "vocab_size", None) is not None or hasattr(self.config, "text_config")
        try:
            return (AutoProcessor if reads else AutoImageProcessor).from_pretrained(self._text(), **self._hub)
        except (OSError, ValueError, ImportError, TypeError, AttributeError, KeyError) as error:
            raise InputError(
                f"{self.name!r} has no processor for images that can be opened ({_first_line(error)}); pass one with "
                "processor=AutoProcessor.from_pretrained(...), or give tensors by name: pixel_values="
            ) from error

    def _text(self) -> str:
        """Where the tokenizer is: an adapter seldom has one of its own."""
        own = self._adapter is None or Path(self.name, "tokenizer_config.json").is_file()
        return self.name if own else self._base

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # transformers raises all kinds, from deep inside, at a broken configuration
            if isinstance(error, (InputError, MemoryError, torch.OutOfMemoryError)):
                raise
            raise InputError(_why(self.name, error)) from error


def _resolved(source: str) -> str:
    if source.startswith(DEMO):
        return str(demos.folder(source.removeprefix(DEMO)))
    return source


def _is_demo(source: str) -> bool:
    return Path(source).parent == Path(demos.__file__).parent


def _need(package: str, why: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise InputError(f"{why}, which needs the package {package}: pip install {package}")


# ---- words


def _why(source: str, error: BaseException) -> str:
    """What is wrong, and what to do."""
    folder = Path(source)
    causes = _causes(error)
    kinds = {type(each).__name__ for each in causes}
    words = " ".join(map(str, causes))
    if folder.is_dir() and not (folder / "config.json").is_file():
        held = ", ".join(sorted(each.name for each in folder.iterdir())[:6]) or "nothing"
        return f"the folder {source!r} has no config.json, so it holds no transformers model; it holds {held}"
    if "trust_remote_code" in words:
        return f"{source!r} brings code of its own, which is not run unasked: read it, then pass trust_remote_code=True"
    if folder.is_dir() and "no file named" in words:
        return (
            f"the folder {source!r} has a config.json and no weights (model.safetensors): its modules and shapes can "
            "be looked at, and nothing run; put the weights there"
        )
    if folder.is_dir() or (folder.is_absolute() and folder.exists()):
        return f"the folder {source!r} cannot be opened: {_first_line(error)}"
    if source.startswith((".", "/", "~")):
        return f"there is no folder {source!r}"
    if "GatedRepoError" in kinds:
        return (
            f"{source!r} is gated: its owners let in those who asked. Ask on the model's page, then sign in with "
            "`hf auth login`, or pass token="
        )
    if _unreachable(error):
        return (
            f"the hub cannot be reached, and {source!r} is not on this machine: open it once with a network, give a "
            "folder with config.json and weights, or use 'workbench/demo-gpt2', which needs none"
        )
    if "RepositoryNotFoundError" in kinds or "not a valid model identifier" in words:
        return (
            f"there is no model {source!r} on the hub, nor a folder of that name; look at the spelling, and for a "
            "private model sign in with `hf auth login` or pass token="
        )
    return f"the model {source!r} cannot be opened: {_first_line(error)}"


_NO_NETWORK = frozenset({"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError"})


def _unreachable(error: BaseException) -> bool:
    causes = _causes(error)
    words = " ".join(map(str, causes))
    named = _NO_NETWORK & {type(each).__name__ for each in causes}
    return bool(named) or "couldn't connect" in words or "offline mode" in words


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if isinstance(error, (KeyError, TypeError, AttributeError)):
        return f"{type(error).__name__}: {lines[0]}"
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


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
