"""Some paths answer nginx and nobody else; nginx proves itself with a key that only it and web hold."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.utils.crypto import constant_time_compare

from workspaces import conf

if TYPE_CHECKING:
    from django.http import HttpRequest


@lru_cache(maxsize=1)
def gate_key() -> str:
    """The shared key, read once per process. Raises LookupError while there is none, which is not remembered."""
    key: str = conf.env().gate_key()
    if not key:
        raise LookupError("no gate key")
    return key


def from_nginx(request: HttpRequest) -> bool:
    """Whether nginx itself asks. Without a key of our own nobody is believed: closed, not open."""
    try:
        expected = gate_key()
    except LookupError:
        return False
    return constant_time_compare(request.headers.get("X-Gate-Key", ""), expected)
