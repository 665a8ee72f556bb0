from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.test import AsyncClient
from django.utils import timezone

from tests.api.shapes import assert_error, assert_workspace
from workspaces import access, events, lifecycle, ticket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.api.conftest import Tokens
    from workspaces.models import Workspace
    from workspaces.runtimes.memory import MemoryRuntime

# The poller reads in threads of its own, so what it should see must be committed.
pytestmark = pytest.mark.django_db(transaction=True)
PATH = "/api/v1/code-server/events"


class Stream:
    """An open stream, read event by event."""

    def __init__(self, response: Any) -> None:
        assert response.status_code == 200, response.content
        self.response = response
        self._chunks: AsyncIterator[bytes] = aiter(response.streaming_content)

    async def chunk(self) -> str:
        return (await asyncio.wait_for(anext(self._chunks), timeout=8)).decode()

    async def until(self, name: str, condition: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The data of the next event of this name that fulfils the condition."""
        while True:
            fields = dict(line.split(": ", 1) for line in (await self.chunk()).strip().splitlines())
            if fields.get("event") == name:
                data: dict[str, Any] = json.loads(fields["data"])
                if condition(data):
                    return data

    async def rest(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(await self.chunk())
            except StopAsyncIteration:
                return found


def run(steps: Callable[[], Awaitable[None]]) -> None:
    async_to_sync(steps)()


def session_of(user: Any) -> AsyncClient:
    client = AsyncClient()
    client.force_login(user)
    return client


def test_a_program_sees_the_workspace_as_it_is(user: Any, log_in: Callable[[Any], Tokens]) -> None:
    access_token = log_in(user)["access"]

    async def steps() -> None:
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "text/event-stream"}
        stream = Stream(await AsyncClient().get(PATH, headers=headers))
        assert stream.response["Content-Type"] == "text/event-stream"
        assert stream.response["Cache-Control"] == "no-store"
        assert stream.response["X-Accel-Buffering"] == "no"
        assert_workspace(await stream.until("workspace"), user=user, state="stopped")

    run(steps)


def test_a_page_sees_every_change_and_each_stage(user: Any, runtime: MemoryRuntime) -> None:
    client = session_of(user)

    async def steps() -> None:
        stream = Stream(await client.get(PATH))
        assert_workspace(await stream.until("workspace"), user=user, state="stopped")
        row: Workspace = await sync_to_async(lifecycle.request_start)(user, actor=user)
        progress = await stream.until("progress")
        assert progress.keys() >= {"stage", "at"}
        assert progress["stage"] == "queued"
        assert_workspace(await stream.until("workspace"), user=user, state="starting")
        await sync_to_async(lifecycle.perform_start)(row.pk, row.generation, runtime=runtime)
        assert (await stream.until("progress", lambda data: data["stage"] == "ready"))["at"]
        # Its last stage is written a moment before its state: a look in between sees the one without the other.
        now = await stream.until("workspace", lambda data: data["state"] != "starting")
        assert_workspace(now, user=user, state="running")

    run(steps)


def test_a_quiet_stream_says_that_it_lives(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert events.COMMENT_SECONDS <= 15
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    client = session_of(user)

    async def steps() -> None:
        stream = Stream(await client.get(PATH))
        await stream.until("workspace")
        assert (await stream.chunk()).startswith(":")

    run(steps)


def test_the_stream_of_a_user_who_is_disabled_ends(user: Any) -> None:
    client = session_of(user)

    async def steps() -> None:
        stream = Stream(await client.get(PATH))
        await stream.until("workspace")
        user.is_active = False
        await user.asave()
        assert not [chunk for chunk in await stream.rest() if chunk.startswith("event")]

    run(steps)


def test_a_stream_ends_by_itself_so_that_the_right_to_watch_is_asked_again(
    user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAM_SECONDS", 0.3)
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    client = session_of(user)

    async def steps() -> None:
        assert await Stream(await client.get(PATH)).rest()

    run(steps)


def test_nobody_sees_anybody_elses_workspace(user: Any, make_user: Callable[..., Any]) -> None:
    client = session_of(make_user("bob"))

    async def steps() -> None:
        stream = Stream(await client.get(PATH))
        first = await stream.until("workspace")
        await sync_to_async(lifecycle.request_start)(user, actor=user)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.until("workspace"), timeout=0.8)
        assert first["user_id"] != user.pk

    run(steps)


def test_a_page_without_a_login_gets_no_stream() -> None:
    async def steps() -> None:
        assert_error(await AsyncClient().get(PATH), 401, "not_authenticated")

    run(steps)


def test_the_progress_page_watches_with_the_ticket_alone(user: Any) -> None:
    token = ticket.issue(access.ensure_workspace_for(user), login="", now=timezone.now())

    client = AsyncClient()
    client.cookies[ticket.COOKIE] = token
    headers = {"X-Gate-Key": "only-for-tests"}

    async def steps() -> None:
        stream = Stream(await client.get(f"/code/user/{user.pk}/_gunpowder/events", headers=headers))
        assert_workspace(await stream.until("workspace"), user=user, state="stopped")

    run(steps)
