"""`%%trace` in a real kernel: what it computes, shows and keeps, where its errors point, what the panel hears of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from jupyter_client.blocking.client import BlockingKernelClient

import workbench as wb
from tests.kernel import Kernel, Page
from tests.tiny import gpt2
from workbench.errors import InputError
from workbench.experiment.magic_line import Given, header

SETUP = """
import re, time, torch, workbench as wb
%load_ext workbench
from tests.tiny import gpt2
model = gpt2(); module = model.module
"""
PROMPT = "the cat sat on"


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
    page.close()


def outputs(page: Page, code: str) -> list[str]:
    """What stands under a cell, in its order; an error as its traceback without colours."""
    cell = page.begin(code)
    page.wait(lambda each: _of(each, cell) and each["content"].get("execution_state") == "idle")
    return [text for message in page.heard if _of(message, cell) and (text := _text(message)) is not None]


def _of(message: dict[str, Any], cell: str) -> bool:
    return message["parent_header"].get("msg_id") == cell


def _text(message: dict[str, Any]) -> str | None:
    content = message["content"]
    match message["msg_type"]:
        case "stream":
            return content["text"]
        case "display_data" | "execute_result":
            return content["data"]["text/plain"]
        case "error":
            return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(content["traceback"]))
    return None


def newest(page: Page) -> Any:
    """The newest run of the history."""
    return page.result("result", run=page.result("runs")["runs"][0]["run"])


def logits(prompt: str = PROMPT) -> torch.Tensor:
    """What the bare model says."""
    ids = torch.tensor([gpt2().tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        return gpt2().module(ids).logits


def test_names_are_there_afterwards_and_the_last_expression_is_shown(page: Page) -> None:
    said = outputs(
        page,
        f"""%%trace model "{PROMPT}"
hidden = model.transformer.h[1].output.save()
model.lm_head.output[:, -1].argmax(-1)""",
    )
    assert said[-1] == repr(logits()[:, -1].argmax(-1))
    assert outputs(page, "hidden.shape, type(hidden.value).__name__") == ["(torch.Size([1, 4, 8]), 'Tensor')"]


def test_a_semicolon_shows_nothing_and_a_name_says_that_it_was_not_saved(page: Page) -> None:
    said = outputs(page, f'%%trace model "{PROMPT}"\nlost = model.lm_head.output\nmodel.lm_head.output.sum();')
    assert [each.split(" · ")[0][:4] for each in said] == ["run "]
    (told,) = outputs(page, "lost.value")
    assert "was not saved: write .save() behind it" in told
    assert "cell line 2: lost = model.lm_head.output" in told


def test_the_run_is_in_the_panel_with_its_sites_logs_and_values(page: Page) -> None:
    said = outputs(
        page,
        f"""%%trace model "{PROMPT}" --name silent
wb.ablate(model.transformer.h[0].mlp, positions=[-1])
hidden = model.transformer.h[1].output.save()
tracer.log("norm", hidden.norm())""",
    )
    with gpt2().trace(PROMPT):
        wb.ablate(gpt2().transformer.h[0].mlp, positions=[-1])
        hidden = gpt2().transformer.h[1].output.save()
    assert said[0] == "norm " + str(hidden.value.norm()) + "\n"
    assert " · 1 intervention · 1 value saved" in said[1]
    run = newest(page)
    assert (run["title"], run["purpose"], run["state"]) == ("silent", "trace", "done")
    assert run["headline"] == said[1].splitlines()[0]
    assert run["code"].startswith(f'%%trace model "{PROMPT}" --name silent\nwb.ablate(')
    assert run["sites"] == [
        {"path": "transformer.h.0.mlp", "port": "output", "saved": False, "changed": True},
        {"path": "transformer.h.1", "port": "output", "saved": True, "changed": False},
    ]
    (line,) = run["logs"]
    assert line["text"] == said[0].strip()
    assert line["site"] == "transformer.h.1.output"
    (saved,) = run["saved"]
    assert (saved["name"], saved["path"], saved["shape"]) == ("hidden", "transformer.h.1", [1, 4, 8])
    assert [card["kind"] for card in run["experiment"]["interventions"]] == ["ablate", "save", "code"]
    assert run["receipts"][0]["text"].startswith("fired 1×, changed 8 of 32 values")
    before, after = run["prompts"][0]["before"], run["prompts"][0]["after"]
    clean = logits()[0, -1].softmax(-1)
    assert before[0]["probability"] == pytest.approx(float(clean[before[0]["id"]]), abs=1e-6)
    assert [each["id"] for each in before] == [each["id"] for each in after]
    page.wait(lambda message: [event["line"]["text"] for event in page.told("log")][-1:] == [line["text"]])
    page.wait(lambda message: page.told("run")[-1]["summary"]["state"] == "done")
    told = [event["summary"]["run"] for event in page.told("run")]
    assert told.count(run["run"]) == 2  # begun, done
    (again,) = outputs(page, "wb.runs()[-1]")
    assert again.splitlines()[0] == run["headline"]


@pytest.mark.parametrize("option", ["", " --validate"])
def test_an_error_points_at_the_cells_own_line(page: Page, option: str) -> None:
    (told,) = outputs(
        page,
        f"""
