"""How long a test may take, its fixtures and its teardown included. What does not hear of its end is ended as well.

`--timeout` (pyproject.toml) counts for setup, call and teardown each. pytest-timeout alone counts once for all three,
and stops counting at the first failure: a teardown that hangs after one would hang for ever. Who needs longer says why:

    pytestmark = pytest.mark.patient(300, "waits for two idle stops of 60 s each")

Where even the exception does not end a test (it sits in a call that never returns to Python), its process prints all
stacks and ends. pytest-xdist reports which test that was and ends the run: a new process would play the same one again.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from typing import TYPE_CHECKING

import pytest
import pytest_timeout

if TYPE_CHECKING:
    from collections.abc import Generator

# Fixtures whose first user waits for more than its own test, and why.
LONG_FIXTURES = {
    "stack": (420, "brings up, or takes down, a whole compose stack"),
    "idle_stack": (420, "brings up, or takes down, a whole compose stack"),
}
# What the exception that ends a test sets off may take as well.
LAST_RESORT_SECONDS = 60

_STDERR = pytest.StashKey[int]()
_TO_TAKE_DOWN = pytest.StashKey[set[str]]()  # the long fixtures that this process has had


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "patient(seconds, reason): may take that long in each phase, because …")
    # Standard error as it was before pytest began to capture it.
    config.stash[_TO_TAKE_DOWN] = set()
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        limits = [long for name, long in LONG_FIXTURES.items() if name in getattr(item, "fixturenames", ())]
        for marker in item.iter_markers("patient"):
            seconds, reason = marker.args
            if not str(reason).strip():
                raise pytest.UsageError(f"{item.nodeid}: a longer limit needs a reason")
            limits.append((seconds, reason))
        if limits:
            item.add_marker(pytest.mark.timeout(max(seconds for seconds, _ in limits)))


def _count_anew(item: pytest.Item, *, at_least: float = 0) -> None:
    """Start the clock of a phase. A failure stops it, in pytest-timeout and in pytest's own fault handler alike."""
    settings = pytest_timeout._get_item_settings(item)
    if not settings.timeout or settings.func_only:
        return
    settings = settings._replace(timeout=max(settings.timeout, at_least))
    hook = item.config.pluginmanager.hook
    hook.pytest_timeout_cancel_timer(item=item)
    hook.pytest_timeout_set_timer(item=item, settings=settings)
    file = item.config.stash[_STDERR]
    faulthandler.dump_traceback_later(settings.timeout + LAST_RESORT_SECONDS, exit=True, file=file)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        item.config.pluginmanager.hook.pytest_timeout_cancel_timer(item=item)
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    item.config.stash[_TO_TAKE_DOWN] |= LONG_FIXTURES.keys() & set(getattr(item, "fixturenames", ()))
    _count_anew(item)
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    _count_anew(item)
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """The last test of a process is the one after which everything that lived for the session is taken down."""
    rest = () if nextitem else item.config.stash[_TO_TAKE_DOWN]
    _count_anew(item, at_least=sum(LONG_FIXTURES[name][0] for name in rest))
    yield
