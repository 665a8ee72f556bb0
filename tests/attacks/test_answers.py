"""The reader that the attacks rely on refuses what it must, or they could not fail."""

from __future__ import annotations

import pytest

from tests.attacks.answers import Malformed, read
from tests.attacks.forms import EVIL, HONEST

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + EVIL,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 000 x\r\n\r\n" + EVIL,
        b"HTTP/1.1 999 x\r\n\r\n",
        b"\r\n" + EVIL,
        b" " + EVIL,
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 a\x01\r\n\r\n",
        b"<html>",
        b"HTTP/1.1 200 OK\r\n(X): a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 101 x\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 205 x\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 205 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        CHUNKED + b"5;x\r\nhello\r\n0\r\n\r\n",
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nX: a",
    ],
)
def test_what_no_server_may_send_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data, method=b"GET", ended=True)


@pytest.mark.parametrize(
    ("data", "body", "rest"),
    [
        (HONEST, b"hello", b""),
        (HONEST + EVIL, b"hello", EVIL),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + EVIL, b"hello", EVIL),
        (b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL, b"", EVIL),
        (b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello", b"hello", b""),
    ],
)
def test_where_a_response_ends(data: bytes, body: bytes, rest: bytes) -> None:
    answer = read(data, method=b"GET", ended=True)
    assert answer is not None
    assert (answer.body, answer.rest, answer.whole) == (body, rest, True)


@pytest.mark.parametrize("data", [HONEST, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
def test_no_part_of_a_response_is_taken_for_the_whole(data: bytes) -> None:
    for end in range(len(data)):
        assert read(data[:end], method=b"GET", ended=False) is None


def test_a_body_that_is_cut_short_is_told() -> None:
    for data in (HONEST[:-1], CHUNKED + b"5\r\nhel"):
        answer = read(data, method=b"GET", ended=True)
        assert answer is not None
        assert not answer.whole
