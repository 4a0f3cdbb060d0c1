"""One step at a time: says what it does in one line with its seconds, and skips what was done for the same content."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv"
STAMPS = ROOT / ".make"
PYTHON = VENV / "bin" / "python"
TAIL = 40  # lines of a failed command that are shown; the whole is in its log


class Failure(Exception):
    """Something is missing or went wrong; the message is for a person and says what to do."""


def say(words: str, end: str = "\n") -> None:
    """A line for the person at the terminal, at once also where the output is a file."""
    print(words, end=end, flush=True)


def step(name: str, doing: str, work: Callable[[], None], of: str | None = None, gives: Path | None = None) -> bool:
    """Does `work` unless it was done for the same `of`, with `gives` still there; returns whether it was done now.

    Without `of` it is done each time.
    """
    stamp = STAMPS / name
    if of is not None and stamp.exists() and stamp.read_text() == of and (gives is None or gives.exists()):
        say(f"{doing}: up to date")
        return False
    stamp.unlink(missing_ok=True)
    say(f"{doing} ... ", end="")
    start = time.monotonic()
    try:
        work()
    except BaseException:
        say("failed")
        raise
    say(f"{time.monotonic() - start:.1f} s")
    if of is not None:
        STAMPS.mkdir(exist_ok=True)
        stamp.write_text(of)
    return True


def fingerprint(*of: str | Path) -> str:
    """One hash of words, of files' contents, and of all files under folders."""
    digest = hashlib.sha256()
    for item in of:
        for part in files(item) if isinstance(item, Path) else [item]:
            label, content = (str(part.relative_to(ROOT)), part.read_bytes()) if isinstance(part, Path) else ("", part)
            digest.update(f"{label}\0".encode())
            digest.update(content.encode() if isinstance(content, str) else content)
    return digest.hexdigest()


def files(place: Path) -> Iterable[Path]:
    """The file itself, or what is in the folder in a fixed order; nothing where there is neither."""
    if place.is_dir():
        return sorted(
            path for path in place.rglob("*") if path.is_file() and not {"lib", "node_modules"} & {*path.parts}
        )
    return [place] if place.exists() else []


def run(name: str, *command: str | Path, hint: str = "") -> None:
    """Runs a command quietly, its words in `.make/<name>.log`; a Failure shows the end of them, and the hint."""
    STAMPS.mkdir(exist_ok=True)
    log = STAMPS / f"{name}.log"
    with log.open("wb") as out:
        words = [str(word) for word in command]
        try:
            status = subprocess.call(
                words, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        except OSError as error:
            raise Failure(f"{words[0]}: {error.strerror}") from error
    if status:
        tail = "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-TAIL:])
        told = f"\n{hint}" if hint else ""
        raise Failure(f"{tail}\n{' '.join(words[:6])}: exit status {status}; all of it is in {log}{told}")


def environment() -> dict[str, str]:
    """What every command sees: the environment's programs come before others.

    In an environment that is a link nothing is installed from here: package and panel are found by their paths.
    """
    own = {
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "VIRTUAL_ENV": str(VENV),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }
    if VENV.is_symlink():
        own |= {"PYTHONPATH": str(ROOT), "JUPYTER_PATH": str(STAMPS / "share")}
    return {key: value for key, value in os.environ.items() if key != "PYTHONHOME"} | own
