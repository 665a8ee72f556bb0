"""Who is next: everybody who asks in turn, so that a crowd from one address keeps nobody else waiting. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Busy:
    """Too much is asked for already: ask again after so many whole seconds."""

    seconds: int


class Turns(Generic[T]):
    """A bounded queue, served by who asks: each of them has one turn, then the next.

    Nobody is let in who would wait longer than `longest` seconds, as far as the time of the last works tells, nor more
    than `room` in all. Where there is no room for somebody, whoever has most waiting gives up their newest place, if
    they would still have as many as the other. Whoever comes to an empty queue is always let in.
    """

    def __init__(self, *, room: int, longest: float, each: float) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._first: deque[T] = deque()
        self._room = room
        self._longest = longest
        self._each = each  # seconds that one takes

    def __len__(self) -> int:
        return len(self._first) + sum(len(own) for own in self._waiting.values())

    def took(self, seconds: float) -> None:
        """One was done in so many seconds; what the next will take is guessed from the last few.

        A machine that stood still for a while says nothing about the next: one sample counts for so much at most.
        """
        self._each += (min(seconds, self._longest / 5) - self._each) / 4

    def join(self, who: str, what: T) -> tuple[Busy | None, T | None]:
        """Let `what` wait. Returns why not, or else whom it has taken the place of, if anybody."""
        before = self._before(who)
        if before and (before + 1) * self._each > self._longest:
            return self._busy(before + 1), None
        gave_up: T | None = None
        if len(self) >= self._room:
            most = max(self._waiting, key=lambda name: len(self._waiting[name]), default=who)
            if len(self._waiting.get(most, ())) <= len(self._waiting.get(who, ())) + 1:
                return self._busy(len(self)), None
            gave_up = self._waiting[most].pop()
        self._waiting.setdefault(who, deque()).append(what)
        return None, gave_up

    def go_first(self, what: T) -> None:
        """Let `what` be next, whatever waits: the second half of what had its turn already."""
        self._first.append(what)

    def leave(self, who: str, what: T) -> None:
        """Whoever asked has gone. Served or gone before: nothing to do."""
        own = self._waiting.get(who)
        if own is not None and what in own:
            own.remove(what)
            if not own:
                del self._waiting[who]
        elif what in self._first:
            self._first.remove(what)

    def next(self) -> T | None:
        """Whose turn it is, and the end of their turn. None where nobody waits."""
        if self._first:
            return self._first.popleft()
        if not self._waiting:
            return None
        who, own = self._waiting.popitem(last=False)
        what = own.popleft()
        if own:
            self._waiting[who] = own
        return what

    def busy(self) -> Busy:
        """What to tell somebody who had to give up their place."""
        return self._busy(len(self))

    def _before(self, who: str) -> int:
        """How many turns come before one more of theirs: their own, and as many rounds of everybody else's."""
        own = len(self._waiting.get(who, ()))
        others = sum(min(len(places), own + 1) for name, places in self._waiting.items() if name != who)
        return len(self._first) + own + others

    def _busy(self, turns: int) -> Busy:
        return Busy(seconds=max(1, math.ceil(turns * self._each)))
