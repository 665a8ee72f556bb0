"""The sentences that explain a decision to whoever it is about."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workspaces.decisions import Verdict, duration, record
from workspaces.idleness import Clocks, Forecast, Limits, Signal
from workspaces.states import Reason

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIMITS = Limits(idle=timedelta(minutes=30), work_budget=timedelta(hours=8), lifetime=timedelta(hours=24))
HALF = timedelta(minutes=30)


def _record(verdict: Verdict, *, at: timedelta, reason: Reason = Reason.IDLE, **more: Any) -> dict[str, Any]:
    clocks = more.pop("clocks", Clocks(started_at=START))
    return record(
        verdict,
        clocks=clocks,
        limits=LIMITS,
        coming=more.pop("coming", Forecast(at=START + HALF, reason=reason)),
        now=START + at,
        presence_source=more.pop("presence_source", "start"),
        work_source=more.pop("work_source", ""),
        **more,
    )


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            _record(Verdict.STOP, at=HALF, reason=Reason.IDLE),
            "Stopped after 30 min without activity. Last presence 30 min ago (the start itself); no command at work.",
        ),
        (
            _record(
                Verdict.STOP,
                at=timedelta(hours=8),
                reason=Reason.WORK_BUDGET,
                clocks=Clocks(started_at=START, work_at=START + timedelta(hours=8)),
                working_on=["make"],
            ),
            (
                "Stopped after 8 h of work with nobody there, the longest that work may keep it. "
                "Last presence 8 h ago (the start itself); running now: make."
            ),
        ),
        (
            _record(Verdict.STOP, at=timedelta(hours=24), reason=Reason.LIFETIME, presence_source="terminal"),
            (
                "Stopped after 24 h, the longest time that a workspace may run. "
                "Last presence 24 h ago (a key in a terminal); no command at work."
            ),
        ),
        (
            _record(Verdict.STOP, at=timedelta(minutes=5), reason=Reason.FINISHED),
            (
                "Stopped because its command had ended, as you had asked. "
                "Last presence 5 min ago (the start itself); no command at work."
            ),
        ),
        (
            _record(Verdict.WARNED, at=timedelta(minutes=25)),
            (
                "Will stop in 5 min after 30 min without activity, unless it is used. "
                "Last presence 25 min ago (the start itself); no command at work."
            ),
        ),
        (
            _record(Verdict.HELD, at=HALF, clocks=Clocks(started_at=START, unknown=frozenset({Signal.WORK}))),
            (
                "Not stopped, because whether a command runs could not be read, and unknown is not idle. "
                "Last presence 30 min ago (the start itself); what ran in it is not known."
            ),
        ),
        (
            _record(
                Verdict.SPARED,
                at=HALF,
                clocks=Clocks(started_at=START, keep_until=START + timedelta(hours=2)),
                coming=Forecast(at=START + timedelta(hours=2), reason=Reason.IDLE),
            ),
            (
                "Not stopped: you asked to keep it running for another 1 h 30 min. "
                "Last presence 30 min ago (the start itself); no command at work."
            ),
        ),
        (
            _record(
                Verdict.SPARED,
                at=timedelta(hours=1),
                coming=Forecast(at=START + timedelta(hours=3), reason=Reason.IDLE),
            ),
            (
                "Not stopped: no idle stop before 2 h from now (a pause is set). "
                "Last presence 1 h ago (the start itself); no command at work."
            ),
        ),
    ],
)
def test_a_decision_explains_itself(found: dict[str, Any], sentence: str) -> None:
    assert found["sentence"] == sentence
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("reason", [Reason.IDLE, Reason.WORK_BUDGET, Reason.FINISHED, Reason.LIFETIME])
@pytest.mark.parametrize("verdict", Verdict)
def test_every_decision_of_every_kind_has_a_sentence_and_all_its_clocks(verdict: Verdict, reason: Reason) -> None:
    found = _record(verdict, at=HALF, reason=reason, clocks=Clocks(started_at=START, presence_reported=False))
    assert found["sentence"].endswith(".")
    assert set(found["clocks"]) == {
        *("started_at", "presence_at", "presence_source", "presence_reported"),
        *("work_at", "work_source", "connection_at", "keep_until"),
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (47 * 3600, "47 h"),
        (48 * 3600, "2 days"),
        (51 * 3600, "2 days 3 h"),
    ],
)
def test_durations_are_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text
