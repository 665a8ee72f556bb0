"""Hours run and saved: tables, properties, and the queries over real transitions."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.suite.patience import examples
from workspaces import access, lifecycle, savings
from workspaces.models import Transition, UserLimits, Workspace
from workspaces.savings import NOTHING, Change, Figures, UserSavings, Window
from workspaces.states import TRANSITIONS, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workspaces.runtimes.memory import MemoryRuntime

HOUR = timedelta(hours=1)
LIFETIME = 24 * HOUR
DAY = date(2026, 3, 10)
MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)
NOW = MIDNIGHT + 100 * HOUR
WINDOW = Window(since=MIDNIGHT - 30 * 24 * HOUR, until=NOW)
Step = tuple[float, str] | tuple[float, str, str]


def changes(*steps: Step, user_id: int = 1) -> list[Change]:
    """Transitions at these hours after midnight into these states, the last of them for this reason."""
    found: list[Change] = []
    before = "stopped"
    for hours, state, *reason in steps:
        why = reason[0] if reason else "user"
        found.append(Change(user_id, MIDNIGHT + hours * HOUR, before, state, why))
        before = state
    return found


def stop(hours: float, reason: str) -> list[Step]:
    return [(hours, "stopping", reason), (hours, "stopped", reason)]


UP: list[Step] = [(0, "starting"), (0, "running")]


@pytest.mark.parametrize(
    ("what", "steps", "run", "saved"),
    [
        ("nothing", [], 0, 0),
        ("never came up", [(0, "starting"), (1, "failed")], 0, 0),
        ("runs still", UP, 100, 0),
        ("stopped by its user", [*UP, *stop(3, "user")], 3, 0),
        ("stopped by staff", [*UP, *stop(3, "staff")], 3, 0),
        ("at its lifetime", [*UP, *stop(24, "lifetime")], 24, 0),
        ("idle", [*UP, *stop(3, "idle")], 3, 21),
        ("its work was too long", [*UP, *stop(8, "work_budget")], 8, 16),
        ("its command was done", [*UP, *stop(2, "finished")], 2, 22),
        ("idle, later than the lifetime", [*UP, *stop(30, "idle")], 30, 0),
        (
            "idle, then started again",
            [*UP, *stop(3, "idle"), (10, "starting"), (11, "running"), *stop(12, "user")],
            4,
            7,
        ),
        ("idle, started again in vain", [*UP, *stop(3, "idle"), (10, "starting"), (11, "failed")], 3, 7),
        ("idle twice", [*UP, *stop(3, "idle"), (10, "starting"), (10, "running"), *stop(12, "idle")], 5, 29),
        ("on its way down", [*UP, (3, "stopping", "idle"), (4, "stopped", "idle")], 3, 20),
        ("still on its way down", [*UP, (3, "stopping", "idle")], 3, 0),
        ("did not go down", [*UP, (3, "stopping", "idle"), (4, "failed", "stop_failed")], 3, 0),
        ("came back", [*UP, (3, "stopping", "idle"), (3, "running", "activity"), *stop(5, "idle")], 5, 19),
        ("wanted again while going down", [*UP, (3, "stopping", "idle"), (4, "starting", "restart")], 3, 0),
        ("idle, but its user was first", [*UP, (3, "stopping", "idle"), (4, "stopped", "user")], 3, 0),
        ("removed from outside", [*UP, (3, "stopped", "removed")], 3, 0),
        ("crashed", [*UP, (3, "failed", "crashed")], 3, 0),
        ("stopped during a start", [(0, "starting"), *stop(1, "idle")], 0, 0),
        ("its start is not known", [(0, "running"), *stop(1, "idle")], 1, 0),
    ],
)
def test_what_counts_as_run_and_saved(what: str, steps: list[Step], run: float, saved: float) -> None:
    found = changes(*steps)
    if what == "its start is not known":
        found[0] = found[0]._replace(from_state="stopping")
    by_day = savings.fold(found, window=WINDOW, lifetime=LIFETIME)
    assert sum(by_day.values(), NOTHING) == Figures(run=run * HOUR, saved=saved * HOUR), what


def test_a_stop_of_this_moment_saves_up_to_now_only() -> None:
    found = changes(*UP, *stop(3, "idle"))
    window = Window(since=WINDOW.since, until=MIDNIGHT + 5 * HOUR)
    assert savings.fold(found, window=window, lifetime=LIFETIME) == {DAY: Figures(run=3 * HOUR, saved=2 * HOUR)}


def test_hours_fall_on_the_utc_days_on_which_they_passed() -> None:
    found = changes((22, "starting"), (22, "running"), *stop(25, "idle"))
    assert savings.fold(found, window=WINDOW, lifetime=30 * HOUR) == {
        DAY: Figures(run=2 * HOUR),
        DAY + timedelta(days=1): Figures(run=HOUR, saved=23 * HOUR),
        DAY + timedelta(days=2): Figures(saved=4 * HOUR),
    }


def test_only_what_lies_in_the_window_counts() -> None:
    found = changes((-5, "starting"), (-5, "running"), *stop(2, "idle"))
    window = Window(since=MIDNIGHT, until=MIDNIGHT + 10 * HOUR)
    assert savings.fold(found, window=window, lifetime=LIFETIME) == {DAY: Figures(run=2 * HOUR, saved=8 * HOUR)}


@pytest.mark.parametrize("days", [1, 7, 30, 366])
def test_a_window_is_today_and_the_days_before(days: int) -> None:
    window = Window.of_days(days, now=NOW)
    assert len(window.days()) == days
    assert window.days()[-1] == NOW.date()
    assert window.days()[0] == window.since.date()
    assert (window.since.hour, window.until) == (0, NOW)


@pytest.mark.parametrize("days", [-1, 0, 367])
def test_a_window_is_bounded(days: int) -> None:
    with pytest.raises(ValueError, match="1 to 366"):
        Window.of_days(days, now=NOW)


@pytest.mark.parametrize(
    ("run", "saved", "percent"), [(41, 310, 88), (0, 1, 100), (0.001, 1000, 99), (1, 0, 0), (0, 0, None)]
)
def test_the_share_is_rounded_down(run: float, saved: float, percent: int | None) -> None:
    assert Figures(run=run * HOUR, saved=saved * HOUR).saved_percent == percent


def test_users_are_added_up_and_sorted_by_what_was_saved() -> None:
    window = Window.of_days(2, now=NOW)
    first, second = window.days()
    alice = UserSavings(user_id=1, username="Alice", by_day={first: Figures(run=HOUR)})
    bob = UserSavings(user_id=2, username="bob", by_day={first: Figures(saved=HOUR), second: Figures(run=HOUR)})
    idle = UserSavings(user_id=3, username="nobody", by_day={})
    report = savings.summarise([alice, idle, bob], window=window)
    assert report.by_day == {first: Figures(run=HOUR, saved=HOUR), second: Figures(run=HOUR)}
    assert report.total == Figures(run=2 * HOUR, saved=HOUR)
    assert [user.username for user, _ in report.users] == ["bob", "Alice"]
    assert [user.username for user, _ in report.users_named("ALI")] == ["Alice"]


# --- properties ---


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """A legal history of one user, some of it before the window, with times that may be equal."""
    state, moment = "stopped", MIDNIGHT - timedelta(days=3)
    found = []
    for _ in range(draw(st.integers(0, 25))):
        moment += timedelta(seconds=draw(st.integers(0, 20 * 3600)))
        to = draw(st.sampled_from(sorted(TRANSITIONS[state])))  # type: ignore[index]
        reason = draw(st.sampled_from(["idle", "work_budget", "finished", "user", "lifetime"]))
        found.append(Change(1, moment, state, str(to), reason))
        state = str(to)
    return found


LIFETIMES = st.integers(1, 72 * 60).map(lambda minutes: timedelta(minutes=minutes))
WINDOWS = st.builds(
    lambda since, length: Window(since=since, until=since + length),
    st.integers(-96, 200).map(lambda hours: MIDNIGHT + hours * HOUR),
    st.integers(0, 20 * 24 * 60).map(lambda minutes: timedelta(minutes=minutes)),
)


@given(history=histories(), window=WINDOWS, lifetime=LIFETIMES)
@settings(deadline=None)
def test_run_and_saved_never_exceed_the_time_that_passed(
    history: list[Change], window: Window, lifetime: timedelta
) -> None:
    by_day = savings.fold(history, window=window, lifetime=lifetime)
    total = sum(by_day.values(), NOTHING)
    assert total.run + total.saved <= window.until - window.since
    for day, figures in by_day.items():
        assert timedelta() < figures.run + figures.saved <= timedelta(days=1)
        assert day in window.days()


@given(history=histories(), window=WINDOWS, lifetime=LIFETIMES, cut=st.floats(0, 1))
@settings(deadline=None)
def test_the_days_and_any_two_parts_of_a_window_sum_to_the_whole(
    history: list[Change], window: Window, lifetime: timedelta, cut: float
) -> None:
    spans = list(savings.intervals(history, lifetime=lifetime, now=window.until))
    whole = sum((_within(span, window) for span in spans), NOTHING)
    middle = window.since + (window.until - window.since) * cut
    assert sum(savings.fold(history, window=window, lifetime=lifetime).values(), NOTHING) == whole
    known = [change for change in history if change.time <= middle]
    parts = [
        savings.fold(known, window=Window(since=window.since, until=middle), lifetime=lifetime),
        savings.fold(history, window=Window(since=middle, until=window.until), lifetime=lifetime),
    ]
    assert sum(itertools.chain.from_iterable(part.values() for part in parts), NOTHING) == whole


def _within(span: savings.Interval, window: Window) -> Figures:
    length = max(timedelta(), min(span.end, window.until) - max(span.start, window.since))
    return Figures(saved=length) if span.saved else Figures(run=length)


@given(history=histories(), lifetime=LIFETIMES)
@settings(deadline=None)
def test_intervals_never_overlap(history: list[Change], lifetime: timedelta) -> None:
    spans = savings.intervals(history, lifetime=lifetime, now=MIDNIGHT + timedelta(days=60))
    for one, next_one in itertools.pairwise(span for span in spans if span.start < span.end):
        assert one.end <= next_one.start


# --- from the database ---


def write(user: Any, history: Iterable[Change]) -> None:
    """Give the user's workspace this history."""
    workspace = access.ensure_workspace_for(user)
    Transition.objects.bulk_create(
        Transition(
            workspace=workspace,
            from_state=change.from_state,
            to_state=change.to_state,
            reason=change.reason,
            time=change.time,
            generation=1,
        )
        for change in history
    )


