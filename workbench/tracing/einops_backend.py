"""einops on traced values: its operations are torch's, recorded. Loaded only where einops was imported already."""

from __future__ import annotations

from typing import Any

from einops._backends import TorchBackend

from workbench.proxy import Proxy


class ProxyBackend(TorchBackend):
    """einops finds it among the subclasses of its backends, since `framework_name` names a loaded module."""

    framework_name = "workbench"

    def is_appropriate_type(self, tensor: Any) -> bool:
        """Whether a value is ours."""
        return type(tensor) is Proxy or issubclass(type(tensor), Proxy)
