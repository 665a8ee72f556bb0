from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workspaces.idleness import Clocks, Limits, Pause, Signal, decide, forecast, lifetime_warnings
from workspaces.states import Reason

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIMITS = Limits(idle=timedelta(minutes=30), work_budget=timedelta(hours=8), lifetime=timedelta(hours=24))
ALL = frozenset(Signal)


def _at(minutes: float | None) -> datetime | None:
    return None if minutes is None else START + timedelta(minutes=minutes)


# Minutes after the start: presence, work, connection, keep_until, now -> the reason to stop.
TABLE: dict[str, tuple[tuple[float | None, float | None, float | None, float | None], float, Reason | None]] = {
    "just started": ((None, None, None, None), 0, None),
    "a start counts as presence": ((None, None, None, None), 29.9, None),
    "nobody ever came": ((None, None, None, None), 30, Reason.IDLE),
    "an old clock never stops a fresh container": ((-500, -500, -500, None), 1, None),
    "somebody is present": ((20, None, None, None), 49.9, None),
    "presence ended": ((20, None, None, None), 50, Reason.IDLE),
    "work goes on": ((1, 40, None, None), 69.9, None),
    "work ended": ((1, 40, None, None), 70, Reason.IDLE),
    "an open connection alone keeps nothing": ((1, 2, 60, None), 60, Reason.IDLE),
    "a missing connection stops nobody who is present": ((60, None, None, None), 89, None),
    "work within its budget": ((1, 480, None, None), 480.9, None),
    "work beyond its budget": ((1, 480, None, None), 481, Reason.WORK_BUDGET),
    "work that ended just before its budget did": ((0, 440, None, None), 470, Reason.IDLE),
    "presence renews the budget of work": ((300, 700, None, None), 729, None),
    "kept": ((None, None, None, 120), 119.9, None),
    "no longer kept": ((None, None, None, 120), 120, Reason.IDLE),
    "kept shorter than used": ((50, None, None, 40), 60, None),
    "kept beyond the budget of work": ((0, 600, None, 520), 519, None),
    "no longer kept, and the budget is spent": ((0, 600, None, 520), 520, Reason.WORK_BUDGET),
    "at the end of its life though in use": ((1439, 1439, 1439, None), 1440, Reason.LIFETIME),
    "at the end of its life though kept": ((1439, None, None, 2000), 1440, Reason.LIFETIME),
    "at the end of its life and long idle": ((None, None, None, None), 1440, Reason.IDLE),
    "a clock of the future is no reason to stop": ((90, None, None, None), 60, None),
}


@pytest.mark.parametrize("situation", TABLE)
def test_when_to_stop(situation: str) -> None:
    (presence, work, connection, keep), now, expected = TABLE[situation]
    clocks = Clocks(
        started_at=START,
        presence_at=_at(presence),
        work_at=_at(work),
        connection_at=_at(connection),
        keep_until=_at(keep),
    )
    assert decide(clocks, LIMITS, now=START + timedelta(minutes=now)) is expected


def test_where_nothing_reports_presence_a_connection_stands_in() -> None:
    clocks = Clocks(started_at=START, presence_at=_at(5), connection_at=_at(60), presence_reported=False)
    assert decide(clocks, LIMITS, now=START + timedelta(minutes=89)) is None
    assert decide(clocks, LIMITS, now=START + timedelta(minutes=90)) is Reason.IDLE
    assert decide(replace(clocks, presence_reported=True), LIMITS, now=START + timedelta(minutes=60)) is Reason.IDLE


@pytest.mark.parametrize("unknown", [Signal.PRESENCE, Signal.WORK])
def test_what_could_not_be_learnt_holds_the_workspace(unknown: Signal) -> None:
    clocks = Clocks(started_at=START, unknown=frozenset({unknown}))
    assert decide(clocks, LIMITS, now=START + timedelta(hours=23)) is None
    assert decide(clocks, LIMITS, now=START + timedelta(hours=24)) is Reason.LIFETIME


def test_an_unknown_connection_matters_only_where_it_stands_in() -> None:
    late = START + timedelta(hours=1)
    clocks = Clocks(started_at=START, unknown=frozenset({Signal.CONNECTION}))
    assert decide(clocks, LIMITS, now=late) is Reason.IDLE
    assert decide(replace(clocks, presence_reported=False), LIMITS, now=late) is None


def test_a_pause_moves_the_stop_to_its_end_and_never_beyond_the_lifetime() -> None:
    exam = Pause(begins_at=START, ends_at=START + timedelta(hours=3))
    following = Pause(begins_at=START + timedelta(hours=3), ends_at=START + timedelta(hours=4))
    clocks = Clocks(started_at=START)
    for pauses in ((exam, following), (following, exam)):
        assert decide(clocks, LIMITS, now=START + timedelta(minutes=239), pauses=pauses) is None
        assert decide(clocks, LIMITS, now=START + timedelta(minutes=240), pauses=pauses) is Reason.IDLE
    for_ever = Pause(begins_at=START, ends_at=START + timedelta(days=9))
    assert forecast(clocks, LIMITS, pauses=[for_ever]).reason is Reason.LIFETIME


