"""What the docstrings promise: every example is run, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import workbench as wb

MODULES = [
    each.name
    for each in pkgutil.walk_packages(wb.__path__, "workbench.")
    if ".demo" not in each.name and "einops_backend" not in each.name
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    module = importlib.import_module(name)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said)


PUBLIC = [name for name in wb.__all__ if name != "errors"]
METHODS = {
    "NNsight": ["trace", "scan", "session", "edit", "clear_edits", "save_edits", "load_edits", "to", "cpu", "cuda"],
    "LanguageModel": ["generate", "tokens"],
    "Envoy": ["output", "input", "inputs", "source", "skip", "next", "all", "walk", "find", "path", "children"],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example(name: str) -> None:
    thing: Any = getattr(wb, name)
    text = inspect.getdoc(thing) or ""
    assert ">>> " in text, name


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in METHODS.items() for name in names])
def test_public_methods_say_what_they_do(kind: str, name: str) -> None:
    text = inspect.getdoc(inspect.getattr_static(getattr(wb, kind), name)) or ""
    assert text, name
    assert len(text.splitlines()[0]) > 15
