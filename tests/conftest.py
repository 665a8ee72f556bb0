"""Fixtures named after situations. Postgres and Redis are real and come from deploy/test/services.sh."""

from __future__ import annotations

import contextlib
import gc
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from celery.signals import before_task_publish
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache, caches
from django.db import connection
from django.test import Client, TransactionTestCase
from rest_framework.test import APIClient

from tests.groups import process_of, turn_of
from tests.suite.patience import PATIENCE, SLOWNESS, examples
from workspaces import conf, lifecycle
from workspaces.runtimes.memory import MemoryRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workspaces.models import Workspace


pytest_plugins = ["tests.suite.limits", "tests.suite.progress", "tests.e2e.stacks"]


def pytest_configure(config: pytest.Config) -> None:
    """Groups are played in the order of collection, and not the largest first."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep each group in one process (`--dist loadgroup`), in an order that leaves no process idle at the end.

    pytest-xdist 3.8 does so by setting `Item._nodeid`, which pytest 9.2 no longer reads; there it groups nothing.
    """
    items.sort(key=turn_of)
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        group = process_of(item)
        if group and not item.nodeid.endswith(suffix := f"@{group}"):
            item._id = type(item._id).parse(item.nodeid + suffix)


def pytest_collection_finish() -> None:
    """Nothing that exists by now is garbage, so no collection needs to look at it again."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    return f"machine: {SLOWNESS:.1f} times as slow as a quiet one; waits are stretched {PATIENCE:.1f} times"


# How long an example takes says something about the machine's other guests and nothing about the code.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    max_examples=examples(100),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _nothing_queued() -> Iterator[None]:
    """What a test enqueues goes to a broker in memory that nobody consumes: like a Redis that was wiped."""
    from gunpowder.celery import app

    before = app.conf["broker_url"]
    app.conf["broker_url"] = "memory://"
    yield
    app.conf["broker_url"] = before


# What migrations wrote stays; a large table is truncated, because what is deleted is still read past.
EMPTY_ALL_TABLES = """
DO $$
DECLARE place regclass;
BEGIN
    SET LOCAL session_replication_role = replica;  -- no foreign key is looked at
    FOR place IN
        SELECT oid FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
          AND relname NOT IN ('django_migrations', 'django_content_type', 'auth_permission')
    LOOP
        IF pg_relation_size(place) > 1048576 THEN
            EXECUTE format('TRUNCATE %s CASCADE', place);
        ELSIF pg_relation_size(place) > 0 THEN
            EXECUTE format('DELETE FROM %s', place);
        END IF;
    END LOOP;
END $$
"""


@pytest.fixture(scope="session", autouse=True)
def _emptied_by_deleting() -> Iterator[None]:
    """After a test with transactions of its own. Django's flush makes new files for each table and index and writes
    all permissions anew, which takes far longer than most of these tests."""

    def empty(_: TransactionTestCase) -> None:
        with connection.cursor() as cursor:
            cursor.execute(EMPTY_ALL_TABLES)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty)
        yield


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_process() -> None:
    """A database of its own in Redis: clearing it must not disturb the suite's other processes, or a broker."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) + 1
    place: dict[str, Any] = settings.CACHES["default"]
    place["LOCATION"] = place["LOCATION"].replace("?db=0", f"?db={number}")
    # A request may not wait longer than a second for a throttle; a test on a busy machine may.
    place["OPTIONS"] = {"socket_timeout": 20, "socket_connect_timeout": 20}
    with contextlib.suppress(AttributeError):
        del caches["default"]  # one that was made before
    assert caches["default"]._cache._servers == [place["LOCATION"]]  # type: ignore[attr-defined]
    assert f"?db={number}" in place["LOCATION"]


@pytest.fixture(autouse=True)
def _no_throttle_left_over(_cache_of_this_process: None) -> None:
    # Asked first: most tests leave nothing, and emptying an empty database takes Redis a hundred times as long.
    if cache._cache.get_client().dbsize():  # type: ignore[attr-defined]
        cache.clear()


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """Hash throw-away passwords weakly: strong hashes would take most of the suite's time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def now() -> datetime:
    return datetime.now(tz=UTC)


@pytest.fixture
def make_user(db: None) -> Callable[..., Any]:
    count = iter(range(1000))

    def make(username: str = "", **flags: Any) -> Any:
        name = username or f"user-{next(count)}"
        return get_user_model()._default_manager.create_user(name, password="pw-" + name, **flags)

    return make


@pytest.fixture
def user(make_user: Callable[..., Any]) -> Any:
    return make_user("alice")


@pytest.fixture
def staff(make_user: Callable[..., Any]) -> Any:
    return make_user("root", is_staff=True, is_superuser=True)


@pytest.fixture
def admin(staff: Any) -> Client:
    """A browser in which `staff` is logged in."""
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def runtime() -> MemoryRuntime:
    """A runtime of this test's own, also for code that asks for the configured one."""
    conf.runtime.cache_clear()
    configured = conf.runtime()
    assert isinstance(configured, MemoryRuntime)
    return configured


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """Change values of the checked environment for this test; they are not checked again."""

    def change(**values: Any) -> None:
        settings.ENV = settings.ENV.model_copy(update=values)

    return change


@pytest.fixture
def bring_up(runtime: MemoryRuntime) -> Callable[[Any], Workspace]:
    """Start a user's workspace and let it come up."""

    def start(owner: Any) -> Workspace:
        workspace = lifecycle.request_start(owner, actor=owner)
        assert lifecycle.perform_start(workspace.pk, workspace.generation, runtime=runtime) is lifecycle.Outcome.DONE
        workspace.refresh_from_db()
        return workspace

    return start


@pytest.fixture
def running(user: Any, bring_up: Callable[[Any], Workspace]) -> Workspace:
    """The running workspace of `user`."""
    return bring_up(user)


@pytest.fixture
def sent() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """Every message that is published during the test: the task's name and its arguments."""
    found: list[tuple[str, tuple[Any, ...]]] = []

    def note(sender: str, body: Any, **_: Any) -> None:
        found.append((sender, tuple(body[0])))

    before_task_publish.connect(note)
    yield found
    before_task_publish.disconnect(note)


@pytest.fixture
def api(user: Any) -> APIClient:
    """A client with the session of `user`."""
    client = APIClient()
    client.force_login(user)
    return client
