"""A flood of wrong log-ins from two addresses: everybody else works on, and whoever has the right password gets in.

What it costs is printed as a ratio to the same stack a moment before. `make attacks` floods for longer.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.attacks.addresses import from_address
from tests.e2e.stack import ASSET
from tests.suite.patience import PATIENCE
from tests.suite.programs import attempt, docker
from tests.suite.undo import undone
from tests.suite.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

SECONDS = float(os.environ.get("GUNPOWDER_ATTACK_SECONDS", "6"))
PARALLEL = 24
TOKEN = "/api/v1/auth/token"


class Flood:
    """Wrong log-ins, each as soon as the last was answered: for one account, and for names that are none.

    Those are many, because one would soon be locked out there, and nothing would be hashed any more.
    """

    def __init__(self, stack: Stack, victim: str) -> None:
        self.answers: Counter[int] = Counter()
        self.troubles: list[Exception] = []
        self._stack, self._victim = stack, victim
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(PARALLEL)]

    def _run(self, number: int) -> None:
        names = itertools.count(number, PARALLEL)
        with from_address(self._stack, f"127.0.0.{2 + number % 2}") as client:
            while not self._over.is_set():
                name = self._victim if number % 4 < 2 else f"nobody-{next(names)}"
                try:
                    answer = client.post(TOKEN, json={"username": name, "password": f"wrong {number}"})
                except httpx.HTTPError as trouble:
                    self.troubles.append(trouble)
                    continue
                self.answers[answer.status_code] += 1

    @contextmanager
    def going_on(self) -> Iterator[Flood]:
        for thread in self._threads:
            thread.start()
        try:
            eventually("the flood is answered", lambda: sum(self.answers.values()) >= PARALLEL, within=30)
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(60 * PATIENCE)


def timed(ask: Callable[[], int], *, seconds: float) -> list[float]:
    """Milliseconds of each request, one after the other; each must be answered well."""
    found: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(found) < 5:
        began = time.monotonic()
        status = ask()
        found.append((time.monotonic() - began) * 1000)
        assert status in {101, 200}
        pause(0.02, because="a person asks now and then")
    return found


def each(asked: dict[str, Callable[[], int]], *, seconds: float) -> dict[str, list[float]]:
    return {name: timed(ask, seconds=seconds / len(asked)) for name, ask in asked.items()}


@pytest.mark.patient(240, "a flood, and the same without it")
def test_a_flood_of_wrong_log_ins_keeps_nobody_out(stack: Stack) -> None:
    person = stack.add_user()
    person.start_and_wait()
    asked: dict[str, Callable[[], int]] = {
        "open editor": lambda: person.editor("healthz", headers=ASSET).status_code,
        "its WebSocket": lambda: person.handshake(**person.cookie),  # for which the gate is asked each time
        "API, logged in": lambda: person.api.get("status").status_code,
    }
    quiet = each(asked, seconds=min(SECONDS, 4))
    rights = []
    with from_address(stack, "127.0.0.4") as elsewhere, Flood(stack, person.name).going_on() as flood:
        hurt = each(asked, seconds=SECONDS)
        for _ in range(3):
            began = time.monotonic()
            answer = elsewhere.post(TOKEN, json={"username": person.name, "password": person.password})
            rights.append(time.monotonic() - began)
            assert answer.status_code == 200, answer.text
    report(quiet, hurt, rights, flood)
    assert not flood.troubles
    assert set(flood.answers) <= {401, 429}


def report(quiet: dict[str, list[float]], hurt: dict[str, list[float]], rights: list[float], flood: Flood) -> None:
    print(f"\n{PARALLEL} parallel wrong log-ins from two addresses, answers: {dict(flood.answers)}")
    for name, calm in quiet.items():
        before, during = statistics.median(calm), statistics.median(hurt[name])
        worst = statistics.quantiles(hurt[name], n=20)[-1]
        print(f"  {name:<16} p50 {before:6.1f} to {during:6.1f} ms ({during / before:.1f} x), p95 then {worst:6.1f} ms")
    print(f"  right log-ins from a third address: {', '.join(f'{one:.1f}' for one in rights)} s")


@pytest.mark.patient(240, "a service is stopped and comes back")
def test_without_the_hasher_editors_and_the_logged_in_work_on(stack: Stack) -> None:
    person = stack.add_user()
    person.start_and_wait()
    hasher = stack.service("hasher")
    assert person.editor_opens()  # and so is logged in, by either door
    assert person.tokens
    with undone("docker", "start", hasher):
        docker("stop", "--time", "5", hasher)
        assert person.editor_opens()
        assert person.api.get("status").status_code == 200
        wrong = stack.client().post(TOKEN, json={"username": person.name, "password": "x"})
        assert (wrong.status_code, wrong.json()["code"]) == (503, "login_unavailable")
        waiting: list[httpx.Response] = []
        given = {"username": person.name, "password": person.password}
        client = from_address(stack, "127.0.0.1")
        thread = threading.Thread(target=lambda: waiting.append(client.post(TOKEN, json=given)), daemon=True)
        thread.start()
    thread.join(60 * PATIENCE)
    client.close()
    assert [answer.status_code for answer in waiting] == [200], "a log-in waits for a service that comes back"


def test_the_hasher_has_nothing_but_its_socket(stack: Stack) -> None:
    shown = json.loads(docker("inspect", stack.service("hasher")))[0]
    assert shown["HostConfig"]["NetworkMode"] == "none"
    assert shown["HostConfig"]["ReadonlyRootfs"]
    assert shown["HostConfig"]["CapDrop"] == ["ALL"]
    assert [mount["Destination"] for mount in shown["Mounts"]] == ["/run/gunpowder/hasher"]
    assert shown["Config"]["User"] == "10003:10001"
    assert not [line for line in shown["Config"]["Env"] if line.startswith(("GUNPOWDER_", "DATABASE_", "REDIS_"))]
    log = attempt("docker", "logs", stack.service("hasher"), within=20, together=True).stdout
    assert log == "", "what people type is never logged"