%%trace model "{PROMPT}"{option}

fine = model.lm_head.output.save()
model.transformer.h[1].output[:, 99] = 0""",
    )
    assert "----> 5 model.transformer.h[1].output[:, 99] = 0" in told
    assert "index 99 is out of bounds for dimension 1 with size 4" in told
    assert "cell line 5: model.transformer.h[1].output[:, 99] = 0" in told
    assert "execution.py" not in told
    assert "receipt" not in told
    run = newest(page)
    assert (run["state"], run["fault"]["line"]) == (
        "failed", "cell line 5: model.transformer.h[1].output[:, 99] = 0"
    )  # fmt: skip
    assert run["fault"]["card"] == run["experiment"]["interventions"][1]["id"]


def test_an_error_of_the_body_itself_and_one_of_a_function_of_ones_own(page: Page) -> None:
    (told,) = outputs(page, f'%%trace model "{PROMPT}"\nx = 1\nnowhere + 1')
    assert "----> 3 nowhere + 1" in told
    assert "NameError: name 'nowhere' is not defined" in told
    page.cell("def broken(value):\n    return value / nothing")
    (told,) = outputs(page, f'%%trace model "{PROMPT}"\nwb.apply(broken, model.lm_head.output).save()')
    assert "----> 2     return value / nothing" in told
    assert "----> 2 wb.apply(broken, model.lm_head.output).save()" in told
    (told,) = outputs(page, f'%%trace model "{PROMPT}"\nx = 1\ny = = 2')
    assert "line 3\n" in told
    assert "SyntaxError: invalid syntax" in told


def test_what_is_wrong_with_the_line_is_said_in_a_line(page: Page) -> None:
    assert outputs(page, '%%trace modl "the cat"\n1') == ["UsageError: %%trace modl: no such model; there is model\n"]
    assert outputs(page, "%%trace module\n1")[0].startswith("UsageError: %%trace module: module is a GPT2LMHeadModel")
    assert outputs(page, "%%trace model nothing\n1") == [
        "UsageError: there is no variable 'nothing'; a prompt stands in quotes: \"nothing\"\n"
    ]
    assert "unrecognized arguments: --valid; write %%trace model" in outputs(page, '%%trace model "a" --valid\n1')[0]


def test_a_generation(page: Page) -> None:
    said = outputs(
        page,
        f"""%%trace model "{PROMPT}" --generate 3
each = wb.list().save()
with tracer.all():
    each.append(model.lm_head.output[:, -1].argmax(-1))
model.generator.output""",
    )
    ids = torch.tensor([gpt2().tokenizer(PROMPT)["input_ids"]])
    wanted: Any = gpt2().module.generate(  # pyright: ignore[reportCallIssue]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0
    )
    assert said[-1] == repr(wanted)
    assert outputs(page, "[int(step) for step in each.value]") == [repr(wanted[0, 4:].tolist())]
    assert [step["id"] for step in newest(page)["prompts"][0]["generated"]] == wanted[0, 4:].tolist()


def test_several_prompts(page: Page) -> None:
    page.cell('other = "a dog"')
    said = outputs(
        page,
        f"""%%trace model "{PROMPT}" --invoke other --invoke "the mat and"
