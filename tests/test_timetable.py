from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from workspaces.idleness import Pause
from workspaces.models import IdlePause
from workspaces.timetable import Repeat, Window, occurrences

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)


def _window(**changes: object) -> Window:
    first = {"starts_at": datetime(2026, 3, 23, 8, tzinfo=UTC), "ends_at": datetime(2026, 3, 23, 10, tzinfo=UTC)}
    return Window(**(first | {"zone": BERLIN} | changes))  # type: ignore[arg-type]


def _days(window: Window, since: datetime, until: datetime) -> list[str]:
    return [each.begins_at.isoformat(timespec="hours") for each in occurrences(window, since=since, until=until)]


def test_a_single_window_falls_once() -> None:
    window = _window()
    year = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert list(occurrences(window, since=year[0], until=year[1])) == [
        Pause(begins_at=window.starts_at, ends_at=window.ends_at)
    ]
    assert _days(window, window.ends_at, year[1]) == []
    assert _days(window, year[0], window.starts_at) == []


def test_a_weekly_class_at_nine_stays_at_nine_when_summer_time_begins() -> None:
    found = _days(_window(repeat=Repeat.WEEKLY), datetime(2026, 3, 20, tzinfo=UTC), datetime(2026, 4, 8, tzinfo=UTC))
    # 09:00 in Berlin: 08:00 UTC before the last Sunday of March, 07:00 UTC after it.
    assert found == ["2026-03-23T08+00:00", "2026-03-30T07+00:00", "2026-04-06T07+00:00"]


def test_the_last_day_is_the_last_one() -> None:
    window = _window(repeat=Repeat.DAILY, last_day=date(2026, 3, 25))
    found = _days(window, datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC))
    assert [text[:10] for text in found] == ["2026-03-23", "2026-03-24", "2026-03-25"]


@given(
    repeat=st.sampled_from([Repeat.DAILY, Repeat.WEEKLY]),
    offset=st.integers(0, 5000),
    span=st.integers(1, 30),
    length=st.integers(1, 23),
)
def test_whatever_the_span_the_same_windows_fall_in_it(repeat: Repeat, offset: int, span: int, length: int) -> None:
    """Skipping ahead finds what walking from the first one finds."""
    starts = datetime(2026, 3, 23, 8, tzinfo=UTC)
    window = _window(repeat=repeat, starts_at=starts, ends_at=starts + length * HOUR)
    since = starts + timedelta(hours=offset)
    until = since + timedelta(days=span)
    walked = [
        each
        for each in occurrences(window, since=starts, until=until)
        if each.ends_at > since and each.begins_at < until
    ]
    assert list(occurrences(window, since=since, until=until)) == walked


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ends_at": datetime(2026, 3, 23, 7, tzinfo=UTC)}, "ends_at"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"repeat": "daily", "ends_at": datetime(2026, 3, 24, 9, tzinfo=UTC)}, "ends_at"),
    ],
)
def test_a_form_refuses_what_makes_no_sense_and_says_where(changes: dict[str, object], field: str) -> None:
    pause = IdlePause(
        name="Class",
        **(
            {"starts_at": datetime(2026, 3, 23, 8, tzinfo=UTC), "ends_at": datetime(2026, 3, 23, 10, tzinfo=UTC)}
            | changes
        ),
    )
    with pytest.raises(ValidationError) as refusal:
        pause.clean()
    assert list(refusal.value.message_dict) == [field]


def test_a_night_ends_at_its_hour_also_when_the_clock_changes_in_it() -> None:
    """An exam run from 20:00 to 08:00 in Berlin: eleven hours in the night to summer time, thirteen in the other."""
    for day, hours in ((datetime(2026, 3, 28, 19, tzinfo=UTC), 11), (datetime(2026, 10, 24, 18, tzinfo=UTC), 13)):
        first = day - timedelta(days=3)
        window = Window(starts_at=first, ends_at=first + timedelta(hours=12), zone=BERLIN, repeat=Repeat.DAILY)
        nights = list(occurrences(window, since=day, until=day + timedelta(hours=1)))
        found = [night for night in nights if night.begins_at == day]
        assert [night.ends_at - night.begins_at for night in found] == [timedelta(hours=hours)]
        assert found[0].ends_at.astimezone(BERLIN).hour == 8
