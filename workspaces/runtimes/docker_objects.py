"""Spec -> the engine's own words, and the engine's answers -> observations; pure. The one reviewed table of options."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from workspaces import naming
from workspaces.runtimes.base import Endpoint, Observation, Phase
from workspaces.runtimes.kernel_limits import TERMINALS

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from workspaces.runtimes.base import WorkspaceSpec
    from workspaces.runtimes.docker_host import Host

PORT_KEY = f"{naming.EDITOR_PORT}/tcp"
SUBNET_BITS = 30  # of the network of a workspace: one address is its own, one its way out
_TMPFS = "rw,nosuid,nodev,exec,mode=1777"  # programs build and run things in /tmp; its size counts as memory
# What the workspace says of itself: memory of its own, so that nothing else there can fill it up.
_REPORT_TMPFS = "rw,nosuid,nodev,noexec,size=256k,nr_inodes=64,mode=0700,uid=1000,gid=1000"
# Terminals of its own, of a number of its own: those of the host are not many, and all containers share them.
_TERMINALS = {
    "type": "devpts",
    "device": "devpts",
    # But for `max`, the engine's own options.
    "o": f"newinstance,nosuid,noexec,ptmxmode=0666,mode=0620,gid=5,max={TERMINALS}",
}
# Timers, message queues, locked shared memory: the kernel counts them for all workspaces together, so that any limit is
# one that the first can use up for the others. Without one each has as many as its memory holds.
_ENDLESS = tuple({"Name": name, "Soft": -1, "Hard": -1} for name in ("sigpending", "msgqueue", "memlock"))
_PHASES = {
    "created": Phase.CREATED,
    "restarting": Phase.CREATED,
    "running": Phase.RUNNING,
    "paused": Phase.PAUSED,
    "exited": Phase.EXITED,
    "removing": Phase.REMOVING,
    "dead": Phase.REMOVING,
}


def container_config(spec: WorkspaceSpec, *, host_root: str, host: Host) -> dict[str, Any]:
    """The body of the engine's create call. Everything a container may do is decided here, and nowhere else."""
    return {
        "Image": spec.image,
        "User": "1000:1000",
        "Hostname": spec.name[-63:],
        "Env": [f"HASHED_PASSWORD={spec.secret}"],
        "Labels": {
            naming.LABEL_WORKSPACE: str(spec.user_id),
            naming.LABEL_INSTANCE: spec.instance,
            naming.LABEL_SPEC: spec.hash,
            naming.LABEL_GENERATION: str(spec.generation),
        },
        "ExposedPorts": {PORT_KEY: {}},
        "StopSignal": "SIGTERM",
        "StopTimeout": spec.stop_grace,
        "HostConfig": {
            "Mounts": _mounts(spec, host_root=host_root),
            # Never another address: a port published elsewhere is reachable from every container.
            "PortBindings": {PORT_KEY: [{"HostIp": spec.endpoint.host, "HostPort": str(spec.endpoint.port)}]},
            "NetworkMode": naming.network_name(spec.name),  # alone in it: no neighbour, and no neighbour's name
            # Restarts are the platform's decision: a container never comes back by itself.
            "RestartPolicy": {"Name": "no"},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "ReadonlyRootfs": True,
            "Tmpfs": {
                "/tmp": f"{_TMPFS},size=512m",  # noqa: S108
                "/run": "rw,nosuid,nodev,noexec,size=16m,mode=0755",
                str(naming.REPORT_FOLDER): _REPORT_TMPFS,
            },
            "Init": False,  # the image's own first process, which also bounds what is written into the log
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
            **_limits(spec, host),
        },
    }


