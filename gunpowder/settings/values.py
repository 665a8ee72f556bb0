"""The kinds of values that settings have: read from text, checked, and refused with a sentence."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

_SIZE = re.compile(r"(\d+)([bkmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_LARGEST_POOL, _SMALLEST_POOL = 8, 26  # bits; the smaller one is for sixteen workspaces
_WIDEST = 8  # bits of the widest network in which proxies may be


def _size(value: Any) -> Any:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("is not a size: a whole number with b, k, m or g behind it")
        return int(match[1]) * _UNITS[match[2].lower()]
    return value


def _range(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", value)
        if match is None:
            raise ValueError("is not a range: two numbers with a dash between them")
        return (int(match[1]), int(match[2]))
    return value


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    low, high = value
    if not 1024 <= low <= high <= 65535:  # noqa: PLR2004 - the bounds of unprivileged ports
        raise ValueError("must lie between 1024 and 65535, the lower number first")
    return value


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _words(value: Any) -> Any:
    return tuple(re.findall(r"[^\s,]+", value)) if isinstance(value, str) else value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        try:
            if not re.fullmatch(r"[0-9a-fA-F.:]+(/[0-9]+)?", text):  # nginx reads no other form
                raise ValueError(text)
            network = ip_network(text)
        except ValueError:
            raise ValueError(f"{text!r} is no address and no network such as 192.168.7.0/24") from None
        if network.prefixlen < _WIDEST:
            raise ValueError(f"{text!r} is far too many: whoever asks from there may say that they are somebody else")
    return value


def _pool(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return IPv4Network(value.strip())
        except ValueError:
            raise ValueError("is no IPv4 network such as 198.18.0.0/15") from None
    return value


def _roomy(value: IPv4Network) -> IPv4Network:
    if not _LARGEST_POOL <= value.prefixlen <= _SMALLEST_POOL:
        raise ValueError(f"must have between {_LARGEST_POOL} and {_SMALLEST_POOL} bits before its end")
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute() or ".." in value.parts:
        raise ValueError("must be an absolute path without '..'")
    return value


def is_url(text: str, *, schemes: set[str]) -> bool:
    """Whether `text` can be taken apart at all; the port is only looked at when it is asked for."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    return url.scheme in schemes and port != 0


def _bounded(least: int) -> AfterValidator:
    """0, which is no limit, or at least so much: less, and nothing would start."""

    def check(value: int) -> int:
        if 0 < value < least:
            raise ValueError(f"must be 0, for no limit, or at least {least}")
        return value

    return AfterValidator(check)


Size = Annotated[int, BeforeValidator(_size)]
PortRange = Annotated[tuple[int, int], NoDecode, BeforeValidator(_range), AfterValidator(_ordered)]
DiskWrite = Annotated[int, BeforeValidator(_size), _bounded(2**20)]
DiskWrites = Annotated[int, _bounded(50)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
Pool = Annotated[IPv4Network, NoDecode, BeforeValidator(_pool), AfterValidator(_roomy)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_networks)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
