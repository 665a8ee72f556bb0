from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workspaces.idleness import Clocks, Limits, decide, stops_at
from workspaces.states import Reason

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIMITS = Limits(idle=timedelta(minutes=30), lifetime=timedelta(hours=24))


def _at(minutes: float | None) -> datetime | None:
    return None if minutes is None else START + timedelta(minutes=minutes)


# Minutes after the start: presence, work, connection, keep_until, now -> the reason to stop.
TABLE: dict[str, tuple[tuple[float | None, float | None, float | None, float | None], float, Reason | None]] = {
    "just started": ((None, None, None, None), 0, None),
    "a start counts as activity": ((None, None, None, None), 29.9, None),
    "nobody ever came": ((None, None, None, None), 30, Reason.IDLE),
    "an old clock never stops a fresh container": ((-500, -500, -500, None), 1, None),
    "somebody is present": ((20, None, None, None), 49.9, None),
    "presence ended": ((20, None, None, None), 50, Reason.IDLE),
    "work goes on": ((1, 40, None, None), 69, None),
    "work ended": ((1, 40, None, None), 70, Reason.IDLE),
    "a connection stays": ((1, 2, 60, None), 89, None),
    "the newest clock decides, whichever it is": ((60, 2, 1, None), 89.9, None),
    "kept": ((None, None, None, 120), 119.9, None),
    "no longer kept": ((None, None, None, 120), 120, Reason.IDLE),
    "kept shorter than used": ((50, None, None, 40), 60, None),
    "at the end of its life though in use": ((1439, 1439, 1439, None), 1440, Reason.LIFETIME),
    "at the end of its life though kept": ((1439, None, None, 2000), 1440, Reason.LIFETIME),
    "at the end of its life and idle": ((None, None, None, None), 1440, Reason.LIFETIME),
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


moments = st.none() | st.integers(-3000, 3000).map(_at)


@given(presence=moments, work=moments, connection=moments, keep=moments, later=st.integers(0, 2000))
def test_later_activity_never_makes_a_stop_earlier(
    presence: datetime | None,
    work: datetime | None,
    connection: datetime | None,
    keep: datetime | None,
    later: int,
) -> None:
    before = Clocks(started_at=START, presence_at=presence, work_at=work, connection_at=connection, keep_until=keep)
    after = Clocks(
        started_at=START,
        presence_at=before.newest() + timedelta(minutes=later),
        work_at=work,
        connection_at=connection,
        keep_until=keep,
    )
    assert stops_at(after, LIMITS) >= stops_at(before, LIMITS)


@given(presence=moments, work=moments, connection=moments, keep=moments)
def test_the_announced_moment_is_when_the_decision_falls(
    presence: datetime | None, work: datetime | None, connection: datetime | None, keep: datetime | None
) -> None:
    clocks = Clocks(started_at=START, presence_at=presence, work_at=work, connection_at=connection, keep_until=keep)
    moment = stops_at(clocks, LIMITS)
    assert decide(clocks, LIMITS, now=moment) is not None
    assert decide(clocks, LIMITS, now=moment - timedelta(microseconds=1)) is None
    assert moment <= START + LIMITS.lifetime