def _mounts(spec: WorkspaceSpec, *, host_root: str) -> list[dict[str, Any]]:
    return [
        _bind(f"{host_root}/{naming.home_folder(spec.user_id)}", str(naming.HOME)),
        _bind(f"{host_root}/{naming.files_folder(spec.user_id)}", str(naming.FILES)),
        # A folder, because a file that is replaced is not seen through a mount of the file.
        _bind(f"{host_root}/{naming.notice_folder(spec.user_id)}", str(naming.NOTICE_FOLDER)) | {"ReadOnly": True},
        # Nameless, so that it goes with the container.
        {
            "Type": "volume",
            "Target": "/dev/pts",
            "VolumeOptions": {
                "NoCopy": True,
                "Labels": {naming.LABEL_INSTANCE: spec.instance},  # to be found if somebody removes it alone
                "DriverConfig": {"Name": "local", "Options": _TERMINALS},
            },
        },
    ]


def _limits(spec: WorkspaceSpec, host: Host) -> dict[str, Any]:
    """What a workspace gets of what all share."""
    limits: dict[str, Any] = {
        "Memory": spec.memory,
        "MemorySwap": spec.memory,  # equal: no swap on top
        "NanoCpus": round(host.share(spec.cpus) * 1e9),
        "CpusetCpus": host.processors_for(spec.endpoint.port),
        "CgroupParent": host.group,
        "PidsLimit": spec.pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": 8192, "Hard": 8192},  # above the daemon's own limit a start fails
            {"Name": "core", "Soft": 0, "Hard": 0},
            *(_ENDLESS if host.endless else ()),
        ],
        "OomScoreAdj": 500,  # when the host runs out, a workspace goes before the platform
    }
    if host.disk and spec.disk_write:
        limits["BlkioDeviceWriteBps"] = [{"Path": host.disk, "Rate": spec.disk_write}]
    if host.disk and spec.disk_writes:
        limits["BlkioDeviceWriteIOps"] = [{"Path": host.disk, "Rate": spec.disk_writes}]
    return limits


def network_config(name: str, *, instance: str, subnet: IPv4Network) -> dict[str, Any]:
    """Arguments of the create call for a workspace's network: no traffic between containers, should there be two."""
    return {
        "name": name,
        "driver": "bridge",
        "check_duplicate": True,
        "ipam": {"Driver": "default", "Config": [{"Subnet": str(subnet)}]},
        "options": {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
        },
        "labels": {naming.LABEL_INSTANCE: instance},
    }


def from_inspect(name: str, found: dict[str, Any], *, instance: str) -> Observation:
    """An observation from the engine's inspect answer."""
    state = found["State"]
    return _observation(
        name,
        phase=str(state["Status"]),
        identifier=str(found["Id"]),
        labels=found["Config"].get("Labels") or {},
        instance=instance,
        image=str(found["Config"].get("Image", "")),
        endpoint=_published(found["HostConfig"].get("PortBindings") or {}),
        exit_code=int(state.get("ExitCode", 0)),
        out_of_memory=bool(state.get("OOMKilled")),
    )


def from_list(found: dict[str, Any], *, instance: str) -> Observation:
    """An observation from one entry of the engine's list; it does not say how a container ended."""
    ports = [port for port in found.get("Ports") or [] if port.get("PublicPort")]
    endpoint = Endpoint(host=str(ports[0]["IP"]), port=int(ports[0]["PublicPort"])) if ports else None
    return _observation(
        str(found["Names"][0]).lstrip("/") if found.get("Names") else str(found["Id"]),
        phase=str(found["State"]),
        identifier=str(found["Id"]),
        labels=found.get("Labels") or {},
        instance=instance,
        image=str(found.get("Image", "")),
        endpoint=endpoint,
        exit_code=None,
        out_of_memory=False,
    )


def _observation(
    name: str,
    *,
    phase: str,
    identifier: str,
    labels: dict[str, str],
    instance: str,
    image: str,
    endpoint: Endpoint | None,
    exit_code: int | None,
    out_of_memory: bool,
) -> Observation:
    mine = labels.get(naming.LABEL_INSTANCE) == instance
    known = _PHASES.get(phase, Phase.CREATED)
    return Observation(
        name=name,
        phase=known,
        container_id=identifier,
        user_id=_number(labels.get(naming.LABEL_WORKSPACE)) if mine else None,
        generation=_number(labels.get(naming.LABEL_GENERATION)) or 0,
        spec_hash=labels.get(naming.LABEL_SPEC, "") if mine else "",
        image=image,
        endpoint=endpoint if known in {Phase.RUNNING, Phase.PAUSED} else None,
        exit_code=exit_code if known is Phase.EXITED else None,
        out_of_memory=out_of_memory,
    )


