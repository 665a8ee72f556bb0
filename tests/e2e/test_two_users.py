"""Two users, two containers: each reaches only their own editor, from the browser and from inside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import ASSET, MARK
from tests.suite.programs import docker

if TYPE_CHECKING:
    from tests.e2e.stack import Person, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

# Tries to connect from inside a container; prints what answered. Short timeouts, all at once.
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reach(place):
    try:
        with socket.create_connection(tuple(place), timeout=1.5):
            return True
    except OSError:
        return False

places = json.loads(sys.argv[1])
with ThreadPoolExecutor(32) as pool:
    print(json.dumps([place for place, met in zip(places, pool.map(reach, places)) if met]))
"""


def reachable(person: Person, places: list[tuple[str, int]]) -> list[tuple[str, int]]:
    found = json.loads(person.python(CONNECT, json.dumps(places)))
    return [(host, port) for host, port in found]


def network(person: Person) -> dict[str, str]:
    (only,) = person.inspect()["NetworkSettings"]["Networks"].values()
    return {"address": only["IPAddress"], "gateway": only["Gateway"]}


def test_each_has_a_container_with_the_contracts_names(alice: Person, bob: Person, stack: Stack) -> None:
    assert {alice.container, bob.container} <= set(stack.workspaces())
    for person in (alice, bob):
        seen, status = person.inspect(), person.status()
        assert (status["container"], status["port"]) == (person.container, person.own_port)
        assert status["url"] == person.path
        assert seen["HostConfig"]["PortBindings"] == {
            "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port_base + person.id)}]
        }
        labels = seen["Config"]["Labels"]
        assert labels["gunpowder.workspace"] == str(person.id)
        assert labels["gunpowder.instance"] == stack.project
        assert labels["gunpowder.generation"].isdigit()
        assert labels["gunpowder.spec"]
        mounts = {mount["Destination"]: mount["Source"] for mount in seen["Mounts"] if mount["Type"] == "bind"}
        writable = {mount["Destination"]: mount["RW"] for mount in seen["Mounts"]}
        told = mounts.pop("/run/gunpowder-status"), writable["/run/gunpowder-status"]
        assert mounts == {
            "/home/coder": str(stack.root / f"home_{person.id}"),
            "/home/coder/workspace": str(stack.root / f"user_{person.id}"),
        }
        assert told == (str(stack.root / f"notice_{person.id}"), False), "what the platform tells is read-only"
        assert docker_stat(person, told[0]) == "0 0 755"
        for folder in mounts.values():
            assert docker_stat(person, folder) == "1000 1000 700"


def docker_stat(person: Person, folder: str) -> str:
    """Owner, group and mode of a folder on the host, as the worker sees it."""
    inside = folder.replace(str(person.stack.root), "/app/workspace")
    return person.stack.exec_in("worker", "stat", "--format", "%u %g %a", inside).strip()


def test_the_container_is_hardened(alice: Person) -> None:
    seen = alice.inspect()
    host = seen["HostConfig"]
    assert seen["Config"]["User"].split(":")[0] == "1000"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["PidsLimit"] > 0
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["NanoCpus"] > 0
    assert host["RestartPolicy"]["Name"] == "no"
    status = alice.shell("cat /proc/self/status")
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status
    assert alice.shell("find / -xdev -perm /6000 ! -type d 2>/dev/null | wc -l").strip() == "0"
    assert alice.shell("command -v sudo || echo none").strip() == "none"
    assert alice.shell("touch /etc/x 2>&1 || true").strip().endswith("Read-only file system")


def test_each_reaches_only_their_own_editor(alice: Person, bob: Person) -> None:
    for person, other in ((alice, bob), (bob, alice)):
        assert person.editor(MARK).text.strip() == person.mark
        assert person.handshake(**person.cookie) == 101
        foreign = other.anonymous.get(other.path + MARK, headers={**ASSET, **person.cookie})
        assert foreign.status_code == 404
        assert other.mark not in foreign.text
        assert other.handshake(**person.cookie) == 404
        # Both tickets at once, as one browser with two accounts would send them: still each its own.
        both = {"Cookie": f"{person.cookie['Cookie']}; {other.cookie['Cookie']}"}
        assert person.anonymous.get(person.path + MARK, headers={**ASSET, **both}).text.strip() == person.mark


def test_an_answer_for_one_is_never_given_to_the_other(alice: Person, bob: Person) -> None:
    """The gate's yes is cached for moments; never across users."""
    for _ in range(5):
        assert alice.editor(MARK).status_code == 200
        assert bob.anonymous.get(alice.path + MARK, headers={**ASSET, **bob.cookie}).status_code == 404
        assert bob.editor(MARK).text.strip() == bob.mark
        assert alice.anonymous.get(alice.path + MARK, headers=ASSET).status_code == 401


def test_from_inside_nothing_of_others_is_reachable(alice: Person, bob: Person, stack: Stack) -> None:
    own, other = network(alice), network(bob)
    web = json.loads(docker("inspect", stack.service("web")))[0]["NetworkSettings"]["Networks"]
    inner = [part["IPAddress"] for part in web.values()]
    gateways = [own["gateway"], *(part["Gateway"] for part in web.values() if part["Gateway"])]
    assert inner
    forbidden = [
        (other["address"], 8080),
        (bob.container, 8080),
        ("127.0.0.1", bob.own_port),
        ("127.0.0.1", alice.own_port),
        *(
            (gateway, port)
            for gateway in gateways
            for port in (bob.own_port, alice.own_port, 5432, 6379, 8000, 2375, 2376)
        ),
        *((address, port) for address in inner for port in (8000, 5432, 6379)),
    ]
    # The own editor answers, so the probe is able to see something.
    assert reachable(alice, [("127.0.0.1", 8080), *forbidden]) == [("127.0.0.1", 8080)]


def test_from_inside_there_is_no_engine_and_no_secret_of_the_platform(alice: Person) -> None:
    places = "/var/run/docker.sock /run/docker.sock /run/postgresql /run/redis /run/gunpowder/* /app"
    found = alice.shell(f"ls -d {places} 2>/dev/null || true")
    assert found.split() == ["/run/gunpowder/report.json"], "what the workspace says of itself, and nothing else"
    mounts = alice.shell("cut -d' ' -f5 /proc/self/mountinfo").split()
    assert {mount for mount in mounts if mount.startswith(("/home", "/app", "/var", "/run/"))} <= {
        "/home/coder",
        "/home/coder/workspace",
        "/run/gunpowder",
        "/run/gunpowder-status",
    }


def test_who_reaches_the_port_some_other_way_meets_a_log_in(alice: Person) -> None:
    """The inner secret: the port alone opens nothing."""
    direct = f"http://127.0.0.1:{alice.own_port}"
    answer = alice.anonymous.get(f"{direct}/{MARK}")
    assert answer.status_code in {302, 401}
    assert alice.mark not in answer.text
    assert alice.anonymous.get(f"{direct}/{MARK}", headers={"Cookie": "code-server-session=guess"}).status_code != 200
