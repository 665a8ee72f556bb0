"""What a workspace writes to the disk is bounded by the kernel, if there is a disk; and it starts if there is none."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from workspaces.runtimes.base import Phase
from workspaces.runtimes.docker_host import disk_of

if TYPE_CHECKING:
    from tests.contract.places import DockerPlace

pytestmark = pytest.mark.docker


def test_the_kernel_bounds_what_a_workspace_writes(engine: DockerPlace) -> None:
    spec = engine.spec()
    engine.runtime.ensure_running(spec)
    disk = disk_of(engine.root)
    host = engine.inspect(spec.name)["HostConfig"]
    expected = (
        [[{"Path": disk, "Rate": rate}] for rate in (spec.disk_write, spec.disk_writes)] if disk else [None, None]
    )
    assert [host["BlkioDeviceWriteBps"], host["BlkioDeviceWriteIOps"]] == expected
    script = "cd /sys/fs/cgroup && cat io.max blkio/blkio.throttle.write_*_device 2>/dev/null"
    said = engine.inside(spec, script)
    for rate in (spec.disk_write, spec.disk_writes):
        assert (str(rate) in said) is bool(disk), "as the kernel sees it"


def test_an_engine_that_does_not_see_the_disk_starts_all_the_same(engine: DockerPlace) -> None:
    spec = engine.spec()
    host = engine.runtime._host
    engine.runtime._host = dataclasses.replace(host, disk="/dev/no-such-device")
    try:
        assert engine.runtime.ensure_running(spec).phase is Phase.RUNNING
        made = engine.inspect(spec.name)
        assert not made["HostConfig"]["BlkioDeviceWriteBps"]
        assert engine.runtime.ensure_running(spec).phase is Phase.RUNNING
        assert engine.inspect(spec.name)["Id"] == made["Id"]
    finally:
        engine.runtime._host = host