last = model.lm_head.output[:, -1].save()
last.argmax(-1)""",
    )
    wanted = [logits(prompt)[:, -1] for prompt in (PROMPT, "a dog", "the mat and")]
    assert said[-1] == repr([each.argmax(-1) for each in wanted])
    assert outputs(page, "[each.shape[1] for each in last]") == ["[12, 12, 12]"]
    run = newest(page)
    assert run["experiment"]["prompts"] == [PROMPT, "a dog", "the mat and"]
    assert [(each["name"], each["prompt"]) for each in run["saved"]][:3] == [
        ("last_0", 0),
        ("last_1", 1),
        ("last_2", 2),
    ]
    for prompt, row in zip(run["prompts"], wanted, strict=True):
        top = prompt["after"][0]
        assert top["probability"] == pytest.approx(float(row[0].softmax(-1)[top["id"]]), abs=1e-5)


def test_inputs_of_ones_own(page: Page) -> None:
    said = outputs(page, "ids = torch.tensor([[1, 2, 3]])")
    said = outputs(page, "%%trace model ids\nmodel.output.logits[:, -1]")
    with torch.no_grad():
        wanted = gpt2().module(torch.tensor([[1, 2, 3]])).logits[:, -1]
    assert said[-1] == repr(wanted)
    page.cell("plain = wb.NNsight(torch.nn.Linear(2, 2, bias=False).requires_grad_(False)); x = torch.eye(2)")
    said = outputs(page, "%%trace plain x\nplain.output")
    assert said[-1] == outputs(page, "plain.module.weight.T.contiguous()")[0].replace("Parameter containing:\n", "")
    assert newest(page)["prompts"] == []


def test_a_seed_makes_chance_the_same_and_leaves_the_kernels_own_alone(page: Page) -> None:
    cell = f'%%trace model "{PROMPT}" --seed 7\n(torch.randn(3) + model.lm_head.output.sum() * 0).tolist()'
    page.cell("state = torch.get_rng_state()")
    one, two = outputs(page, cell)[-1], outputs(page, cell)[-1]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        wanted = torch.randn(3).tolist()
    assert one == two == repr(wanted)
    assert outputs(page, "bool((torch.get_rng_state() == state).all())") == ["True"]


def test_the_panel_cancels_a_cells_run(page: Page) -> None:
    page.cell("hooks = [b.register_forward_pre_hook(lambda *a: time.sleep(0.5)) for b in module.transformer.h]")
    cell = page.begin(f'%%trace model "{PROMPT}"\nmodel.lm_head.output')
    page.wait(lambda message: any(each["summary"]["state"] == "running" for each in page.told("run")))
    run = page.told("run")[-1]["summary"]["run"]
    page.listen(0.2)
    page.result("cancel", run=run)
    error = page.wait(lambda message: _of(message, cell) and message["msg_type"] == "error")
    assert error["content"]["ename"] == "KeyboardInterrupt"
    assert error["content"]["evalue"] == f"run {run} was cancelled in the panel"
    assert page.ended(run)["state"] == "cancelled"
    page.cell("[hook.remove() for hook in hooks]")
    assert outputs(page, f'%%trace model "{PROMPT}"\nmodel.lm_head.output.shape')[-1] == "torch.Size([1, 4, 12])"
    names = "[each for each in globals() if re.fullmatch('__(end|keep|ended|options|before|after|input_.)__', each)]"
    assert outputs(page, names) == ["[]"]


def test_completion_is_that_of_any_cell(page: Page) -> None:
    for code in ("model.transf", "model.tra", "gpt"):
        found = [completed(page, first + code) for first in ("", f'%%trace model "{PROMPT}"\n')]
        assert found[0] == found[1] != []
    assert "model.transformer" in completed(page, f'%%trace model "{PROMPT}"\nx = model.transf')


def completed(page: Page, code: str) -> list[str]:
    """What completion offers, as it would stand in the cell."""
    client: Any = page.client
    content = client.complete(code, len(code), reply=True, timeout=60)["content"]
    start = code[: content["cursor_start"]].rpartition("\n")[2]
    return sorted(start.rpartition(" ")[2] + match for match in content["matches"])


def test_a_cell_lifts_to_cards_with_a_variable_as_prompt(page: Page) -> None:
    page.cell('question = "the dog"')
    found = page.result("lift", text="%%trace model question\nwb.scale(model.transformer.h[0], 2)\nx = 1")
    assert found["experiment"]["prompts"] == ["the dog"]
    assert found["text"] == "2 cards, 1 of them code"


# ---- the line alone


def test_the_words_of_the_line() -> None:
    found = header('m "--validate" --invoke other --invoke \'it"s\' --generate 2 --name "a run" --validate --seed 3')
    assert found.inputs == (Given("--validate", True), Given("other", False), Given('it"s', True))
    assert (found.model, found.generate, found.validate, found.remote) == ("m", 2, True, False)
    assert (found.name, found.seed) == ("a run", 3)
    assert found.settings({"other": "yes"})["prompts"] == ("--validate", "yes", 'it"s')


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('m "open', '" is not closed'),
        ("m --generate many", "invalid int value"),
        ("m --generate -1", "how many new tokens, 0 or more"),
        ("", "the following arguments are required: model"),
    ],
)
def test_a_line_that_cannot_be_read(line: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        header(line)
