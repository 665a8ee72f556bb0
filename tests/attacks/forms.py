"""What a hostile workspace answers: the forms that once got through, their relatives, and what chance makes of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

# What the attacker wants to be taken for the web app's own response.
EVIL = (
    b"HTTP/1.1 200 OK\r\nSet-Cookie: gunpowder_session=EVIL; Path=/\r\nContent-Type: text/html\r\n"
    b"Content-Length: 4\r\n\r\nEVIL"
)
HONEST = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
# The program in the container puts the right answer to the handshake's key here.
ACCEPT = b"@ACCEPT@"
GRANTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + ACCEPT
    + b"\r\n\r\n"
)


@dataclass(frozen=True)
class Form:
    """One thing to answer. `pieces` are sent 20 ms apart; `holds`: the connection then stays open for a second."""

    name: str
    pieces: tuple[bytes, ...]
    holds: bool = False


def _form(name: str, *pieces: bytes) -> Form:
    return Form(name, pieces)


def _interim() -> Iterator[Form]:
    """Answers that another answer follows, says the standard; nginx took them for the last."""
    more = {
        "": b"",
        " with a length": b"Content-Length: %d\r\n" % len(EVIL),
        " with length 0": b"Content-Length: 0\r\n",
        " in chunks": b"Transfer-Encoding: chunked\r\n",
        " that closes": b"Connection: close\r\n",
        " that upgrades": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    }
    for status in (b"000", b"001", b"099", b"100", b"101", b"102", b"103", b"104", b"150", b"199"):
        for kind, header in more.items():
            yield _form(f"{status.decode()}{kind}", b"HTTP/1.1 " + status + b" Hint\r\n" + header + b"\r\n" + EVIL)
    yield _form("100 and later the rest", b"HTTP/1.1 100 Continue\r\n\r\n", EVIL)
    yield _form("103 three times", b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" * 3, EVIL)
    yield _form("103 and an honest answer", b"HTTP/1.1 103 Early Hints\r\n\r\n" + HONEST)
    yield _form("1.0 and 100", b"HTTP/1.0 100 Continue\r\n\r\n" + EVIL)
    yield _form("101 for h2c", b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + EVIL)
    wrong = GRANTED.replace(ACCEPT, b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    yield _form("101 with a wrong key", wrong + EVIL)
    yield _form("101 as asked for", GRANTED + EVIL)
    yield _form(
        "101 as asked for, with a length", GRANTED.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") + EVIL
    )
    yield _form("101 as asked for, twice", GRANTED + GRANTED + EVIL)
    for line in (
        b"Set-Cookie: gunpowder_session=EVIL", b"X-Gate-Outcome: yours", b"Content-Type: text/html", b"ETag: a",
        b"Sec-WebSocket-Protocol: x", b"Connection: close", b"Upgrade: h2c", b"Sec-WebSocket-Accept: x", b"X\x01: a",
        b"X: a\x01", b"Transfer-Encoding: chunked", b"Trailer: Set-Cookie", b"Location: /login",
    ):  # fmt: skip
        data = GRANTED.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")
        yield _form(f"101 as asked for, and {line!r}", data + EVIL)


def _status_lines() -> Iterator[Form]:
    """First lines that nginx does not know: it used to pass on all bytes as they came."""
    for before in (b"\r\n", b"\n", b"\r", b" ", b"\t", b"X", b"\0", b"\xef\xbb\xbf", b"\r\n\r\n", b"\x00\x01\x02" * 30):
        yield _form(f"{before[:9]!r} in front", before + EVIL)
    for line in (
        b"http/1.1 200 OK", b"Http/1.1 200 OK", b"ICY 200 OK", b"HTTP/2 200", b"HTTP/2 200 OK", b"HTTP/2.0 200 OK",
        b"HTTP/3 200", b"HTTP/1.1\t200 OK", b"HTTP/1.1  200 OK", b"HTTP/1 200 OK", b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK", b"HTTP/1.1 -20 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 2 0 OK", b"HTTP/1.1 0x2 OK",
        b"HTTP/01.1 200 OK", b"HTTP/1.01 200 OK", b"HTTP/1.10 200 OK", b"HTTP/0.9 200 OK", b"HTTP/9.9 200 OK",
        b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200OK", b"HTTP/1.1 OK", b"HTTP/1.1", b"HTTP/",
        b"HTTP", b"HTTP /1.1 200 OK", b"HTTP/ 1.1 200 OK", b"HTTP/1. 1 200 OK", b"HTTP/1,1 200 OK", b"HTTPS/1.1 200 OK",
        b"RTSP/1.0 200 OK", b"SSH-2.0-OpenSSH", b"<html>", b"", b"GET /login HTTP/1.1", b"PRI * HTTP/2.0",
        b"HTTP/1.1 600 OK", b"HTTP/1.1 999 OK", b"HTTP/1.1 200 \0", b"HTTP/1.1 200 a\x01b", b"HTTP/1.1 200 a\x7fb",
        b"HTTP/1.1 200 a\rSet-Cookie: gunpowder_session=EVIL", b"HTTP/1.1 200 " + b"x" * 3000,
        b"HTTP/1.1 200 " + b"x" * 90000, b"HTTP/1.1 200 \xff\xfe",
    ):  # fmt: skip
        _, _, rest = EVIL.partition(b"\r\n")
        yield _form(f"line {line[:40]!r}", line + b"\r\n" + rest)
    yield _form("line ends alone with LF", EVIL.replace(b"\r\n", b"\n"))
    yield _form("line ends alone with CR", EVIL.replace(b"\r\n", b"\r"))
    yield _form("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + EVIL)
    yield _form("HTTP/2 settings", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80" + EVIL)
    yield _form("nothing")
    yield _form("half a status line", b"HTTP/1.1 20")
    yield _form("half a status line, later the rest", EVIL[:11], EVIL[11:])
    yield _form("letter by letter", *(EVIL[at : at + 1] for at in range(30)), EVIL[30:])


def _headers() -> Iterator[Form]:
    for line in (
        b"Set-Cookie : gunpowder_session=EVIL", b" Set-Cookie: gunpowder_session=EVIL", b"\tSet-Cookie: a=EVIL",
        b"X: a\r\n Set-Cookie: gunpowder_session=EVIL", b": EVIL", b"EVIL", b"Set-Cookie", b"X\0: EVIL", b"X: a\0b",
        b"X: a\rSet-Cookie: gunpowder_session=EVIL", b"X: a\nSet-Cookie: gunpowder_session=EVIL", b"X: a\x0bb",
        b"(X): EVIL", b"X\xff: EVIL", b"X: \x7f", b"Set_Cookie: gunpowder_session=EVIL", b"X\r: EVIL", b"X X: EVIL",
        b"Content-Type: text/html\x01", b"Content-Type: " + b"x" * 3000, b"ETag: a\x02", b"Location: a\x03b",
        b"Content-Length: 4", b"Content-Length: 40", b"Content-Length: 0", b"content-length: 4, 4",
        b"Content-Length: +4", b"Content-Length: -4", b"Content-Length: 0x4", b"Content-Length: 4 ",
        b"Content-Length: 99999999999999999999999", b"Content-Length:", b"Content-Length: 4;", b"Content-Length : 4",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding : chunked",
        b"TE: trailers", b"Trailer: Set-Cookie", b"Connection: keep-alive, Content-Length", b"Connection: Set-Cookie",
        b"Connection: close", b"Connection: Upgrade\r\nUpgrade: h2c", b"Keep-Alive: timeout=9999",
        b"Proxy-Connection: keep-alive", b"Connection: \0",
    ):  # fmt: skip
        yield _form(f"header {line[:40]!r}", HONEST.replace(b"Content-Length: 5", line) + EVIL)
        yield _form(f"also {line[:40]!r}", HONEST.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n") + EVIL)
    yield _form("one header too large", HONEST.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 70000 + b"\r\n\r\n"))
    yield _form("headers without end", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000)


def _bodies() -> Iterator[Form]:
    yield _form("more than the length", HONEST + EVIL)
    yield _form("more than the length, later", HONEST, EVIL)
    yield _form("205 and later a body", b"HTTP/1.1 205 x\r\nContent-Length: %d\r\n\r\n" % len(EVIL), EVIL)
    yield _form("205 without a length", b"HTTP/1.1 205 x\r\n\r\n", EVIL)
    yield _form("205 with length 0", b"HTTP/1.1 205 x\r\nContent-Length: 0\r\n\r\n", EVIL)
    yield _form("less than the length", HONEST.replace(b": 5", b": 500"))
    yield _form("until the end", HONEST.replace(b"Content-Length: 5\r\n", b"") + EVIL)
    for status in (b"204 No Content", b"304 Not Modified", b"205 Reset Content", b"200 OK"):
        for header in (b"", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"):
            yield _form(
                f"{status.decode()} {header[:20]!r} with a body",
                b"HTTP/1.1 " + status + b"\r\n" + header + b"\r\n" + EVIL,
            )
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for chunks in (
        b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nSet-Cookie: gunpowder_session=EVIL\r\n\r\n",
        b"5;x=y\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhel", b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello", b"ffffffffffffffff\r\nhello", b"7fffffffffffffff\r\nhello", b"\r\n", b"g\r\n",
        b"5\r\nhello\r\n00000000000000000000\r\n\r\n", b"5\r\nhello\r\n0\r\n", b"5;\0\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    ):  # fmt: skip
        yield _form(f"chunks {chunks[:30]!r}", chunked + chunks + EVIL)
        yield _form(f"chunks {chunks[:30]!r}, in pieces", chunked, chunks, EVIL)


EXAMPLES = (*_interim(), *_status_lines(), *_headers(), *_bodies())
# What mutation puts in: what parsers stumble over.
SPICE = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"HTTP/1.1 ", b"HTTP/1.1 103 X\r\n\r\n",
    b"HTTP/1.1 101 X\r\n\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"5\r\n", b"\r\n\r\n",
    b"100", b"204", b"\xff",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Set-Cookie: gunpowder_session=EVIL\r\n", EVIL, HONEST, GRANTED,
)  # fmt: skip


def by_chance(dice: random.Random, number: int) -> Form:
    """Case `number` of a run: an example or two, cut, joined, spiced and sent in other pieces."""
    form = dice.choice(EXAMPLES)
    data = bytearray(b"".join(form.pieces)[:6000])
    if dice.random() < 0.2:
        data[dice.randrange(len(data) + 1) :] = b"".join(dice.choice(EXAMPLES).pieces)[:6000]
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 6))):
        at = dice.randrange(len(data) + 1) if dice.random() < 0.5 else dice.randrange(min(60, len(data)) + 1)
        what = dice.randrange(5)
        if what == 0:
            data[at:at] = dice.choice(SPICE)
        elif what == 1:
            del data[at : at + dice.choice((1, 1, 2, 9))]
        elif what == 2:
            data[at : at + 1] = bytes([dice.randrange(256)])
        elif what == 3:
            data[at:at] = data[at : at + dice.choice((1, 2, 20))]
        else:
            data[at : at + 1] = dice.choice(SPICE)
    data = data[:9000]
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 0, 1, 2))))
    edges = [0, *cuts, len(data)]
    pieces = tuple(bytes(data[start:end]) for start, end in itertools.pairwise(edges))
    return replace(form, name=f"{number}, made from {form.name}", pieces=pieces, holds=dice.random() < 0.2)
