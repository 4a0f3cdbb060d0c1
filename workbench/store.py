"""Store: tensors that have a name, on disk, as safetensors files named by what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from workbench.errors import InputError

BUDGET = 1 << 30
"""Bytes of runs' tensors that are kept; the oldest go first, those that a person kept stay."""


class Store:
    """A folder of tensors. `names.json` says which file each name is of.

    Args:
        folder: made when something is first kept.
        budget: bytes of tensors of runs.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(folder)
        ...     kept = store.keep("ones", torch.ones(2))
        ...     store.tensor("ones")
        tensor([1., 1.])
    """

    def __init__(self, folder: str | Path, budget: int = BUDGET) -> None:
        self.folder = Path(folder)
        self.budget = budget
        self._lock = RLock()

    # ---- tensors

    def keep(self, name: str, tensor: Tensor, of_run: bool = False) -> str:
        """Keep a tensor under a name; the same tensor is one file. Gives the hash of what is in it."""
        value = tensor.detach().cpu().contiguous()
        key = digest(value)
        with self._lock, self._names() as names:
            path = self.path(key)
            if not path.exists():
                from safetensors.torch import save

                write_whole(path, save({"tensor": value.clone()}))
            names[name] = {
                "hash": key,
                "shape": list(value.shape),
                "dtype": str(value.dtype).removeprefix("torch."),
                "bytes": value.numel() * value.element_size(),
                "run": of_run,
                "at": time.time(),
            }
            self._within_budget(names)
        return key

    def tensor(self, name: str) -> Tensor:
        """The tensor of a name, or of a hash.

        Raises:
            InputError: there is none.
        """
        known = self.names()
        key = known[name]["hash"] if name in known else name
        path = self.path(key)
        if not path.exists():
            near = [each for each in known if each.rpartition("/")[2] == name.rpartition("/")[2]]
            known_as = f"; near: {', '.join(near[-3:])}" if near else f"; there are {len(known)} names"
            raise InputError(f"there is no tensor named {name!r}{known_as if known else '; none is kept yet'}")
        from safetensors.torch import load_file

        return load_file(path)["tensor"]

    def names(self) -> dict[str, dict[str, Any]]:
        """What there is, by name."""
        with self._lock:
            return self._read()

    def forget(self, prefix: str) -> None:
        """Let go of all names that begin so."""
        with self._lock, self._names() as names:
            for name in [each for each in names if each.startswith(prefix)]:
                del names[name]
            self._sweep(names)

    def path(self, key: str) -> Path:
        """Where a tensor lies."""
        return self.folder / "tensors" / f"{key}.safetensors"

    # ---- the file of names

    def _read(self) -> dict[str, dict[str, Any]]:
        with suppress(OSError, ValueError):
            found = json.loads((self.folder / "names.json").read_text())
            if isinstance(found, dict):
                return found
        return {}

    @contextmanager
    def _names(self) -> Iterator[dict[str, dict[str, Any]]]:
        names = self._read()
        yield names
        write_whole(self.folder / "names.json", json.dumps(names, indent=1).encode())

    def _within_budget(self, names: dict[str, dict[str, Any]]) -> None:
        runs = sorted((name for name, each in names.items() if each["run"]), key=lambda name: -names[name]["at"])
        total = 0
        for place, name in enumerate(runs):
            total += names[name]["bytes"]
            if total > self.budget and place:
                del names[name]
        self._sweep(names)

    def _sweep(self, names: Mapping[str, Mapping[str, Any]]) -> None:
        used = {each["hash"] for each in names.values()}
        for path in (self.folder / "tensors").glob("*.safetensors"):
            if path.stem not in used:
                path.unlink(missing_ok=True)


def digest(tensor: Tensor) -> str:
    """The hash of a tensor's shape, dtype and bytes."""
    value = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{value.dtype} {tuple(value.shape)} ".encode())
    found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it finds the old or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)


def home() -> Path:
    """This notebook's folder: below `WORKBENCH_HOME`, else below the user's data folder, by the notebook's name."""
    root = os.environ.get("WORKBENCH_HOME") or os.environ.get("XDG_DATA_HOME", "~/.local/share") + "/workbench"
    notebook = os.environ.get("JPY_SESSION_NAME") or os.getcwd()
    name = "".join(each if each.isalnum() else "-" for each in Path(notebook).stem)[:40]
    return Path(root).expanduser() / "history" / f"{name}-{hashlib.sha256(notebook.encode()).hexdigest()[:8]}"


@cache
def _store_at(folder: Path) -> Store:
    return Store(folder)


def store() -> Store:
    """This notebook's store."""
    return _store_at(home())


def tensor(name: str, value: Tensor | None = None) -> Tensor:
    """A kept tensor by its name: one that was kept here, a run's (`"run 3/hidden"`), or one of a `.safetensors` file.

    Args:
        name: the name; of a file its path, and behind a `#` the tensor in it, where there are several.
        value: keep this tensor under the name first.

    Raises:
        InputError: there is none of this name.

    Example:
        >>> import torch, workbench as wb
        >>> wb.tensor("love", torch.ones(2))
        tensor([1., 1.])
        >>> wb.tensor("love").shape
        torch.Size([2])
    """
    if value is not None:
        store().keep(name, value)
        return value
    file, _, inner = name.partition("#")
    if file.endswith(".safetensors"):
        return _of_file(file, inner)
    return store().tensor(name)


def missing(name: str) -> str | None:
    """Why there is no tensor of a name; None if there is one."""
    try:
        file, _, inner = name.partition("#")
        if file.endswith(".safetensors"):
            _of_file(file, inner)
        else:
            here = store()
            if name not in here.names() or not here.path(here.names()[name]["hash"]).exists():
                here.tensor(name)
    except InputError as error:
        return str(error)
    return None


def _of_file(file: str, inner: str) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
            chosen = inner or (names[0] if len(names) == 1 else "")
            if chosen not in names:
                raise InputError(f"{file} holds {', '.join(names[:5])}; say which, as in '{file}#{names[0]}'")
            return opened.get_tensor(chosen)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read as safetensors: {error}") from error