def ask(since: float, until: float, **options: Any) -> savings.Report:
    window = Window(since=MIDNIGHT + since * HOUR, until=MIDNIGHT + until * HOUR)
    return savings.report(window=window, lifetime=LIFETIME, **options)


def test_the_reasons_are_those_of_the_states() -> None:
    assert {str(reason) for reason in Reason} >= savings.SAVING


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("what", "steps", "run", "saved"),
    [
        ("before all of it", [(-2000, "starting"), (-1999, "running")], 10, 0),
        ("stopped before", [(-3, "starting"), (-3, "running"), *stop(-1, "idle")], 0, 10),
        ("stopped long before", [(-30, "starting"), (-30, "running"), *stop(-20, "idle")], 0, 0),
        ("stopped before, saves a while", [(-20, "starting"), (-20, "running"), *stop(-1, "idle")], 0, 4),
        ("stopped before by its user", [(-3, "starting"), (-3, "running"), *stop(-1, "user")], 0, 0),
        ("started before, stopped within", [(-3, "starting"), (-3, "running"), *stop(2, "idle")], 2, 8),
        ("ran past the lifetime", [(-50, "starting"), (-50, "running"), *stop(2, "idle")], 2, 0),
        ("started after", [(11, "starting"), (12, "running")], 0, 0),
        ("stopped after", [(1, "starting"), (2, "running"), *stop(30, "idle")], 8, 0),
        ("came back before", [(-30, "starting"), (-30, "running"), (-1, "stopping"), (-1, "running")], 10, 0),
    ],
)
def test_what_began_before_the_window_counts_within_it(
    user: Any, what: str, steps: list[Step], run: float, saved: float
) -> None:
    write(user, changes(*steps))
    assert ask(0, 10).total == Figures(run=run * HOUR, saved=saved * HOUR), what
    assert ask(0, 10, user_id=user.pk).total == ask(0, 10).total


