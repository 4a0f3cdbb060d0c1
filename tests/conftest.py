"""What all tests share: one thread each, and after a run the families' table, which family passed which check."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the tests share the cores, their servers and kernels too

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job begins deaf to interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.families import FAMILIES, LACKS

CHECKS = {
    "test_every_family_opens_from_its_folder": "open",
    "test_a_scan_is_what_a_real_pass_shows_and_leaving_blocks_out_changes_nothing": "scan",
    "test_a_trace_reads_what_plain_hooks_read": "trace",
    "test_each_invoke_has_what_it_has_alone": "batch",
    "test_each_prompt_of_a_list_has_what_it_has_alone": "list",
    "test_ablating_in_one_invoke": "ablate",
    "test_patching_between_invokes": "patch",
    "test_gradients_are_autograds_own": "grad",
    "test_edits_and_gradients_stay_in_their_invoke": "grads",
    "test_tokens_are_those_of_the_bare_model": "generate",
    "test_edits_at_one_step_some_steps_every_step": "steps",
    "test_each_invoke_generates_what_it_generates_alone": "many",
    "test_the_residual_stream_is_transformers_hidden_states": "stream",
    "test_a_head_is_silenced": "heads",
    "test_patterns_are_transformers_attentions_and_are_written": "pattern",
    "test_attention_is_made_of_queries_keys_and_values": "q, k, v",
    "test_neurons": "neurons",
    "test_the_lens_is_norm_and_unembedding_of_each_hidden_state": "lens",
}
"""Tests that are made for each family, and what they are called in the table."""

_MARKS = {"passed": "yes", "failed": "NO", "skipped": "?"}


_HOME = tempfile.TemporaryDirectory(prefix="workbench-")
os.environ["WORKBENCH_HOME"] = _HOME.name  # what is started in another process keeps its history there too


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a history of its own."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table, if all its checks were run."""
    marks: dict[tuple[str, str], str] = {}
    for outcome, mark in _MARKS.items():
        for report in terminalreporter.stats.get(outcome, ()):
            found = re.search(r"::(\w+)\[(\w+)(?:-\w+)?\]$", getattr(report, "nodeid", ""))
            if found and found[1] in CHECKS and found[2] in FAMILIES:
                cell = found[2], CHECKS[found[1]]
                if marks.get(cell) != "NO":
                    marks[cell] = mark
    if {check for _, check in marks} != {*CHECKS.values()}:
        return
    for number, (families, checks, _) in enumerate(LACKS, 1):
        for family in families:
            for check in checks:
                marks.setdefault((family, check), f"– {number}")
    terminalreporter.write_line(f"{'family':<9}" + "".join(f"{check:>9}" for check in CHECKS.values()))
    for family in FAMILIES:
        row = "".join(f"{marks.get((family, check), '??'):>9}" for check in CHECKS.values())
        terminalreporter.write_line(f"{family:<9}{row}")
    for number, (families, _, why) in enumerate(LACKS, 1):
        terminalreporter.write_line(f"– {number}: {' and '.join(families)} {why}")
