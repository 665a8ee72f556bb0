"""The port rule of the contract: own port where allowed, else the lowest allowed one of the range."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from workspaces import lifecycle, ports
from workspaces.errors import NoPortFree
from workspaces.models import PortRest, Workspace
from workspaces.runtimes.base import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

EPHEMERAL = (32768, 60999)


@pytest.fixture(autouse=True)
def _usual_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "range").write_text("32768\t60999\n")
    monkeypatch.setattr(ports, "_EPHEMERAL", tmp_path / "range")


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (1023, False),
        (1024, True),
        (9007, True),
        (32767, True),
        (32768, False),
        (60999, False),
        (61000, True),
        (65535, True),
        (65536, False),
        (8080, False),
        (0, False),
        (-1, False),
    ],
)
def test_which_ports_the_rule_permits(port: int, *, expected: bool) -> None:
    assert ports.allowed(port, reserved=frozenset({8080}), ephemeral=EPHEMERAL) is expected


def test_the_kernels_range_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "range").write_text("10000 20000\n")
    assert ports.ephemeral_range() == (10000, 20000)


def test_a_kernel_that_does_not_say_has_the_usual_range(tmp_path: Path) -> None:
    (tmp_path / "range").unlink()
    assert ports.ephemeral_range() == EPHEMERAL
    (tmp_path / "range").write_text("nonsense")
    assert ports.ephemeral_range() == EPHEMERAL


def _candidates(user_id: int, *, last: int | None = None, reserved: Iterable[int] = ()) -> list[int]:
    found = ports.candidates(
        user_id=user_id, last_port=last, base=9000, port_range=(20000, 20003), reserved=frozenset(reserved)
    )
    return list(found)


@pytest.mark.parametrize(
    ("user_id", "last", "expected"),
    [
        (7, None, [9007, 20000, 20001, 20002, 20003]),
        (7, 9007, [9007, 20000, 20001, 20002, 20003]),
        (7, 20002, [20002, 9007, 20000, 20001, 20003]),  # the one that the stopped container has
        (7, 15000, [9007, 20000, 20001, 20002, 20003]),  # of other settings
        (11000, None, [20000, 20001, 20002, 20003]),  # 20000 is also the user's own
        (30000, None, [20000, 20001, 20002, 20003]),  # 39000 is the kernel's
        (10**12, None, [20000, 20001, 20002, 20003]),  # no port at all
    ],
)
def test_the_order_in_which_ports_are_tried(user_id: int, last: int | None, expected: list[int]) -> None:
    assert _candidates(user_id, last=last) == expected


def test_the_stacks_own_ports_are_never_tried() -> None:
    assert _candidates(7, reserved={9007, 20001}) == [20000, 20002, 20003]


# --- holding -----------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.django_db


def _hold(workspace: Workspace, now: datetime, **more: Any) -> Endpoint | None:
    values: dict[str, Any] = {
        "base": 9000,
        "port_range": (20000, 20003),
        "reserved": frozenset({8080}),
        "port_free": lambda _: True,
    }
    return ports.hold_port(workspace, generation=workspace.generation, now=now, **(values | more))


def _port(endpoint: Endpoint | None) -> int | None:
    return None if endpoint is None else endpoint.port


@pytest.fixture
def starting(user: Any) -> Workspace:
    return lifecycle.request_start(user, actor=user)


def test_a_user_gets_base_plus_id_on_loopback(starting: Workspace, now: datetime) -> None:
    assert _hold(starting, now) == Endpoint(host="127.0.0.1", port=9000 + starting.user_id)
    starting.refresh_from_db()
    assert starting.port == starting.last_port == 9000 + starting.user_id


def test_a_held_port_is_kept_even_if_it_is_in_use(starting: Workspace, now: datetime) -> None:
    own = _port(_hold(starting, now))
    assert _port(_hold(starting, now, port_free=lambda _: False)) == own


def test_a_held_port_that_the_engine_calls_taken_is_given_up(starting: Workspace, now: datetime) -> None:
    own = _port(_hold(starting, now))
    assert own is not None
    assert _port(_hold(starting, now, avoid=frozenset({own}))) == 20000
    starting.refresh_from_db()
    assert starting.port == 20000


def test_the_range_is_used_from_its_lowest_free_port(starting: Workspace, now: datetime) -> None:
    busy = {9000 + starting.user_id, 20000}
    assert _port(_hold(starting, now, port_free=lambda place: place.port not in busy)) == 20001


def test_without_a_free_port_the_start_is_refused_with_the_range(starting: Workspace, now: datetime) -> None:
    with pytest.raises(NoPortFree) as refusal:
        _hold(starting, now, port_free=lambda _: False)
    assert refusal.value.code == "no_port_free"
    assert "20000" in refusal.value.message
    assert "20003" in refusal.value.message
    starting.refresh_from_db()
    assert starting.port is None


def test_a_start_that_is_no_longer_wanted_holds_nothing(starting: Workspace, now: datetime, user: Any) -> None:
    lifecycle.request_stop(starting, actor=user)
    assert _hold(starting, now) is None
    starting.refresh_from_db()
    assert starting.port is None


def test_two_workspaces_never_hold_the_same_port(make_user: Callable[..., Any], now: datetime) -> None:
    rows = [lifecycle.request_start(make_user(), actor=None) for _ in range(4)]
    held = [_port(_hold(row, now, base=65535)) for row in rows]  # nobody's own port is allowed
    assert held == [20000, 20001, 20002, 20003]


def test_a_users_own_port_that_another_holds_is_passed_over(make_user: Callable[..., Any], now: datetime) -> None:
    one, other = (lifecycle.request_start(make_user(), actor=None) for _ in range(2))
    Workspace.objects.filter(pk=one.pk).update(port=9000 + other.user_id)
    assert _port(_hold(other, now)) == 20000


@pytest.mark.parametrize(("seconds", "expected"), [(0, 20000), (59.9, 20000), (60.1, None)])
def test_a_released_port_rests_before_another_user_gets_it(
    starting: Workspace, now: datetime, seconds: float, expected: int | None
) -> None:
    own = 9000 + starting.user_id
    PortRest.objects.create(port=own, user_id=starting.user_id + 1, released_at=now - timedelta(seconds=seconds))
    assert _port(_hold(starting, now)) == (expected or own)


def test_a_released_port_never_rests_for_its_own_user(starting: Workspace, now: datetime) -> None:
    own = 9000 + starting.user_id
    PortRest.objects.create(port=own, user_id=starting.user_id, released_at=now)
    assert _port(_hold(starting, now)) == own


def test_the_port_of_the_stopped_container_is_asked_for_first(starting: Workspace, now: datetime) -> None:
    Workspace.objects.filter(pk=starting.pk).update(last_port=20002)
    assert _port(_hold(starting, now)) == 20002


def test_a_stop_releases_the_port_and_lets_it_rest(running: Workspace, runtime: Any, now: datetime) -> None:
    held = running.port
    lifecycle.request_stop(running, actor=None)
    lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
    running.refresh_from_db()
    assert running.port is None
    rest = PortRest.objects.get()
    assert (rest.port, rest.user_id) == (held, running.user_id)
    assert rest.released_at >= now
    assert str(held) in str(rest)
