"""`remote=True`, and nothing else changes: run against a real server, beside the same run here."""

from __future__ import annotations

import warnings
from typing import Any

import httpx
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import workbench as wb
from tests.remotes import PROMPT, same
from tests.remotes import _asked as _asked  # the fixtures
from tests.remotes import _no_weights as _no_weights
from tests.remotes import away as away
from tests.remotes import here as here
from tests.remotes import llama as llama
from tests.remotes import server as server
from tests.serving import GPT2, Serving
from workbench import errors, remote
from workbench.experiment.cell import Cell
from workbench.jupyter.bench import Bench
from workbench.remote.connection import connection
from workbench.views.tokens import best

# ---- traces


def test_a_trace(away: Any, here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.trace(PROMPT, remote=where) as tracer:
            model.transformer.h[1].mlp.output[:, -1] = 0
            hidden = model.transformer.h[2].output.save()
            logits = model.lm_head.output[:, -1].save()
            best = logits.argmax(-1).save()
            tracer.log("best:", best)
        found.append((hidden, logits, best, tracer.logs))
    for one, other in zip(*found, strict=True):
        same(one, other)
    printed = [line.partition(" - ")[2] for line in capsys.readouterr().out.splitlines() if " - " in line]
    assert [line.partition(":")[0] for line in printed] == ["RECEIVED", "APPROVED", "QUEUED", "RUNNING", "COMPLETED"]


def test_what_a_model_returns(away: Any, here: Any) -> None:
    there = away.trace(PROMPT, trace=False, remote=True)
    near = here.trace(PROMPT, trace=False)
    assert type(there) is type(near)
    same(there.logits, near.logits)
    same(there["logits"], near["logits"])
    assert len(there.past_key_values) == len(near.past_key_values)


def test_an_address_instead_of_true(away: Any, server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOST", "http://127.0.0.1:9")
    with away.trace(PROMPT, remote=server.host):
        logits = away.lm_head.output.save()
    assert logits.shape[-1] == away.module.config.vocab_size


def test_several_invokes_and_constants_of_earlier_runs(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.trace("The Colosseum is in the city of", remote=where):
            clean = model.transformer.h[3].output[:, -1].save()
        with model.trace(remote=where) as tracer:
            with tracer.invoke(PROMPT):
                model.transformer.h[3].output[:, -1] = clean
                patched = model.lm_head.output[:, -1].save()
            with tracer.invoke("The Great Wall is in"):
                other = model.lm_head.output[:, -1].save()
        found.append((clean, patched, other))
    for one, other in zip(*found, strict=True):
        same(one, other)


def test_a_generation_and_its_steps(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.generate(PROMPT, max_new_tokens=3, remote=where) as tracer:
            steps = wb.list().save()
            with tracer.all():
                steps.append(model.lm_head.output[0, -1].argmax(-1))
            tokens = model.generator.output.save()
        found.append((tokens, steps))
    same(found[0][0], found[1][0])
    assert [int(each) for each in found[0][1]] == [int(each) for each in found[1][1]]


def test_gradients(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.trace(PROMPT, remote=where):
            grad = model.transformer.h[1].output.grad.save()
            model.lm_head.output[:, -1].sum().backward()
        found.append(grad)
    same(*found)


def test_edits_travel_with_each_trace(away: Any, here: Any) -> None:
    found = []
    for model, where in ((away, True), (here, False)):
        with model.edit(remote=where) as edited:
            model.transformer.h[0].output[:] = 0
        found.append(edited.trace(PROMPT, trace=False, remote=where).logits)
    same(*found)


def test_a_scan_asks_nobody(away: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOST", "http://127.0.0.1:9")
    with away.scan(PROMPT, remote=True):
        assert away.lm_head.output.shape == (1, 8, away.module.config.vocab_size)
    with pytest.raises(errors.RemoteError), away.trace(PROMPT, remote=True):
        assert away.lm_head.output.shape[1] == 8


def test_a_function_of_the_operators(away: Any, here: Any) -> None:
    halved = remote.function("halved")
    with away.trace(PROMPT, remote=True):
        quarter = halved(away.lm_head.output[:, -1], by=4).save()
    with here.trace(PROMPT):
        whole = here.lm_head.output[:, -1].save()
    same(quarter.value, whole.value / 4)


# ---- errors


def test_an_error_of_the_run_comes_home_with_the_users_line(away: Any, here: Any) -> None:
    said = []
    for model, where in ((away, True), (here, False)):
        late: Any = None
        with pytest.raises(IndexError) as caught:
            with model.trace(PROMPT, remote=where):
                late = model.lm_head.output[:, 99].save()
        said.append(caught.value)
        assert isinstance(caught.value, errors.NodeError)
        assert "the run ended in IndexError" in repr(late)
    strip = [str(each).replace("line ", "").translate(str.maketrans("", "", "0123456789")) for each in said]
    assert strip[0] == strip[1]
    assert said[0].line is not None
    assert said[0].line.startswith("test_remote.py line ")
    assert "late = model.lm_head.output[:, 99].save()" in said[0].line


def test_what_was_not_reached_says_why(away: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.NeverReachedWarning)
        with away.trace(PROMPT, remote=True):
            early = away.transformer.h[0].output.save()
            early.stop()
            late = away.transformer.h[3].output.save()
    assert early.shape[1] == 8
    with pytest.raises(errors.NotSetError, match=r"the run was stopped by \.stop\(\)"):
        _ = late.value


def test_what_did_nothing_is_told_at_the_users_line(away: Any) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with away.generate(PROMPT, max_new_tokens=2, remote=True) as tracer:
            with tracer.iter[5:7]:
                away.transformer.h[3].output[:] = 0
    assert [(each.category, each.filename) for each in told] == [(errors.NeverReachedWarning, __file__)]
    assert "transformer.h.3.output was never reached, so this did nothing" in str(told[0].message)
    assert "generation ended after 2 steps" in str(told[0].message)


def test_what_cannot_travel_is_refused_on_its_line(away: Any) -> None:
    reached = []
    with pytest.raises(errors.WireError, match=r"<lambda> is not torch's, and cannot travel") as caught:
        with away.trace(PROMPT, remote=True):
            wb.apply(lambda x: x, away.lm_head.output)
            reached.append(1)
    assert not reached
    assert caught.value.line is not None
    assert "wb.apply(lambda x: x, away.lm_head.output)" in caught.value.line
    assert "Write it with torch functions" in str(caught.value)
    with open(__file__) as file:
        words = (
            r"TextIOWrapper cannot travel \(test_remote.py line \d+: session.log\(file\)\). What travels are tensors"
        )
        with pytest.raises(errors.WireError, match=words):
            with away.session(remote=True) as session:
                session.log(file)
                reached.append(2)
    with pytest.raises(errors.WireError, match="<lambda>"):
        with away.edit(remote=True):
            wb.apply(lambda x: x, away.lm_head.output)
    assert not reached


@pytest.mark.parametrize("validate", [False, True])
def test_in_a_session_each_line_is_refused_by_itself_also_behind_and_inside_a_pass(away: Any, validate: bool) -> None:
    reached = []
    with pytest.raises(errors.WireError, match="<lambda>"):
        with away.session(remote=True) as session:
            with session.iter([1, 2]):
                with away.trace(PROMPT):
                    total = away.lm_head.output.sum()
                reached.append("behind the pass")
                wb.apply(lambda x: x, total)
                reached.append("never")
    with pytest.raises(errors.WireError, match="<lambda>"):
        with away.session(remote=True):
            with away.trace(PROMPT):
                pass
            with away.trace(PROMPT, validate=validate):
                reached.append("in the second pass")
                wb.apply(lambda x: x, away.lm_head.output)
                reached.append("never")
    assert reached == ["behind the pass", "in the second pass"]


def test_a_model_of_ones_own_has_no_name_there() -> None:
    own = wb.NNsight(nn.Linear(2, 2))
    with pytest.raises(errors.InputError, match="a server finds its models by name, and this Linear was not opened"):
        with own.trace(torch.ones(1, 2), remote=True):
            own.output.save()


def test_a_module_attached_here_is_not_there(here: Any, away: Any) -> None:
    model = wb.LanguageModel(GPT2)
    model.transformer.h[0].probe = nn.Linear(128, 2)
    with pytest.raises(errors.WireError, match=r"transformer\.h\.0\.probe was attached here, and the server's model"):
        with model.trace(PROMPT, remote=True):
            model.transformer.h[0].probe(model.transformer.h[0].output)


def test_a_page_of_another_site_is_not_let_in_where_there_are_no_keys(server: Serving) -> None:
    for headers, status in (
        ({}, 200),
        ({"Origin": server.host}, 200),
        ({"Host": f"localhost:{server.port}"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Origin": "https://other.example"}, 403),
    ):
        answer = httpx.get(f"{server.host}/v1/jobs", headers=headers, trust_env=False)
        assert answer.status_code == status, headers
        if status == 403:
            assert "without keys this server answers this machine alone" in answer.json()["error"]


def test_no_server(away: Any) -> None:
    with pytest.raises(errors.RemoteError, match=r"no server answers at http://127\.0\.0\.1:9"):
        with away.trace(PROMPT, remote="127.0.0.1:9"):
            away.lm_head.output.save()


# ---- sessions


def test_a_session_over_two_models(away: Any, llama: Any) -> None:
    with away.session(remote=True) as session:
        with away.trace(PROMPT):
            first = away.lm_head.output[:, -1].argmax(-1)
        with llama.trace(PROMPT):
            second = llama.lm_head.output[:, -1].argmax(-1).save()
            stacked: Any = torch.stack([first, second])
            both = stacked.save()
        session.log(both)
    assert [away.tokenizer.decode(id) for id in both.value] == [" Paris", " Paris"]
    job = session.job
    assert [event.status for event in job.events()].count("QUEUED") == 1  # and not for each trace
    assert len(connection().fetch(job.id)) < 2000  # two ids and a stack of them; no hidden state, no logits
    with pytest.raises(errors.NotSetError, match="was not saved"):
        _ = first.value


def test_a_loop_that_is_left(away: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with away.session(remote=True) as session:
        with session.iter([0, 1, 2, 3], return_context=True) as (item, iterator):
            iterator.log(item)
            with iterator.cond(item == 2):
                iterator.exit()
    assert session.logs == ["0", "1", "2"]
    assert [line for line in capsys.readouterr().out.splitlines() if " - " not in line] == ["0", "1", "2"]
    with away.session(remote=True) as session:
        session.log("-- Early Stop --")
        session.exit()
    assert session.logs == ["-- Early Stop --"]


def test_lists_and_nested_loops(away: Any) -> None:
    with away.session(remote=True) as session:
        numbers = wb.list()
        for number in range(3):
            numbers.append([number])
        flat = wb.list().save()
        with session.iter(numbers) as item:
            with session.iter(item) as inner:
                flat.append(inner)
    assert flat.value == [0, 1, 2]


class LORA(nn.Module):
    """As a person writes it: what is made inside a session is made where it runs."""

    def __init__(self, module: wb.Envoy, dim: int, r: int) -> None:
        super().__init__()
        self.module = module
        self.WA: Any = nn.Parameter(torch.randn(dim, r), requires_grad=True).save()  # type: ignore[attr-defined]
        self.WB: Any = nn.Parameter(torch.zeros(r, dim), requires_grad=True).save()  # type: ignore[attr-defined]

    def __call__(self, alpha: float = 1.0) -> None:
        added = torch.matmul(torch.matmul(self.module.input, self.WA), self.WB)
        self.module.output = (added + self.module.output) * alpha

    def parameters(self) -> Any:  # type: ignore[override]
        return [self.WA, self.WB]


def test_a_lora_is_trained_there_and_used(llama: Any) -> None:
    answer = llama.tokenizer.encode(" Paris")[-1]
    module = llama.model.layers[-1].mlp
    with llama.scan(" "):
        width = module.output.shape[-1]
    with llama.session(remote=True) as session:
        loader = DataLoader([["_", answer]] * 100, batch_size=10)  # type: ignore[arg-type]
        lora = LORA(module, width, 4)
        optimizer = torch.optim.AdamW(lora.parameters(), lr=3)
        with session.iter(loader, return_context=True) as (batch, iterator):
            with llama.trace(batch[0]):
                lora()
                loss = nn.functional.cross_entropy(llama.lm_head.output[:, -1], batch[1])
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            iterator.log(loss)
    assert len(session.logs) == 10
    assert lora.WA.value.shape == (width, 4)
    assert lora.WB.value.detach().abs().sum() > 0
    with llama.generate("Hello", remote=True):
        lora()
        taught = llama.generator.output.save()
    with llama.generate("Hello", remote=True):
        untaught = llama.generator.output.save()
    assert llama.tokenizer.batch_decode(taught.value) == ["Hello Paris"]
    assert llama.tokenizer.batch_decode(untaught.value) != ["Hello Paris"]


def test_a_traced_cell_runs_there_as_it_does_here(away: Any, here: Any) -> None:
    body = "wb.ablate(model.transformer.h[2].mlp)\nx = model.lm_head.output.save()\nx[:, -1].argmax(-1)"
    found = []
    for model, option in ((away, " --remote"), (here, "")):
        variables: dict[str, Any] = {"model": model, "wb": wb}
        cell = Cell(f'%%trace model "{PROMPT}"{option}\n{body}', "cell", variables)
        record = Bench(lambda variables=variables: variables).trace(cell)
        found.append((variables["x"].value, int(cell.shown), record))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert found[0][1] == found[1][1]
    there, local = found[0][2], found[1][2]
    assert there.sites == local.sites
    assert [best(each.after).id for each in (there, local)] == [found[0][1]] * 2  # type: ignore[union-attr]
    assert there.before == ()  # no clean run is asked of the server
    assert local.before
