"""Limits: how much a graph from elsewhere may ask for; whoever runs it sets them, and each has a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from workbench.errors import WireError

MIB = 1 << 20


class Refused(WireError):
    """A request that is not run; `status` is the HTTP status that says what kind of refusal it is."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Args:
        body: bytes of a request as it is sent.
        unpacked: bytes of it once decompressed.
        head: bytes of its JSON.
        nodes: statements in its graph.
        depth: how deep its JSON is nested.
        inputs: invokes that share a pass.
        trips: rounds of all its loops together.
        steps: tokens that a generation may make.
        executed: statements that are run, loops' rounds counted.
        seconds: wall time of a run.
        log_lines: lines that are passed on; those behind are dropped.
        log_bytes: bytes of these lines.
        memory: bytes of the values that are alive at one time, and of any one of them, by their logical size.
        result: bytes of what is saved, by its logical size.
    """

    body: int = 256 * MIB
    unpacked: int = 1024 * MIB
    head: int = 32 * MIB
    nodes: int = 100_000
    depth: int = 64
    inputs: int = 256
    trips: int = 100_000
    steps: int = 4096
    executed: int = 5_000_000
    seconds: float = 600.0
    log_lines: int = 1000
    log_bytes: int = MIB
    memory: int = 2048 * MIB
    result: int = 1024 * MIB

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Limits:
        """Limits from a message; what it does not name has its default."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})

    def write(self) -> dict[str, Any]:
        """These limits for a message."""
        return asdict(self)


def size_text(count: float) -> str:
    """A count of bytes as a person reads it: `1.5 GiB`."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while count >= 1024 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "bytes" or count >= 10 else f"{count:.1f} {units[0]}"
