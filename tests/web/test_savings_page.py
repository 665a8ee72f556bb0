"""The savings page and its CSV file: who sees whose figures, the words, the chart, and cells that compute nothing."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client
from django.utils import timezone

from workspaces import access
from workspaces.models import Transition
from workspaces.savings import Figures, Report, UserSavings, Window, summarise
from workspaces.web import savings as page_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def ran() -> Callable[..., None]:
    """Let a user's editor have run for some hours until the idle stop, so many hours ago."""

    def write(user: Any, *, hours: float = 2, stopped: float = 72) -> None:
        workspace = access.ensure_workspace_for(user)
        end = timezone.now() - stopped * HOUR
        steps: list[tuple[datetime, str, str, str]] = [
            (end - hours * HOUR, "stopped", "starting", "user"),
            (end - hours * HOUR, "starting", "running", "ready"),
            (end, "running", "stopping", "idle"),
            (end, "stopping", "stopped", "idle"),
        ]
        for moment, before, after, reason in steps:
            Transition.objects.create(
                workspace=workspace, from_state=before, to_state=after, reason=reason, time=moment, generation=1
            )

    return write


def browser_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(client: Client, path: str = "/savings", **query: Any) -> str:
    response = client.get(path, query)
    assert response.status_code == 200, response.content
    return response.content.decode()


def plain(text: str) -> str:
    """With spaces that may break."""
    return text.replace("\xa0", " ")


def sentence_in(page: str) -> str:
    found = re.search(r'id="sentence">(.*?)</p>', page)
    assert found is not None
    return plain(found[1])


def rows_of(client: Client, **query: Any) -> list[dict[str, str]]:
    response = client.get("/savings.csv", query)
    assert response.status_code == 200
    content: Any = response.streaming_content  # type: ignore[attr-defined]
    return list(csv.DictReader(io.StringIO(b"".join(content).decode(), newline="")))


# --- who sees what ---


@pytest.mark.parametrize("path", ["/savings", "/savings.csv"])
def test_a_stranger_is_sent_to_the_login(client: Client, path: str) -> None:
    assert client.get(path)["Location"] == f"/login?next={path}"


def test_a_user_sees_their_own_figures_only(user: Any, make_user: Callable[..., Any], ran: Callable[..., None]) -> None:
    bob = make_user("bob")
    ran(user, hours=2)
    ran(bob, hours=5)
    page = text_of(browser_of(user))
    assert sentence_in(page) == (
        "In the last 30 days your editor ran for 2 h and was stopped for 22 h "
        "that it would otherwise have run: 91 % saved."
    )
    assert "bob" not in page
    assert {row["username"] for row in rows_of(browser_of(user))} == {"alice"}


@pytest.mark.parametrize("path", ["/savings", "/savings.csv"])
def test_other_peoples_figures_are_not_there(user: Any, staff: Any, make_user: Callable[..., Any], path: str) -> None:
    bob = make_user("bob")
    for named in (bob.pk, staff.pk, 999_999, "01", "x", "9" * 40):
        assert browser_of(user).get(path, {"user": named}).status_code == 404
    assert browser_of(user).get(path, {"user": user.pk}).status_code == 200
    assert browser_of(staff).get(path, {"user": bob.pk}).status_code == 200
    assert browser_of(staff).get(path, {"user": 999_999}).status_code == 404


def test_staff_see_everybody_and_each(
    staff: Any, user: Any, make_user: Callable[..., Any], ran: Callable[..., None]
) -> None:
    bob = make_user("bob")
    ran(user, hours=2)
    ran(bob, hours=5)
    page = text_of(browser_of(staff))
    assert sentence_in(page) == (
        "In the last 30 days all editors together ran for 7 h and were stopped for 41 h "
        "that they would otherwise have run: 85 % saved."
    )
    assert page.index(">alice</a>") < page.index(">bob</a>")  # most saved first
    assert f'href="/savings?days=30&amp;user={bob.pk}"' in page
    of_bob = text_of(browser_of(staff), user=bob.pk)
    assert sentence_in(of_bob).startswith("In the last 30 days the editor of bob ran for 5 h and was stopped for 19 h")
    assert "alice" not in of_bob
    assert f'href="/savings.csv?days=30&amp;user={bob.pk}"' in of_bob
    assert {row["username"] for row in rows_of(browser_of(staff))} == {"alice", "bob"}
    assert {row["username"] for row in rows_of(browser_of(staff), user=bob.pk)} == {"bob"}


