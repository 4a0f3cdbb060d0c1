"""The two comms against a real kernel, spoken to as JupyterLab speaks: who answers, and what is answered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextvars import copy_context
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.kernel import Comm, Kernel, Page, until
from workbench.jupyter.events import INTERVAL, Pusher
from workbench.jupyter.link import PAGES

SETUP = "import sys, time, workbench as wb\nfrom tests.tiny import gpt2\nmodel = gpt2(); module = model.module"
EXPERIMENT: dict[str, Any] = {
    "model": "model",
    "prompts": ["the cat sat on"],
    "interventions": [
        {"kind": "ablate", "id": "a", "at": {"path": "transformer.h.0.mlp", "positions": [-1]}},
        {"kind": "save", "id": "b", "at": {"path": "transformer.h.1"}, "name": "hidden"},
    ],
}
SLOW_BLOCKS = "hooks = [b.register_forward_pre_hook(lambda *a: time.sleep(0.5)) for b in module.transformer.h]"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingKernelClient]:
    with Kernel(tmp_path_factory.mktemp("ipython")) as kernel, kernel.client() as client:
        Page(client).cell(SETUP)
        yield client


@pytest.fixture
def page(client: BlockingKernelClient) -> Iterator[Page]:
    page = Page(client)
    page.result("models")
    yield page
    page.cell("[hook.remove() for hook in globals().pop('hooks', [])]; other = None")
    page.close()


def test_requests_are_answered_while_a_cell_runs(page: Page, tmp_path: Path) -> None:
    with page.busy(tmp_path / "end") as cell:
        assert [model["name"] for model in page.result("models")["models"]] == ["model"]
        assert page.result("tree", model="model")["words"][1] == "transformer"
        (tokens,) = page.result("tokens", model="model", prompts=["the cat"])["prompts"]
        assert tokens["tokens"] == ["the", "cat"]
        shapes = page.result("shapes", model="model", prompt="the cat")["shapes"]
        assert shapes["sizes"][shapes["output"][-1]] == [1, 2, 12]  # the last module is lm_head
        assert page.result("code", experiment=EXPERIMENT)["faults"] == []
        run = page.result("run", experiment=EXPERIMENT)["run"]
        assert page.ended(run)["state"] == "done"
        reply = page.ask("view", run=run, name=page.result("result", run=run)["saved"][0]["name"], kind="array")
    assert page.printed(cell) == "begun\nended\n"
    grid = reply["content"]["data"]["result"]["view"]["grid"]
    picture = np.frombuffer(reply["buffers"][grid["buffer"]], np.float32)
    assert picture.shape == (4 * 8,)
    assert np.isfinite(picture).all()


def test_replies_come_from_the_shell_that_was_asked(page: Page) -> None:
    run = page.result("run", experiment=EXPERIMENT)["run"]
    page.ended(run)
    page.cell("other = wb.NNsight(module)")  # the kernel now speaks from a cell on the other comm
    page.wait(lambda message: bool(page.told("models")))
    for method, params in (("models", {}), ("shapes", {"model": "model", "prompt": "the cat"}), ("runs", {})):
        assert page.ask(method, **params)["parent_header"]["subshell_id"] == page.rpc.subshell
    assert {message["parent_header"]["subshell_id"] for message in page.of(page.events)} == {page.events.subshell}


def test_a_page_whose_subshell_came_late_is_served_too(client: BlockingKernelClient, tmp_path: Path) -> None:
    page = Page(client, subshells=False)
    late = page.subshell()
    page.result("models")  # through the main shell
    page.rpc.subshell = late
    page.result("models")
    with page.busy(tmp_path / "end"):
        page.result("models")
    page.close()


def test_a_run_is_cancelled_while_a_cell_runs(page: Page, tmp_path: Path) -> None:
    page.result("code", experiment=EXPERIMENT)
    page.cell(SLOW_BLOCKS)
    with page.busy(tmp_path / "end"):
        run = page.result("run", experiment=EXPERIMENT)["run"]
        page.wait(lambda message: bool(page.told("progress")))
        page.result("cancel", run=run)
        assert page.ended(run)["state"] == "cancelled"
    assert page.result("result", run=run)["headline"].startswith(f"run {run} · cancelled after ")
    assert page.fault("cancel", run=run)["message"] == f"run {run} cannot be cancelled: it is cancelled"


def test_interrupting_a_cell_leaves_the_run_alone(page: Page) -> None:
    page.cell(SLOW_BLOCKS)
    cell = page.begin("time.sleep(30)")
    run = page.result("run", experiment=EXPERIMENT)["run"]
    page.wait(lambda message: bool(page.told("progress")))
    page.control("interrupt_request", {})
    page.wait(lambda message: message["msg_type"] == "error" and message["parent_header"]["msg_id"] == cell)
    assert page.ended(run)["state"] == "done"


def test_a_slow_request_does_not_hold_up_the_others(page: Page, tmp_path: Path) -> None:
    flag = tmp_path / "end"
    body = until(flag).replace("\n", "\n        ")
    page.cell(f"""
class Slow(wb.LanguageModel):
    def scanned(self, *inputs, **kwargs):
        {body}
        return super().scanned(*inputs, **kwargs)

