"""Scene: what is known, before a run, of the model and the prompt that an experiment is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from workbench.engine.scan import Scan
from workbench.engine.values import first_tensor
from workbench.envoy import Envoy
from workbench.errors import InputError
from workbench.experiment.kinds import Target
from workbench.models.base import NNsight
from workbench.models.language import LanguageModel
from workbench.site import Site

TAKES_TENSORS = (
    "this model takes tensors, not text, so the panel has no prompt for it; trace it in a cell: "
    "`with model.trace(tensor): ...`"
)

Found = Literal["unknown", "never called", "known"]


@dataclass(frozen=True)
class Scene:
    """A model with a prompt: its tokens, and a scan of the forward pass that would be run."""

    model: NNsight
    prompt: str
    tokens: tuple[str, ...]
    scan: Scan
    tensors: Callable[[str], str | None] = lambda name: None  # noqa: E731
    """Why there is no kept tensor of a name; None when there is one."""

    def tokens_of(self, prompt: str) -> tuple[str, ...]:
        """The tokens of another prompt; none where it has none."""
        try:
            return tuple(self.model.tokens(prompt)) if isinstance(self.model, LanguageModel) else ()
        except InputError:
            return ()

    def missing(self, name: str) -> str | None:
        """Why there is no kept tensor of a name."""
        return self.tensors(name)

    def value(self, at: Target) -> tuple[Found, Any]:
        """What the scan knows of a target: its fake value, that it is never called, or nothing."""
        if not self.scan.known:
            return "unknown", None
        site = Site(at.path, at.port)
        if site not in self.scan.values:
            return "never called", None
        value = self.scan.values[site]
        if at.port == "input":  # an input port stands for the first tensor of the call
            args, kwargs = value
            value = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        return "known", value

    def tensor(self, at: Target) -> Tensor | None:
        """The tensor an intervention at this target would work on, as far as the scan knows one."""
        return first_tensor(self.value(at)[1])

    def called_below(self, envoy: Envoy) -> list[str]:
        """Modules below one that are called: what to choose instead of it."""
        return [below.path for below in envoy.walk() if Site(below.path, "output") in self.scan.values]


def takes_text(model: Any) -> bool:
    """Whether a model is given a prompt as text."""
    return isinstance(model, LanguageModel) and model.tokenizer is not None


def scene(model: NNsight, prompt: str, tensors: Callable[[str], str | None] = lambda name: None) -> Scene:
    """The scene of a prompt. Raises `InputError` when the model takes no text, or the text has no tokens."""
    if not isinstance(model, LanguageModel) or model.tokenizer is None:
        raise InputError(TAKES_TENSORS)
    return Scene(model, prompt, tuple(model.tokens(prompt)), model.scanned(prompt), tensors)
