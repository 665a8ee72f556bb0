"""Who else is here? A workspace asks for its neighbours by each of their names, and by every address near them."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.stack import Person, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

# Straight to the engine's resolver, which answers "no such name" at once when it may not ask any further.
ASK = """
import json, socket, sys

def ask(question, kind):
    packet = b"gp\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0"
    packet += b"".join(bytes([len(part)]) + part.encode() for part in question.split(".")) + b"\\0" + kind + b"\\0\\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.4)
        asking.sendto(packet, ("127.0.0.11", 53))
        try:
            answer = asking.recv(512)
        except OSError:
            return "nothing"
    return int.from_bytes(answer[6:8], "big")

names, addresses = json.loads(sys.argv[1])
found = {name: ask(name, b"\\0\\x01") for name in names}
for address in addresses:
    found[address] = ask(".".join(reversed(address.split("."))) + ".in-addr.arpa", b"\\0\\x0c")
print(json.dumps(found))
"""


@pytest.fixture
def two(stack: Stack) -> Iterator[tuple[Person, Person]]:
    one, other = stack.add_user(), stack.add_user()
    for person in (one, other):
        person.start_and_wait()
    yield one, other
    for person in (one, other):
        person.leave()


def test_a_workspace_finds_nobody_by_name(two: tuple[Person, Person]) -> None:
    one, other = two
    ((network, place),) = other.inspect()["NetworkSettings"]["Networks"].items()
    subnet = IPv4Network((place["IPAddress"], place["IPPrefixLen"]), strict=False)
    names = [
        other.container,
        f"{other.container}.{network}",
        other.inspect()["Id"][:12],
        other.inspect()["Config"]["Hostname"],
        *place["Aliases"],
    ]
    addresses = [str(address) for address in subnet]
    ((_, mine),) = one.inspect()["NetworkSettings"]["Networks"].items()
    own = [one.container, mine["IPAddress"]]
    asked = json.dumps([[one.container, *names], [mine["IPAddress"], *addresses]])
    found = json.loads(one.python(ASK, asked, within=60))
    assert [found.pop(each) for each in own] == [1, 1], "its own are answered, so the questions are some"
    assert {name: answers for name, answers in found.items() if answers not in {0, "nothing"}} == {}
    assert set(found) == {*names, *addresses}
