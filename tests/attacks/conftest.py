"""Who attacks: somebody who has put a program of their own in the place of their editor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.attacks.client import Edge
from tests.e2e.usurping import usurp
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.stack import Person, Stack

USURPER = Path(__file__).with_name("usurper.py")


@pytest.fixture(scope="module")
def usurper(stack: Stack) -> Iterator[Person]:
    """Their container answers whatever bytes the path says."""
    person = stack.add_user()
    person.start_and_wait()
    usurp(person, USURPER.read_text(encoding="utf-8"))
    eventually("the other program answers", lambda: person.editor("x").text == "usurper", within=15)
    yield person
    person.leave()


@pytest.fixture
def edge(usurper: Person) -> Edge:
    """The site, as the attacker's own browser asks it."""
    return Edge(usurper.stack.port, usurper.path, headers=tuple(usurper.cookie.items()))