def test_staff_find_users_by_name(
    staff: Any, user: Any, make_user: Callable[..., Any], ran: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "USERS_SHOWN", 2)
    for each in (user, make_user("bob"), make_user("<b>bold</b>")):
        ran(each)
    everybody = text_of(browser_of(staff))
    assert "The 2 with the most saved of 3 users." in everybody
    assert "<b>bold" not in everybody
    found = text_of(browser_of(staff), name=" BO ")
    assert ">bob</a>" in found
    assert "&lt;b&gt;bold&lt;/b&gt;</a>" in found
    assert "alice</a>" not in found
    assert sentence_in(found) == sentence_in(everybody)
    assert "No user with hours" in text_of(browser_of(staff), name="zzz")


# --- what is asked for ---


@pytest.mark.parametrize("days", ["0", "367", "-1", "x", "07", "7.0", "\x00", "\u0663", "9" * 5000])
@pytest.mark.parametrize("path", ["/savings", "/savings.csv"])
def test_days_that_are_none_are_a_400(user: Any, path: str, days: str) -> None:
    assert browser_of(user).get(path, {"days": days}).status_code == 400


@pytest.mark.parametrize("days", [1, 7, 30, 90, 366])
def test_a_range_has_a_bar_and_a_row_for_each_day(user: Any, ran: Callable[..., None], days: int) -> None:
    ran(user, hours=1, stopped=0)
    page = text_of(browser_of(user), days=days)
    assert page.count('class="chart-slot"') == days
    assert page.count('<tr><th scope="row">') == days
    assert ('aria-current="true"' in page) is (days in {7, 30, 90})


def test_before_the_first_run_the_page_says_so(user: Any, staff: Any) -> None:
    for each, name in ((user, "your editor"), (staff, "all editors together")):
        page = text_of(browser_of(each))
        assert sentence_in(page) == f"In the last 30 days {name} did not run, so there was nothing to save."
        assert "Nothing to draw yet" in page
        assert "<svg class" not in page.partition("<main")[2]
        assert rows_of(browser_of(each)) == []


def test_home_leads_to_the_page(user: Any) -> None:
    assert 'href="/savings"' in text_of(browser_of(user), "/")


# --- the page ---


def test_the_chart_is_named_and_needs_no_inline_script_or_style(user: Any, ran: Callable[..., None]) -> None:
    ran(user)
    page = text_of(browser_of(user))
    assert "style=" not in page
    assert "<script" not in page
    assert "<style" not in page
    drawing = re.search(r'<svg class="chart-bars".*?</svg>', page, re.DOTALL)
    assert drawing is not None
    svg = ET.fromstring(drawing[0])  # noqa: S314 - our own
    names = {element.get("id"): element.text for element in svg if element.get("id")}
    assert (svg.get("role"), svg.get("aria-labelledby")) == ("img", "chart-title chart-description")
    assert names["chart-title"]
    assert "91 % saved" in plain(str(names["chart-description"]))


def chart_of(*figures: Figures) -> dict[str, Any]:
    now = timezone.now()
    window = Window.of_days(len(figures), now=now)
    user = UserSavings(user_id=1, username="x", by_day=dict(zip(window.days(), figures, strict=True)))
    return page_module._chart(summarise([user], window=window))


def test_bars_stand_on_each_other_and_are_never_too_small_to_see() -> None:
    chart = chart_of(Figures(run=6 * HOUR, saved=12 * HOUR), Figures(run=timedelta(seconds=1)), Figures())
    first, second, third = chart["bars"]
    assert chart["scale"] == ["24 h", "12 h", "0"]
    assert (first["run_y"], first["run_height"]) == (750, 250)
    assert (first["saved_y"], first["saved_height"]) == (250, 500)
    assert (second["run_height"], second["saved_height"]) == (page_module.LEAST, 0)
    assert (third["run_height"], third["saved_height"]) == (0, 0)


