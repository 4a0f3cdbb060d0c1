"""More models than memory, in real workers: the least recently used makes room, one in use never; and results' time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import HTTPException

import workbench as wb
from tests.doors import HOSTED, PackedSession, named, packed
from tests.hosted import net
from workbench.graph.package import pack, unpack_outcome
from workbench.server.desk import Desk
from workbench.server.embedded import Embedded
from workbench.server.settings import Settings
from workbench.server.workers import Lost, Model, Task

X = torch.linspace(-1, 1, 8).reshape(2, 4)
SIZE = sum(each.numel() * each.element_size() for each in (*net().parameters(), *net().buffers()))
KEYS = ("one", "two", "three")


def request(*keys: str, rounds: int = 0) -> bytes:
    """A job for these models; with rounds it takes a while."""
    models = [named(wb.NNsight(net()), key) for key in keys]
    if not rounds:
        with packed(models[0], X) as tracer:
            models[0].output[0].save()
        return pack(tracer.request)
    with PackedSession(models[0]) as session:
        for model in models:
            with model.trace(X):
                model.output[0].save()
        with session.iter(list(range(rounds))):
            wb.list([torch.linalg.svd(torch.rand(200, 200))])
    return pack(session.request)


@asynccontextmanager
async def workers(memory: int | None, folder: Path) -> AsyncIterator[tuple[Embedded, Callable[..., Any]]]:
    """Workers for three models of one size, and how one is given a job."""
    made = Embedded(memory, {"memory": 256 << 20}, errors=folder / "log")
    count = 0

    async def run(*keys: str, rounds: int = 0) -> Any:
        nonlocal count
        count += 1
        task = Task(f"job{count}", folder / f"{count}.request", folder / f"{count}.result")
        task.request.write_bytes(request(*keys, rounds=rounds))
        said: list[str] = []
        await made.submit(frozenset(keys), [task], 60, lambda job, message: said.append(message["event"]))
        assert said[-1] == "done"
        return unpack_outcome(task.result.read_bytes()).values

    try:
        await made.start([Model(key, {"open": f"{HOSTED}:net"}) for key in KEYS])
        yield made, run
    finally:
        await made.stop()


def loaded(at: Embedded) -> set[str]:
    return {key for seat in at.loaded() for key in seat["models"]}


def test_the_least_recently_used_makes_room_and_one_in_use_never(tmp_path: Path) -> None:
    async def go() -> None:
        async with workers(2 * SIZE + 8, tmp_path) as (at, run):
            assert loaded(at) == {"two", "three"}  # all were opened once; the first had to go again
            right = net()(X)[0]
            for key, there in (("two", {"two", "three"}), ("one", {"one", "two"})):
                (found,) = (await run(key)).values()
                torch.testing.assert_close(found, right)
                assert loaded(at) == there
            long = asyncio.create_task(run("two", rounds=400))
            while not any(seat["busy"] for seat in at.loaded()):
                await asyncio.sleep(0.01)
            pid = next(seat["pid"] for seat in at.loaded() if seat["models"] == ["two"])
            assert not at.free(frozenset({"two"}))
            assert at.free(frozenset({"three"}))  # in the place of `one`, which does nothing
            assert not at.free(frozenset({"one", "three"}))  # these two would need that of `two`
            await run("three")
            assert loaded(at) == {"two", "three"}
            assert [seat["pid"] for seat in at.loaded() if seat["models"] == ["two"]] == [pid]
            assert len(await long) == 1
            assert len(await run("one", "two", rounds=1)) == 2  # a session over two, in one worker
            assert ["one", "two"] in [seat["models"] for seat in at.loaded()]
            assert sum(seat["bytes"] for seat in at.loaded()) <= 2 * SIZE + 8

    asyncio.run(go())


def test_what_can_never_fit_is_said_before_it_waits(tmp_path: Path) -> None:
    at = Embedded(2 * SIZE + 8)
    at._sizes = dict.fromkeys(KEYS, SIZE)
    assert at.can_host(frozenset({"one", "two"})) is None
    why = at.can_host(frozenset(KEYS))
    assert why is not None
    assert why.startswith(f"one and three and two need {3 * SIZE:,} bytes together")

    async def go() -> None:
        async with workers(SIZE - 1, tmp_path):
            pass

    with pytest.raises(Lost, match="ask for a server with more memory"):
        asyncio.run(go())


def test_a_session_that_can_never_fit_is_not_queued(tmp_path: Path) -> None:
    async def go() -> None:
        desk = Desk(Settings(tuple(map(Model, KEYS)), tmp_path, memory=2 * SIZE + 8))
        assert isinstance(desk.workers, Embedded)
        desk.workers._sizes = dict.fromkeys(KEYS, SIZE)
        desk.ready.set()
        with pytest.raises(HTTPException) as caught:
            await desk.accept("a" * 32, "ann", request(*KEYS, rounds=1))
        assert caught.value.status_code == 422
        assert f"need {3 * SIZE:,} bytes together, and this server has {2 * SIZE + 8:,}" in caught.value.detail
        assert (desk.scheduler.queued(), desk.store.get("a" * 32)) == ([], None)
        assert not desk.files.request("a" * 32).exists()
        await desk.accept("b" * 32, "ann", request("one", "two", rounds=1))
        assert [row.models for row in desk.scheduler.queued()] == [["one", "two"]]
        await desk.workers.stop()
        desk.store.close()

    asyncio.run(go())


def test_a_result_is_there_for_its_time(tmp_path: Path) -> None:
    async def go() -> None:
        desk = Desk(Settings((Model("m"),), tmp_path, keep=0.5))
        row = desk.store.add("a" * 32, "ann", ["m"])
        draft = desk.files.draft(row.id, 1)
        draft.write_bytes(b"values")
        await desk.scheduler._publish(row, Task(row.id, desk.files.request(row.id), draft))
        assert desk.view(desk.job(row.id, "ann")).expires is not None
        expiring = asyncio.create_task(desk._expire())
        await asyncio.sleep(0.1)
        assert desk.files.result(row.id).read_bytes() == b"values"
        for _ in range(100):
            await asyncio.sleep(0.05)
            if desk.store.get(row.id) is None:
                break
        expiring.cancel()
        assert desk.store.get(row.id) is None
        assert not desk.files.result(row.id).exists()
        await desk.workers.stop()
        desk.store.close()

    asyncio.run(go())
