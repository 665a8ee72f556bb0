from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.utils import timezone

from workspaces import access, ticket

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def with_ticket() -> Callable[..., Client]:
    """A browser that holds this user's ticket and nothing else."""

    def make(user: Any, *, login: str = "session:x") -> Client:
        client = Client(enforce_csrf_checks=True)
        workspace = access.ensure_workspace_for(user)
        client.cookies[ticket.COOKIE] = ticket.issue(workspace, login=login, now=timezone.now())
        return client

    return make
