"""workbench: look inside PyTorch models and change what they compute, by clicking or in Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from workbench import errors
from workbench.envoy import Envoy
from workbench.functions import apply
from workbench.interventions import ablate, add_noise, heads, neurons, patch, scale, steer
from workbench.measures import measure
from workbench.models.base import NNsight
from workbench.tracing import elsewhere

if TYPE_CHECKING:
    from workbench.jupyter.history import runs
    from workbench.jupyter.looking import look
    from workbench.jupyter.widget import show
    from workbench.lens import attention_patterns, direct_logit_attribution, logit_lens, top_tokens
    from workbench.models.language import LanguageModel, demo
    from workbench.remote.config import CONFIG
    from workbench.store import tensor

__all__ = [
    "CONFIG", "Envoy", "LanguageModel", "NNsight", "ablate", "add_noise", "apply", "attention_patterns", "demo",
    "direct_logit_attribution", "errors", "heads", "logit_lens", "look", "measure", "neurons", "patch", "runs", "scale",
    "show", "steer", "tensor", "top_tokens",
]  # fmt: skip

_LATER = {
    "LanguageModel": "workbench.models.language",
    "demo": "workbench.models.language",
    "runs": "workbench.jupyter.history",
    "look": "workbench.jupyter.looking",
    "show": "workbench.jupyter.widget",
    "CONFIG": "workbench.remote.config",
    "tensor": "workbench.store",
    "logit_lens": "workbench.lens",
    "attention_patterns": "workbench.lens",
    "direct_logit_attribution": "workbench.lens",
    "top_tokens": "workbench.lens",
} | dict.fromkeys(
    # Python's own types, traced. They are not names of this module, so that in here `list` is still Python's.
    "bool bytes int float str complex bytearray tuple list set dict".split(),
    "workbench.functions",
)


def __getattr__(name: str) -> Any:
    """Heavy parts load when they are first used."""
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"workbench has no {name!r}")


def _elsewhere() -> elsewhere.Elsewhere:
    """What runs a trace on a server; loaded with the first one that asks for it."""
    from workbench.remote.client import Client

    return Client()


elsewhere.register(_elsewhere)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext workbench`: cells that begin with `%%trace`."""
    from workbench.jupyter.magics import load

    load(shell)


def _link() -> None:
    """In a Jupyter kernel, answer the panel when it asks; elsewhere nothing."""
    if "ipykernel" in sys.modules:
        from workbench.jupyter.link import register

        register()


_link()
