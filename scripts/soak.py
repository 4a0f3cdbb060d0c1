"""Soak: what a server has to hold for hours: killed again and again, ten thousand jobs, requests that no client sends.

`python -m scripts.soak [WHAT …] [--part N]`, where WHAT is among kills, workers, memory, schema, fuzz, and `--part 10`
is a tenth of it. Servers of its own, on loopback. It ends with status 1 when something is not as it must be.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import torch

import workbench as wb
from scripts.fuzz import changed, seeds
from scripts.schema_hooks import REQUESTS
from tests.doors import named, packed
from tests.serving import GPT2, Serving
from workbench.errors import RemoteError
from workbench.graph.package import pack, unpack_outcome
from workbench.remote import protocol
from workbench.remote.connection import Connection

PROMPT = "The Eiffel Tower is in the city of"
_MARK = 7654321.5


def say(words: str) -> None:
    """A line, at once."""
    print(words, flush=True)


# ---- jobs whose results are known


class Jobs:
    """Sends numbered jobs by several clients at once, and compares what comes of each with what is right for it.

    Args:
        host: the server.
        count: how many.
        clients: how many at once.
    """

    def __init__(self, host: str, count: int, clients: int = 8) -> None:
        model = named(wb.LanguageModel(GPT2, dispatch=True), GPT2)
        with packed(model, PROMPT) as tracer:
            (model.lm_head.output[:, -1].max() * _MARK).save()
        self._data = pack(tracer.request)
        with torch.no_grad():
            ids = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
            self._right = float(model.module(ids).logits[:, -1].max())
        self._host, self._count, self._clients = host, count, clients
        self._lock = threading.Lock()
        self._next = iter(range(count))
        self.ids: list[str] = []
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self.done = 0
        self.threads: list[threading.Thread] = []

    def start(self) -> Jobs:
        """Begin."""
        self.threads = [threading.Thread(target=self._work) for _ in range(self._clients)]
        for thread in self.threads:
            thread.start()
        return self

    def wait(self) -> Jobs:
        """Until all have been answered."""
        for thread in self.threads:
            thread.join()
        return self

    def _work(self) -> None:
        at = Connection(self._host, patience=180)
        at._met = True  # it may be down at this moment
        while True:
            with self._lock:
                number = next(self._next, None)
            if number is None:
                return at.close()
            id = uuid.uuid4().hex
            factor = 1000000.5 + number
            data = self._data.replace(str(_MARK).encode(), str(factor).encode())
            assert len(data) == len(self._data)
            right, error = False, ""
            try:
                for event in at.follow(id, data):
                    error = event.text if event.failure is not None else ""
                if not error:
                    (value,) = unpack_outcome(at.fetch(id)).values.values()
                    right = abs(float(value) / factor - self._right) < 1e-3
            except RemoteError as found:
                error = str(found)
            with self._lock:
                self.ids.append(id)
                self.done += not error
                if error:
                    self.lost.append(error)
                elif not right:
                    self.wrong.append(id)

    def twice(self, data: Path) -> int:
        """How many jobs the server's own books have not exactly once: begun, ended, with one result."""
        with sqlite3.connect(data / "jobs.sqlite") as db:
            ends = dict(
                db.execute("SELECT job, count(*) FROM events WHERE status IN ('COMPLETED', 'ERROR') GROUP BY job")
            )
            jobs = [id for (id,) in db.execute("SELECT id FROM jobs")]
        files = [path.name for path in (data / "results").iterdir()]
        return (
            sum(ends.get(id) != 1 for id in self.ids)
            + len(set(jobs) ^ set(self.ids))
            + len(set(files) ^ set(self.ids))
            + len(jobs)
            - len(set(jobs))
        )


@contextmanager
def server(*words: str) -> Iterator[Serving]:
    """A server for the time of a block."""
    with tempfile.TemporaryDirectory() as folder:
        made = Serving(Path(folder), GPT2, "--queue", "100000", *words).start().ready()
        try:
            yield made
        finally:
            made.stop()


def verdict(name: str, jobs: Jobs, at: Serving) -> bool:
    """Say how it went."""
    twice = jobs.twice(at.folder / "data")
    say(
        f"{name}: {len(jobs.ids)} jobs, {len(jobs.lost)} lost, {twice} not exactly once, {len(jobs.wrong)} wrong"
        + (f"; {Counter(jobs.lost).most_common(3)}" if jobs.lost else "")
    )
    return not jobs.lost and not twice and not jobs.wrong and len(jobs.ids) == jobs._count


# ---- what is soaked


def kills(jobs: int = 10_000, times: int = 50) -> bool:
    """The server is killed, as by a power cut, and started again, while clients send jobs."""
    with server("--together", "4") as at:
        asked = Jobs(at.host, jobs).start()
        chance = random.Random(0)
        killed = 0
        while killed < times and asked.done < jobs:
            time.sleep(chance.uniform(0.0, 1.0))
            at.kill()
            at.start().ready()
            killed += 1
            enough = jobs * killed // times - 40  # so that the kills are spread over all jobs
            while asked.done < enough:
                time.sleep(0.02)
        asked.wait()
        return verdict(f"{killed} server kills", asked, at) and killed == times


