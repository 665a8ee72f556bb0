"""What only the engine can show of the contract."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from docker.errors import APIError

from tests.contract.asking import await_ready, reported
from tests.contract.places import GRACE, rehash
from tests.suite.waiting import eventually
from workspaces.errors import RuntimeUnavailable, StartRefused
from workspaces.runtimes.base import Phase, Report, RequestVerb, Signals, Verdict

if TYPE_CHECKING:
    from tests.contract.places import DockerPlace
    from workspaces.runtimes.base import WorkspaceSpec


def test_the_engine_tells_the_doctor_about_itself_and_its_host(engine: DockerPlace) -> None:
    spec = engine.spec()
    engine.runtime.ensure_running(spec)
    facts = {fact.what: fact for fact in engine.runtime.examine(image=spec.image, user_ids=frozenset({spec.user_id}))}
    assert {"engine version", "engine limits", "engine security", "kernel limits", "processes", "disk"} <= set(facts)
    for what in ("engine version", "engine clock", "engine limits", "engine security", "image", "folders"):
        assert facts[what].verdict is Verdict.OK, facts[what].sentence
    lacking = {f.what: f for f in engine.runtime.examine(image="gunpowder/no-such:image", user_ids=frozenset({10**6}))}
    assert lacking["image"].verdict is Verdict.WRONG
    assert lacking["folders"].verdict is Verdict.WRONG


def test_the_memory_of_the_host_is_known(engine: DockerPlace) -> None:
    available = engine.runtime.memory_available()
    assert available is not None
    assert 2**20 < available < 2**50


@pytest.fixture(scope="module")
def hostile_spec(docker_place: DockerPlace) -> WorkspaceSpec:
    """A running workspace whose user does not mean well."""
    spec = docker_place.spec(editor=True)
    docker_place.kept.add(spec.name)
    docker_place.runtime.ensure_running(spec)
    await_ready(docker_place.runtime, spec.endpoint)
    return spec


def pause(engine: DockerPlace, name: str) -> None:
    """Freeze a container. Under load the kernel refuses now and then while processes are being made."""

    def attempt() -> bool:
        try:
            engine.engine.pause(name)
        except APIError as error:
            if "unable to freeze" not in str(error):
                raise
            return False
        return True

    eventually(f"{name} is paused", attempt, within=10, every=0.2)


@pytest.mark.docker
class TestEngine:
    def test_the_files_outlive_replacement_and_removal(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        engine.runtime.ensure_running(spec)
        (engine.files(spec) / "kept.txt").write_text("mine")
        (engine.home(spec) / ".bash_history").write_text("ls")
        engine.runtime.ensure_running(rehash(spec, pids=300))
        assert (engine.files(spec) / "kept.txt").read_text() == "mine"
        engine.runtime.ensure_removed(spec.name)
        assert (engine.files(spec) / "kept.txt").read_text() == "mine"
        assert (engine.home(spec) / ".bash_history").read_text() == "ls"

    def test_the_container_sees_the_files_and_owns_them(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        engine.runtime.ensure_running(spec)
        assert engine.inside(spec, "echo hi > ~/workspace/a && echo ho > ~/b && id -u").strip() == "1000"
        assert (engine.files(spec) / "a").read_text() == "hi\n"
        assert (engine.home(spec) / "b").read_text() == "ho\n"
        for folder in (engine.files(spec), engine.home(spec)):
            found = folder.stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1000, 1000, 0o700)

    def test_the_readme_is_written_once_and_never_again(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        engine.runtime.ensure_running(spec)
        readme = engine.files(spec) / "README.md"
        assert readme.read_text().startswith("# ")
        readme.write_text("my own words")
        engine.runtime.ensure_running(spec)
        assert readme.read_text() == "my own words"
        readme.unlink()
        engine.runtime.ensure_running(rehash(spec, pids=300))
        assert not readme.exists()

    def test_a_folder_that_root_owns_is_healed(self, engine: DockerPlace) -> None:
        spec = engine.spec(editor=True)
        for folder in (engine.files(spec), engine.home(spec)):
            folder.mkdir(mode=0o755)
            assert folder.stat().st_uid == 0
        engine.runtime.ensure_running(spec)
        for folder in (engine.files(spec), engine.home(spec)):
            assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (1000, 0o700)
        await_ready(engine.runtime, spec.endpoint)

    def test_a_link_in_place_of_the_folder_is_refused_and_never_followed(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        target = engine.root / "precious"
        target.mkdir(mode=0o755)
        engine.files(spec).symlink_to(target)
        with pytest.raises(StartRefused) as refusal:
            engine.runtime.ensure_running(spec)
        assert refusal.value.code == "folder_unusable"
        assert (target.stat().st_uid, target.stat().st_mode & 0o777) == (0, 0o755)
        assert list(target.iterdir()) == []
        assert engine.containers_of(spec) == 0

    @pytest.mark.parametrize("kind", ["link", "file"])
    def test_what_stands_where_the_files_are_mounted_is_moved_aside(self, engine: DockerPlace, kind: str) -> None:
        spec = engine.spec()
        engine.home(spec).mkdir()
        place = engine.home(spec) / "workspace"
        if kind == "link":
            place.symlink_to("/etc")
        else:
            place.write_text("precious")
        engine.runtime.ensure_running(spec)
        assert place.is_dir()
        assert not place.is_symlink()
        (aside,) = engine.home(spec).glob("workspace.moved-*")
        assert aside.is_symlink() if kind == "link" else aside.read_text() == "precious"

    def test_a_container_that_somebody_else_made_is_never_touched(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        with engine.foreign_container(spec.name) as identifier:
            with pytest.raises(StartRefused) as refusal:
                engine.runtime.ensure_running(spec)
            assert refusal.value.code == "name_taken"
            assert spec.name in refusal.value.message
            engine.engine.start(identifier)
            engine.runtime.ensure_stopped(spec.name, generation=99, grace=1)
            engine.runtime.ensure_removed(spec.name)
            found = engine.inspect(spec.name)
            assert (found["Id"], found["State"]["Running"]) == (identifier, True)
            assert engine.runtime.observe(spec.name).user_id is None
            assert spec.name not in {observation.name for observation in engine.runtime.observe_all()}

    def test_another_users_container_under_the_name_is_refused(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        engine.runtime.ensure_running(spec)
        with pytest.raises(StartRefused) as refusal:
            engine.runtime.ensure_running(rehash(spec, user_id=spec.user_id + 100_000))
        assert refusal.value.code == "name_taken"
        assert engine.runtime.observe(spec.name).alive

    def test_a_missing_image_is_named_with_what_to_do(self, engine: DockerPlace) -> None:
        spec = rehash(engine.spec(), image="gunpowder/no-such-image:none")
        with pytest.raises(StartRefused) as refusal:
            engine.runtime.ensure_running(spec)
        assert refusal.value.code == "image_missing"
        assert "gunpowder/no-such-image:none" in refusal.value.message
        assert engine.containers_of(spec) == 0

    def test_a_paused_container_is_woken_and_can_be_stopped(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        first = engine.runtime.ensure_running(spec)
        pause(engine, spec.name)
        seen = engine.runtime.observe(spec.name)
        assert (seen.phase, seen.alive) == (Phase.PAUSED, True)
        assert engine.runtime.ensure_running(spec).container_id == first.container_id
        assert engine.runtime.observe(spec.name).phase is Phase.RUNNING
        pause(engine, spec.name)
        engine.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
        assert engine.runtime.observe(spec.name).phase is Phase.EXITED

    def test_a_start_over_a_half_done_one_works(self, engine: DockerPlace) -> None:
        """A worker that died after the create left a container that never started."""
        spec = engine.spec()
        first = engine.runtime.ensure_running(spec)
        engine.runtime.ensure_removed(spec.name)
        assert engine.runtime._create(spec, engine.runtime._host)
        assert engine.runtime.observe(spec.name).phase is Phase.CREATED
        second = engine.runtime.ensure_running(spec)
        assert second.alive
        assert second.container_id != first.container_id

    def test_the_log_is_the_containers_last_lines(self, engine: DockerPlace) -> None:
        spec = engine.spec(editor=True)
        engine.runtime.ensure_running(spec)
        await_ready(engine.runtime, spec.endpoint)
        lines = engine.runtime.logs(spec.name, tail=200)
        assert any("code-server" in line for line in lines)
        assert engine.runtime.logs(spec.name, tail=1) == lines[-1:]
        engine.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
        assert any("code-server" in line for line in engine.runtime.logs(spec.name, tail=200))

    def test_asking_for_health_is_no_activity(self, engine: DockerPlace) -> None:
        spec = engine.spec(editor=True)
        engine.runtime.ensure_running(spec)
        before = await_ready(engine.runtime, spec.endpoint).last_heartbeat_at
        for _ in range(5):
            assert engine.runtime.health(spec.endpoint).last_heartbeat_at == before
        assert before is None or before <= datetime.now(tz=UTC)

    def test_usage_counts_the_disk(self, engine: DockerPlace) -> None:
        spec = engine.spec(editor=True)
        engine.runtime.ensure_running(spec)
        (engine.files(spec) / "large").write_bytes(os.urandom(2**20))
        used = engine.runtime.usage(spec.name)
        assert used is not None
        assert 2**20 <= used.disk_bytes < 64 * 2**20

    def test_the_container_may_do_what_the_reviewed_table_says_and_no_more(self, engine: DockerPlace) -> None:
        spec = rehash(engine.spec(), generation=3)
        engine.runtime.ensure_running(spec)
        found = engine.inspect(spec.name)
        host, config = found["HostConfig"], found["Config"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert not host["Privileged"]
        assert not host["Devices"]
        assert "no-new-privileges" in host["SecurityOpt"]
        assert host["ReadonlyRootfs"]
        assert host["Memory"] == host["MemorySwap"] == spec.memory
        assert 0 < host["NanoCpus"] < engine.engine.info()["NCPU"] * 1e9
        assert host["CgroupParent"] in {"/gunpowder", "gunpowder.slice"}
        assert host["PidsLimit"] == spec.pids
        assert host["RestartPolicy"]["Name"] == "no"
        assert host["IpcMode"] == "private"
        assert host["PidMode"] == ""
        assert host["UsernsMode"] == ""
        assert not host["Init"]
        assert config["User"] == "1000:1000"
        assert config["StopSignal"] == "SIGTERM"
        assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
        from_image = engine.labels_of_image(spec.image)
        assert config["Labels"] == from_image | {
            "gunpowder.workspace": str(spec.user_id),
            "gunpowder.instance": spec.instance,
            "gunpowder.spec": spec.hash,
            "gunpowder.generation": "3",
        }

    def test_the_container_is_published_on_loopback_alone_and_mounts_its_own_folders(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        engine.runtime.ensure_running(spec)
        found = engine.inspect(spec.name)
        published = {"HostIp": "127.0.0.1", "HostPort": str(spec.endpoint.port)}
        assert found["NetworkSettings"]["Ports"] == {"8080/tcp": [published]}
        mounts = {mount["Destination"]: (mount["Type"], mount["Source"], mount["RW"]) for mount in found["Mounts"]}
        terminals = mounts.pop("/dev/pts")
        assert (terminals[0], terminals[2]) == ("volume", True)
        assert mounts == {
            "/home/coder/workspace": ("bind", str(engine.files(spec)), True),
            "/home/coder": ("bind", str(engine.home(spec)), True),
            "/run/gunpowder-status": ("bind", str(engine.notices(spec)), False),
        }
        (network,) = found["NetworkSettings"]["Networks"]
        options = engine.engine.inspect_network(network)["Options"]
        assert network == f"{spec.name}-network"
        assert options["com.docker.network.bridge.enable_icc"] == "false"
        assert options["com.docker.network.bridge.host_binding_ipv4"] == "127.0.0.1"

    def test_terminals_are_its_own_and_go_with_it(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        engine.runtime.ensure_running(spec)
        (volume,) = (mount["Name"] for mount in engine.inspect(spec.name)["Mounts"] if mount["Type"] == "volume")
        take = (
            "import os\ntry:\n while True: os.open('/dev/ptmx', os.O_RDWR)\nexcept OSError as error: print(error.errno)"
        )
        engine.inside(spec, f"python3 -c \"{take}; print(len(os.listdir('/dev/pts')) - 1)\"")
        assert engine.inside(spec, f'python3 -c "{take}"').strip() == "28", "the end is the workspace's own"
        assert engine.inside(spec, "stat -c '%a %g' /dev/pts/ptmx").strip() == "666 0"
        engine.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=1)
        engine.runtime.ensure_running(spec)  # the same container, with all of them free again
        assert engine.inside(spec, "script -qfec tty /dev/null </dev/null").strip() == "/dev/pts/0"
        engine.runtime.ensure_removed(spec.name)
        assert volume not in {found["Name"] for found in engine.engine.volumes()["Volumes"] or []}

    def test_a_workspace_is_looked_at_without_being_touched(self, engine: DockerPlace) -> None:
        """What it reports, what runs in its terminals, who is connected; and looking does not count as activity."""
        spec = engine.spec(editor=True)
        engine.runtime.ensure_running(spec)
        before = await_ready(engine.runtime, spec.endpoint).last_heartbeat_at
        at = int(time.time() * 1000)
        request = {"id": "0123456789", "verb": "keep", "minutes": 5, "at": at}
        report = json.dumps({"presence": {"at": at, "source": "terminal"}, "request": request})
        engine.inside(spec, f"echo '{report}' > /run/gunpowder/report.json")
        engine.inside(spec, "setsid script -qfec 'sleep 600' /dev/null </dev/null >/dev/null 2>&1 &")
        engine.inside(spec, "setsid script -qfc bash /dev/null </dev/null >/dev/null 2>&1 &")
        reported(engine.runtime, spec, secret=spec.secret)

        def seen() -> Signals | None:
            found = engine.runtime.signals(spec.name)
            return found if found.commands == ("sleep",) and found.report else None

        found = eventually("command and report are seen", seen, within=50)
        assert found is not None
        assert found.report is not None
        assert found.report.source == "terminal"
        assert found.report.present_at is not None
        assert found.report.request is not None
        assert found.report.request.verb is RequestVerb.KEEP
        assert found.connected is False
        assert engine.runtime.health(spec.endpoint).last_heartbeat_at == before
        with socket.create_connection((spec.endpoint.host, spec.endpoint.port)):
            if os.getuid() == 0:  # connections of the prober's own user do not count
                assert engine.runtime.signals(spec.name).connected is False

    def test_what_is_told_can_be_read_inside_and_not_written(self, engine: DockerPlace) -> None:
        spec = engine.spec()
        engine.runtime.ensure_running(spec)
        for text in ("first", "second"):
            engine.runtime.tell(spec.user_id, text)
            assert engine.inside(spec, "cat /run/gunpowder-status/status.json") == text
        assert engine.inside(spec, "touch /run/gunpowder-status/x 2>&1 || echo refused").endswith("refused\n")

    @pytest.mark.parametrize(
        "trick",
        [
            "rm -rf /run/gunpowder/report.json; mkdir /run/gunpowder/report.json",
            "rm -rf /run/gunpowder/report.json; ln -s /dev/zero /run/gunpowder/report.json",
            "rm -rf /run/gunpowder/report.json; head -c 200000 /dev/urandom > /run/gunpowder/report.json",
            "rm -rf /run/gunpowder/report.json; mkfifo /run/gunpowder/report.json",
            "chmod 000 /run/gunpowder",
        ],
    )
    def test_a_hostile_report_is_none_or_no_answer_and_takes_seconds_at_most(
        self, engine: DockerPlace, hostile_spec: WorkspaceSpec, trick: str
    ) -> None:
        engine.inside(hostile_spec, f"chmod 700 /run/gunpowder; {trick}")
        began = time.monotonic()
        try:
            found = engine.runtime.report(hostile_spec.endpoint, secret=hostile_spec.secret)
        except RuntimeUnavailable:
            found = Report()
        assert found == Report()
        assert time.monotonic() - began < 6
        assert await_ready(engine.runtime, hostile_spec.endpoint).ready