@pytest.mark.django_db
@given(history=histories(), days=st.integers(1, 30))
@settings(deadline=None, max_examples=examples(30))
def test_the_queries_find_what_the_whole_history_says(days: int, history: list[Change]) -> None:
    get_user_model()._default_manager.all().delete()
    owner = get_user_model()._default_manager.create(username="owner")
    write(owner, history)
    window = Window.of_days(days, now=MIDNIGHT + timedelta(days=10, hours=7))
    expected = savings.fold(history, window=window, lifetime=LIFETIME)
    found = savings.report(window=window, lifetime=LIFETIME)
    assert {day: figures for day, figures in found.by_day.items() if figures} == expected


@pytest.mark.django_db
def test_a_user_with_a_lifetime_of_their_own_saves_by_it(make_user: Callable[..., Any]) -> None:
    short, long, usual = make_user("short"), make_user("long"), make_user("usual")
    UserLimits.objects.create(user=short, max_lifetime_hours=5)
    UserLimits.objects.create(user=long, max_lifetime_hours=200)
    UserLimits.objects.create(user=usual, idle_minutes=5)
    for each in (short, long, usual):
        write(each, changes((-40, "starting"), (-40, "running"), *stop(-38, "idle")))
    write(short, changes((1, "starting"), (1, "running"), *stop(2, "idle")))
    assert {user.username: total.saved / HOUR for user, total in ask(0, 10).users} == {"long": 10, "short": 4}


