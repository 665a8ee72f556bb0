"""The two places of the contract: the runtime in memory, and the real engine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.places import DockerPlace, MemoryPlace

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.contract.places import Place

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = bool(report.failed)
    return report


@pytest.fixture(scope="module", params=["memory", pytest.param("docker", marks=pytest.mark.docker)])
def any_place(request: pytest.FixtureRequest) -> Place:
    if request.param == "memory":
        return MemoryPlace()
    place: DockerPlace = request.getfixturevalue("docker_place")
    return place


@pytest.fixture(scope="module")
def docker_place() -> Iterator[DockerPlace]:
    place = DockerPlace()
    yield place
    place.clear()


@pytest.fixture
def place(any_place: Place, request: pytest.FixtureRequest) -> Iterator[Place]:
    yield any_place
    if isinstance(any_place, DockerPlace):
        _tell(any_place, request)


@pytest.fixture
def engine(docker_place: DockerPlace, request: pytest.FixtureRequest) -> Iterator[DockerPlace]:
    """What only the real engine can show."""
    yield docker_place
    _tell(docker_place, request)


def _tell(place: DockerPlace, request: pytest.FixtureRequest) -> None:
    """Show what there is if the test failed; then end it, because thirty idle editors make a small machine slow."""
    if request.node.stash.get(_FAILED, False):
        sys.stderr.write(place.describe())
    place.remove_containers(kept=place.kept)