other = Slow(module, tokenizer=model.tokenizer)
""")
    page.rpc.send({"id": "slow", "method": "shapes", "params": {"model": "other", "prompt": "the"}})
    page.result("runs")
    page.fault("cancel", run=1000)
    assert not [message for message in page.of(page.rpc) if message["content"]["data"]["id"] == "slow"]
    flag.touch()
    reply = page.wait(lambda message: message["content"].get("data", {}).get("id") == "slow")
    assert reply["content"]["data"]["result"]["how"] == "scanned"


def test_models_are_told_when_a_cell_has_changed_them(page: Page) -> None:
    page.cell("number = 3")
    page.listen(0.3)
    assert page.told("models") == []
    page.cell("other = wb.NNsight(module.transformer)")
    page.wait(lambda message: bool(page.told("models")))
    assert [model["name"] for model in page.result("models")["models"]] == ["model", "other"]
    page.cell("other = None")
    page.wait(lambda message: len(page.told("models")) == 2)


def test_errors_are_answered_in_words(page: Page) -> None:
    assert page.fault("zap")["message"].startswith("unknown request 'zap'; one of models, wrap, tree")
    assert page.fault("tree")["message"] == "model: Field required"
    assert page.fault("tree", model="nope")["message"].startswith("there is no model named 'nope' in this kernel")
    faulty = EXPERIMENT | {"prompts": ["the"]}
    faulty["interventions"] = [{"kind": "ablate", "id": "a", "at": {"path": "lm_head", "positions": [3]}}]
    assert page.fault("run", experiment=faulty) == {
        "message": "token 3 is out of range: the prompt has 1 token (0). Use −1 for the last.",
        "card": "a",
        "line": None,
        "detail": None,
        "level": "error",
    }
    unknown = EXPERIMENT | {"interventions": [{"kind": "zap", "id": "a", "at": {"path": ""}}]}
    assert page.fault("code", experiment=unknown)["message"] == (
        "experiment.interventions.0: Input tag 'zap' found using 'kind' does not match any of the expected tags: "
        "'save', 'ablate', 'set', 'scale', 'add_noise', 'steer', 'patch', 'log', 'code'"
    )
    page.listen(0.2)
    assert not [message for message in page.heard if message["msg_type"] in ("stream", "error")]


def test_requests_are_not_taken_for_cells(page: Page, tmp_path: Path) -> None:
    """IPython's post_execute closes the figures of a cell that is still drawing them, were it run for a request."""
    page.cell("seen = []; get_ipython().events.register('post_execute', note := lambda: seen.append(1))")
    with page.busy(tmp_path / "end"):
        for _ in range(3):
            page.result("models")
    assert page.cell("print(len(seen))") == "2\n"  # the two cells before
    page.cell("get_ipython().events.unregister('post_execute', note)")


def test_the_hook_after_cells_stands_only_while_a_page_listens(client: BlockingKernelClient) -> None:
    count = "print(len(get_ipython().events.callbacks['post_run_cell']))"
    page = Page(client)
    page.prints(count, "1\n")  # each comm is opened in a thread of its own, so not at once
    page.close()
    page.prints(count, "0\n")


def test_pages_that_never_said_good_bye_are_let_go(page: Page) -> None:
    reloaded = [Comm(page, "workbench.events", page.events.subshell) for _ in range(PAGES)]
    page.wait(lambda message: page.closed(page.events))
    page.cell("other = wb.NNsight(module)")
    page.wait(lambda message: bool(page.of(reloaded[-1])))
    assert not any(page.closed(comm) for comm in reloaded)
    for comm in reloaded:
        comm.close()


def test_the_life_of_a_kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Kernel(tmp_path_factory.mktemp("ipython")) as kernel:
        with kernel.client() as client:
            early = Page(client)
            early.wait(lambda message: early.closed(early.rpc) and early.closed(early.events))
            early.cell("import sys, workbench as wb")
            heavy = ("pydantic", "transformers", "workbench.jupyter.bench")
            assert early.cell(f"print([name for name in {heavy} if name in sys.modules])") == "[]\n"
            page = Page(client)
            first = page.result("models")
            assert first["models"] == []
        kernel.restart()
        with kernel.client() as client:
            Page(client).cell("import workbench")
            again = Page(client).result("models")
            assert again["models"] == []
            assert again["kernel"] != first["kernel"]


def test_events_are_gathered_to_twenty_messages_a_second() -> None:
    messages: list[tuple[float, list[dict[str, Any]]]] = []
    pusher = Pusher(lambda data: messages.append((time.monotonic(), data["events"])), copy_context())
    began = time.monotonic()
    for number in range(500):
        pusher.push({"number": number})
        time.sleep(0.001)
    time.sleep(3 * INTERVAL)
    assert [event["number"] for _, events in messages for event in events] == list(range(500))
    assert len(messages) <= (time.monotonic() - began) / INTERVAL + 1
    pauses = [later[0] - earlier[0] for earlier, later in pairwise(messages)]
    assert min(pauses) >= 0.9 * INTERVAL
    pusher.close()
    pusher.push({})
    time.sleep(2 * INTERVAL)
    assert messages[-1][1][-1] == {"number": 499}
