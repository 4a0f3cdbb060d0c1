"""All that says whether the checkout is right: each check in one line, the words of those that fail, a summary."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass, field

from scripts.steps import PYTHON, ROOT, Failure, environment, run, say


@dataclass(frozen=True)
class Check:
    """A command that must end well; a `live` one shows its words as they come."""

    name: str
    command: tuple[str, ...]
    live: bool = False
    settings: dict[str, str] = field(default_factory=dict)


def python(name: str, *words: str, live: bool = False, **settings: str) -> Check:
    """A check that is a Python module."""
    return Check(name, (str(PYTHON), "-m", *words), live, settings)


QUICK = (
    python("ruff, rules", "ruff", "check", "."),
    python("ruff, format", "ruff", "format", "--check", "."),
    python("pyright", "pyright"),
    Check("tsc --strict", ("npm", "run", "check")),
    Check("generated types", ("npm", "run", "types:check")),
    python(
        "unit tests",
        *("pytest", "tests", "--ignore=tests/browser", "--ignore=tests/long", "-n", "auto", "--dist", "loadfile"),
        live=True,
    ),
)
SLOW = (
    # Without progress bars: whether one is shown is a question of how busy the machine is.
    python("notebooks", "pytest", "--nbval", "--nbval-current-env", "notebooks", live=True, TQDM_DISABLE="1"),
    # Tried twice: a real browser on a busy machine. What passed only the second time is named (R).
    python("browser tests", "pytest", "tests/browser", "--reruns", "1", "-rR", live=True),
)
OF = {
    "check": QUICK,
    "test": (*QUICK, *SLOW),
    "format": (python("ruff, rules", "ruff", "check", "--fix", "."), python("ruff, format", "ruff", "format", ".")),
    "bench": (
        python("bench", "scripts.bench", live=True),
        python("engine bench", "scripts.bench_engine", live=True),
        python("language bench", "scripts.bench_language", live=True),
        python("remote bench", "scripts.bench_remote", live=True),
        python(
            "the tree of 60,000 modules, views of four million numbers",
            *("pytest", "tests/browser/test_large.py", "tests/browser/test_views.py", "-q", "-s"),
            live=True,
            WORKBENCH_BENCH="1",
        ),
    ),
    "soak": (python("soak", "scripts.soak", live=True), python("long tests", "pytest", "tests/long", live=True)),
    "types": (Check("types", ("npm", "run", "types")),),
    "picture": (
        python(
            "pictures",
            *("pytest", *(f"tests/browser/test_{each}.py" for each in ("make_lab", "cards", "code", "runs"))),
            live=True,
            WORKBENCH_PICTURE="1",
        ),
    ),
}


def run_all(what: str) -> int:
    """Runs every check of `what`, also after one failed; the exit status is 0 when all ended well."""
    start = time.monotonic()
    failed = [check.name for check in OF[what] if not passes(check)]
    took = f"{time.monotonic() - start:.0f} s"
    say(f"make {what}: failed: {'; '.join(failed)} ({took})" if failed else f"make {what}: all well ({took})")
    return 1 if failed else 0


def passes(check: Check) -> bool:
    """Runs one and says how it ended and how long it took."""
    say(f"{check.name}:" if check.live else f"{check.name} ... ", end="\n" if check.live else "")
    start = time.monotonic()
    words = ""
    if check.live:
        settings = environment() | check.settings
        well = subprocess.call(check.command, cwd=ROOT, env=settings, stdin=subprocess.DEVNULL) == 0
    else:
        try:
            run(re.sub(r"\W+", "-", check.name), *check.command)
            well = True
        except Failure as failure:
            well, words = False, f"\n{failure}"
    again = f"{check.name}: " if check.live else ""
    say(f"{again}{'ok' if well else 'failed'}, {time.monotonic() - start:.1f} s{words}")
    return well
