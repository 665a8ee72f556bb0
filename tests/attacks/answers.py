"""A strict reader of what a client receives: stricter than any browser, so that no two readers can differ on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
VISIBLE = rb"[\t\x20-\x7e\x80-\xff]*"  # of a value or a reason: no control character but the tab
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) " + VISIBLE)
HEADER = re.compile(rb"(" + TOKEN + rb"): ?(" + VISIBLE + rb")")
CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")
LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
# What frames a message; twice, or one beside the other, and two readers may come to different ends.
FRAMING = (b"content-length", b"transfer-encoding", b"connection", b"upgrade")
WITHOUT_BODY = (204, 304)
SWITCHED = 101
RESET = 205


class Malformed(Exception):
    """The client got what is not exactly one well-formed response."""


@dataclass(frozen=True)
class Answer:
    """One response as a client reads it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]  # names in small letters
    body: bytes
    whole: bool  # False where the connection ended within the body
    closes: bool  # whether it says that nothing follows on this connection
    rest: bytes  # what came behind it

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


def read(data: bytes, *, method: bytes, ended: bool) -> Answer | None:
    """The response at the beginning of `data`, or None while it is not complete and more may come.

    `ended`: the server has closed the connection. Raises Malformed at the first byte that RFC 9112 does not allow a
    server to send.
    """
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        _check_beginning(data)
        if ended:
            raise Malformed(f"the connection ended within the headers: {data[:200]!r}")
        return None
    status, headers = _read_head(head)
    closes = dict(headers).get(b"connection", b"").lower() == b"close"
    answer = Answer(status, headers, b"", whole=True, closes=closes, rest=rest)
    if status in {*WITHOUT_BODY, SWITCHED} or method == b"HEAD":
        return answer
    return _with_body(answer, ended=ended)


def _with_body(answer: Answer, *, ended: bool) -> Answer | None:
    told, rest = dict(answer.headers), answer.rest
    if b"transfer-encoding" in told:
        return _chunked(answer, ended=ended)
    if b"content-length" in told:
        size = int(told[b"content-length"])
        if len(rest) < size and not ended:
            return None
        return replace(answer, body=rest[:size], whole=len(rest) >= size, rest=rest[size:])
    if not answer.closes:
        raise Malformed("neither a length nor chunks, and the connection stays open")
    return replace(answer, body=rest, rest=b"") if ended else None


def _check_beginning(data: bytes) -> None:
    """Garbage is reported when it comes, not when the wait for its end is over."""
    if not any(line.startswith(data[: len(line)]) for line in (b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise Malformed(f"no response begins like this: {data[:80]!r}")


def _read_head(head: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
    first, *lines = head.split(b"\r\n")
    found = STATUS_LINE.fullmatch(first)
    if not found:
        raise Malformed(f"not a status line: {first[:200]!r}")
    status = int(found[1])
    headers = []
    for line in lines:
        pair = HEADER.fullmatch(line)
        if not pair:
            raise Malformed(f"not a header: {line[:200]!r}")
        headers.append((pair[1].lower(), pair[2]))
    _check_framing(status, headers)
    return status, tuple(headers)


def _check_framing(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    if status < 200 and status != SWITCHED:
        raise Malformed(f"an interim response, {status}")
    names = [name for name, _ in headers]
    for name in FRAMING:
        if names.count(name) > 1:
            raise Malformed(f"{name.decode()} comes twice")
    told = dict(headers)
    if b"transfer-encoding" in told:
        if told[b"transfer-encoding"] != b"chunked" or b"content-length" in told or status in {*WITHOUT_BODY, SWITCHED}:
            raise Malformed(f"transfer-encoding where it may not be: {headers}")
    elif not LENGTH.fullmatch(told.get(b"content-length", b"0")):
        raise Malformed(f"content-length {told[b'content-length']!r}")
    if status in {204, SWITCHED} and b"content-length" in told:
        raise Malformed(f"a length where there is no body: {status}")
    # A browser takes it for one without a body and asks on the same connection at once.
    if status == RESET and told.get(b"content-length") != b"0":
        raise Malformed(f"a body where there may be none: {headers}")


def _chunked(answer: Answer, *, ended: bool) -> Answer | None:
    body, left = b"", answer.rest
    while True:
        line, end, after = left.partition(b"\r\n")
        if not end:
            break
        if not CHUNK_SIZE.fullmatch(line):
            raise Malformed(f"not the size of a chunk: {line[:80]!r}")
        size = int(line, 16)
        if len(after) < size + 2:
            left = after
            break
        if after[size : size + 2] != b"\r\n":
            raise Malformed(f"a chunk of {size} does not end where it says: {after[size : size + 20]!r}")
        body, left = body + after[:size], after[size + 2 :]
        if size == 0:
            return replace(answer, body=body, rest=left)
    if not ended:
        return None
    return replace(answer, body=body, whole=False, rest=b"")
