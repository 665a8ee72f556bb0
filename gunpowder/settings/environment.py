"""Every setting an operator can give, read from the environment in this one place.

`load()` returns a frozen, checked `Environment` or raises `SettingsError` whose text names each wrong variable,
what is wrong with its value and an example that works. An empty variable counts as unset, so a compose file may
pass `NAME: ${NAME:-}` without repeating a default.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gunpowder.settings.values import (
    AbsolutePath,
    DiskWrite,
    DiskWrites,
    Names,
    Networks,
    Pool,
    PortRange,
    Size,
    is_url,
)


class SettingsError(Exception):
    """A wrong or missing setting; the text is for the operator."""


class Environment(BaseSettings):
    """The settings; the field's description and example are what docs/settings.md shows."""

    model_config = SettingsConfigDict(
        env_prefix="GUNPOWDER_", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    port: int = Field(8080, ge=1, le=65535, description="The port on which nginx serves everything.", examples=["8080"])
    public_scheme: Literal["http", "https"] = Field(
        "http",
        description="How browsers reach it: `https` where a proxy in front ends TLS. Makes every cookie Secure.",
        examples=["https"],
    )
    secret_key: str = Field(
        "",
        description="Signs sessions and tokens; 50 characters or more. Generated and kept with the data when unset.",
        examples=["a long random string, for instance from `openssl rand -base64 48`"],
    )
    allowed_hosts: Names = Field(
        ("localhost", "127.0.0.1"),
        min_length=1,
        description="Host names under which the app may be asked for, separated by commas.",
        examples=["code.example.org,localhost"],
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses or networks of proxies in front, separated by commas or blanks: who they say in "
        "X-Forwarded-For that a client is, counts. From anybody else that header is ignored. No names of hosts.",
        examples=["10.0.0.5,192.168.7.0/24"],
    )
    workspace_host: str = Field(
        "",
        description="Reserved for a host name of its own for editors, which this version refuses; leave empty.",
        examples=["code.example.org"],
    )
    database_url: str = Field(
        "postgres://gunpowder@/gunpowder?host=/run/postgresql",
        validation_alias="DATABASE_URL",
        description="Postgres. Without a password the one kept with the data is used.",
        examples=["postgres://user:password@db.example.org:5432/gunpowder"],
    )
    redis_url: str = Field(
        "unix:///run/redis/redis.sock",
        validation_alias="REDIS_URL",
        description="Redis, `redis://` or `unix://`; the broker's URL is derived from it.",
        examples=["redis://:password@redis.example.org:6379/0"],
    )
    secrets_dir: AbsolutePath = Field(
        Path("/run/gunpowder/secrets"),
        description="Folder with the generated secrets, one file each.",
        examples=["/run/gunpowder/secrets"],
    )
    instance: str = Field(
        "gunpowder",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="Names this installation in every label, network and sweep; `make up` uses the compose project.",
        examples=["gunpowder"],
    )
    container_prefix: str = Field(
        "code-server-user",
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,40}$",
        description="Container names are this, a dash and the user's id.",
        examples=["code-server-user"],
    )
    workspace_root: AbsolutePath = Field(
        Path("/var/lib/gunpowder/workspace"),
        description="Folder on the Docker host that holds every user's files. `make up` chooses and prints one.",
        examples=["/srv/gunpowder/workspace"],
    )
    workspace_mount: AbsolutePath = Field(
        Path("/app/workspace"),
        description="Where the worker sees GUNPOWDER_WORKSPACE_ROOT.",
        examples=["/app/workspace"],
    )
    workspace_image: str = Field(
        "gunpowder/workspace:latest",
        min_length=1,
        description="The image of every workspace; `make up` builds and sets it.",
        examples=["gunpowder/workspace:latest"],
    )
    docker_socket: AbsolutePath = Field(
        Path("/var/run/docker.sock"),
        description="The Docker engine's socket; only the worker opens it.",
        examples=["/var/run/docker.sock"],
    )
    port_base: int = Field(
        9000,
        ge=0,
        le=65535,
        description="A user's port is this plus their id, where allowed.",
        examples=["9000"],
    )
    port_range: PortRange = Field(
        (20000, 29999),
        description="Ports for users whose own port is not allowed or taken.",
        examples=["20000-29999"],
    )
    networks: Pool = Field(
        IPv4Network("198.18.0.0/15"),
        description="Addresses for workspaces, of which each that runs takes four. Nothing that is to be reached from "
        "the host may lie in there; by default the block that is set aside for benchmarks (RFC 2544).",
        examples=["198.18.0.0/15"],
    )
    idle_minutes: float = Field(
        30,
        gt=0,
        le=7 * 24 * 60,
        description="Minutes without activity before a stop; fractions allowed.",
        examples=["30"],
    )
    warn_minutes: float = Field(
        5,
        gt=0,
        le=24 * 60,
        description="Minutes before an idle stop at which the editor warns; at most a quarter of the idle limit.",
        examples=["5"],
    )
    work_budget_hours: float = Field(
        8,
        gt=0,
        le=24 * 365,
        description="Hours that a command may keep a workspace running while nobody is there.",
        examples=["8"],
    )
    work_cpu_percent: float = Field(
        25,
        gt=0,
        le=51200,
        description="Processor use, in percent of one processor, from which a workspace counts as working.",
        examples=["25"],
    )
    listen_seconds: float = Field(
        3,
        ge=1,
        le=60,
        description="Seconds between two looks at what workspaces say: presence, Keep, Stop.",
        examples=["3"],
    )
    sweep_seconds: float = Field(60, ge=1, le=3600, description="Seconds between two idle sweeps.", examples=["60"])
    reconcile_seconds: float = Field(
        15,
        ge=1,
        le=600,
        description="Seconds between two comparisons of database and engine.",
        examples=["15"],
    )
    start_timeout_seconds: float = Field(
        60, ge=5, le=600, description="Seconds from admission until an editor must answer.", examples=["60"]
    )
    stop_grace_seconds: int = Field(
        10, ge=1, le=120, description="Seconds between SIGTERM and SIGKILL.", examples=["10"]
    )
    max_lifetime_hours: float = Field(
        24,
        gt=0,
        le=24 * 365,
        description="Hours after which even a used workspace is stopped.",
        examples=["24"],
    )
    memory: Size = Field(
        1536 * 2**20,
        ge=256 * 2**20,
        description="Memory of one workspace (no swap on top).",
        examples=["1536m", "2g"],
    )
    cpus: float = Field(
        2,
        ge=0.1,
        le=512,
        description="Processors of one workspace; at most all but two of the host's, and about half of a small one's.",
        examples=["2", "0.5"],
    )
    pids: int = Field(512, ge=64, le=65536, description="Processes and threads of one workspace.", examples=["512"])
    disk_write: DiskWrite = Field(
        64 * 2**20,
        ge=0,
        description="Bytes that one workspace may write to the disk in a second; 0 for no limit. With version 1 of the "
        "kernel's control groups only what programs wait for (`fsync`) is counted.",
        examples=["64m", "0"],
    )
    disk_writes: DiskWrites = Field(
        1000,
        ge=0,
        le=10_000_000,
        description="Writes of one workspace to the disk in a second; 0 for no limit.",
        examples=["1000", "0"],
    )
    runtime: Literal["docker", "memory"] = Field(
        "docker", description="Where containers run; `memory` is for tests only.", examples=["docker"]
    )
    start_concurrency: int = Field(
        4, ge=1, le=64, description="Starts worked on at once; more wait in a queue.", examples=["4"]
    )
    memory_reserve: Size = Field(
        512 * 2**20,
        ge=0,
        description="Memory of the host that starts leave free: with less than this they wait.",
        examples=["512m", "2g"],
    )
    starts_per_minute: int = Field(
        20,
        ge=10,
        le=1000,
        description="Transitions into `starting` that one user may cause a minute.",
        examples=["20"],
    )
    admin_password: str = Field(
        "",
        description="Password of the first admin. Generated and kept with the data when unset.",
        examples=["…"],
    )
    demo_password: str = Field(
        "",
        description="Password of the demo user. Generated and kept with the data when unset.",
        examples=["…"],
    )
    demo_user: bool = Field(True, description="Whether a user `demo` is made.", examples=["true", "false"])
    database_pool: bool = Field(
        False,
        description="Whether this process shares a pool of connections; web sets it by itself.",
        examples=["true"],
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line to show.", examples=["INFO"]
    )
    settings_mode: Literal["run", "build"] = Field(
        "run",
        description="`build` lets static files be collected without secrets; never serve with it.",
        examples=["run"],
    )

    @model_validator(mode="after")
    def _secrets_present(self) -> Self:
        if self.settings_mode == "run" and len(self.resolved_secret_key()) < 50:  # noqa: PLR2004 - Django's own bound
            raise ValueError(
                "GUNPOWDER_SECRET_KEY is missing or shorter than 50 characters, and "
                f"{self.secrets_dir / 'secret_key'} holds none. "
                "Example: GUNPOWDER_SECRET_KEY=$(openssl rand -base64 48)"
            )
        return self

    @model_validator(mode="after")
    def _no_separate_host_yet(self) -> Self:
        if self.workspace_host:
            raise ValueError(
                f"GUNPOWDER_WORKSPACE_HOST={self.workspace_host} asks for a host of its own for editors, which this "
                "version cannot do yet; it would be less safe than it looks. Leave GUNPOWDER_WORKSPACE_HOST empty."
            )
        return self

    @model_validator(mode="after")
    def _urls_make_sense(self) -> Self:
        if not is_url(self.database_url, schemes={"postgres", "postgresql"}):
            raise ValueError(
                "DATABASE_URL is not a URL that starts with postgres:// and names a host and, as a number, a port. "
                "Example: DATABASE_URL=postgres://user:password@host:5432/name"
            )
        if not is_url(self.redis_url, schemes={"redis", "rediss", "unix"}):
            raise ValueError(
                "REDIS_URL is not a URL that starts with redis://, rediss:// or unix://. "
                "Example: REDIS_URL=redis://:password@host:6379/0"
            )
        return self

    def secret(self, name: str) -> str:
        """The generated secret `name`, or "" where this process has none or may not read it."""
        try:
            return (self.secrets_dir / name).read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def resolved_secret_key(self) -> str:
        return self.secret_key or self.secret("secret_key")

    def gate_key(self) -> str:
        """The key that only nginx and web share; a client cannot ask the gate without it."""
        return self.secret("gate_key")

    def database(self) -> dict[str, Any]:
        """Django's connection settings for `database_url`."""
        url = urlsplit(self.database_url)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(url.path.lstrip("/")) or "gunpowder",
            "USER": unquote(url.username or ""),
            "PASSWORD": unquote(url.password or "") or self.secret("postgres_password"),
            "HOST": query.pop("host", "") or url.hostname or "",
            "PORT": url.port or "",
            "OPTIONS": dict(query),
        }

    def redis_with_password(self) -> str:
        """The Redis URL, completed with the generated password where it holds none."""
        url = urlsplit(self.redis_url)
        password = url.password or quote(self.secret("redis_password"), safe="")
        if url.scheme == "unix":
            return f"unix://{f':{password}@' if password else ''}{url.path}?db={self._redis_database()}"
        if url.password or not password:
            return self.redis_url
        return url._replace(netloc=f":{password}@{url.hostname}:{url.port or 6379}").geturl()

    def broker_url(self) -> str:
        """The same Redis as kombu spells it: unix sockets are `redis+socket://…?virtual_host=N`."""
        url = urlsplit(self.redis_with_password())
        if url.scheme != "unix":
            return url.geturl()
        return f"redis+socket://{url.netloc}{url.path}?virtual_host={self._redis_database()}"

    def _redis_database(self) -> str:
        return parse_qs(urlsplit(self.redis_url).query).get("db", ["0"])[-1]


def variable_name(field: str) -> str:
    """The environment variable that sets `field`."""
    alias = Environment.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"GUNPOWDER_{field.upper()}"


def load(**overrides: Any) -> Environment:
    """Read and check the environment; raises SettingsError that names every wrong variable."""
    try:
        return Environment(**overrides)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(message)
            continue
        location = str(problem["loc"][0])
        field = next((name for name in Environment.model_fields if location in {name, variable_name(name)}), location)
        name = variable_name(field)
        examples = Environment.model_fields[field].examples or [""]
        value = os.environ.get(name, problem.get("input"))
        shown = "(hidden)" if "password" in field or "secret" in field or "url" in field else repr(value)
        lines.append(f"{name}: {shown}: {message}. Example: {name}={examples[0]}")
    heading = "Gunpowder cannot start, a setting is wrong:"
    return "\n  ".join([heading, *lines])
