from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings

from workspaces.models import Workspace
from workspaces.runtimes.base import Endpoint, WorkspaceSpec
from workspaces.spec import build_spec, spec_hash

if TYPE_CHECKING:
    from collections.abc import Callable

ENDPOINT = Endpoint(host="127.0.0.1", port=9007)


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(user_id=7, generation=3)


def _spec(workspace: Workspace) -> WorkspaceSpec:
    return build_spec(workspace, endpoint=ENDPOINT, env=settings.ENV)


def test_the_spec_says_what_the_settings_say(workspace: Workspace) -> None:
    spec, env = _spec(workspace), settings.ENV
    assert spec.name == f"{env.container_prefix}-7"
    assert (spec.user_id, spec.generation, spec.endpoint) == (7, 3, ENDPOINT)
    assert (spec.instance, spec.image) == (env.instance, env.workspace_image)
    assert (spec.memory, spec.cpus, spec.pids, spec.stop_grace) == (
        env.memory,
        env.cpus,
        env.pids,
        env.stop_grace_seconds,
    )
    assert spec.secret == workspace.editor_secret


def test_the_secret_is_never_printed(workspace: Workspace) -> None:
    assert len(workspace.editor_secret) == 64
    assert workspace.editor_secret not in repr(_spec(workspace))


def test_no_two_workspaces_share_a_secret() -> None:
    assert Workspace(user_id=1).editor_secret != Workspace(user_id=2).editor_secret


def test_the_hash_is_the_same_every_time(workspace: Workspace) -> None:
    assert _spec(workspace).hash == _spec(workspace).hash
    assert len(_spec(workspace).hash) == 32


def test_the_generation_alone_is_no_reason_to_replace(workspace: Workspace) -> None:
    before = _spec(workspace).hash
    workspace.generation += 1
    assert _spec(workspace).hash == before


CHANGES: dict[str, Any] = {
    "name": "other",
    "user_id": 8,
    "instance": "other",
    "image": "other",
    "endpoint": Endpoint(host="127.0.0.1", port=9008),
    "memory": 1,
    "cpus": 0.5,
    "pids": 65,
    "disk_write": 2**20,
    "disk_writes": 7,
    "stop_grace": 1,
    "secret": "other",
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_other_difference_is_a_reason_to_replace(workspace: Workspace, field: str) -> None:
    spec = _spec(workspace)
    changed = dataclasses.replace(spec, **{field: CHANGES[field]})
    assert spec_hash(changed, host_root="/r") != spec_hash(spec, host_root="/r")


def test_no_field_was_forgotten() -> None:
    assert set(CHANGES) | {"generation", "hash"} == {field.name for field in dataclasses.fields(WorkspaceSpec)}


def test_another_host_folder_is_a_reason_to_replace(workspace: Workspace, configure: Callable[..., None]) -> None:
    before = _spec(workspace).hash
    configure(workspace_root="/elsewhere")
    assert _spec(workspace).hash != before
