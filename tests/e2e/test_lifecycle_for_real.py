"""Start, stop, restart, and everything that goes wrong from outside: real engine, real worker, real Redis."""

from __future__ import annotations

import json
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.stack import Person, Stack, signal_lifecycle
from tests.suite.programs import docker
from tests.suite.undo import paused, undone
from tests.suite.waiting import eventually, together

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


@pytest.fixture(scope="module")
def patient(stack: Stack) -> Iterator[Person]:
    """Somebody to whom all of it happens, one after the other: each recovery is the next one's start."""
    person = stack.add_user()
    yield person
    person.leave()


@pytest.fixture
def running(patient: Person) -> Person:
    """Somebody whose editor runs."""
    patient.start_and_wait()
    return patient


def settled(person: Person, *states: str, within: float = 40) -> dict[str, Any]:
    """The workspace once it is in one of `states`."""
    began = time.monotonic()

    def look() -> dict[str, Any]:
        now = person.status()
        return now if now["state"] in states else {}

    found = eventually(f"{person.name} becomes {' or '.join(states)}", look, within=within)
    print(f"{found['state']} ({found['stop_reason']}) after {time.monotonic() - began:.1f} s")
    return found


def wait_for_running(person: Person, *, within: float) -> None:
    began = time.monotonic()
    person.wait_for("running", within=within)
    print(f"running after {time.monotonic() - began:.1f} s")
    assert person.editor_opens()
    assert [name for name in person.stack.workspaces() if name == person.container] == [person.container]


def test_start_stop_and_restart(stack: Stack) -> None:
    person = stack.add_user()
    assert person.status()["state"] == "stopped"
    first = person.api.post("start")
    assert first.status_code == 202
    assert "HttpOnly" in first.headers["set-cookie"]
    assert f"Path={person.path}" in first.headers["set-cookie"]
    wait_for_running(person, within=30)
    assert person.api.post("start").status_code == 200
    person.leave_mark()
    identity = person.inspect()["Id"]

    answer = person.api.post("restart")
    assert answer.status_code == 202
    eventually("the restart is seen", lambda: person.status()["state"] != "running", within=10)
    wait_for_running(person, within=30)
    assert person.inspect()["Id"] == identity, "the same spec keeps the container"
    assert person.shell("cat ~/workspace/whose.txt").strip() == person.mark

    assert person.api.post("stop").status_code == 202
    stopped = settled(person, "stopped")
    assert (stopped["stop_reason"], stopped["port"], stopped["error"]) == ("user", None, None)
    assert person.inspect()["State"]["Status"] == "exited"
    assert person.api.post("stop").status_code == 200

    person.start()
    wait_for_running(person, within=30)
    assert person.inspect()["Id"] == identity
    assert person.shell("cat ~/workspace/whose.txt").strip() == person.mark
    told = [(row["from"], row["to"], row["reason"]) for row in reversed(person.history())]
    assert told == [
        ("stopped", "starting", "user"),
        ("starting", "running", "ready"),
        ("running", "stopping", "restart"),
        ("stopping", "starting", "restart"),
        ("starting", "running", "ready"),
        ("running", "stopping", "user"),
        ("stopping", "stopped", "user"),
        ("stopped", "starting", "user"),
        ("starting", "running", "ready"),
    ]


def test_many_starts_at_once_make_one_container(stack: Stack) -> None:
    person = stack.add_user()
    assert person.tokens
    clients = [stack.client(Authorization=f"Bearer {person.tokens['access']}") for _ in range(8)]
    answers = together(*[partial(client.post, "/api/v1/code-server/start") for client in clients], within=30)
    assert sorted({answer.status_code for answer in answers}) in ([202], [200, 202])
    wait_for_running(person, within=30)
    assert len([row for row in person.history() if row["to"] == "starting"]) == 1


def test_a_stop_during_a_start_wins(stack: Stack) -> None:
    person = stack.add_user()
    person.start()
    person.call("stop")
    settled(person, "stopped")
    eventually("nothing runs", lambda: person.inspect().get("State", {}).get("Running") in {None, False}, within=10)


# --- from outside ---


def test_a_killed_container_is_stopped(running: Person) -> None:
    docker("kill", running.container)
    found = settled(running, "stopped", "failed")
    assert (found["state"], found["stop_reason"], found["error"]) == ("stopped", "exited", None)
    running.start()
    wait_for_running(running, within=30)


def test_a_container_stopped_by_hand_is_stopped(running: Person) -> None:
    docker("stop", "--time", "5", running.container)
    found = settled(running, "stopped", "failed")
    assert (found["state"], found["stop_reason"]) == ("stopped", "exited")


def test_a_removed_container_is_stopped_and_comes_back_with_its_files(running: Person) -> None:
    running.leave_mark()
    docker("rm", "--force", "--volumes", running.container)
    found = settled(running, "stopped", "failed")
    assert (found["state"], found["stop_reason"]) == ("stopped", "removed")
    running.start()
    wait_for_running(running, within=30)
    assert running.shell("cat ~/workspace/whose.txt").strip() == running.mark


def test_an_editor_that_crashes_is_failed(running: Person) -> None:
    running.shell("kill -SEGV $(pgrep --full --oldest '^/opt/node/bin/node .*out/node/entry')")
    found = settled(running, "stopped", "failed")
    assert (found["state"], found["error"]["code"]) == ("failed", "crashed")
    assert "files are untouched" in found["error"]["message"]
    running.start()
    wait_for_running(running, within=30)


