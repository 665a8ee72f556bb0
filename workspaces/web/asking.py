"""Who asks for an editor, and how: what the pages and endpoints under an editor's path have in common.

The outside contract has a table "Asking for an editor". Its rows are `standing_of`, its columns `is_page_navigation`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workspaces import gate, naming, ticket

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from django.http import HttpRequest

# Exactly as we write ids ourselves: `01`, `+1` or other scripts' digits name nobody. 18 digits fit any column.
_USER_ID = re.compile(r"[1-9][0-9]{0,17}")
_EDITOR_PATH = re.compile(r"/code/user/([^/?#]+)(?:[/?#].*)?", re.DOTALL)


def parse_user_id(text: str) -> int | None:
    """The user's id, or None for anything that is not the one spelling of an id."""
    return int(text) if _USER_ID.fullmatch(text) else None


def owner_named_in(url: str) -> str | None:
    """The id part of an editor's URL as it is written there; None for any other URL of this site."""
    match = _EDITOR_PATH.fullmatch(url)
    return None if match is None else match[1]


def is_page_navigation(*, method: str, uri: str, user_id: int, headers: Mapping[str, str]) -> bool:
    """Whether a person goes to the editor's page, in the contract's exact words.

    Only such a request may start a workspace: a forgotten tab's reconnects and a prefetch must not wake a container.
    """
    path, _, _ = uri.partition("?")
    return method == "GET" and path == naming.editor_path(user_id) and _is_navigation(headers)


def _is_navigation(headers: Mapping[str, str]) -> bool:
    if "prefetch" in headers.get("Sec-Purpose", "").lower():
        return False
    if not any(name.lower().startswith("sec-fetch-") for name in headers):
        return "text/html" in headers.get("Accept", "").lower()
    return headers.get("Sec-Fetch-Mode", "").lower() == "navigate" and headers.get(
        "Sec-Fetch-Dest", "document"
    ).lower() in {"document", "iframe"}


def standing_of(request: HttpRequest, *, user_id: int, now: datetime) -> gate.Answer:
    """The gate's answer, in which a live session of somebody else weighs like somebody else's ticket.

    The browser sends a ticket to its own editor only, so at a foreign editor the session is what tells.
    """
    tokens = ticket.tokens_in(request.headers.get("Cookie", ""))
    answer = gate.decide(user_id=user_id, tokens=tokens, now=now)
    if answer.outcome is gate.Outcome.NO_TICKET and is_somebody_else(request, user_id=user_id):
        return gate.Answer(outcome=gate.Outcome.NOT_YOURS)
    return answer


def is_somebody_else(request: HttpRequest, *, user_id: int) -> bool:
    """Whether a live session of another user came along (a disabled user's session is not live)."""
    return request.user.is_authenticated and request.user.pk != user_id


def is_socket(request: HttpRequest) -> bool:
    """Whether nginx asks for the handshake of a WebSocket."""
    return request.headers.get("X-Original-Upgrade", "").lower() == "websocket"


def is_foreign_socket(request: HttpRequest) -> bool:
    """Whether a page of another origin opens a WebSocket with the user's ticket: CORS does not guard those.

    The scheme counts: a page that came without TLS may be anybody's.
    """
    if not is_socket(request):
        return False
    origin = request.headers.get("Origin")
    return origin is not None and origin.lower() != f"{request.scheme}://{request.get_host()}".lower()
