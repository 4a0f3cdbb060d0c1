"""Settings: what an operator decides when a server is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.server.workers import Model

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Settings:
    """One server.

    `folder` holds jobs and results; `memory` is a budget of bytes for all hosted models, `seconds` what a job may
    take, `keep` for how many seconds a result is there, `queue` how many jobs a key may have waiting, `together` how
    many queued jobs of one model may share a forward pass, `ranks` over how many processes each model is divided,
    `limits` what else a job may use.
    """

    models: tuple[Model, ...]
    folder: Path
    host: str = "127.0.0.1"
    port: int = 8730
    keys: Path | None = None
    memory: int | None = None
    seconds: float = 600.0
    keep: float = 24 * 3600.0
    queue: int = 1000
    together: int = 1
    functions: Path | None = None
    ranks: int = 1
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("a server hosts at least one model: workbench serve workbench/demo-gpt2")
        if self.ranks < 1:
            raise InputError(f"a model is divided over at least one process, not {self.ranks}")
        keys = [model.key for model in self.models]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise InputError(f"{twice} was named twice; each model is hosted once")
        if self.host not in LOOPBACK and self.keys is None:
            raise InputError(
                f"--host {self.host} lets other machines in, and without --keys FILE each of them could run jobs: make "
                "a key with `workbench key NAME --keys FILE`, and give --keys FILE"
            )


def size(text: str) -> int:
    """Bytes written as a person does: `8GB`, `512MiB`, `1000000`.

    Raises:
        InputError: something that is no size.

    Example:
        >>> size("1.5KB"), size("2 MiB")
        (1500, 2097152)
    """
    import re

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if found is None:
        raise InputError(f"{text!r} is no size; write bytes, as 8000000000, 8GB or 8GiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))