def test_a_stop_that_is_late_waits_for_the_end_of_a_pause_that_began_meanwhile() -> None:
    due = START + LIMITS.idle
    exam = Pause(begins_at=due + timedelta(minutes=1), ends_at=due + timedelta(hours=2))
    clocks = Clocks(started_at=START)
    assert forecast(clocks, LIMITS, pauses=[exam]).at == due
    assert decide(clocks, LIMITS, now=due, pauses=[exam]) is Reason.IDLE
    assert decide(clocks, LIMITS, now=exam.begins_at, pauses=[exam]) is None
    assert decide(clocks, LIMITS, now=exam.ends_at - timedelta(seconds=1), pauses=[exam]) is None
    assert decide(clocks, LIMITS, now=exam.ends_at, pauses=[exam]) is Reason.IDLE
    for_ever = Pause(begins_at=exam.begins_at, ends_at=START + timedelta(days=9))
    assert decide(clocks, LIMITS, now=START + LIMITS.lifetime, pauses=[for_ever]) is Reason.LIFETIME


def test_a_pause_that_does_not_cover_the_stop_changes_nothing() -> None:
    elsewhere = [
        Pause(begins_at=START - timedelta(hours=1), ends_at=START + timedelta(minutes=30)),
        Pause(begins_at=START + timedelta(minutes=31), ends_at=START + timedelta(hours=9)),
    ]
    assert forecast(Clocks(started_at=START), LIMITS, pauses=elsewhere) == forecast(Clocks(started_at=START), LIMITS)


@pytest.mark.parametrize(
    ("idle", "warning", "expected"),
    [(30, 5, 5), (10, 5, 2.5), (0.4, 5, 0.1), (60, 1, 1)],
)
def test_a_warning_comes_in_time_but_not_at_once(idle: float, warning: float, expected: float) -> None:
    limits = replace(LIMITS, idle=timedelta(minutes=idle), warning=timedelta(minutes=warning))
    assert limits.warn_before == timedelta(minutes=expected)


@pytest.mark.parametrize(("hours", "minutes_before"), [(24, [60, 15, 5]), (2, [15, 5]), (0.5, [5]), (0.1, [1.5])])
def test_the_end_of_the_lifetime_is_announced(hours: float, minutes_before: list[float]) -> None:
    lifetime = timedelta(hours=hours)
    told = lifetime_warnings(START, lifetime)
    assert [START + lifetime - moment for moment in told] == [timedelta(minutes=before) for before in minutes_before]


moments = st.none() | st.integers(-3000, 3000).map(_at)
pauses = st.lists(
    st.tuples(st.integers(-3000, 3000), st.integers(1, 600)).map(
        lambda pair: Pause(
            begins_at=START + timedelta(minutes=pair[0]), ends_at=START + timedelta(minutes=pair[0] + pair[1])
        )
    ),
    max_size=4,
)
limits = st.builds(
    Limits,
    idle=st.integers(1, 600).map(lambda minutes: timedelta(minutes=minutes)),
    work_budget=st.integers(1, 2000).map(lambda minutes: timedelta(minutes=minutes)),
    lifetime=st.integers(1, 3000).map(lambda minutes: timedelta(minutes=minutes)),
)
clocks_of_any_kind = st.builds(
    Clocks,
    started_at=st.just(START),
    presence_at=moments,
    work_at=moments,
    connection_at=moments,
    keep_until=moments,
    presence_reported=st.booleans(),
    unknown=st.sets(st.sampled_from(Signal)).map(frozenset),
)


@given(
    clocks=clocks_of_any_kind,
    limits=limits,
    pauses=pauses,
    which=st.sampled_from(["presence_at", "work_at", "connection_at", "keep_until"]),
    later=st.integers(0, 3000),
)
def test_later_activity_never_makes_a_stop_earlier(
    clocks: Clocks, limits: Limits, pauses: list[Pause], which: str, later: int
) -> None:
    before: datetime = getattr(clocks, which) or START - timedelta(days=9)
    after = replace(clocks, **{which: before + timedelta(minutes=later)})  # type: ignore[arg-type]
    assert forecast(after, limits, pauses=pauses).at >= forecast(clocks, limits, pauses=pauses).at


@given(clocks=clocks_of_any_kind, limits=limits, pauses=pauses, minutes=st.integers(-100, 6000))
def test_the_unknown_never_stops_and_never_prevents_the_end_of_the_lifetime(
    clocks: Clocks, limits: Limits, pauses: list[Pause], minutes: int
) -> None:
    now = START + timedelta(minutes=minutes)
    found = decide(replace(clocks, unknown=ALL), limits, now=now, pauses=pauses)
    assert found is (Reason.LIFETIME if now >= START + limits.lifetime else None)


@given(clocks=clocks_of_any_kind, limits=limits, pauses=pauses)
def test_the_announced_moment_is_when_the_decision_falls(clocks: Clocks, limits: Limits, pauses: list[Pause]) -> None:
    known = replace(clocks, unknown=frozenset())
    coming = forecast(known, limits, pauses=pauses)
    assert decide(known, limits, now=coming.at, pauses=pauses) is coming.reason
    assert decide(known, limits, now=coming.at - timedelta(microseconds=1), pauses=pauses) is None
    assert coming.at <= START + limits.lifetime


@given(clocks=clocks_of_any_kind, limits=limits)
def test_a_connection_is_nothing_where_presence_is_reported(clocks: Clocks, limits: Limits) -> None:
    reported = replace(clocks, presence_reported=True)
    assert forecast(reported, limits) == forecast(replace(reported, connection_at=None), limits)