# Asked of the engine's `top`: process, parent, process group, its terminal's foreground group, terminal, name.
TOP_COLUMNS = "pid,ppid,pgid,tpgid,tty,comm"
# Programs that wait for a person when nothing else runs beside them in the foreground. A terminal left open with one of
# these does no work.
_SHELLS = frozenset(
    {"bash", "sh", "dash", "zsh", "fish", "ksh", "mksh", "csh", "tcsh", "rbash", "nu", "xonsh", "elvish", "pwsh"}
)
_WAITING = frozenset(
    {
        *("less", "more", "most", "man", "pager"),
        *("vi", "vim", "nvim", "vim.basic", "vim.tiny", "nano", "emacs", "ed", "pico", "joe", "mcedit"),
        *("top", "htop", "btop", "watch", "tmux", "tmux: client", "screen"),
    }
)
_COMMAND_LENGTH = 15  # the kernel keeps no more of a name


def foreground_commands(found: dict[str, Any]) -> tuple[str, ...]:
    """The commands in the foreground of the container's terminals, out of the engine's `top` answer; sorted, unique.

    A shell at its prompt is none, nor is another program that waits for a person, nor what waits for that one as its
    parent (`git log` for its pager, `git commit` for an editor). Of a pipeline, a script or a task all members count.
    Raises ValueError when the answer has another form.
    """
    columns = {str(title).lower(): index for index, title in enumerate(found.get("Titles") or [])}
    wanted = [columns.get(title) for title in ("pid", "ppid", "pgid", "tpgid", "command")]
    if None in wanted:
        raise ValueError(f"unexpected columns: {sorted(columns)}")
    members: dict[str, tuple[str, str]] = {}  # by process: its parent and its name
    for row in found.get("Processes") or []:
        pid, parent, group, foreground, name = (str(row[index]).strip() for index in wanted if index is not None)
        if foreground == group and foreground not in {"0", "-1"}:
            members[pid] = parent, _printable_name(name)
    wait: set[str] = set()
    for leaf, (_, name) in members.items():
        waits = leaf if name in _WAITING else ""
        while waits in members and waits not in wait:  # and so up to the last that waits for it
            wait.add(waits)
            waits, _ = members[waits]
    names = {name for pid, (_, name) in members.items() if pid not in wait}
    return tuple(sorted(names - _SHELLS))


def _printable_name(name: str) -> str:
    """A process chooses its own name: nothing but plain characters, and not many."""
    return "".join(char if char.isprintable() else "?" for char in name)[:_COMMAND_LENGTH] or "?"


def secret_of(found: dict[str, Any]) -> str:
    """The editor's inner secret, out of the engine's inspect answer; "" where the container has none."""
    entries = [str(entry).partition("=") for entry in found["Config"].get("Env") or []]
    return next((value for name, _, value in entries if name == "HASHED_PASSWORD"), "")


def _bind(source: str, target: str) -> dict[str, Any]:
    """As a mount, not a volume string: a missing source is an error instead of a new folder owned by root."""
    return {"Type": "bind", "Source": source, "Target": target, "BindOptions": {"Propagation": "rprivate"}}


def _published(bindings: dict[str, Any]) -> Endpoint | None:
    for binding in bindings.get(PORT_KEY) or []:
        if binding.get("HostPort"):
            return Endpoint(host=str(binding.get("HostIp") or "0.0.0.0"), port=int(binding["HostPort"]))  # noqa: S104
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def read_at(stats: dict[str, Any]) -> datetime | None:
    """When the engine read this sample, by its own clock; None where it does not say so sensibly."""
    try:
        moment = datetime.fromisoformat(stats["read"])
    except (LookupError, TypeError, ValueError):
        return None
    # The zero time of the engine's language stands for "not read".
    return moment if moment.tzinfo is not None and moment.year > 2000 else None  # noqa: PLR2004 - a year
