"""Who is next: in turn between keys, first come first served within one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.server.scheduler import Line
from workbench.server.store import Row


def row(owner: str, number: int) -> Row:
    return Row(f"{number:032x}", owner, ["m"], "QUEUED", 0.0, number=number)


def test_keys_take_turns() -> None:
    line = Line()
    for number, owner in enumerate("aaaabbc"):
        line.put(row(owner, number))
    assert "".join(line.take().owner for _ in range(7)) == "abcabaa"


def test_one_that_runs_once_more_goes_before_its_keys_others() -> None:
    line = Line()
    for number in (2, 3):
        line.put(row("a", number))
    line.put(row("a", 1), front=True)
    assert [line.take().number for _ in range(3)] == [1, 2, 3]


def test_one_is_taken_out() -> None:
    line = Line()
    line.put(row("a", 1))
    line.put(row("b", 2))
    assert line.remove(row("a", 1).id)
    assert not line.remove(row("a", 1).id)
    assert (len(line), line.oldest, line.of("a"), line.of("b")) == (1, 2, 0, 1)


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_a_position_is_how_many_are_taken_before(owners: list[str]) -> None:
    line = Line()
    rows = [row(owner, number) for number, owner in enumerate(owners)]
    for each in rows:
        line.put(each)
    told = {each.id: line.position(each) for each in rows}
    turn = [each.id for each in line.in_turn()]
    taken = [line.take().id for _ in rows]
    assert turn == taken
    assert told == {id: place for place, id in enumerate(taken)}


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_no_key_waits_for_more_than_one_of_each_other(owners: list[str]) -> None:
    line = Line()
    for number, owner in enumerate(owners):
        line.put(row(owner, number))
    waiting = {owner: owners.count(owner) for owner in set(owners)}
    since: dict[str, list[str]] = {owner: [] for owner in waiting}
    while len(line):
        owner = line.take().owner
        for other, seen in since.items():
            if waiting[other] and other != owner:
                seen.append(owner)
                assert seen.count(owner) == 1
        since[owner] = []
        waiting[owner] -= 1
