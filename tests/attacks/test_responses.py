"""Whatever a container answers, the client gets one well-formed response with harmless headers, or one of ours.

Every known form, in every way to ask for it, of which `make test` tries five; then what chance makes of them: some
cases in `make test`, 2,000 in `make attacks`, others each time. The seed is printed.
"""

from __future__ import annotations

import itertools
import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.attacks.answers import SWITCHED, Answer, Malformed
from tests.attacks.client import HANDSHAKE, PLAIN, WAYS, Way, play, play_all
from tests.attacks.forms import EXAMPLES, GRANTED, HONEST, Form, by_chance
from tests.suite.patience import examples

if TYPE_CHECKING:
    from tests.attacks.client import Edge
    from tests.e2e.stack import Person

pytestmark = [
    pytest.mark.stack,
    pytest.mark.xdist_group("stack"),
    pytest.mark.patient(600, "thousands of answers, each with a request behind it"),
]

CASES = int(os.environ.get("GUNPOWDER_ATTACK_CASES", examples(300)))
LONG = CASES >= 2000  # as `make attacks` has it
SEED = int(os.environ.get("GUNPOWDER_ATTACK_SEED", random.SystemRandom().randrange(10**9)))
# What a container may say about its own answer; and what nginx says about every answer.
FROM_CONTAINER = {
    b"accept-ranges", b"content-disposition", b"content-encoding", b"content-language", b"content-length",
    b"content-range", b"content-security-policy", b"content-type", b"cross-origin-embedder-policy",
    b"cross-origin-opener-policy", b"cross-origin-resource-policy", b"etag", b"expires", b"last-modified", b"location",
    b"retry-after", b"vary",
}  # fmt: skip
FROM_NGINX = {
    b"server", b"date", b"connection", b"transfer-encoding", b"keep-alive", b"cache-control", b"x-content-type-options",
    b"referrer-policy",
}  # fmt: skip
OF_A_TUNNEL = {b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"}
# Only web says this, and no container can: it explains an answer that was refused.
EXPLAINED = b"x-request-id"


def check(answer: Answer) -> None:
    """Raise Malformed where a header is one that only the site may send."""
    names = {name for name, _ in answer.headers}
    if EXPLAINED in names:
        if answer.status != 503 or (answer.body and b'"workspace_unreachable"' not in answer.body):
            raise Malformed(f"web says {answer.status} {answer.body[:200]!r}")
        return
    of_container = OF_A_TUNNEL if answer.status == SWITCHED else FROM_CONTAINER
    if foreign := names - of_container - FROM_NGINX:
        raise Malformed(f"headers that are not a container's: {foreign}")
    if answer.values(b"cache-control") != [b"private, no-cache"] and answer.status not in {400, 502, 503}:
        raise Malformed(f"others may keep it: {answer.headers}")


def test_an_honest_answer_comes_through(edge: Edge) -> None:
    """Or everything below could hold because nothing comes through."""
    answer = play(edge, Form("honest", (HONEST,)), PLAIN, check=check)
    assert (answer.status, answer.body) == (200, b"hello")


def test_a_handshake_that_is_granted_comes_through(edge: Edge) -> None:
    for grant in (GRANTED, GRANTED.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: x\r\nSet-Cookie: a=b\r\n\r\n")):
        answer = play(edge, Form("granted", (grant,)), HANDSHAKE, check=check)
        assert answer.status == SWITCHED
        assert answer.values(b"sec-websocket-protocol") == ([b"x"] if b"Protocol: x" in grant else [])


@pytest.mark.parametrize("name", ["103", "205 and later a body", "line b'ICY 200 OK'", "101"])
def test_a_large_upload_gets_the_same_explanation(edge: Edge, name: str) -> None:
    """Not the words for a request that is too large: nothing is, and what of it was sent is not read again."""
    form = next(form for form in EXAMPLES if form.name == name)
    size = 3 * 2**20
    way = Way("a large POST", "POST", headers=(("Content-Length", str(size)),), body=b"x" * size)
    answer = play(edge, form, way, check=check)
    assert answer.status == 503
    assert b"workspace_unreachable" in answer.body


def test_no_known_form_becomes_another_response(edge: Edge) -> None:
    """Each in five ways in `make test`: the plain one, and four of the others, which differ each time."""
    cases = list(itertools.product(EXAMPLES, WAYS))
    if not LONG:
        others = [way for way in WAYS if way is not PLAIN]
        turn = itertools.cycle(others[SEED % len(others) :] + others[: SEED % len(others)])
        cases = [(form, way) for form in EXAMPLES for way in (PLAIN, *itertools.islice(turn, 4))]
    run = play_all(edge, cases, check=check, within=500)
    print(f"{len(EXAMPLES)} forms, {len(cases)} cases (GUNPOWDER_ATTACK_SEED={SEED}): {run}")
    assert not run.broken, "\n".join(run.broken[:8])
    assert sum(run.answered.values()) == len(cases)


def test_no_form_that_chance_makes_becomes_another_response(edge: Edge) -> None:
    dice = random.Random(SEED)  # noqa: S311 - no secret
    cases = [(by_chance(dice, number), dice.choice(WAYS)) for number in range(CASES)]
    run = play_all(edge, cases, check=check, within=500)
    print(f"{CASES} cases by chance (GUNPOWDER_ATTACK_SEED={SEED}): {run}")
    assert not run.broken, "\n".join([f"GUNPOWDER_ATTACK_SEED={SEED}", *run.broken[:8]])
    assert sum(run.answered.values()) == CASES


def test_who_speaks_of_no_version_hears_nothing_of_a_container(usurper: Person) -> None:
    """HTTP/0.9 has neither a status nor headers: nothing would tell our words from the container's."""
    answer = usurper.stack.raw(f"GET {usurper.path}x\r\n".encode())
    assert b"usurper" not in answer
    assert b"could not be understood" in answer
