"""`/healthz`: the process lives. `/readyz`: database, broker, a worker and the runtime answer. `/metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Count
from django.http import HttpResponse, JsonResponse
from django.utils import timezone
from psycopg_pool import PoolTimeout

from workspaces.models import WorkerBeat, Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from django.http import HttpRequest

_UNKNOWN: dict[str, dict[str, Any]] = {
    name: {"ok": False, "message": "Unknown: the database does not answer."} for name in ("worker", "runtime")
}


def healthz(_: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


def readyz(_: HttpRequest) -> JsonResponse:
    """503 names what does not answer; the workers' rows speak for broker consumption and runtime."""
    database = _database()
    checks = {"database": database, "broker": _broker(), **(_workers() if database["ok"] else _UNKNOWN)}
    ready = all(check["ok"] for check in checks.values())
    return JsonResponse({"status": "ok" if ready else "unavailable", "checks": checks}, status=200 if ready else 503)


def metrics(_: HttpRequest) -> HttpResponse:
    """Prometheus text format; nginx refuses this path, so only the inner network can ask."""
    counts = dict(Workspace.objects.values_list("state").annotate(Count("pk")))
    lines = ["# HELP gunpowder_workspaces Workspaces by state.", "# TYPE gunpowder_workspaces gauge"]
    lines += [f'gunpowder_workspaces{{state="{state}"}} {counts.get(state, 0)}' for state in State]
    fresh = WorkerBeat.fresh(now=timezone.now()).count()
    lines += [
        "# HELP gunpowder_workers Workers that stamped themselves lately.",
        "# TYPE gunpowder_workers gauge",
    ]
    lines += [f"gunpowder_workers {fresh}", ""]
    return HttpResponse("\n".join(lines), content_type="text/plain; version=0.0.4")


def _database() -> dict[str, Any]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, PoolTimeout) as error:
        return {"ok": False, "message": f"Postgres does not answer ({type(error).__name__})."}
    return {"ok": True}


def _broker() -> dict[str, Any]:
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return {"ok": False, "message": f"Redis does not answer ({type(error).__name__})."}
    return {"ok": True}


def _workers() -> dict[str, dict[str, Any]]:
    beats = list(WorkerBeat.fresh(now=timezone.now()))
    missing = WorkerBeat.missing(beats)
    worker: dict[str, Any] = {"ok": not missing}
    if missing:
        worker["message"] = f"No worker consumed its queue within {WorkerBeat.FRESH.seconds} s: {', '.join(missing)}."
    runtime: dict[str, Any] = {"ok": any(beat.runtime_ok for beat in beats)}
    if not runtime["ok"]:
        runtime["message"] = "No worker reached the container engine lately."
    return {"worker": worker, "runtime": runtime}
