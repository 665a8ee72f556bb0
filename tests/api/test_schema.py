from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from drf_spectacular.validation import validate_schema

from tests.api.shapes import WORKSPACE_FIELDS

if TYPE_CHECKING:
    from rest_framework.test import APIClient

pytestmark = pytest.mark.django_db
# Every call of the public contract.
CALLS = {
    "post /api/v1/auth/token",
    "post /api/v1/auth/token/refresh",
    "post /api/v1/auth/token/verify",
    "post /api/v1/auth/logout",
    "get /api/v1/auth/me",
    "post /api/v1/code-server/start",
    "get /api/v1/code-server/status",
    "post /api/v1/code-server/stop",
    "post /api/v1/code-server/restart",
    "post /api/v1/code-server/keep",
    "get /api/v1/code-server/logs",
    "get /api/v1/code-server/stats",
    "get /api/v1/code-server/history",
    "get /api/v1/code-server/events",
    "get /api/v1/code-server/savings",
    "get /api/v1/workspaces",
    "get /api/v1/workspaces/savings",
    "get /api/v1/workspaces/{user_id}",
    "post /api/v1/workspaces/{user_id}/start",
    "post /api/v1/workspaces/{user_id}/stop",
    "post /api/v1/workspaces/{user_id}/restart",
}


@pytest.fixture
def schema(anonymous: APIClient) -> dict[str, Any]:
    response = anonymous.get("/api/v1/schema", {"format": "json"})
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_the_document_is_valid_openapi_3(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.")
    validate_schema(schema)  # type: ignore[no-untyped-call]


def test_the_document_is_yaml_for_whoever_asks_without_a_format(anonymous: APIClient) -> None:
    response = anonymous.get("/api/v1/schema")
    assert response.status_code == 200
    assert response.content.startswith(b"openapi: 3.")


def test_the_document_names_every_call_and_no_other(schema: dict[str, Any]) -> None:
    assert {f"{method} {path}" for path, item in schema["paths"].items() for method in item} == CALLS


def test_every_call_says_what_it_answers_and_that_it_may_refuse(schema: dict[str, Any]) -> None:
    for path, item in schema["paths"].items():
        for call in item.values():
            assert any(status.startswith("2") for status in call["responses"]), path
            assert any(status.startswith("4") for status in call["responses"]), path
            assert call["description"], path


def test_the_workspace_object_is_the_contracts(schema: dict[str, Any]) -> None:
    assert schema["components"]["schemas"]["WorkspaceOut"]["properties"].keys() >= WORKSPACE_FIELDS


def test_a_list_is_described_as_a_page(schema: dict[str, Any]) -> None:
    for path in ("/api/v1/code-server/history", "/api/v1/workspaces"):
        content = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        name = content["$ref"].rpartition("/")[2]
        assert schema["components"]["schemas"][name]["properties"].keys() == {"next", "previous", "results"}


def test_the_browsable_page_renders_from_our_own_host(anonymous: APIClient) -> None:
    response = anonymous.get("/api/v1/docs", headers={"Accept": "text/html"})
    assert response.status_code == 200
    page = response.content.decode()
    assert "swagger" in page.lower()
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert "script-src 'self';" in response["Content-Security-Policy"]
