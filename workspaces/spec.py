"""Row + settings -> WorkspaceSpec. Nothing that a user sends gets in here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

from workspaces import naming
from workspaces.runtimes.base import Endpoint, WorkspaceSpec

if TYPE_CHECKING:
    from workspaces.models import Workspace


# Raise it when the table of container options changes: a container made with the old one is then replaced.
OPTIONS_EDITION = 7


def build_spec(workspace: Workspace, *, endpoint: Endpoint, env: Any) -> WorkspaceSpec:
    """The spec of the workspace's current generation at `endpoint`."""
    spec = WorkspaceSpec(
        name=naming.container_name(env.container_prefix, workspace.user_id),
        user_id=workspace.user_id,
        instance=env.instance,
        generation=workspace.generation,
        image=env.workspace_image,
        endpoint=endpoint,
        memory=env.memory,
        cpus=env.cpus,
        pids=env.pids,
        disk_write=env.disk_write,
        disk_writes=env.disk_writes,
        stop_grace=env.stop_grace_seconds,
        secret=workspace.editor_secret,
    )
    return dataclasses.replace(spec, hash=spec_hash(spec, host_root=str(env.workspace_root)))


def spec_hash(spec: WorkspaceSpec, *, host_root: str) -> str:
    """A digest of everything that makes two containers differ; the generation does not."""
    fields = dataclasses.asdict(spec) | {"host_root": host_root, "options": OPTIONS_EDITION}
    del fields["generation"], fields["hash"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]
