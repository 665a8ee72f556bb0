from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from workspaces import lifecycle
from workspaces.lifecycle import Outcome
from workspaces.states import State

if TYPE_CHECKING:
    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.django_db


def test_a_first_start_brings_the_workspace_to_running(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    assert workspace.state == State.STARTING
    assert lifecycle.perform_start(workspace.pk, workspace.generation, runtime=runtime) is Outcome.DONE
    workspace.refresh_from_db()
    assert workspace.state == State.RUNNING
    assert workspace.port == 11000 + user.pk
    assert [t.to_state for t in workspace.transitions.all()] == ["running", "starting"]
