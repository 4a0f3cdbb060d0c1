"""Site: the one address of a value inside a model."""

from __future__ import annotations

from typing import Literal, NamedTuple

Port = Literal["input", "output"]


class Site(NamedTuple):
    """Where a value appears: which module, which side of it, which of its calls.

    `path` is the module's path below the root ("" is the root itself). `port` is "output" (exactly what the module
    returned) or "input" (`(args, kwargs)` of its call). `call` counts calls of the module within one forward pass.
    `inside` names a call that the module's forward makes, whose input or output is meant instead. `step` counts the
    forward passes of a generation: 0 reads the whole prompt, each later one a new token.
    """

    path: str
    port: Port
    call: int = 0
    inside: str = ""
    step: int = 0

    def __str__(self) -> str:
        inside = f".source.{self.inside}" if self.inside else ""
        if self.call < 0:
            return "the end of the generation"
        counts = [f"{what} {count}" for what, count in (("step", self.step), ("call", self.call)) if count]
        return f"{self.path or 'model'}{inside}.{self.port}" + (f" ({', '.join(counts)})" if counts else "")
