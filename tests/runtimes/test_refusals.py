"""What the engine's words mean for a start."""

from __future__ import annotations

import pytest
from docker.errors import APIError

from workspaces.errors import PassingRefusal, PortTaken, StartRefused
from workspaces.runtimes.docker_refusals import refusal_of


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (
            "driver failed: Bind for 127.0.0.1:9007 failed: port is already allocated",
            PortTaken,
            "port_taken",
        ),
        ("listen tcp4 127.0.0.1:9007: bind: address already in use", PortTaken, "port_taken"),
        ("write /var/lib/docker/overlay2/x: No space left on device", StartRefused, "disk_full"),
        ("fork/exec /usr/bin/runc: cannot allocate memory", PassingRefusal, "no_memory"),
        ("runc create failed: fork: Resource temporarily unavailable", PassingRefusal, "engine_busy"),
        ("unlinkat /run/docker/netns/x: device or resource busy", PassingRefusal, "engine_busy"),
        ("container abc is marked for removal and cannot be started", PassingRefusal, "engine_busy"),
        ("containerd: context deadline exceeded", PassingRefusal, "engine_busy"),
        ("OCI runtime create failed: something new", StartRefused, "engine_refused"),
    ],
)
def test_the_engines_words_are_a_refusal_of_the_right_kind(words: str, kind: type[StartRefused], code: str) -> None:
    refusal = refusal_of(APIError("500 Server Error", explanation=words))
    assert type(refusal) is kind
    assert refusal.code == code
    assert refusal.message.endswith(".") or words in refusal.message
