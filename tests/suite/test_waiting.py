"""A wait names what it waits for and ends."""

from __future__ import annotations

import threading
import time

import pytest

from tests.suite.waiting import always, eventually, together


def test_a_wait_gives_the_first_true_value() -> None:
    values = iter([0, 0, 7, 8])
    assert eventually("a number", lambda: next(values), within=5, every=0.01) == 7


def test_a_wait_in_vain_says_for_what_how_long_and_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: it rains \(last seen: \{\}\)"):
        eventually("it rains", dict, within=0.05, every=0.01)


def test_what_is_slow_to_answer_is_asked_twice() -> None:
    answers = iter([False, True])

    def slow() -> bool:
        time.sleep(0.05)
        return next(answers)

    assert eventually("an answer", slow, within=0.01, every=0.01)


def test_something_that_ceases_to_be_true_is_told_with_its_moment() -> None:
    values = iter([True, True, False])
    with pytest.raises(AssertionError, match=r"after 0\.\d of 5 s no longer true: it holds"):
        always("it holds", lambda: next(values), during=5, every=0.01)


def test_those_together_return_in_order() -> None:
    assert together(lambda: 1, lambda: 2, lambda: 3) == [1, 2, 3]


def test_a_problem_of_one_is_raised() -> None:
    def fail() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        together(lambda: 1, fail)


def test_who_never_comes_back_holds_nobody_up() -> None:
    never = threading.Event()
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"not within 0\.2 s: contestant 1 of 2"):
        together(lambda: 1, never.wait, within=0.2)
    assert time.monotonic() - began < 5
    never.set()
