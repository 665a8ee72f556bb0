"""The savings page and its CSV file: who sees which figures, said in words and drawn as a chart.

Users see their own, staff everybody's and with `user` one person's. Other people's are not there (404) for the rest.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.core.exceptions import BadRequest
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import Http404, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from workspaces import access, conf, savings
from workspaces.web.asking import parse_user_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from datetime import date, timedelta

    from django.http import HttpRequest, HttpResponse

    from workspaces.savings import Figures, Report, UserSavings

RANGES = (7, 30, 90)
USERS_SHOWN = 50
CSV_COLUMNS = ("day", "user_id", "username", "run_hours", "saved_hours")
# What a spreadsheet takes for the start of a formula, at the start of a cell or of what it may split into one.
_FORMULA = re.compile(r"""(?:^|(?<=[\s;,|"']))(?=[=+\-@\uff1d\uff0b\uff0d\uff20])""")


# --- what is asked for ---


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """`user` is whose figures are wanted; None for everybody's."""

    days: int
    user: Any

    @property
    def user_id(self) -> int | None:
        return None if self.user is None else self.user.pk


def _asked(request: HttpRequest) -> _Asked:
    """Raises Http404 for figures that are not for this user, BadRequest for days that are none."""
    return _Asked(days=_days(request.GET.get("days", "")), user=_whose(request))


def _days(text: str) -> int:
    if not text:
        return savings.DEFAULT_DAYS
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text) or int(text) > savings.MAX_DAYS:
        raise BadRequest("days")
    return int(text)


def _whose(request: HttpRequest) -> Any:
    me: Any = request.user
    text = request.GET.get("user", "")
    if not text:
        return None if access.may_see_all(me) else me
    user_id = parse_user_id(text)
    if user_id == me.pk:
        return me
    found = access.find_user_for_staff(user_id) if user_id is not None and access.may_see_all(me) else None
    if found is None:
        raise Http404
    return found


# --- the page ---


@require_safe
@never_cache
@login_required
def page(request: HttpRequest) -> HttpResponse:
    asked = _asked(request)
    window = savings.Window.of_days(asked.days, now=timezone.now())
    report = savings.report(window=window, lifetime=conf.limits().lifetime, user_id=asked.user_id)
    context = {
        "sentence": _sentence(report, whose=_whose_words(asked, me=request.user)),
        "title": "Savings" if asked.user in (None, request.user) else f"Savings of {asked.user}",
        "days": asked.days,
        "user_id": asked.user_id,
        "everybody": asked.user is None,
        "may_see_all": access.may_see_all(request.user),
        "ranges": RANGES,
        "any": bool(report.total),
        "chart": _chart(report),
        "rows": [_row(day, figures) for day, figures in reversed(report.by_day.items())],
        "lifetime": _words(conf.limits().lifetime),
        **(_users(report, name=request.GET.get("name", "").strip()) if asked.user is None else {}),
    }
    return render(request, "workspaces/savings.html", context)


def _users(report: Report, *, name: str) -> dict[str, Any]:
    found = report.users_named(name)
    return {
        "name": name,
        "user_count": len(found),
        "users": [
            {"id": user.user_id, "name": user.username, "percent": total.saved_percent, **_words_of(total)}
            for user, total in found[:USERS_SHOWN]
        ],
    }


def _row(day: date, figures: Figures) -> dict[str, Any]:
    return {"day": day, **_words_of(figures)}


def _words_of(figures: Figures) -> dict[str, str]:
    return {"run": _words(figures.run), "saved": _words(figures.saved)}


def _words(duration: timedelta) -> str:
    """As exact as a person wants it: `12 min`, `3.4 h`, `1,204 h` (unbroken); `0` for nothing."""
    minutes = duration.total_seconds() / 60
    if not minutes:
        return "0"
    if minutes < 59.5:  # noqa: PLR2004 - what would be rounded to an hour
        return f"{max(1, round(minutes))}\xa0min"
    hours = minutes / 60
    return f"{round(hours, 1):g}\xa0h" if hours < 9.95 else f"{round(hours):,}\xa0h"  # noqa: PLR2004 - rounded to 10


@dataclass(frozen=True, kw_only=True)
class _Whose:
    """The subject of the sentence."""

    name: str
    was: str = "was"
    it: str = "it"


def _whose_words(asked: _Asked, *, me: Any) -> _Whose:
    if asked.user is None:
        return _Whose(name="all editors together", was="were", it="they")
    return _Whose(name="your editor" if asked.user == me else f"the editor of {asked.user}")


def _sentence(report: Report, *, whose: _Whose) -> str:
    """The figures in plain words."""
    total, days = report.total, len(report.by_day)
    when = f"In the last {days} days" if days > 1 else "Today"
    if not total:
        return f"{when} {whose.name} did not run, so there was nothing to save."
    ran = f"ran for {_words(total.run)}" if total.run else "did not run"
    if not total.saved:
        return f"{when} {whose.name} {ran} and {whose.was} never stopped for being unused, so nothing was saved."
    return (
        f"{when} {whose.name} {ran} and {whose.was} stopped for {_words(total.saved)} "
        f"that {whose.it} would otherwise have run: {total.saved_percent}\xa0% saved."
    )


# --- the chart ---

# The drawing is stretched to the page's width, so its units mean nothing; the labels are text beside it.
SLOT, BAR, HEIGHT, LEAST = 100, 76, 1000, 8
WEEK, MONTH = 7, 31


def _chart(report: Report) -> dict[str, Any]:
    """Bars for each day, saved on top of run; all numbers whole, because templates print others as the locale likes."""
    days = list(report.by_day.items())
    top = _nice_top(max((figures.run + figures.saved).total_seconds() / 3600 for _, figures in days))
    shown = days if len(days) <= WEEK else [days[0], days[len(days) // 2], days[-1]]
    return {
        "width": SLOT * len(days),
        "height": HEIGHT,
        "half": HEIGHT // 2,
        "slot": SLOT,
        "bar": BAR,
        "bars": [_bar(number, day, figures, top=top) for number, (day, figures) in enumerate(days)],
        "scale": [f"{top:,} h", f"{top / 2:g} h" if top < 1000 else f"{top // 2:,} h", "0"],  # noqa: PLR2004
        "days": [day for day, _ in shown],
        "dense": len(days) > WEEK,
        "thin": len(days) > MONTH,
    }


def _bar(number: int, day: date, figures: Figures, *, top: int) -> dict[str, Any]:
    run, saved = (_height(part, top=top) for part in (figures.run, figures.saved))
    return {
        "slot": number * SLOT,
        "x": number * SLOT + (SLOT - BAR) // 2,
        "run_y": HEIGHT - run,
        "run_height": run,
        "saved_y": HEIGHT - run - saved,
        "saved_height": saved,
        **_row(day, figures),
    }


def _height(part: timedelta, *, top: int) -> int:
    """Never nothing for something."""
    return max(LEAST, round(part.total_seconds() / 3600 / top * HEIGHT)) if part else 0


def _nice_top(most: float) -> int:
    """The end of the scale: at least `most` hours, whole, and so that its half is easy to read too."""
    if most <= 24:  # noqa: PLR2004 - a day
        return next(top for top in (1, 2, 4, 8, 12, 16, 24) if most <= top)
    unit = 10 ** int(math.log10(most))
    return next(int(unit * step) for step in (1, 2, 4, 6, 8, 10) if most <= unit * step)


# --- CSV ---


@require_safe
@never_cache
@login_required
def csv_file(request: HttpRequest) -> StreamingHttpResponse:
    """One line for each user and day with any hours, by user and day."""
    asked = _asked(request)
    window = savings.Window.of_days(asked.days, now=timezone.now())
    rounds = savings.load(window=window, lifetime=conf.limits().lifetime, user_id=asked.user_id)
    parts = _csv_parts(rounds)
    # A server with an event loop would collect a plain iterator whole; one without could not use the other kind.
    content: Any = _from_a_thread(parts) if isinstance(request, ASGIRequest) else parts
    response = StreamingHttpResponse(content, content_type="text/csv; charset=utf-8")
    name = f"gunpowder-savings-{window.days()[0]}-to-{window.days()[-1]}.csv"
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name)
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _csv_parts(rounds: Iterable[list[UserSavings]]) -> Iterator[bytes]:
    yield _csv_lines([CSV_COLUMNS])
    for found in rounds:
        if lines := _csv_lines(_cells(found)):
            yield lines


def _cells(found: Iterable[UserSavings]) -> Iterator[tuple[Any, ...]]:
    for user in found:
        name = harmless_cell(user.username)
        for day, figures in sorted(user.by_day.items()):
            yield day.isoformat(), user.user_id, name, f"{figures.run_hours:.4f}", f"{figures.saved_hours:.4f}"


def _csv_lines(rows: Iterable[tuple[Any, ...]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def harmless_cell(text: str) -> str:
    """The text such that no spreadsheet computes it: an apostrophe goes before whatever could begin a formula."""
    return _FORMULA.sub("'", text)


async def _from_a_thread(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each part when it is asked for; no connection is held while a slow client reads."""

    def advance() -> bytes | None:
        try:
            return next(parts, None)
        finally:
            connections.close_all()

    while (part := await sync_to_async(advance)()) is not None:
        yield part
