"""Who is hashed for next: everybody in turn, and nobody waits longer than is worth it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasher.turns import Busy, Turns


def turns(*, room: int = 100, longest: float = 1000, each: float = 1) -> Turns[str]:
    return Turns(room=room, longest=longest, each=each)


def order(queue: Turns[str]) -> str:
    found = []
    while (one := queue.next()) is not None:
        found.append(one)
    return " ".join(found)


def join(queue: Turns[str], *names: str) -> None:
    for number, name in enumerate(names):
        assert queue.join(name[0], name) == (None, None), (number, name)


def test_each_has_a_turn_before_anybody_has_two() -> None:
    queue = turns()
    join(queue, "a1", "a2", "a3", "b1", "b2", "c1")
    assert order(queue) == "a1 b1 c1 a2 b2 a3"


def test_who_comes_later_waits_one_round_and_no_more() -> None:
    queue = turns()
    join(queue, *(f"a{number}" for number in range(50)), *(f"b{number}" for number in range(40)))
    join(queue, "c1")
    assert order(queue).split()[:3] == ["a0", "b0", "c1"]


def test_who_would_wait_too_long_is_told_how_long() -> None:
    queue = turns(longest=10, each=2)
    join(queue, "a1", "a2", "a3", "a4", "a5")
    assert queue.join("a", "a6") == (Busy(seconds=12), None)
    join(queue, "b1")  # who would have their turn next but one


def test_what_the_next_will_take_is_learnt_from_the_last() -> None:
    queue = turns(longest=10, each=0.1)
    join(queue, "a1", "a2", "a3", "a4", "a5")
    for _ in range(20):
        queue.took(2)
    busy, _ = queue.join("a", "a6")
    assert busy
    assert busy.seconds == pytest.approx(12, abs=1)


def test_where_there_is_no_room_whoever_has_most_gives_up_their_newest_place() -> None:
    queue = turns(room=4)
    join(queue, "a1", "a2", "a3", "b1")
    assert queue.join("c", "c1") == (None, "a3")
    assert queue.join("a", "a4")[0], "who has most themselves gets nothing by coming again"
    assert queue.join("c", "c2")[0], "nor is anybody left with less than who comes"
    assert order(queue) == "a1 b1 c1 a2"


@pytest.mark.parametrize("took", [0.001, 5, 99, 1e9])
def test_whatever_the_last_took_whoever_comes_alone_is_let_in(took: float) -> None:
    queue = turns(longest=25, each=0.5)
    for _ in range(100):
        queue.took(took)
    join(queue, "a1")
    assert order(queue) == "a1"
    queue.took(0.5)
    for _ in range(20):
        queue.took(0.5)
    join(queue, *(f"a{number}" for number in range(30)))


def test_of_those_that_wait_it_is_not_the_first_but_the_fullest_that_gives_up_a_place() -> None:
    queue = turns(room=5)
    join(queue, "a1", "b1", "b2", "b3", "c1")
    assert queue.join("d", "d1") == (None, "b3")


def test_a_second_half_goes_first_and_is_never_refused() -> None:
    queue = turns(room=2)
    join(queue, "a1", "b1")
    queue.go_first("x")
    assert order(queue) == "x a1 b1"


def test_who_has_gone_waits_no_more() -> None:
    queue = turns(room=3)
    join(queue, "a1", "a2", "b1")
    queue.leave("a", "a1")
    queue.leave("b", "b1")
    queue.leave("b", "b1")
    queue.leave("c", "never there")
    queue.go_first("x")
    queue.leave("a", "x")
    join(queue, "c1", "c2")
    assert order(queue) == "a2 c1 c2"


def test_a_class_of_thirty_is_let_in_and_fifty_addresses_keep_others_out() -> None:
    """At half a second each, as docs/adr/0007 says."""
    calm, flooded = turns(longest=25, each=0.5), turns(longest=25, each=0.5)
    join(calm, *(f"a{number}" for number in range(30)))
    for number in range(50):
        assert flooded.join(f"address {number}", "wrong") == (None, None)
    assert flooded.join("another", "right") == (Busy(seconds=26), None)
    few, waiting, served = turns(longest=25, each=0.5), set[str](), 0
    join(few, *(f"a{number}" for number in range(30)))
    for _ in range(50):  # for 25 s five others ask again as soon as they were answered
        for name in set("bcdef") - waiting:
            few.join(name, name)
            waiting.add(name)
        one = few.next() or ""
        waiting.discard(one)
        served += one.startswith("a")
    assert 5 <= served < 12


def test_nothing_is_next_where_nobody_waits() -> None:
    assert turns().next() is None
    assert len(turns()) == 0


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=200), st.integers(1, 12))
def test_never_more_than_there_is_room_for_and_nobody_is_lost(steps: list[tuple[str, bool]], room: int) -> None:
    queue, waiting, served = turns(room=room), set[str](), 0
    for number, (who, take) in enumerate(steps):
        name = f"{who}{number}"
        busy, gave_up = queue.join(who, name)
        assert not (busy and gave_up)
        if not busy:
            waiting.add(name)
        if gave_up:
            waiting.remove(gave_up)
        assert len(queue) == len(waiting) <= room
        if take and (one := queue.next()):
            waiting.remove(one)
            served += 1
    rest = order(queue).split()
    assert set(rest) == waiting
    # From here on: a round has everybody who still waits, once.
    left = Counter(name[0] for name in rest)
    first_round = rest[: len(left)]
    assert len({name[0] for name in first_round}) == len(first_round)
