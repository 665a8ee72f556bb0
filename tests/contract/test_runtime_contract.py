"""Every sentence of `workspaces/runtimes/base.py`, tried on every runtime. What only the engine can show comes last."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from docker.errors import APIError

from tests.contract.places import GRACE, rehash
from tests.suite.waiting import eventually, together
from workspaces.errors import PortTaken, RuntimeUnavailable, StartRefused
from workspaces.runtimes.base import Change, Endpoint, Phase, Report, RequestVerb, Signals, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.places import DockerPlace, Place
    from workspaces.runtimes.base import Health, Runtime, WorkspaceSpec

READY_SECONDS = 240  # half a second on a quiet machine


def _await_ready(runtime: Runtime, endpoint: Endpoint) -> Health:
    def look() -> Health | None:
        health = runtime.health(endpoint)
        return health if health.ready else None

    found = eventually("the editor answers", look, within=READY_SECONDS, every=0.05)
    assert found is not None
    return found


# --- observe -----------------------------------------------------------------------------------------------------


def test_absent_is_a_phase_and_not_an_error(place: Place) -> None:
    spec = place.spec()
    seen = place.runtime.observe(spec.name)
    assert seen.phase is Phase.ABSENT
    assert not seen.alive
    assert seen.user_id is None


def test_a_running_container_is_observed_as_it_was_asked_for(place: Place) -> None:
    spec = rehash(place.spec(), generation=7)
    made = place.runtime.ensure_running(spec)
    seen = place.runtime.observe(spec.name)
    assert seen == made
    assert seen.alive
    assert seen.phase is Phase.RUNNING
    assert (seen.name, seen.user_id, seen.generation) == (spec.name, spec.user_id, 7)
    assert (seen.spec_hash, seen.image, seen.endpoint) == (spec.hash, spec.image, spec.endpoint)
    assert seen.container_id
    assert (seen.exit_code, seen.out_of_memory) == (None, False)


def test_a_name_that_begins_like_another_is_another(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(rehash(spec, name=f"{spec.name}-0"))
    assert place.runtime.observe(spec.name).phase is Phase.ABSENT


# --- changes -----------------------------------------------------------------------------------------------------


def test_what_begins_and_ends_is_told_as_it_happens_and_only_of_this_instance(place: Place) -> None:
    runtime, spec = place.runtime, place.spec()
    changes = runtime.changes()
    foreign = place.spec()
    place.another_instance().ensure_running(rehash(foreign, instance=f"{foreign.instance}-other"))
    for _ in range(2):
        runtime.ensure_running(spec)  # the second time it runs already
    place.kill(spec.name)
    runtime.ensure_running(spec)
    runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    told = list[Change]()
    for change in changes:
        assert change.name != foreign.name
        if change.name == spec.name:  # not one of the test before, in the same second
            told.append(change)
        if len(told) == 4:
            break
    assert [change.began for change in told] == [True, False, True, False]


@pytest.mark.docker
def test_a_stream_that_was_left_holds_nothing_open(docker_place: DockerPlace) -> None:
    spec = docker_place.spec()
    docker_place.runtime.ensure_running(spec)
    before = open_sockets()
    changes: Any = docker_place.runtime.changes()
    opened = open_sockets() - before
    assert opened
    docker_place.kill(spec.name)
    assert next(changes).began in {True, False}
    kept = changes.gi_frame.f_locals["stream"]  # as a traceback does, or a cycle that is not collected yet
    changes.close()
    assert not opened & open_sockets(), kept


def open_sockets() -> set[int]:
    """What identifies each socket of this process."""
    found = set[int]()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not files
        with contextlib.suppress(OSError):  # the listing's own
            status = os.fstat(int(number))
            if stat.S_ISSOCK(status.st_mode):
                found.add(status.st_ino)
    return found


def test_who_cannot_be_asked_tells_nothing(place: Place) -> None:
    before = open_sockets()
    with pytest.raises(RuntimeUnavailable) as problem:
        place.unreachable().changes()
    assert not open_sockets() - before, problem  # which holds all that was open


# --- ensure_running ----------------------------------------------------------------------------------------------


def test_ensuring_twice_gives_one_container(place: Place) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    second = place.runtime.ensure_running(spec)
    assert second.container_id == first.container_id
    assert place.containers_of(spec) == 1


def test_four_at_once_give_one_container(place: Place) -> None:
    spec = place.spec()
    identifiers = together(*[lambda: place.runtime.ensure_running(spec).container_id] * 4)
    assert len(set(identifiers)) == 1
    assert place.containers_of(spec) == 1
    assert place.runtime.observe(spec.name).alive


def test_a_stopped_container_starts_again_on_its_port(place: Place) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    again = place.runtime.ensure_running(rehash(spec, generation=2))
    assert again.container_id == first.container_id
    assert again.endpoint == spec.endpoint
    assert (again.phase, again.exit_code) == (Phase.RUNNING, None)


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_another_hash_replaces_the_container(place: Place, *, running: bool) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    if not running:
        place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    changed = rehash(spec, pids=300, generation=2)
    assert changed.hash != spec.hash
    second = place.runtime.ensure_running(changed)
    assert second.container_id != first.container_id
    assert (second.spec_hash, second.generation) == (changed.hash, 2)
    assert place.containers_of(spec) == 1


def test_another_generation_alone_replaces_nothing(place: Place) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    assert place.runtime.ensure_running(rehash(spec, generation=9)).container_id == first.container_id


def test_a_taken_port_is_told_and_leaves_no_container(place: Place) -> None:
    spec = place.spec()
    with place.occupied(spec.endpoint):
        assert not place.runtime.port_free(spec.endpoint)
        with pytest.raises(PortTaken) as refusal:
            place.runtime.ensure_running(spec)
        assert refusal.value.code == "port_taken"
        assert place.containers_of(spec) == 0
    assert place.runtime.ensure_running(spec).alive  # as soon as it is free


def test_a_stopped_container_whose_port_was_taken_leaves_no_container(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    with place.occupied(spec.endpoint):
        with pytest.raises(PortTaken):
            place.runtime.ensure_running(spec)
        assert place.containers_of(spec) == 0


def test_the_port_of_a_running_container_is_taken(place: Place) -> None:
    spec = place.spec()
    assert place.runtime.port_free(spec.endpoint)
    place.runtime.ensure_running(spec)
    assert not place.runtime.port_free(spec.endpoint)
    with pytest.raises(PortTaken):
        place.runtime.ensure_running(rehash(place.spec(), endpoint=spec.endpoint))


# --- ensure_stopped, ensure_removed ------------------------------------------------------------------------------


def test_a_stop_ends_the_container_and_keeps_it(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    for _ in range(2):  # again: nothing to do
        place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
        seen = place.runtime.observe(spec.name)
        assert seen.phase is Phase.EXITED
        assert seen.endpoint is None
        assert not seen.out_of_memory
    assert place.containers_of(spec) == 1


def test_stopping_and_removing_what_is_absent_is_nothing_to_do(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_stopped(spec.name, generation=99, grace=GRACE)
    place.runtime.ensure_removed(spec.name)
    assert place.runtime.observe(spec.name).phase is Phase.ABSENT


def test_a_stop_leaves_a_newer_generation_alone(place: Place) -> None:
    spec = rehash(place.spec(), generation=5)
    place.runtime.ensure_running(spec)
    place.runtime.ensure_stopped(spec.name, generation=4, grace=GRACE)
    assert place.runtime.observe(spec.name).alive
    place.runtime.ensure_stopped(spec.name, generation=5, grace=GRACE)
    assert not place.runtime.observe(spec.name).alive


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_removing_works_whether_it_runs_or_not(place: Place, *, running: bool) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    if not running:
        place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    place.runtime.ensure_removed(spec.name)
    assert place.runtime.observe(spec.name).phase is Phase.ABSENT
    assert place.containers_of(spec) == 0


def test_a_container_killed_from_outside_has_exited_with_its_code(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    place.kill(spec.name)
    seen = place.runtime.observe(spec.name)
    assert (seen.phase, seen.exit_code, seen.out_of_memory) == (Phase.EXITED, 137, False)
    assert not seen.alive


# --- observe_all -------------------------------------------------------------------------------------------------


def test_all_are_observed_running_or_not_and_only_of_this_instance(place: Place) -> None:
    running, stopped, foreign = place.spec(), place.spec(), place.spec()
    place.runtime.ensure_running(running)
    place.runtime.ensure_running(stopped)
    place.runtime.ensure_stopped(stopped.name, generation=1, grace=GRACE)
    another = place.another_instance()
    another.ensure_running(rehash(foreign, instance=f"{foreign.instance}-other"))
    seen = {observation.name: observation for observation in place.runtime.observe_all()}
    assert seen[running.name].endpoint == running.endpoint
    assert seen[running.name].alive
    assert (seen[running.name].user_id, seen[running.name].generation) == (running.user_id, 1)
    assert seen[stopped.name].phase is Phase.EXITED
    assert seen[stopped.name].endpoint is None
    assert foreign.name not in seen
    assert [observation.name for observation in another.observe_all()] == [foreign.name]


# --- reads for people --------------------------------------------------------------------------------------------


def test_the_editor_is_ready_within_seconds_and_not_after_a_stop(place: Place) -> None:
    spec = place.spec(editor=True)
    assert not place.runtime.health(spec.endpoint).ready
    place.runtime.ensure_running(spec)
    _await_ready(place.runtime, spec.endpoint)
    place.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
    assert not place.runtime.health(spec.endpoint).ready


def test_a_running_container_uses_something_within_its_limits(place: Place) -> None:
    spec = place.spec(editor=True)
    assert place.runtime.usage(spec.name) is None
    place.runtime.ensure_running(spec)
    used = place.runtime.usage(spec.name)
    assert used is not None
    assert used.cpu_seconds >= 0
    assert used.memory_limit_bytes == spec.memory
    assert 0 <= used.memory_bytes <= spec.memory
    assert 1 <= used.pids <= spec.pids
    assert used.disk_bytes >= 0
    place.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
    assert place.runtime.usage(spec.name) is None


def test_an_absent_container_shows_no_signals(place: Place) -> None:
    found = place.runtime.signals(place.spec().name)
    assert found == Signals(ready=False, report=None, commands=None, cpu_seconds=None, connected=None)


def test_a_fresh_workspace_shows_that_nobody_uses_it(place: Place) -> None:
    spec = place.spec(editor=True)
    place.runtime.ensure_running(spec)
    _await_ready(place.runtime, spec.endpoint)
    _reported(place.runtime, spec, secret=spec.secret)  # the first question waits longer than a look does
    found = place.runtime.signals(spec.name)
    assert found.ready
    assert found.report == Report()
    assert (found.commands, found.connected) == ((), False)
    assert found.cpu_seconds is not None
    again = place.runtime.signals(spec.name)
    assert again.cpu_seconds is not None
    assert again.cpu_seconds >= found.cpu_seconds
    place.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
    assert not place.runtime.signals(spec.name).ready


def _reported(runtime: Runtime, spec: WorkspaceSpec, *, secret: str) -> Report:
    """What it reports. An editor that was never opened loads most of itself first, longer than one question waits."""

    def ask() -> Report | None:
        with contextlib.suppress(RuntimeUnavailable):
            return runtime.report(spec.endpoint, secret=secret)
        return None

    found = eventually("the editor hands over its report", ask, within=50, every=0.2)
    assert found is not None
    return found


def test_a_report_needs_the_inner_secret_and_an_editor_that_runs(place: Place) -> None:
    spec = place.spec(editor=True)
    with pytest.raises(RuntimeUnavailable):
        place.runtime.report(spec.endpoint, secret=spec.secret)
    place.runtime.ensure_running(spec)
    _await_ready(place.runtime, spec.endpoint)
    assert _reported(place.runtime, spec, secret=spec.secret) == Report()
    assert _reported(place.runtime, spec, secret="f" * 64) == Report()


def test_telling_works_at_any_time_and_twice(place: Place) -> None:
    spec = place.spec()
    place.runtime.tell(spec.user_id, '{"version": 1}')
    place.runtime.ensure_running(spec)
    place.runtime.tell(spec.user_id, '{"version": 1}')


def test_an_absent_container_wrote_no_lines(place: Place) -> None:
    assert place.runtime.logs(place.spec().name, tail=10) == []


VERBS: dict[str, Callable[[Runtime, WorkspaceSpec], Any]] = {
    "ensure_running": lambda runtime, spec: runtime.ensure_running(spec),
    "observe": lambda runtime, spec: runtime.observe(spec.name),
    "ensure_stopped": lambda runtime, spec: runtime.ensure_stopped(spec.name, generation=1, grace=1),
    "ensure_removed": lambda runtime, spec: runtime.ensure_removed(spec.name),
    "observe_all": lambda runtime, _: list(runtime.observe_all()),
    "logs": lambda runtime, spec: runtime.logs(spec.name, tail=1),
    "usage": lambda runtime, spec: runtime.usage(spec.name),
    "signals": lambda runtime, spec: runtime.signals(spec.name),
    "ping": lambda runtime, _: runtime.ping(),
    "examine": lambda runtime, spec: runtime.examine(image=spec.image, user_ids=frozenset()),
}


def _refusal_of(verb: str, place: Place) -> str:
    try:
        VERBS[verb](place.unreachable(), place.spec())
    except RuntimeUnavailable as error:
        return error.code
    return "answered"


# The docker SDK forgets to close the socket of a connection that failed; let it be collected here and nowhere else.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("verb", VERBS)
def test_a_runtime_that_cannot_be_asked_says_so_and_never_a_phase(place: Place, verb: str) -> None:
    assert _refusal_of(verb, place) == "runtime_unavailable"
    gc.collect()


def test_a_reachable_runtime_answers_a_ping(place: Place) -> None:
    place.runtime.ping()


# --- the engine --------------------------------------------------------------------------------------------------


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
    _await_ready(docker_place.runtime, spec.endpoint)
    return spec


def _inside(engine: DockerPlace, spec: WorkspaceSpec, script: str) -> str:
    made = engine.engine.exec_create(spec.name, ["bash", "-c", script])
    printed: bytes = engine.engine.exec_start(made["Id"])
    return printed.decode()


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
        made = engine.engine.exec_create(spec.name, ["sh", "-c", "echo hi > ~/workspace/a && echo ho > ~/b && id -u"])
        assert engine.engine.exec_start(made["Id"]).strip() == b"1000"
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
        _await_ready(engine.runtime, spec.endpoint)

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
        _await_ready(engine.runtime, spec.endpoint)
        lines = engine.runtime.logs(spec.name, tail=200)
        assert any("code-server" in line for line in lines)
        assert engine.runtime.logs(spec.name, tail=1) == lines[-1:]
        engine.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
        assert any("code-server" in line for line in engine.runtime.logs(spec.name, tail=200))

    def test_asking_for_health_is_no_activity(self, engine: DockerPlace) -> None:
        spec = engine.spec(editor=True)
        engine.runtime.ensure_running(spec)
        before = _await_ready(engine.runtime, spec.endpoint).last_heartbeat_at
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
        _inside(engine, spec, f"python3 -c \"{take}; print(len(os.listdir('/dev/pts')) - 1)\"")
        assert _inside(engine, spec, f'python3 -c "{take}"').strip() == "28", "the end is the workspace's own"
        assert _inside(engine, spec, "stat -c '%a %g' /dev/pts/ptmx").strip() == "666 0"
        engine.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=1)
        engine.runtime.ensure_running(spec)  # the same container, with all of them free again
        assert _inside(engine, spec, "script -qfec tty /dev/null </dev/null").strip() == "/dev/pts/0"
        engine.runtime.ensure_removed(spec.name)
        assert volume not in {found["Name"] for found in engine.engine.volumes()["Volumes"] or []}

    def test_a_workspace_is_looked_at_without_being_touched(self, engine: DockerPlace) -> None:
        """What it reports, what runs in its terminals, who is connected; and looking does not count as activity."""
        spec = engine.spec(editor=True)
        engine.runtime.ensure_running(spec)
        before = _await_ready(engine.runtime, spec.endpoint).last_heartbeat_at
        at = int(time.time() * 1000)
        request = {"id": "0123456789", "verb": "keep", "minutes": 5, "at": at}
        report = json.dumps({"presence": {"at": at, "source": "terminal"}, "request": request})
        _inside(engine, spec, f"echo '{report}' > /run/gunpowder/report.json")
        _inside(engine, spec, "setsid script -qfec 'sleep 600' /dev/null </dev/null >/dev/null 2>&1 &")
        _inside(engine, spec, "setsid script -qfc bash /dev/null </dev/null >/dev/null 2>&1 &")
        _reported(engine.runtime, spec, secret=spec.secret)

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
            assert _inside(engine, spec, "cat /run/gunpowder-status/status.json") == text
        assert _inside(engine, spec, "touch /run/gunpowder-status/x 2>&1 || echo refused").endswith("refused\n")

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
        _inside(engine, hostile_spec, f"chmod 700 /run/gunpowder; {trick}")
        began = time.monotonic()
        try:
            found = engine.runtime.report(hostile_spec.endpoint, secret=hostile_spec.secret)
        except RuntimeUnavailable:
            found = Report()
        assert found == Report()
        assert time.monotonic() - began < 6
        assert _await_ready(engine.runtime, hostile_spec.endpoint).ready
