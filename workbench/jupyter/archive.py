"""Archive: the history on disk, a small JSON file a run, which a kernel that starts again finds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from workbench.engine.values import first_tensor
from workbench.experiment.fault import Fault
from workbench.experiment.kinds import Frozen
from workbench.experiment.to_python import Written, names_of, write
from workbench.jupyter.messages import RunResult
from workbench.jupyter.record import Record
from workbench.store import Store, write_whole

LARGEST = 256 << 20
"""Bytes of a tensor that is still written to disk by itself."""
DIED = "the kernel ended while this run was under way; run it again"


class Kept(Frozen):
    """What is kept of a run, beside its tensors."""

    result: RunResult
    quiet: tuple[str, ...] | None = None
    environment: dict[str, Any] = Field(default={}, description="versions, weights and tokens")


class Archive:
    """A folder of runs, beside the store of their tensors.

    Args:
        store: where tensors go; runs lie in its folder.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.folder / "runs"

    def last(self) -> int:
        """The highest number that a run has."""
        return max((number for number, _ in self._files()), default=0)

    def read(self, count: int) -> Iterator[Record]:
        """The newest runs, the oldest of them first."""
        for _, path in sorted(self._files())[-count:]:
            try:
                kept = Kept.model_validate_json(path.read_text())
            except (OSError, ValidationError, ValueError):
                logging.getLogger(__name__).warning("a run that cannot be read is left out: %s", path.name)
                continue
            yield self._record(kept)

    def write(self, record: Record, result: RunResult, tensors: bool = True) -> None:
        """Keep a run that has ended, and its tensors."""
        if tensors and record.outcome is not None:
            for name, value in record.outcome.saved.items():
                tensor = first_tensor(value)
                if tensor is not None and tensor.numel() * tensor.element_size() <= LARGEST and _plain(tensor):
                    self.store.keep(record.key(name), tensor, of_run=True)
        kept = Kept(result=result, quiet=record.quiet, environment=record.environment)
        write_whole(self._path(record.run), kept.model_dump_json().encode())

    def delete(self, run: int) -> None:
        """Let a run go, with its tensors."""
        self._path(run).unlink(missing_ok=True)
        self.store.forget(f"run {run}/")

    def _record(self, kept: Kept) -> Record:
        result = kept.result
        died = result.state == "running"  # what ends says so here
        return Record(
            result.run,
            result.experiment,
            _written(result),
            state="failed" if died else result.state,
            purpose=result.purpose,
            title=result.title,
            at=result.at,
            seconds=result.seconds,
            prompts=result.prompts,
            receipts=result.receipts,
            sites=result.sites,
            saved=list(result.saved),
            logs=list(result.logs),
            fault=Fault(message=DIED) if died else result.fault,
            comparison=result.comparison,
            quiet=kept.quiet,
            environment=kept.environment,
            store=self.store,
        )

    def _path(self, run: int) -> Path:
        return self.folder / f"{run}.json"

    def _files(self) -> list[tuple[int, Path]]:
        return [(int(path.stem), path) for path in self.folder.glob("*.json") if path.stem.isdigit()]


def _written(result: RunResult) -> Written:
    """A cell's code is a person's own, any other is written anew."""
    experiment = result.experiment
    return Written(result.code, {}, names_of(experiment)) if result.purpose == "trace" else write(experiment)


def _plain(tensor: Any) -> bool:
    return not tensor.is_meta and not tensor.is_sparse and not tensor.is_quantized
