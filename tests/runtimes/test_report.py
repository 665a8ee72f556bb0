"""What a workspace says of itself is written by somebody hostile."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workspaces.runtimes.base import Report, RequestVerb
from workspaces.runtimes.report import MAX_BYTES, NOTHING, parse_report

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)


def _answer(value: Any, *, status: bytes = b"200 OK") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\n\r\n" + body


def test_a_report_in_order_is_understood() -> None:
    found = parse_report(
        _answer(
            {
                "version": 1,
                "alive": MS - 4000,
                "presence": {"at": MS - 5000, "source": "terminal"},
                "request": {"id": "0123456789abcdef", "verb": "keep", "minutes": 90, "at": MS - 1000},
            }
        ),
        now=NOW,
    )
    assert (found.present_at, found.source) == (NOW - timedelta(seconds=5), "terminal")
    assert found.alive_at == NOW - timedelta(seconds=4)
    assert found.request is not None
    assert (found.request.verb, found.request.minutes) == (RequestVerb.KEEP, 90)
    assert found.request.asked_at == NOW - timedelta(seconds=1)


def test_a_chunked_answer_is_understood() -> None:
    body = json.dumps({"presence": {"at": MS, "source": "window"}}).encode()
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    assert parse_report(_answer(chunked), now=NOW).present_at == NOW


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1",
        _answer({}, status=b"404 Not Found"),
        _answer({"presence": {"at": MS}}, status=b"302 Found"),
        _answer(b""),
        _answer(b"{"),
        _answer(b"[" * 100_000),
        _answer(b'{"presence":' * 3000),
        _answer("presence"),
        _answer({"presence": {"at": MS}, "padding": "x" * MAX_BYTES})[:MAX_BYTES],
    ],
)
def test_what_makes_no_sense_is_no_report(answer: bytes) -> None:
    assert parse_report(answer, now=NOW) == NOTHING


@pytest.mark.parametrize(
    "at",
    [
        None,
        True,
        "now",
        -1,
        0,
        float("nan"),
        float("inf"),
        10**400,
        [MS],
        MS + 10 * 60 * 1000,  # ten minutes ahead: containers share the host's clock
        MS * 1000,
    ],
)
def test_an_absurd_time_is_no_presence(at: Any) -> None:
    assert parse_report(_answer({"presence": {"at": at, "source": "window"}}), now=NOW).present_at is None


def test_a_time_that_is_a_little_ahead_is_now() -> None:
    assert parse_report(_answer({"presence": {"at": MS + 30_000}}), now=NOW).present_at == NOW


@pytest.mark.parametrize(
    "request_",
    [
        "keep",
        {"id": "short", "verb": "stop", "at": MS},
        {"id": "x" * 65, "verb": "stop", "at": MS},
        {"id": "../../../../etc", "verb": "stop", "at": MS},
        {"id": "0123456789", "verb": "start", "at": MS},
        {"id": "0123456789", "verb": ["stop"], "at": MS},
        {"id": "0123456789", "verb": "keep", "minutes": -5, "at": MS},
        {"id": "0123456789", "verb": "keep", "minutes": "60", "at": MS},
        {"id": "0123456789", "verb": "keep", "at": MS},
    ],
)
def test_a_request_that_makes_no_sense_is_none(request_: Any) -> None:
    assert parse_report(_answer({"request": request_}), now=NOW) == NOTHING


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["presence", "request", "at", "id", "verb"]), inner)
    ),
    max_leaves=12,
)


@given(value=json_values)
def test_nothing_that_can_be_said_is_an_error_or_a_time_of_the_future(value: Any) -> None:
    found = parse_report(_answer(value), now=NOW)
    assert isinstance(found, Report)
    assert found.present_at is None or found.present_at <= NOW


@given(answer=st.binary(max_size=400))
def test_no_bytes_are_an_error(answer: bytes) -> None:
    assert isinstance(parse_report(answer, now=NOW), Report)
