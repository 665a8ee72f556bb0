"""Wrong settings are named, explained and answered with an example; secrets are never shown."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from gunpowder.settings import environment
from gunpowder.settings.environment import Environment, SettingsError, load, variable_name
from gunpowder.settings.schedule import beat_schedule
from gunpowder.settings.timing import Timing, derive_timing
from tests.suite.programs import Finished, attempt

ROOT = Path(__file__).resolve().parents[1]

WRONG = {
    "GUNPOWDER_PORT": ("0", "eighty", "70000", "8080.5"),
    "GUNPOWDER_INSTANCE": ("Upper", "with space", "-dash", "a" * 64),
    "GUNPOWDER_CONTAINER_PREFIX": ("-x", "a/b", "x" * 42),
    "GUNPOWDER_WORKSPACE_ROOT": ("relative/folder", "/srv/../etc"),
    "GUNPOWDER_WORKSPACE_MOUNT": ("here",),
    "GUNPOWDER_SECRETS_DIR": ("secrets",),
    "GUNPOWDER_DOCKER_SOCKET": ("docker.sock",),
    "GUNPOWDER_PORT_BASE": ("-1", "70000", "nine"),
    "GUNPOWDER_PORT_RANGE": ("20000", "29999-20000", "80-90", "20000-70000", "a-b"),
    "GUNPOWDER_NETWORKS": ("10.0.0.0/7", "198.18.0.0/27", "198.18.0.1/15", "fd00::/64", "private", "10.0.0.5"),
    "GUNPOWDER_IDLE_MINUTES": ("0", "-1", "nan", "inf", "half an hour"),
    "GUNPOWDER_SWEEP_SECONDS": ("0", "4000"),
    "GUNPOWDER_RECONCILE_SECONDS": ("0.5", "601"),
    "GUNPOWDER_START_TIMEOUT_SECONDS": ("1", "601", "nan"),
    "GUNPOWDER_STOP_GRACE_SECONDS": ("0", "121", "1.5"),
    "GUNPOWDER_MAX_LIFETIME_HOURS": ("0", "-3", "9999999"),
    "GUNPOWDER_MEMORY": ("much", "0.5g", "100m", "-1g", "1t"),
    "GUNPOWDER_CPUS": ("0", "none", "-2"),
    "GUNPOWDER_PIDS": ("1", "99999999"),
    "GUNPOWDER_DISK_WRITE": ("much", "-1", "64"),
    "GUNPOWDER_DISK_WRITES": ("-1", "many", "1"),
    "GUNPOWDER_RUNTIME": ("podman",),
    "GUNPOWDER_START_CONCURRENCY": ("0", "65"),
    "GUNPOWDER_MEMORY_RESERVE": ("-1", "much"),
    "GUNPOWDER_STARTS_PER_MINUTE": ("1", "x"),
    "GUNPOWDER_DEMO_USER": ("perhaps",),
    "GUNPOWDER_LOG_LEVEL": ("LOUD",),
    "GUNPOWDER_ALLOWED_HOSTS": (",", " , "),
    "GUNPOWDER_TRUSTED_PROXIES": (
        "proxy.example.org",
        "10.0.0.5,0.0.0.0/0",
        "10.0.0.5/33",
        "10.0.0.5/24",
        "128.0.0.0/1",
        "fe80::1%eth0",
        "10.0.0.0/255.0.0.0",
    ),
    "GUNPOWDER_SECRET_KEY": ("short",),
    "DATABASE_URL": ("mysql://u:hush@h/d", "not a url", "postgres://[::1", "postgres://u:hush@h:port/d"),
    "REDIS_URL": ("http://:hush@h", "nonsense", "redis://[::1", "redis://:hush@h:port/0"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named_with_an_example(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    if name == "GUNPOWDER_SECRETS_DIR":
        monkeypatch.setenv("GUNPOWDER_SECRET_KEY", "k" * 50)
    with pytest.raises(SettingsError) as error:
        load()
    text = str(error.value)
    assert name in text
    assert f"Example: {name}=" in text
    assert "hush" not in text


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNPOWDER_PORT", "x")
    monkeypatch.setenv("GUNPOWDER_MEMORY", "y")
    monkeypatch.setenv("GUNPOWDER_PORT_RANGE", "z")
    with pytest.raises(SettingsError) as error:
        load()
    for name in ("GUNPOWDER_PORT:", "GUNPOWDER_MEMORY:", "GUNPOWDER_PORT_RANGE:"):
        assert name in str(error.value)


@pytest.mark.parametrize("name", ["GUNPOWDER_SECRET_KEY", "GUNPOWDER_ADMIN_PASSWORD", "DATABASE_URL", "REDIS_URL"])
def test_a_secret_is_never_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hush-hush")
    monkeypatch.setenv("GUNPOWDER_PORT", "wrong")
    with pytest.raises(SettingsError) as error:
        load()
    assert "hush-hush" not in str(error.value)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNPOWDER_IDLE_MINUTES", "")
    monkeypatch.setenv("GUNPOWDER_PORT", "")
    env = load()
    assert (env.idle_minutes, env.port) == (30, 8080)


def test_the_defaults_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GUNPOWDER_") or name in {"DATABASE_URL", "REDIS_URL"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("GUNPOWDER_SECRET_KEY", "k" * 50)
    env = load()
    assert (env.port, env.port_base, env.port_range) == (8080, 9000, (20000, 29999))
    assert (env.idle_minutes, env.sweep_seconds, env.reconcile_seconds, env.max_lifetime_hours) == (30, 60, 15, 24)
    assert (env.container_prefix, env.runtime) == ("code-server-user", "docker")
    assert env.allowed_hosts == ("localhost", "127.0.0.1")
    assert env.workspace_host == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [("1g", 2**30), ("1536m", 1536 * 2**20), ("524288k", 2**29), ("536870912", 2**29), ("1GB", 2**30), (" 1g ", 2**30)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNPOWDER_MEMORY", text)
    assert load().memory == size


def test_durations_accept_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNPOWDER_IDLE_MINUTES", "0.2")
    assert load().idle_minutes == pytest.approx(0.2)


def test_lists_and_ranges_are_read_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNPOWDER_ALLOWED_HOSTS", "a.example.org, b.example.org,")
    monkeypatch.setenv("GUNPOWDER_PORT_RANGE", " 20000 - 20010 ")
    env = load()
    assert env.allowed_hosts == ("a.example.org", "b.example.org")
    assert env.port_range == (20000, 20010)


# --- secrets that were generated, and URLs derived from them ------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUNPOWDER_SECRETS_DIR", str(tmp_path))
    monkeypatch.delenv("GUNPOWDER_SECRET_KEY", raising=False)
    (tmp_path / "secret_key").write_text("s" * 60 + "\n")
    return tmp_path


def test_a_generated_secret_is_used_when_none_is_set(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "postgres_password").write_text("from-the-file\n")
    (secrets / "redis_password").write_text("p/w\n")
    monkeypatch.setenv("DATABASE_URL", "postgres://me@/name?host=/run/postgresql")
    monkeypatch.setenv("REDIS_URL", "redis://redis:6379/3")
    env = load()
    assert env.resolved_secret_key() == "s" * 60
    database = env.database()
    assert (database["PASSWORD"], database["HOST"], database["NAME"], database["USER"]) == (
        "from-the-file",
        "/run/postgresql",
        "name",
        "me",
    )
    assert env.redis_with_password() == "redis://:p%2Fw@redis:6379/3"
    assert env.broker_url() == env.redis_with_password()


def test_a_password_in_the_url_wins(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "postgres_password").write_text("other")
    (secrets / "redis_password").write_text("other")
    monkeypatch.setenv("DATABASE_URL", "postgres://me:a%2Fb@db:5433/name?sslmode=require")
    monkeypatch.setenv("REDIS_URL", "redis://:mine@redis/0")
    env = load()
    database = env.database()
    assert (database["PASSWORD"], database["HOST"], database["PORT"]) == ("a/b", "db", 5433)
    assert database["OPTIONS"] == {"sslmode": "require"}
    assert env.redis_with_password() == "redis://:mine@redis/0"


def test_the_brokers_url_of_a_socket_is_spelled_as_kombu_spells_it(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "unix:///run/redis/redis.sock?db=2")
    assert load().redis_with_password() == "unix:///run/redis/redis.sock?db=2"
    assert load().broker_url() == "redis+socket:///run/redis/redis.sock?virtual_host=2"
    (secrets / "redis_password").write_text("pw")
    assert load().redis_with_password() == "unix://:pw@/run/redis/redis.sock?db=2"
    assert load().broker_url() == "redis+socket://:pw@/run/redis/redis.sock?virtual_host=2"


def test_without_any_secret_key_the_process_refuses(secrets: Path) -> None:
    (secrets / "secret_key").unlink()
    with pytest.raises(SettingsError, match="GUNPOWDER_SECRET_KEY is missing"):
        load()


def test_building_static_files_needs_no_secret(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "secret_key").unlink()
    monkeypatch.setenv("GUNPOWDER_SETTINGS_MODE", "build")
    assert load().resolved_secret_key() == ""


def test_the_environment_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1  # type: ignore[misc]  # that is what is tried


# --- as an operator meets it --------------------------------------------------------------------------------------


def _manage(*arguments: str, **variables: str) -> Finished:
    return attempt(sys.executable, "manage.py", *arguments, cwd=ROOT, environment={**os.environ, **variables})


def test_a_process_with_a_wrong_setting_refuses_to_start_with_a_sentence() -> None:
    answer = _manage("check", GUNPOWDER_PORT="eighty", GUNPOWDER_SECRET_KEY="hush-hush")
    assert answer.returncode != 0
    assert "GUNPOWDER_PORT" in answer.stderr
    assert "Example: GUNPOWDER_PORT=8080" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "hush-hush" not in answer.stdout + answer.stderr


def test_the_check_finds_a_range_without_one_usable_port() -> None:
    low, high = (int(part) for part in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    answer = _manage("check", GUNPOWDER_PORT_RANGE=f"{low}-{min(low + 10, high)}")
    assert answer.returncode != 0
    assert "GUNPOWDER_PORT_RANGE" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_check_is_content_with_the_tests_own_settings() -> None:
    answer = _manage("check")
    assert (answer.returncode, "no issues" in answer.stdout) == (0, True), answer.stderr


# --- what is derived ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", ["5", "60", "600"])
@pytest.mark.parametrize("grace", ["1", "10", "120"])
def test_the_timeouts_grow(timeout: str, grace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNPOWDER_START_TIMEOUT_SECONDS", timeout)
    monkeypatch.setenv("GUNPOWDER_STOP_GRACE_SECONDS", grace)
    timing = derive_timing(load())
    assert timing.start_timeout < timing.long_soft_limit < timing.long_hard_limit < timing.visibility_timeout
    assert timing.start_timeout + timing.stop_grace < timing.long_soft_limit
    assert timing.short_soft_limit < timing.short_hard_limit


def test_timeouts_that_do_not_grow_are_refused() -> None:
    with pytest.raises(ValueError, match="must grow"):
        Timing(60, 10, 50, 70, 45, 60, 90)


@pytest.mark.parametrize("every", ["1", "15", "600"])
def test_every_entry_of_the_schedule_expires_before_its_next_turn(every: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNPOWDER_RECONCILE_SECONDS", every)
    for name, entry in beat_schedule(load()).items():
        assert entry["task"] == name
        assert 0 < entry["options"]["expires"] < entry["schedule"]
        assert entry["options"]["queue"] == "sweeps"


def test_every_setting_has_a_description_and_an_example_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for field, info in Environment.model_fields.items():
        assert info.description, field
        assert info.examples, field
        if field in {"secret_key", "workspace_host"}:
            continue  # a sentence; and what this version refuses
        for example in info.examples:
            with monkeypatch.context() as patch:
                patch.setenv(variable_name(field), example)
                load()


def test_every_variable_is_ours_or_a_well_known_one() -> None:
    names = {variable_name(field) for field in Environment.model_fields}
    assert {name for name in names if not re.fullmatch(r"GUNPOWDER_[A-Z_]+", name)} == {"DATABASE_URL", "REDIS_URL"}
    assert environment.variable_name("workspace_root") == "GUNPOWDER_WORKSPACE_ROOT"
