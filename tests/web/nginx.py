"""Requests as nginx sends them to the web service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.test import Client

KEY = {"X-Gate-Key": "only-for-tests"}  # deploy/test/services.sh writes it
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
ASSET = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}


def explain(client: Client, user_id: object, *, uri: str | None = None, method: str = "GET", **headers: str) -> Any:
    """What nginx asks when the gate said no; `headers` are the browser's."""
    described = {
        **KEY,
        "X-Gate-Workspace": str(user_id),
        "X-Original-Method": method,
        "X-Original-Uri": f"/code/user/{user_id}/" if uri is None else uri,
    }
    return client.get("/_explain", headers={**described, **headers})


def ask_gate(client: Client, user_id: object, **headers: str) -> Any:
    return client.get("/_gate", headers={**KEY, "X-Gate-Workspace": str(user_id), **headers})
