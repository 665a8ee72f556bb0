"""The one way to wait in tests: for something that has a name, for so long, showing what was seen last."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections

from tests.suite.patience import PACE, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def eventually(what: str, check: Callable[[], T], *, within: float, every: float = 0.1) -> T:
    """Return the first true value of `check`; after `within` seconds fail with `what` did not happen.

    Seconds are a quiet machine's, and stretched as `patience` says. Asks at least twice, however slow an answer is.
    What `check` raises is raised here at once.
    """
    began, asked = time.monotonic(), 0
    while True:
        found, asked = check(), asked + 1
        if found:
            return found
        if time.monotonic() - began > within * PATIENCE and asked > 1:
            raise AssertionError(f"not within {within:g} s: {what} (last seen: {found!r})")
        time.sleep(every * PACE)


def always(what: str, check: Callable[[], object], *, during: float, every: float = 0.5) -> None:
    """Fail as soon as `check` is false: `what` has to hold for `during` seconds."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < during:
        found = check()
        assert found, f"after {passed:.1f} of {during:g} s no longer true: {what} (seen: {found!r})"
        time.sleep(every)


def pause(seconds: float, *, because: str) -> None:
    """Let time pass where nothing can be asked. The reason is for the reader."""
    assert because
    time.sleep(seconds)


def together(*contestants: Callable[[], Any], within: float = 60) -> list[Any]:
    """Call all at the same moment, each in a thread of its own; return their results in order.

    An exception of one is raised here. Who does not return within `within` seconds fails the test and is left behind:
    its thread holds up neither the test nor the end of the process. Database connections of the threads are closed.
    """
    barrier = threading.Barrier(len(contestants))
    results: dict[int, Any] = {}
    problems: dict[int, BaseException] = {}

    def run(number: int, contestant: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=within * PATIENCE)
            results[number] = contestant()
        except BaseException as problem:  # noqa: BLE001 - raised again below, in the test's own thread
            problems[number] = problem
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=run, args=(number, contestant), name=f"contestant {number}", daemon=True)
        for number, contestant in enumerate(contestants)
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + within * PATIENCE
    for thread in threads:
        thread.join(timeout=max(0.0, until - time.monotonic()))
    for problem in problems.values():
        raise problem
    late = [thread.name for thread in threads if thread.is_alive()]
    assert not late, f"not within {within:g} s: {', '.join(late)} of {len(threads)} came back"
    return [results[number] for number in range(len(contestants))]
