"""Are the platform's own processes at work: workers, beat, database, and what visitors meet?"""

from __future__ import annotations

import http.client
import json
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import connection
from django.db.models import Max
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from workspaces import conf
from workspaces.doctor.findings import Finding, advice, well, wrong
from workspaces.models import WorkerBeat

if TYPE_CHECKING:
    from datetime import datetime

# Beat has something to send every few seconds; this is also what no restart of it takes.
SILENT_BEAT = timedelta(minutes=2)
CLOCK = timedelta(seconds=2)
EDGE_SECONDS = 8.0  # `/readyz` itself gives up asking after 5
NOBODY = 999_999_999_999_999_999  # the largest id that nginx takes for one


def workers(*, now: datetime) -> Finding:
    fresh = list(WorkerBeat.fresh(now=now))
    if missing := WorkerBeat.missing(fresh):
        seconds = int(WorkerBeat.FRESH.total_seconds())
        sentence = f"nobody has consumed the queue of {' and '.join(missing)} for {seconds} s"
        return wrong("workers", f"{sentence}; look at `docker compose ps worker` and its log")
    return well("workers", f"{len(fresh)} consume their queues")


def beat(*, now: datetime) -> Finding:
    last = PeriodicTask.objects.filter(enabled=True).aggregate(last=Max("last_run_at"))["last"]
    if last is None or now - last > SILENT_BEAT:
        since = "has never sent anything" if last is None else f"has sent nothing since {last:%d %b, %H:%M} UTC"
        sentence = f"it {since}: nobody who is idle is stopped; look at `docker compose ps beat` and its log"
        return wrong("beat", sentence)
    return well("beat", f"sent something {(now - last).total_seconds():.0f} s ago")


def database_clock() -> Finding:
    with connection.cursor() as cursor:
        before = timezone.now()
        cursor.execute("SELECT clock_timestamp()")
        there: datetime = cursor.fetchone()[0]
        after = timezone.now()
    # It read its clock somewhere between; what the way took is no difference.
    apart = max(before - there, there - after, timedelta(0))
    if apart > CLOCK:
        return wrong("database clock", f"it is {apart.total_seconds():.0f} s away from this process's; turn on NTP")
    return well("database clock", "agrees with this process's")


def addresses() -> Finding:
    """Lock-out, throttles and turns count by address, which has to be the client's."""
    if conf.env().public_scheme == "https" and not conf.env().trusted_proxies:
        sentence = (
            "everybody who comes through the proxy in front is one address: whoever guesses passwords locks others "
            "out. Name the proxy in GUNPOWDER_TRUSTED_PROXIES: the address that nginx logs for its requests"
        )
        return advice("addresses", sentence)
    said = ", ".join(conf.env().trusted_proxies)
    return well("addresses", f"who a client is {said} may say" if said else "whoever connects is a client")


def edge() -> list[Finding]:
    """What a visitor meets: nginx, the web processes behind it, and an editor's door that is shut."""
    place = f"127.0.0.1:{conf.env().port}"
    try:
        status, body = _get("/readyz")
        door, _ = _get(f"/code/user/{NOBODY}/")
    except (OSError, http.client.HTTPException) as error:
        sentence = f"nothing answers at {place} ({type(error).__name__}); look at `docker compose ps nginx web`"
        return [wrong("front door", sentence)]
    return [_ready(status, body), _shut(door)]


def _ready(status: int, body: bytes) -> Finding:
    """What only the web processes can say: do they reach database and broker? Workers and engine are asked directly."""
    try:
        checks = json.loads(body)["checks"]
        said = [str(checks[name].get("message", name)) for name in ("database", "broker") if not checks[name]["ok"]]
    except (ValueError, LookupError, TypeError, AttributeError):
        said = [f"web answers {status}; look at `docker compose ps web` and its log"]
    if said:
        return wrong("front door", " ".join(said))
    return well("front door", "nginx and web answer, and reach database and broker")


def _shut(status: int) -> Finding:
    # Not a redirect either: an editor that sends strangers to a log-in of its own has been reached.
    if status not in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
        sentence = f"an editor's address answers {status} to a stranger, not 401; look at nginx's and web's log"
        return wrong("shut door", sentence)
    return well("shut door", f"an editor's address answers {status} to a stranger")


def _get(path: str) -> tuple[int, bytes]:
    host = conf.env().allowed_hosts[0].lstrip("*.") or "localhost"  # `.example.org` and `*` are patterns
    client = http.client.HTTPConnection("127.0.0.1", conf.env().port, timeout=EDGE_SECONDS)
    try:
        client.request("GET", path, headers={"Host": host, "Accept": "application/json"})
        answer = client.getresponse()
        return answer.status, answer.read(65536)
    finally:
        client.close()
