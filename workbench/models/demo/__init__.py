"""Two small language models that ship with the package, and the script that trained them."""

from __future__ import annotations

from pathlib import Path

NAMES = ("gpt2", "llama")


def folder(name: str) -> Path:
    """The Hugging Face folder of a demo model, `"gpt2"` or `"llama"`.

    Raises ValueError for any other name.
    """
    if name not in NAMES:
        raise ValueError(f"there is no demo model {name!r}; one of {', '.join(NAMES)}")
    return Path(__file__).parent / name


__all__ = ["NAMES", "folder"]