@pytest.mark.django_db
def test_the_number_of_queries_does_not_grow_with_users(
    make_user: Callable[..., Any], django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [make_user() for _ in range(7)]
    for each in people:
        write(each, changes((-90, "starting"), (-90, "running"), *stop(2, "idle")))
    with django_assert_num_queries(5):  # users, their limits, what leads in, what happened; and no more users
        everybody = ask(0, 10)
    assert everybody.total.run == 14 * HOUR
    monkeypatch.setattr(savings, "WORKSPACES_AT_ONCE", 3)
    with django_assert_num_queries(13):
        assert ask(0, 10).total == everybody.total
    window = everybody.window
    sizes = [len(found) for found in savings.load(window=window, lifetime=LIFETIME)]
    assert sizes == [3, 3, 1]


@pytest.mark.django_db
def test_one_users_figures_are_theirs_alone(make_user: Callable[..., Any]) -> None:
    alice, bob, carol = make_user("alice"), make_user("bob"), make_user("carol")
    write(alice, changes((1, "starting"), (1, "running"), *stop(2, "user")))
    write(bob, changes((1, "starting"), (1, "running"), *stop(5, "idle")))
    assert ask(0, 10, user_id=alice.pk).total == Figures(run=HOUR)
    assert ask(0, 10, user_id=carol.pk).total == NOTHING
    assert ask(0, 10).total == Figures(run=5 * HOUR, saved=5 * HOUR)


@pytest.mark.django_db
def test_an_idle_stop_by_the_lifecycle_counts(user: Any, running: Workspace, runtime: MemoryRuntime) -> None:
    """The figures read what the lifecycle really writes."""
    stopped = lifecycle.request_stop(running, actor=None, reason=Reason.IDLE)
    assert lifecycle.perform_stop(stopped.pk, stopped.generation, runtime=runtime) is lifecycle.Outcome.DONE
    running.refresh_from_db()
    assert running.started_at is not None
    assert running.stopped_at is not None
    window = Window.of_days(30, now=running.started_at + timedelta(days=3))
    total = savings.report(window=window, lifetime=LIFETIME).total
    newest = Transition.objects.filter(workspace=running)
    times = {row.to_state: row.time for row in newest}
    assert total.run == times["stopping"] - times["running"]
    assert total.saved == times["running"] + LIFETIME - times["stopped"]