def test_an_editor_that_runs_out_of_memory_is_failed(running: Person) -> None:
    running.leave_mark()
    # The kernel ends whoever has the highest score; a greedy extension would have the editor's own.
    running.shell("for pid in $(pgrep --full ^/opt/node/bin/node); do echo 1000 > /proc/$pid/oom_score_adj; done")
    hogs = (
        "import os, time\nfor _ in range(3): os.fork()\n"  # many small ones: a big one would itself score highest
        "heap = []\nwhile True:\n    heap.append(bytearray(b'x' * 2**23)); time.sleep(0.05)"
    )
    # The engine says why a moment after it says that: whoever looks in between sees an ordinary end.
    with paused(running.stack.service("beat")):
        docker("exec", "--detach", running.container, "python3", "-c", hogs)
        eventually("the engine says so", lambda: running.inspect()["State"]["OOMKilled"], within=40)
        eventually("the container has ended", lambda: not running.inspect()["State"]["Running"], within=20)
    found = settled(running, "stopped", "failed", within=60)
    assert (found["state"], found["error"]["code"]) == ("failed", "oom")
    running.start()
    wait_for_running(running, within=30)
    assert running.shell("cat ~/workspace/whose.txt").strip() == running.mark


def test_a_port_in_use_by_another_program_is_avoided(stack: Stack) -> None:
    person = stack.add_user()
    with socket.create_server(("127.0.0.1", person.own_port)):
        person.start()
        wait_for_running(person, within=30)
        low, high = stack.port_range
        assert low <= person.status()["port"] <= high
    person.stop_and_wait()


def test_a_foreign_container_of_our_name_is_left_alone(stack: Stack) -> None:
    person = stack.add_user()
    label = f"com.docker.compose.project={stack.project}"
    image = docker("inspect", "--format", "{{.Config.Image}}", stack.service("redis")).strip()
    with undone("docker", "rm", "--force", "--volumes", person.container):
        docker("create", "--name", person.container, "--label", label, image, "true")
        person.start()
        found = settled(person, "failed", "running")
        assert (found["state"], found["error"]["code"]) == ("failed", "name_taken")
        assert person.container in found["error"]["message"]
        assert person.inspect()["Config"]["Cmd"] == ["true"]
    person.start()
    wait_for_running(person, within=30)


# --- worker and broker ---


@pytest.mark.parametrize("whom", ["pool", "all"])
def test_a_worker_killed_during_a_start_is_made_up_for(stack: Stack, whom: str) -> None:
    person = stack.add_user()
    assert person.tokens
    person.start()
    eventually("a worker took it", lambda: len(person.status()["stages"]) > 1, within=15, every=0.02)
    killed = signal_lifecycle(stack, "KILL", whom=whom)
    print(f"killed (node and children, children): {killed.strip()}")
    if whom == "all":
        # The container ends with its node, and in production its restart policy brings it back.
        stack.come_back("worker")
    # Redelivery, a resend by the reconcile pass, or the node's return.
    wait_for_running(person, within=60)
    person.stop_and_wait(within=40)


def test_a_broker_that_forgot_everything_during_a_start_is_made_up_for(stack: Stack) -> None:
    person = stack.add_user()
    assert person.tokens
    with paused(stack.service("worker")):
        person.start()  # the message waits in Redis, for nobody
        stack.redis("FLUSHALL")
    wait_for_running(person, within=45)
    # And it goes on working: queues and bindings are there again.
    person.call("restart")
    eventually("the restart is seen", lambda: person.status()["state"] != "running", within=20)
    wait_for_running(person, within=45)


# --- watching ---


def test_a_program_watches_a_start_as_it_happens(stack: Stack) -> None:
    person = stack.add_user()
    headers = {"Accept": "text/event-stream"}
    with person.api.stream("GET", "events", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = read_events(answer)
        name, first = next(events)
        assert (name, first["state"]) == ("workspace", "stopped")
        threading.Thread(target=person.start).start()
        stages, states = watch_until_running(events)
    assert stages == ["queued", "preparing", "creating", "waiting", "ready"]
    assert states[0] == "starting"
    assert states[-1] == "running"


def test_the_editors_own_page_watches_with_its_ticket(stack: Stack) -> None:
    person = stack.add_user()
    assert person.tokens
    with person.anonymous.stream("GET", f"{person.path}_gunpowder/events", headers=person.cookie, timeout=30) as answer:
        events = read_events(answer)
        assert next(events)[1]["state"] == "stopped"
        person.start()
        stages, _ = watch_until_running(events)
    assert stages[-1] == "ready"


def read_events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def watch_until_running(events: Iterator[tuple[str, dict[str, Any]]]) -> tuple[list[str], list[str]]:
    stages, states = list[str](), list[str]()
    for name, data in events:
        if name == "progress":
            stages.append(data["stage"])
            continue
        states.append(data["state"])
        if data["state"] == "running":
            return stages, states
    raise AssertionError(f"the stream ended before the editor ran: {stages} {states}")


def test_log_and_figures_of_the_own_container(running: Person) -> None:
    # A worker has the socket and is asked; a busy one answers late, which is told as an error that says so.
    def told() -> list[str]:
        lines: list[str] = running.api.get("logs", params={"tail": 200}).json().get("lines", [])
        return lines

    lines = eventually("the log was read", told, within=30, every=1)
    assert any("HTTP server listening on" in line for line in lines)

    def sampled() -> dict[str, Any]:
        found: dict[str, Any] = running.api.get("stats").json()
        return found if found.get("memory_bytes") else {}

    found = eventually("a sample was taken", sampled, within=45, every=1)
    assert 0 < found["memory_bytes"] < found["memory_limit_bytes"] == 768 * 2**20
    assert found["pids"] > 1
