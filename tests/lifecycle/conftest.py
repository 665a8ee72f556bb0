"""Workspaces on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from workspaces import lifecycle

if TYPE_CHECKING:
    from workspaces.models import Workspace


@pytest.fixture
def starting(user: Any) -> Workspace:
    return lifecycle.request_start(user, actor=user)
