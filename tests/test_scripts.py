"""What stands behind the Makefile: steps that are done once, and words for what is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import needs, setup, steps

ROOT = Path(__file__).parents[1]


@pytest.fixture
def stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.make` of the test's own."""
    monkeypatch.setattr(steps, "STAMPS", tmp_path / ".make")
    return tmp_path / ".make"


@pytest.mark.usefixtures("stamps")
def test_a_step_is_done_again_only_when_what_it_depends_on_changed_or_what_it_gave_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gives = tmp_path / "built"
    assert steps.step("panel", "the panel", gives.touch, of="a", gives=gives)
    assert not steps.step("panel", "the panel", gives.touch, of="a", gives=gives)
    assert steps.step("panel", "the panel", gives.touch, of="b", gives=gives)
    gives.unlink()
    assert steps.step("panel", "the panel", gives.touch, of="b", gives=gives)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "the panel: up to date"
    assert [bool(re.fullmatch(r"the panel \.\.\. \d+\.\d s", line)) for line in lines] == [True, False, True, True]


@pytest.mark.usefixtures("stamps")
def test_a_step_that_failed_is_done_again() -> None:
    def fails() -> None:
        steps.run("broken", sys.executable, "-c", "print('said before'); raise SystemExit(3)", hint="Do this.")

    with pytest.raises(steps.Failure, match=r"(?s)said before.*exit status 3.*broken\.log\nDo this\.$"):
        steps.step("broken", "a step", fails, of="a")
    assert steps.step("broken", "a step", lambda: None, of="a")


def test_a_fingerprint_sees_contents_and_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(steps, "ROOT", tmp_path)
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "a.ts").write_text("one")
    before = steps.fingerprint(tmp_path / "sources")
    assert steps.fingerprint(tmp_path / "sources") == before
    (tmp_path / "sources" / "lib").mkdir()
    (tmp_path / "sources" / "lib" / "a.js").write_text("built")
    assert steps.fingerprint(tmp_path / "sources") == before
    (tmp_path / "sources" / "a.ts").rename(tmp_path / "sources" / "b.ts")
    after = steps.fingerprint(tmp_path / "sources")
    assert after != before
    (tmp_path / "sources" / "b.ts").write_text("two")
    assert steps.fingerprint(tmp_path / "sources") != after


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("20.0.0", None),
        ("22.1.0", None),
        ("18.20.1", "needs Node 20 or newer to build its panel; this machine has 18.20.1"),
        (None, "this machine has none"),
    ],
)
def test_what_is_too_old_is_said_with_the_cure(found: str | None, words: str | None) -> None:
    said = needs.too_old("Node", found, 20)
    if words is None:
        assert said is None
    else:
        assert said is not None
        assert words in said
        assert "https://nodejs.org" in said


def test_without_a_new_enough_python_the_words_say_where_to_get_one() -> None:
    settings = os.environ | {"PYTHON": "/no/such/python"}
    command = ["sh", str(ROOT / "scripts" / "run.sh"), "lab"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer; /no/such/python is not there" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_the_tested_versions_are_pinned_and_name_no_place() -> None:
    lines = [line for line in setup.CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


def test_the_lock_file_and_npm_settings_name_no_host() -> None:
    for name in ("package-lock.json", ".npmrc"):
        assert "resolved" not in re.sub("omit-lockfile-registry-resolved", "", (ROOT / name).read_text())
