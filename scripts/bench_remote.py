"""What a remote run costs on this machine: beside a local trace, and beside a bare endpoint that runs the same hooks.

`python -m scripts.bench_remote`. Server and bare endpoint of its own, on loopback; the demo GPT-2; one thread each.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors.torch import load

import workbench as wb
from scripts.bare import BLOCK, hooked
from tests.serving import GPT2, ROOT, free_port, serving
from workbench.remote.connection import connection
from workbench.remote.words import SHOW_STATUS

PROMPT = "The Eiffel Tower is in the city of"
BIG = 12_500_000
"""Numbers in a result of 50 MB."""


@contextmanager
def bare() -> Iterator[str]:
    """The bare endpoint, for the time of a block."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "scripts.bare", str(port)], cwd=ROOT)
    try:
        for _ in range(1200):
            try:
                httpx.get(f"http://127.0.0.1:{port}/docs", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def trace(model: Any, remote: bool) -> tuple[Any, Any]:
    """The run that is measured."""
    with model.trace(PROMPT, remote=remote):
        model.transformer.h[BLOCK].output[:, -1] = 0
        hidden = model.transformer.h[BLOCK].output.save()
        logits = model.lm_head.output[:, -1].save()
    return hidden.value, logits.value


def alternating(functions: dict[str, Callable[[], Any]], rounds: int, warm: int = 5) -> dict[str, list[float]]:
    """Each function's seconds by the clock, all of them in turn in every round."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warm + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number >= warm:
                times[name].append(time.perf_counter() - start)
    return times


def one_after_the_other(host: str, rounds: int) -> None:
    """The median of a run: here, there, and by the bare endpoint."""
    here, away = wb.LanguageModel(GPT2, dispatch=True), wb.LanguageModel(GPT2)
    ids = here.tokenizer(PROMPT)["input_ids"]
    with httpx.Client(base_url=host, trust_env=False) as client:

        def endpoint() -> dict[str, torch.Tensor]:
            return load(client.post("/run", json={"ids": [ids]}).content)

        right = hooked(here.module, torch.tensor([ids]))
        answer = endpoint()
        for hidden, logits in (trace(here, False), trace(away, True), (answer["hidden"], answer["logits"])):
            torch.testing.assert_close(hidden, right["hidden"], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(logits, right["logits"], rtol=1e-4, atol=1e-4)
        runs = {"local": lambda: trace(here, False), "remote": lambda: trace(away, True), "bare endpoint": endpoint}
        times = alternating(runs, rounds)
    local = statistics.median(times["local"])
    for name, each in times.items():
        middle, least = statistics.median(each), min(each)
        print(f"  {name:<14} p50 {middle * 1e3:7.2f} ms   least {least * 1e3:7.2f} ms")
    over = [(statistics.median(times[name]) - local) * 1e3 for name in ("remote", "bare endpoint")]
    print(f"  remote over local, p50 {over[0]:.2f} ms (at most 10); the bare endpoint {over[1]:.2f} ms")


def download(host: str, rounds: int) -> None:
    """A result of 50 MB, checked and unpacked, beside the same size as a file."""
    away = wb.LanguageModel(GPT2)
    with away.trace(PROMPT, remote=True, blocking=False) as tracer:
        (torch.rand(BIG) + away.lm_head.output.sum()).save()
    list(tracer.job.events())
    at, id = connection(), tracer.job.id
    with httpx.Client(base_url=host, trust_env=False, timeout=60) as client:
        times = alternating(
            {
                "a file": lambda: client.get("/file").content,
                "the result": lambda: at.fetch(id),
                "and its values": lambda: wb.remote.job(id).result()[0],
            },
            rounds,
            1,
        )
    file = statistics.median(times["a file"])
    for name, each in times.items():
        print(f"  {name:<14} {statistics.median(each) * 1e3:7.1f} ms   {statistics.median(each) / file:.2f} x (1.5)")


def many(host: str, clients: int, seconds: float) -> None:
    """Jobs in a second, by so many clients, each waiting for one at a time; and the bare endpoint's answers."""
    away = wb.LanguageModel(GPT2)
    ids = away.tokenizer(PROMPT)["input_ids"]
    local = threading.local()

    def ask() -> None:
        if not hasattr(local, "client"):
            local.client = httpx.Client(base_url=host, trust_env=False)
        load(local.client.post("/run", json={"ids": [ids]}).content)

    for name, run in (("the server", lambda: trace(away, True)), ("bare endpoint", ask)):
        done, until = [0] * clients, time.perf_counter() + seconds

        def work(index: int, run: Any = run, until: float = until, done: list[int] = done) -> None:
            while time.perf_counter() < until:
                run()
                done[index] += 1

        threads = [threading.Thread(target=copy_context().run, args=(work, index)) for index in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"  {name:<14} {sum(done) / (time.perf_counter() - start):7.1f} a second (at least 50)")


def main(rounds: int = 100, seconds: float = 10) -> None:
    """Measure all, and print it."""
    torch.set_num_threads(1)
    SHOW_STATUS.set(lambda job, event: None)
    with tempfile.TemporaryDirectory() as folder, bare() as host:
        for words, name in (((), "one at a time"), (("--together", "8"), "up to 8 share a pass")):
            with serving(Path(folder) / str(len(words)), GPT2, *words) as server:
                server.ready()
                wb.CONFIG.API.HOST = server.host
                print(f"{name}:")
                if not words:
                    one_after_the_other(host, rounds)
                    download(host, 7)
                many(host, 8, seconds)


if __name__ == "__main__":
    main()
