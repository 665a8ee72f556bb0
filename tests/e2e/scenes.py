"""Several stories at once: each is a generator that yields the seconds until its next step.

Idle stops take minutes even in a hurry, because an editor notices only after a minute that somebody has gone. Played
side by side, ten stories take as long as the longest. What a story returns, or how it failed, is asked for by its test.

Those with a browser share a thread, which is what its library wants; each other one has its own meanwhile, so that a
page which opens slowly holds up nobody's clock.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tests.suite.patience import PACE, PATIENCE
from tests.suite.waiting import pause

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.e2e.stack import Person

    Scenes = dict[str, Generator[float, None, dict[str, Any]]]

T = TypeVar("T")


@dataclass
class Stage:
    """Plays scenes and keeps how each ended."""

    endings: dict[str, dict[str, Any] | BaseException] = field(default_factory=dict)

    def play(self, together: Scenes, alone: Scenes, *, within: float, at_once: int) -> None:
        """Play each for at most `within` seconds: `together` in this thread, of `alone` up to `at_once` besides."""
        turns = list(alone.items())
        threads = [threading.Thread(target=self._take_turns, args=(turns, within), daemon=True) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        self._play(together, within)
        until = time.monotonic() + within
        for thread in threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))
        for name in alone:
            self.endings.setdefault(name, AssertionError(f"{name} did not come back within {within:g} s"))

    def _take_turns(self, turns: list[tuple[str, Generator[float, None, dict[str, Any]]]], within: float) -> None:
        while turns:
            with contextlib.suppress(IndexError):  # another thread was quicker
                name, scene = turns.pop(0)
                self._play({name: scene}, within)

    def _play(self, scenes: Scenes, within: float) -> None:
        order = itertools.count()
        began = time.monotonic()
        waiting = [(began, next(order), name) for name in scenes]
        heapq.heapify(waiting)
        while waiting:
            due, _, name = heapq.heappop(waiting)
            pause(max(0.0, due - time.monotonic()), because=f"it is {name}'s turn then")
            if time.monotonic() - began > within:
                self.endings[name] = AssertionError(f"{name} was not over within {within:g} s")
                scenes[name].close()  # so that it lets go of what it holds
                continue
            try:
                seconds = next(scenes[name])
            except StopIteration as end:
                self.endings[name] = {"seconds": time.monotonic() - began, **(end.value or {})}
                print(f"scene {name}: {self.endings[name]}", flush=True)
            except Exception as problem:  # noqa: BLE001 - raised again by the scene's own test
                self.endings[name] = problem
                print(f"scene {name} failed after {time.monotonic() - began:.0f} s: {problem!r}", flush=True)
            else:
                heapq.heappush(waiting, (time.monotonic() + seconds, next(order), name))

    def ending(self, name: str) -> dict[str, Any]:
        """What the scene found; raises what went wrong in it."""
        found = self.endings[name]
        if isinstance(found, BaseException):
            raise found
        return found


def until(what: str, check: Callable[[], T], *, within: float, every: float = 1.0) -> Generator[float, None, T]:
    """Wait inside a scene for the first true value of `check`."""
    began = time.monotonic()
    while not (found := check()):
        if time.monotonic() - began > within * PATIENCE:
            raise AssertionError(f"not within {within:g} s: {what} (last seen: {found!r})")
        yield every * PACE
    return found


def runs_for(person: Person, seconds: float, *, what: str) -> Generator[float, None, None]:
    """The workspace must go on running for this long."""
    began = time.monotonic()
    while (gone := time.monotonic() - began) < seconds:
        now = person.status()
        assert now["state"] == "running", f"{what}: {now['state']} ({now['explanation']}) after {gone:.0f} s"
        yield 2.0 * PACE


def stops(person: Person, *, within: float) -> Generator[float, None, dict[str, Any]]:
    """Wait until it is stopped; returns the newest `stopping` of its history."""
    yield from until(
        f"{person.name} is stopped", lambda: person.status()["state"] == "stopped", within=within, every=1.0
    )
    return next(row for row in person.history() if row["to"] == "stopping")


def starts(person: Person) -> Generator[float, None, float]:
    """Start it; returns the moment (monotonic seconds) at which it was seen running."""
    person.start()

    def running() -> bool:
        now = person.status()
        assert now["state"] != "failed", f"{person.name} failed to start: {now['error']}"
        return bool(now["state"] == "running")

    yield from until(f"{person.name} runs", running, within=120)
    return time.monotonic()
