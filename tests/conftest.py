"""Fixtures named after situations. Postgres and Redis are real and come from deploy/test/services.sh."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from rest_framework.test import APIClient

from workspaces import conf
from workspaces.runtimes.memory import MemoryRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _nothing_queued() -> Iterator[None]:
    """What a test enqueues goes to a broker in memory that nobody consumes: like a Redis that was wiped."""
    from gunpowder.celery import app

    before = app.conf.broker_url
    app.conf.broker_url = "memory://"
    yield
    app.conf.broker_url = before


@pytest.fixture(autouse=True)
def _no_throttle_left_over() -> None:
    cache.clear()


@pytest.fixture
def now() -> datetime:
    return datetime.now(tz=UTC)


@pytest.fixture
def make_user(db: None) -> Callable[..., Any]:
    count = iter(range(1000))

    def make(username: str = "", **flags: Any) -> Any:
        name = username or f"user-{next(count)}"
        return get_user_model()._default_manager.create_user(name, password="pw-" + name, **flags)  # type: ignore[attr-defined]

    return make


@pytest.fixture
def user(make_user: Callable[..., Any]) -> Any:
    return make_user("alice")


@pytest.fixture
def staff(make_user: Callable[..., Any]) -> Any:
    return make_user("root", is_staff=True, is_superuser=True)


@pytest.fixture
def runtime() -> MemoryRuntime:
    """A runtime of this test's own, also for code that asks for the configured one."""
    conf.runtime.cache_clear()
    configured = conf.runtime()
    assert isinstance(configured, MemoryRuntime)
    return configured


@pytest.fixture
def api(user: Any) -> APIClient:
    """A client with the session of `user`."""
    client = APIClient()
    client.force_login(user)
    return client
