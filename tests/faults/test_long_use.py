"""Hours of use, replayed in seconds: nobody is stopped under their hands, nothing runs for ever, every record is true.

People with habits (typing, thinking, leaving a tab open, leaving a command at work, wishing to keep it) meet workspaces
that now and then cannot be asked. The truth is noted outside; after each tick of the clock the engine's deeds are held
against it. `make test` plays the same hours each time; `make faults` plays days, others each time, and prints the seed.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.suite.patience import SLOW
from workspaces import conf, idle_sweeps, lifecycle, sweeps
from workspaces.models import Transition, Workspace
from workspaces.runtimes.base import Report
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.patient(7200, "in its long form it lives through weeks, as fast as it can"),
]

# A slow machine plays only the morning of that day.
HOURS = float(os.environ.get("GUNPOWDER_FAULT_HOURS", "4" if SLOW else "10"))
PEOPLE = int(os.environ.get("GUNPOWDER_FAULT_PEOPLE", "3"))
SEED = int(os.environ.get("GUNPOWDER_FAULT_SEED", "1"))
TICK = timedelta(minutes=2)
# A look that comes at the same time as a sample, one turn that is blind, and the tick in which it is seen.
LATE = 4 * TICK
HOUR = timedelta(hours=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Truth:
    """What really happened in the workspace that now runs."""

    started_at: datetime
    presence_at: datetime
    work_at: datetime
    keep_until: datetime
    readable_since: datetime


@dataclass
class Person:
    user: Any
    mood: str = "away"
    until: datetime = LONG_AGO
    command_until: datetime = LONG_AGO
    mute_until: datetime = LONG_AGO
    truth: Truth | None = None
    stops: dict[str, int] = field(default_factory=dict)


class Replay:
    def __init__(self, people: list[Person], runtime: MemoryRuntime, *, dice: random.Random, now: datetime) -> None:
        self.people, self.runtime, self.dice, self.now = people, runtime, dice, now
        self.limits = conf.limits()
        self.spared_while_blind = 0

    def tick(self) -> None:
        self.now += TICK
        for person in self.people:
            self._live(person)
        sweeps.sample_usage(runtime=self.runtime, now=self.now)
        idle_sweeps.listen(runtime=self.runtime, now=self.now)
        idle_sweeps.stop_idle(runtime=self.runtime, now=self.now)
        idle_sweeps.attend(runtime=self.runtime, now=self.now)
        for person in self.people:
            self._compare(person)

    def _live(self, person: Person) -> None:
        if self.now >= person.until:
            moods = {"typing": (4, 90), "thinking": (4, 70), "away": (10, 300)}
            person.mood = self.dice.choice([mood for mood in moods if mood != person.mood])
            person.until = self.now + timedelta(minutes=self.dice.uniform(*moods[person.mood]))
        if person.mood == "typing" and person.truth is None:
            self._start(person)
        truth = person.truth
        if truth is None:
            return
        inside = self.runtime.inside(self._row(person).container)
        if person.mood == "typing":
            truth.presence_at = self.now
            inside.report = Report(present_at=self.now, source="typing")
            if self.dice.random() < 0.02:
                person.command_until = self.now + timedelta(hours=self.dice.uniform(0.2, 14))
            if self.dice.random() < 0.01:
                wished = self.dice.uniform(10, 240)
                lifecycle.request_keep(self._row(person), minutes=wished, now=self.now)
                truth.keep_until = max(truth.keep_until, self.now + timedelta(minutes=wished))
        inside.connected = person.mood != "away"
        inside.report = replace(inside.report, alive_at=self.now if inside.connected else inside.report.alive_at)
        at_work = self.now < person.command_until
        inside.commands = ("make",) if at_work else ()
        if at_work:
            truth.work_at = self.now
        if self.dice.random() < 0.01:
            person.mute_until = self.now + timedelta(minutes=self.dice.uniform(5, 60))
        blind = self.now < person.mute_until
        (self.runtime.mute.add if blind else self.runtime.mute.discard)(inside.spec.name)
        if blind:
            truth.readable_since = self.now + TICK

    def _start(self, person: Person) -> None:
        row = lifecycle.request_start(person.user, actor=person.user)
        assert lifecycle.perform_start(row.pk, row.generation, runtime=self.runtime) is lifecycle.Outcome.DONE
        person.command_until = self.now
        person.truth = Truth(*[self.now] * 5)

    def _compare(self, person: Person) -> None:
        truth = person.truth
        if truth is None:
            return
        row = self._row(person)
        if row.state == State.RUNNING:
            self._must_not_be_late(person, truth)
            return
        assert row.state == State.STOPPING, row.state
        self._must_be_right(person, row, truth)
        assert lifecycle.perform_stop(row.pk, row.generation, runtime=self.runtime) is lifecycle.Outcome.DONE
        person.truth = None
        person.stops[row.stop_reason] = person.stops.get(row.stop_reason, 0) + 1

    def _must_not_be_late(self, person: Person, truth: Truth) -> None:
        assert self.now - truth.started_at < self.limits.lifetime + TICK, f"{person.user} runs for ever"
        unused = max(truth.presence_at + self.limits.idle, min(truth.work_at + self.limits.idle, self._budget(truth)))
        wanted_until = max(unused, truth.keep_until, truth.readable_since)
        if self.now < truth.readable_since:
            self.spared_while_blind += self.now >= unused
        assert self.now < wanted_until + LATE, f"{person.user} should have been stopped at {wanted_until}: {truth}"

    def _must_be_right(self, person: Person, row: Workspace, truth: Truth) -> None:
        told = f"{person.user} was stopped for {row.stop_reason} at {self.now}: {truth}"
        clocks = Transition.objects.filter(workspace=row, to_state=State.STOPPING).latest("id").detail["clocks"]
        seen = datetime.fromisoformat(clocks["presence_at"] or clocks["started_at"])
        match row.stop_reason:
            case "lifetime":
                assert self.now >= truth.started_at + self.limits.lifetime, told
                return
            case "idle":
                unseen = self.limits.idle / idle_sweeps.LOOKS_WHILE_QUIET + 2 * TICK  # between two looks at its command
                assert self.now >= truth.work_at + self.limits.idle - unseen, told
            case "work_budget":
                assert self.now >= self._budget(truth), told
                assert self.now < truth.work_at + self.limits.idle, told
            case _:
                pytest.fail(told)
        assert self.now >= truth.presence_at + self.limits.idle, told
        assert self.now >= truth.keep_until, told
        assert self.now >= person.mute_until, f"unknown is not idle; {told}"
        assert seen == truth.presence_at, f"the record says {seen}; {told}"

    def _budget(self, truth: Truth) -> datetime:
        return truth.presence_at + self.limits.work_budget

    def _row(self, person: Person) -> Workspace:
        return Workspace.objects.get(user=person.user)


def test_hours_of_use_with_everybodys_habits(
    make_user: Callable[..., Any], runtime: MemoryRuntime, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"{PEOPLE} people for {HOURS:g} hours; GUNPOWDER_FAULT_SEED={SEED}")
    people = [Person(make_user(f"person-{number}")) for number in range(PEOPLE)]
    replay = Replay(people, runtime, dice=random.Random(SEED), now=now)  # noqa: S311 - no secret
    monkeypatch.setattr("django.utils.timezone.now", lambda: replay.now)
    while replay.now < now + HOURS * HOUR:
        replay.tick()
    stops: dict[str, int] = {}
    for person in people:
        for reason, count in person.stops.items():
            stops[reason] = stops.get(reason, 0) + count
    print(f"stops by reason: {stops}; held because something was unknown: {replay.spared_while_blind} ticks")
    assert stops.get("idle"), "nobody was ever idle: the replay is too short to show anything"
