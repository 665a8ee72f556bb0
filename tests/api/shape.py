"""The one error shape."""

from __future__ import annotations

import re
from typing import Any


def assert_error(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The answer is an error of this status in the one shape; returns its body."""
    assert answer.status_code == status, answer.content
    body: dict[str, Any] = answer.json()
    assert set(body) == {"code", "message", "detail"}
    assert re.fullmatch(r"[a-z][a-z0-9_]*", body["code"])
    assert isinstance(body["message"], str)
    assert body["message"]
    assert isinstance(body["detail"], dict)
    if code is not None:
        assert body["code"] == code
    return body