def workers(times: int = 100, jobs: int = 4_000) -> bool:
    """Workers are killed at random moments."""
    with server("--together", "4") as at:
        asked = Jobs(at.host, jobs).start()
        chance = random.Random(1)
        killed = 0
        while killed < times and asked.done < jobs:
            enough = asked.done + chance.randint(0, max(1, jobs // times))
            while asked.done < enough and any(thread.is_alive() for thread in asked.threads):
                time.sleep(0.005)
            for pid in children(at):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            while not children(at) and any(thread.is_alive() for thread in asked.threads):
                time.sleep(0.02)
        asked.wait()
        return verdict(f"{killed} worker kills", asked, at) and killed >= times


def memory(jobs: int = 10_000) -> bool:
    """What server and worker take after so many jobs, beside what they took after the first tenth."""
    with server("--keep", "0.005") as at:
        first = Jobs(at.host, jobs // 10).start().wait()
        before = taken(at)
        asked = Jobs(at.host, jobs).start().wait()
        after = taken(at)
    grown = {name: after[name] / before[name] - 1 for name in before}
    text = ", ".join(f"{name} {before[name] >> 20} → {after[name] >> 20} MiB ({grown[name]:+.1%})" for name in before)
    say(f"memory after {asked.done} jobs: {text}; {len(asked.lost) + len(first.lost)} lost, {len(asked.wrong)} wrong")
    return max(grown.values()) <= 0.05 and asked.done == jobs and not asked.wrong


def schema(examples: int = 100) -> bool:
    """Schemathesis over the API as it describes itself."""
    with server("--limit", "body=4MB", "--seconds", "10") as at:
        requests = at.folder / "requests"
        requests.mkdir()
        for index, data in enumerate(seeds(named(wb.LanguageModel(GPT2, dispatch=True), GPT2))):
            (requests / str(index)).write_bytes(data)
        answer = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{at.host}/openapi.json", "--checks",
             "not_a_server_error", "-n", str(examples), "--no-color", "--generation-database", "none",
             "--request-timeout", "20"],
            capture_output=True, text=True, cwd=at.folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "scripts.schema_hooks", REQUESTS: str(requests)},
        )  # fmt: skip
        counts = [line.strip() for line in answer.stdout.splitlines() if "generated" in line or "Operations" in line]
        say(f"schemathesis, {examples} examples: status {answer.returncode}; {'; '.join(counts)}")
        if answer.returncode:
            say(answer.stdout[-3000:] + answer.stderr[-1000:])
        return answer.returncode == 0 and sound(at)


def fuzz(graphs: int = 100_000, clients: int = 8, seed: int = 0) -> bool:
    """Requests changed at random: each is answered with a sentence, and the server is as before."""
    with server("--seconds", "10", "--limit", "memory=512MB", "--limit", "trips=50") as at:
        made = seeds(named(wb.LanguageModel(GPT2, dispatch=True), GPT2))
        answers: Counter[str] = Counter()
        strange: list[str] = []
        numbers, lock = iter(range(graphs)), threading.Lock()

        def work(index: int) -> None:
            chance = random.Random(seed * 1000 + index)
            with httpx.Client(base_url=at.host, trust_env=False, timeout=120) as client:
                while True:
                    with lock:
                        if next(numbers, None) is None:
                            return
                    status, words = _answer(client, changed(chance.choice(made), chance))
                    with lock:
                        answers[status] += 1
                        if words:
                            strange.append(words)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        total = sum(answers.values())
        say(f"{total} fuzzed graphs: {dict(answers.most_common())}")
        for words in strange[:10]:
            say(f"  {words}")
        return not strange and total == graphs and sound(at)


def _answer(client: httpx.Client, data: bytes) -> tuple[str, str]:
    """What came of a request, and, where it should not have, the words."""
    try:
        sent = client.post(protocol.JOBS, content=data, headers={"Accept": protocol.EVENTS})
        if sent.status_code != 202 and sent.status_code != 200:
            words = sent.json().get("error")
            return f"refused {sent.status_code}", "" if sent.status_code < 500 and words else sent.text[:500]
        id = sent.headers[protocol.JOB_HEADER.lower()]
        result = client.get(f"{protocol.JOBS}/{id}/result")
    except httpx.TransportError as cut:
        return "cut", f"{type(cut).__name__}: {cut}"
    if result.status_code == 200:
        return "ran", ""
    words = result.json()["error"]
    lost = "times while this job ran" in words or "fault of its own" in words
    return f"ended {result.status_code}", words[:500] if result.status_code >= 500 or lost else ""


def sound(at: Serving) -> bool:
    """Whether the server still does its work, and met no fault of its own."""
    asked = Jobs(at.host, 5, 1).start().wait()
    faults = [line for line in at.log.splitlines() if "Traceback" in line or "ERROR" in line]
    for line in faults[:5]:
        say(f"  the server's log: {line}")
    return asked.done == 5 and not asked.wrong and not faults


# ---- processes


def children(at: Serving) -> list[int]:
    """The server's workers."""
    assert at._process is not None
    pid = at._process.pid
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def taken(at: Serving) -> dict[str, int]:
    """Bytes in memory, by process."""
    assert at._process is not None

    def of(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    return {"server": of(at._process.pid), "worker": sum(map(of, children(at)))}


ALL: dict[str, Callable[[int], bool]] = {
    "kills": lambda part: kills(10_000 // part, max(1, 50 // part)),
    "workers": lambda part: workers(max(1, 100 // part), 4_000 // part),
    "memory": lambda part: memory(10_000 // part),
    "schema": lambda part: schema(max(5, 200 // part)),
    "fuzz": lambda part: fuzz(100_000 // part),
}


def main(words: list[str] | None = None) -> int:
    """Soak what was asked for; the exit status."""
    parser = argparse.ArgumentParser("soak")
    parser.add_argument("what", nargs="*", choices=[*ALL, []], help="all of it unless named")
    parser.add_argument("--part", type=int, default=1, metavar="N", help="a Nth of the full size")
    asked = parser.parse_args(words)
    failed = []
    for name in asked.what or ALL:
        start = time.monotonic()
        well = ALL[name](asked.part)
        say(f"{name}: {'well' if well else 'NOT WELL'}, {time.monotonic() - start:.0f} s")
        failed += [] if well else [name]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
