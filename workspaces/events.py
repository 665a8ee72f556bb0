"""Server-sent events: the workspace whenever it changes, and each stage of a start.

One poller a process asks for all watched rows at once, so that a thousand open pages cost one small query, no worker
thread and no lost notification: what a stream missed while the database was away, the next look shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections
from django.http import StreamingHttpResponse
from psycopg_pool import PoolTimeout

from workspaces.admission import Queue
from workspaces.api.representation import represent
from workspaces.models import Workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

logger = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
COMMENT_SECONDS = 15.0
# Then the client connects again, and its right to watch is checked again.
STREAM_SECONDS = 600.0


@dataclass(eq=False)
class _Watcher:
    """One open stream. `news` is set whenever the row may differ from what the stream has sent."""

    user_id: int
    news: asyncio.Event = field(default_factory=asyncio.Event)
    latest: dict[str, Any] | None = None
    closed: bool = False


class _Hub:
    """The watchers of one event loop, and the poller that runs while there are any."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._poller: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watching(self, user_id: int) -> Any:
        watcher = _Watcher(user_id)
        self._watchers.add(watcher)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    async def _poll(self) -> None:
        while self._watchers:
            asked = list(self._watchers)  # who comes while the database answers is for the next look
            try:
                found = await sync_to_async(_load, thread_sensitive=False)({w.user_id for w in asked})
            except (DatabaseError, PoolTimeout) as error:
                logger.warning("events_paused", error=type(error).__name__)
                await asyncio.sleep(1)
                continue
            for watcher in asked:
                now = found.get(watcher.user_id)
                if now is None:
                    watcher.closed = True
                    watcher.news.set()
                elif now != watcher.latest:
                    watcher.latest = now
                    watcher.news.set()
            await asyncio.sleep(POLL_SECONDS)


_hubs: dict[int, _Hub] = {}


def _hub() -> _Hub:
    """One hub a loop; a server has one, each asynchronous test its own."""
    key = id(asyncio.get_running_loop())
    return _hubs.setdefault(key, _Hub())


def _load(user_ids: set[int]) -> dict[int, dict[str, Any]]:
    """What each watcher may see now; a user who may not come in any more is left out."""
    from django.contrib.auth import (
        get_user_model,
    )  # the app registry is not ready when this module is imported

    try:
        rows = {row.user_id: row for row in Workspace.objects.filter(user_id__in=user_ids)}
        active = get_user_model()._default_manager.filter(pk__in=user_ids, is_active=True)
        queue = Queue()
        return {
            pk: represent(rows.get(pk) or Workspace(user_id=pk), queue=queue)
            for pk in active.values_list("pk", flat=True)
        }
    finally:
        connections.close_all()


def event_response(user_id: int) -> StreamingHttpResponse:
    """A stream for the user's own eyes; the caller has checked that."""
    response = StreamingHttpResponse(_stream(user_id), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


async def _stream(user_id: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    end = loop.time() + STREAM_SECONDS
    told: set[tuple[str, str]] = set()
    with _hub().watching(user_id) as watcher:
        yield b"retry: 2000\n\n"
        while not watcher.closed and loop.time() < end:
            try:
                await asyncio.wait_for(watcher.news.wait(), timeout=COMMENT_SECONDS)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            watcher.news.clear()
            if watcher.latest is not None and not watcher.closed:
                for stage in watcher.latest["stages"]:
                    if (stage["stage"], stage["at"]) not in told:
                        told.add((stage["stage"], stage["at"]))
                        yield _event("progress", stage)
                yield _event("workspace", watcher.latest)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
