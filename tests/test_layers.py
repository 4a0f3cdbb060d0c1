"""The floors of ARCHITECTURE.md, held: who may import whom, read from the source; and what `import workbench` costs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workbench"

# Bottom first. A floor has rooms side by side, a room is one module or several that belong together; a module imports
# from lower floors and from its own room. On the top floor are the doors: what is opened from outside.
FLOORS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("errors",), ("site",), ("interrupt",)),
    (("graph",), ("subscript",)),
    (("recorder", "proxy", "functions"), ("numerics",)),
    (("engine", "inside"),),
    (("envoy", "source"),),
    (("tracing",),),
    (("models",),),
    (("interventions",), ("lens",), ("measures",), ("store",)),
    (("experiment",),),
    (("views",),),
    (("remote",),),
    (("jupyter",), ("server",)),
    (("cli",),),
)
FLOOR = {name: number for number, floor in enumerate(FLOORS) for room in floor for name in room}
ROOM = {name: room[0] for floor in FLOORS for room in floor for name in room}

# Upward imports that are meant, each inside a function, and why.
DOORS = {
    ("workbench.experiment.namespace", "workbench"): "an experiment's Python calls the public names, as `wb`",
    ("workbench.experiment.kinds", "workbench.jupyter.interact"): "sliders are the notebook's",
    ("workbench.views.view", "workbench.jupyter.widget"): "marimo shows a view as a widget",
}

HEAVY = ("transformers", "fastapi", "ray", "plotly", "IPython", "ipykernel", "ipywidgets", "anywidget", "jupyterlab")


@dataclass(frozen=True)
class Import:
    """One import: by whom, of what, on which line, and whether it happens when the module is loaded."""

    by: str
    of: str
    line: int
    at_load: bool


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


def imports_of(name: str, source: str) -> list[Import]:
    """What a module takes from this package, also inside functions; what only a type checker reads is left out."""
    found: list[Import] = []

    def visit(node: ast.AST, at_load: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                visit(child, at_load)
            return
        found.extend(Import(name, of, node.lineno, at_load) for of in targets(node, name) if is_ours(of))  # type: ignore[attr-defined]
        inside = at_load and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), True)
    return found


def targets(node: ast.AST, by: str) -> Iterator[str]:
    """The modules that a statement or a call in the module `by` imports."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(names=names):
            module = absolute(node, by)
            for alias in names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else module
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
            match node.args[0]:
                case ast.Constant(value=str(module)):
                    yield module


def absolute(node: ast.ImportFrom, by: str) -> str:
    """The module that `from …` names, also where it is named from where it stands."""
    named = node.module or ""
    if not node.level:
        return named
    is_package = by in MODULES and MODULES[by].name == "__init__.py"
    above = by.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
    return ".".join([*above, *([named] if named else [])])


def is_ours(module: str) -> bool:
    return module == "workbench" or module.startswith("workbench.")


def part(module: str) -> str:
    """`graph` of `workbench.graph.node`; empty for the package itself, which stands above all floors."""
    return module.partition(".")[2].partition(".")[0]


def fault(found: Import) -> str | None:
    """Why an import is not allowed, in words; None when it is."""
    by, of = part(found.by), part(found.of)
    if not by or (not found.at_load and (found.by, found.of) in DOORS):
        return None
    where = f"{found.by}, line {found.line}: imports {found.of}"
    if of and of not in FLOOR:
        return f"{where}, which has no floor"
    if of and (ROOM[of] == ROOM[by] or FLOOR[of] < FLOOR[by]):
        return None
    return f"{where}; only from below floor {FLOOR[by]} or its own room"


ALL = [found for name, path in MODULES.items() for found in imports_of(name, path.read_text())]


def test_every_module_has_a_floor() -> None:
    assert {part(name) for name in MODULES} - {""} <= set(FLOOR)


def test_imports_go_down() -> None:
    assert [words for found in ALL if (words := fault(found))] == []


def test_every_door_is_still_needed() -> None:
    assert {(found.by, found.of) for found in ALL} >= set(DOORS)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {found.of for found in ALL if found.by == name and found.at_load} for name in MODULES if part(name)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("by", "source", "words"),
    [
        ("graph.node", "from workbench.site import Site", None),
        ("graph.node", "from workbench.graph import operations", None),
        ("proxy", "from workbench.recorder import Recorder", None),
        (
            "graph.node",
            "from workbench.engine.plan import plan",
            "imports workbench.engine.plan; only from below floor 1",
        ),
        ("graph.node", "def f():\n    from workbench import envoy", "line 2: imports workbench.envoy;"),
        (
            "graph.node",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from workbench.envoy import Envoy",
            None,
        ),
        ("errors", "import workbench.site", "imports workbench.site;"),
        ("engine.plan", "import workbench", "imports workbench;"),
        ("engine.plan", "from workbench import NNsight", "imports workbench;"),
        (
            "jupyter.bench",
            "from workbench.server.app import app",
            "imports workbench.server.app; only from below floor 11",
        ),
        (
            "views.tokens",
            "import importlib\nimportlib.import_module('workbench.jupyter')",
            "imports workbench.jupyter;",
        ),
        ("views.tokens", "from workbench.elsewhere import x", "imports workbench.elsewhere, which has no floor"),
        ("views.tokens", "from . import heatmap", None),
        ("views.tokens", "from .heatmap import Heatmap", None),
        ("views.tokens", "from ..jupyter.bench import Bench", "imports workbench.jupyter.bench;"),
        ("views", "from .tokens import best", None),
        ("views", "from .. import jupyter", "imports workbench.jupyter;"),
        ("views.tokens", "import torch\nfrom os import path", None),
    ],
)
def test_what_is_allowed(by: str, source: str, words: str | None) -> None:
    faults = [fault(found) for found in imports_of(f"workbench.{by}", source)]
    assert any(words in (said or "") for said in faults) if words else not any(faults)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_first_what_it_is_for(name: str) -> None:
    said = ast.get_docstring(ast.parse(MODULES[name].read_text()))
    assert said, f"{name} opens without a docstring"
    assert said.splitlines()[0].rstrip().endswith((".", ":")), f"{name} does not open with a sentence: {said!r}"


def test_importing_workbench_is_quick_and_loads_nothing_heavy() -> None:
    program = (
        "import json, sys, time, torch; start = time.process_time(); import workbench;"
        "print(json.dumps([time.process_time() - start, sorted(sys.modules)]))"
    )
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert min(seconds for seconds, _ in runs) <= 0.3
    assert set(runs[0][1]).isdisjoint(HEAVY)