@pytest.mark.parametrize(
    ("most", "scale"),
    [
        (0, ["1 h", "0.5 h", "0"]),
        (1.2, ["2 h", "1 h", "0"]),
        (24, ["24 h", "12 h", "0"]),
        (24.5, ["40 h", "20 h", "0"]),
        (100, ["100 h", "50 h", "0"]),
        (101, ["200 h", "100 h", "0"]),
        (999, ["1,000 h", "500 h", "0"]),
        (48_000, ["60,000 h", "30,000 h", "0"]),
    ],
)
def test_the_scale_has_easy_numbers(most: float, scale: list[str]) -> None:
    assert chart_of(Figures(run=most * HOUR))["scale"] == scale


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0, "0"),
        (0.001, "1 min"),
        (0.99, "59 min"),
        (0.995, "1 h"),
        (3.44, "3.4 h"),
        (9.96, "10 h"),
        (41.4, "41 h"),
        (1203.6, "1,204 h"),
    ],
)
def test_hours_are_as_exact_as_a_person_wants_them(hours: float, words: str) -> None:
    assert plain(page_module._words(hours * HOUR)) == words


def report_of(days: int, **figures: timedelta) -> Report:
    window = Window.of_days(days, now=timezone.now())
    user = UserSavings(user_id=1, username="x", by_day={window.days()[0]: Figures(**figures)})
    return summarise([user], window=window)


@pytest.mark.parametrize(
    ("days", "figures", "sentence"),
    [
        (
            30,
            {"run": 41 * HOUR, "saved": 310 * HOUR},
            (
                "In the last 30 days your editor ran for 41 h and was stopped for 310 h "
                "that it would otherwise have run: 88 % saved."
            ),
        ),
        (
            7,
            {"run": 41 * HOUR},
            "In the last 7 days your editor ran for 41 h and was never stopped for being unused, so nothing was saved.",
        ),
        (
            1,
            {"saved": 6 * HOUR},
            "Today your editor did not run and was stopped for 6 h that it would otherwise have run: 100 % saved.",
        ),
        (1, {}, "Today your editor did not run, so there was nothing to save."),
    ],
)
def test_the_sentence_says_it_in_plain_words(days: int, figures: dict[str, timedelta], sentence: str) -> None:
    whose = page_module._Whose(name="your editor")
    assert plain(page_module._sentence(report_of(days, **figures), whose=whose)) == sentence


# --- CSV ---


def test_the_csv_file_has_a_line_for_each_day_with_hours(user: Any, ran: Callable[..., None]) -> None:
    ran(user, hours=2, stopped=72)
    response = browser_of(user).get("/savings.csv", {"days": 7})
    days = Window.of_days(7, now=timezone.now()).days()
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == f'attachment; filename="gunpowder-savings-{days[0]}-to-{days[-1]}.csv"'
    assert "no-store" in response["Cache-Control"]
    assert response.streaming
    rows = rows_of(browser_of(user), days=7)
    assert list(rows[0]) == ["day", "user_id", "username", "run_hours", "saved_hours"]
    assert [row["day"] for row in rows] == sorted(row["day"] for row in rows)
    assert {(row["user_id"], row["username"]) for row in rows} == {(str(user.pk), "alice")}
    assert sum(float(row["run_hours"]) for row in rows) == pytest.approx(2, abs=0.001)
    assert sum(float(row["saved_hours"]) for row in rows) == pytest.approx(22, abs=0.001)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("alice", "alice"),
        ("al-ice+x@y.z", "al-ice+x@y.z"),
        ("a=b", "a=b"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "\t'=1"),
        ("\r\n=1", "\r\n'=1"),
        ("  =1", "  '=1"),
        ("a;=1", "a;'=1"),
        ('",=1', "\",'=1"),
        ("\uff1d1", "'\uff1d1"),
    ],
)
def test_no_user_name_becomes_a_formula(
    make_user: Callable[..., Any], ran: Callable[..., None], name: str, cell: str
) -> None:
    user = make_user("x")
    user.username = name
    user.save()
    ran(user, stopped=30)
    assert {row["username"] for row in rows_of(browser_of(user))} == {cell}


@pytest.mark.django_db(transaction=True)
def test_the_csv_file_streams_where_the_server_has_an_event_loop(
    staff: Any, make_user: Callable[..., Any], ran: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workspaces.savings.WORKSPACES_AT_ONCE", 2)
    for number in range(5):
        ran(make_user(f"person-{number}"), stopped=30)
    client = AsyncClient()

    async def read() -> list[bytes]:
        await client.aforce_login(staff)
        response: Any = await client.get("/savings.csv")
        assert response.is_async
        return [part async for part in response.streaming_content]

    parts = async_to_sync(read)()
    assert len(parts) == 4  # the head, and two users, two, one
    names = {row["username"] for row in csv.DictReader(io.StringIO(b"".join(parts).decode(), newline=""))}
    assert names == {f"person-{number}" for number in range(5)}
