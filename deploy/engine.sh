#!/usr/bin/env bash
# Makes sure that a Docker engine runs and that `docker compose` and `docker buildx` exist. Changes nothing when all is
# there; never restarts an engine that answers. Comes up from whatever an engine that was killed has left: pid files that
# name nobody or somebody else, a containerd without its dockerd. An engine that hangs is replaced when this script started
# it, and named when it did not. Every call to the engine has a deadline.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ENGINE_LOG=/var/log/gunpowder-dockerd.log
# In the environment of each dockerd that is started here: how it is told from one that is none of our business.
ENGINE_MARK=GUNPOWDER_STARTED_ENGINE=1
ENGINE_PID=/var/run/docker.pid
CONTAINERD_PID=/var/run/docker/containerd/containerd.pid
ENGINE_LOCK=/var/run/gunpowder-engine.lock
START_SECONDS=60
ATTEMPTS=3
# Debian's release whose Compose and buildx packages need nothing but libc and so run on the one before as well.
PLUGIN_SUITE=trixie

engine_answers() { ask_engine 10 version --format '{{.Server.Version}}' >/dev/null 2>&1; }
compose_answers() { timeout 20 docker compose version --short 2>/dev/null | grep -q '^v\?[2-9]'; }
buildx_answers() { timeout 20 docker buildx version >/dev/null 2>&1; }

# runs PID NAME: whether that process exists, is no zombie, bears that name and lives in our pid namespace (a nested
# engine's processes are visible from here, too). Pids wrap: a number alone says nothing.
runs() {
    [ -n "$1" ] && [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] || return 1
    [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1)" != Z ] || return 1
    [ "$(as_root readlink "/proc/$1/ns/pid")" = "$(readlink /proc/self/ns/pid)" ]
}

# The process that FILE names, if it really is NAME.
process_in() {
    local pid
    pid=$(as_root cat "$1" 2>/dev/null) || return 1
    runs "$pid" "$2" && printf '%s' "$pid"
}

engine_process() { process_in "$ENGINE_PID" dockerd; }
is_ours() { as_root cat "/proc/$1/environ" 2>/dev/null | tr '\0' '\n' | grep -qx "$ENGINE_MARK"; }

# Ends a process of root: asks, and after SECONDS insists. A stopped one does not hear the question.
end_process() {
    local pid=$1 name=$2 until=$((SECONDS + $3))
    as_root kill -TERM "$pid" 2>/dev/null || true
    while runs "$pid" "$name" && [ "$SECONDS" -lt "$until" ]; do sleep 0.2; done
    if runs "$pid" "$name"; then as_root kill -KILL "$pid" 2>/dev/null || true; fi
    until=$((SECONDS + 10))
    while runs "$pid" "$name" && [ "$SECONDS" -lt "$until" ]; do sleep 0.1; done
}

# dockerd does not start while its pid file names any process, and waits for a containerd that its file names until it
# gives up. Both stay behind when an engine is killed.
clear_stale() {
    local pid
    if [ -e "$ENGINE_PID" ] && ! engine_process >/dev/null; then
        say "Removing $ENGINE_PID: process $(cat "$ENGINE_PID" 2>/dev/null) is no dockerd"
        as_root rm -f "$ENGINE_PID"
    fi
    if ! as_root test -e "$CONTAINERD_PID"; then return; fi
    # Without its dockerd it is of no use: the next one starts its own, and containers do not depend on it. The system may
    # have another containerd, which was not started for this folder.
    if pid=$(process_in "$CONTAINERD_PID" containerd) &&
        as_root cat "/proc/$pid/cmdline" | tr '\0' ' ' | grep -qF "$(dirname "$CONTAINERD_PID")/"; then
        if engine_process >/dev/null; then return; fi
        say "Ending containerd (process $pid), which has lost its dockerd"
        end_process "$pid" containerd 5
    else
        say "Removing $CONTAINERD_PID: process $(as_root cat "$CONTAINERD_PID" 2>/dev/null) is no containerd of the engine's"
    fi
    as_root rm -f "$CONTAINERD_PID"
}

# Until it answers; no longer than SECONDS, and not once the process that was to answer is gone.
wait_for_engine() {
    local until=$((SECONDS + $1)) gone=0
    while [ "$SECONDS" -lt "$until" ]; do
        engine_answers && return 0
        # The pid file appears a moment after the process; with systemd the process is not ours to watch.
        if ! has_systemd && ! engine_process >/dev/null; then gone=$((gone + 1)); else gone=0; fi
        if [ "$gone" -ge 25 ]; then return 1; fi
        sleep 0.2
    done
    return 1
}

install_engine() {
    can_be_root || die "There is no Docker engine on this machine, and I may not install one." \
        "You are not root, and sudo asks for a password (or is missing)." \
        "Run 'make up' once as root, or install Docker (Debian: apt-get install docker.io) and join the docker group."
    command -v apt-get >/dev/null || die "There is no Docker engine on this machine." \
        "This script installs it on Debian and Ubuntu only (no apt-get found)." \
        "Install Docker Engine 20.10 or newer with Compose v2, then run 'make up' again."
    say "Installing the Docker engine (docker.io)"
    local packages=(docker.io iptables)
    # Where AppArmor is on, the engine needs its parser to load container profiles.
    if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then packages+=(apparmor); fi
    apt_install "${packages[@]}"
    # Newer releases keep the client in a package of its own.
    if ! command -v docker >/dev/null; then apt_install docker-cli; fi
}

start_engine() {
    if has_systemd; then
        as_root timeout 120 systemctl start docker ||
            die "The Docker engine does not start." "systemctl start docker failed." "See: journalctl -u docker -n 50"
        return
    fi
    say "Starting dockerd, log: $ENGINE_LOG"
    if ! mountpoint -q /sys/fs/cgroup; then
        as_root mount -t cgroup2 cgroup2 /sys/fs/cgroup || true
    fi
    # Own session, own log, nobody's child, no inherited descriptor (make's job pipes among them): it must outlive this
    # script, also one that is ended with all its children, and hold nobody's pipe or lock. It listens on its socket only.
    # shellcheck disable=SC2016  # expanded by the inner shell, as root
    as_root setsid --fork bash -c '
        ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
        cd /
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if [ "$fd" -gt 2 ]; then eval "exec $fd>&-" 2>/dev/null || true; fi
        done
        exec env "$1" dockerd --host unix:///var/run/docker.sock >>"$0" 2>&1 </dev/null
    ' "$ENGINE_LOG" "$ENGINE_MARK" </dev/null >/dev/null 2>&1
}

# An engine process is there and does not answer: it may be starting, or hang.
settle_engine() {
    local pid
    pid=$(engine_process) || return 0
    say "An engine (process $pid) is there; waiting for its answer"
    if wait_for_engine "$START_SECONDS"; then return; fi
    pid=$(engine_process) || return 0
    is_ours "$pid" || die "The Docker engine (process $pid) does not answer." \
        "It accepts no question within $START_SECONDS s, and it was not started by this project, so it is left alone." \
        "Restart it (service docker restart, or kill $pid and start it again), then run this again."
    # A machine that is merely busy gets one long question before everything in it is stopped.
    if ask_engine "$START_SECONDS" version >/dev/null 2>&1; then return; fi
    say "The engine (process $pid) hangs; replacing it"
    end_process "$pid" dockerd 10
}

# One at a time, as far as root is concerned: two who start an engine would take each other's for a stale one.
bring_up_engine() {
    local attempt lock
    if has_systemd; then
        start_engine
        wait_for_engine "$START_SECONDS"
        return
    fi
    if is_root; then
        exec {lock}>"$ENGINE_LOCK"
        flock --wait 600 "$lock" || die "Another process has been starting the Docker engine for ten minutes." \
            "It holds $ENGINE_LOCK." "See who: fuser -v $ENGINE_LOCK"
        if engine_answers; then return; fi
    fi
    for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
        settle_engine
        if engine_answers; then return; fi
        clear_stale
        start_engine
        if wait_for_engine "$START_SECONDS"; then return; fi
        say "Attempt $attempt did not bring an engine that answers:"
        as_root tail -n 5 "$ENGINE_LOG" 2>/dev/null || true
    done
    return 1
}

ensure_engine() {
    if command -v docker >/dev/null && engine_answers; then return; fi
    if [ -n "${DOCKER_HOST:-}" ]; then
        die "The Docker engine at DOCKER_HOST does not answer." \
            "$(ask_engine 10 version 2>&1 >/dev/null | tail -n 1)" "Start it, or unset DOCKER_HOST to use this machine's own."
    fi
    if command -v docker >/dev/null && ! can_be_root && [ -S /var/run/docker.sock ]; then
        if [ ! -w /var/run/docker.sock ]; then
            die "The Docker engine does not let you in." "You may not write to /var/run/docker.sock." \
                "Ask an administrator to run 'usermod -aG docker $(id -un)', then log in again."
        fi
        die "The Docker engine does not answer." "$(ask_engine 10 version 2>&1 >/dev/null | tail -n 1)" \
            "Ask an administrator to restart it: you are not root."
    fi
    if ! command -v dockerd >/dev/null; then install_engine; fi
    if ! can_be_root; then
        die "The Docker engine is installed but does not run." "You are not root, so I cannot start it." \
            "Ask an administrator to start it (systemctl start docker), then run 'make up' again."
    fi
    bring_up_engine || die "The Docker engine does not come up." \
        "$(as_root tail -n 3 "$ENGINE_LOG" 2>/dev/null || ask_engine 10 version 2>&1 | tail -n 1)" \
        "Read its log ($ENGINE_LOG, or journalctl -u docker), then run 'make up' again."
}

plugin_dir() {
    if is_root; then printf /usr/local/lib/docker/cli-plugins; else printf '%s' "${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins"; fi
}

# Fetches packages of another Debian release with an apt set-up of our own, so that the machine's own stays as it is.
# Works without root.
fetch_plugins() {
    local mirror dir keyring=/usr/share/keyrings/debian-archive-keyring.gpg package
    mirror=$(debian_mirror) || die "docker compose or docker buildx is missing." \
        "This release has no package for it, and this machine names no Debian mirror." \
        "Install Docker Compose v2 and buildx (docker-compose-plugin, docker-buildx-plugin), then run this again."
    dir=$(mktemp -d)
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/unpacked"
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$PLUGIN_SUITE" >"$dir/sources.list"
    local apt=(apt-get -o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null
        -o Dir::Etc::PreferencesParts=/dev/null -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o Debug::NoLocking=1
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root)
    "${apt[@]}" update
    mkdir -p "$(plugin_dir)"
    for package in "$@"; do
        say "Fetching $package of $PLUGIN_SUITE"
        (cd "$dir" && "${apt[@]}" download "$package" && dpkg-deb --extract "$package"_*.deb unpacked)
        find "$dir/unpacked" -type f -path '*/cli-plugins/*' -exec install -m 0755 -t "$(plugin_dir)" {} +
    done
    rm -rf "$dir"
}

# first_package NAME...: the first of these names that this machine's apt offers.
first_package() {
    local name
    for name in "$@"; do
        if apt_package_exists "$name"; then
            printf '%s' "$name"
            return
        fi
    done
    return 1
}

ensure_plugins() {
    local package wanted=()
    if ! compose_answers; then
        package=$(first_package docker-compose-v2 docker-compose-plugin) || package=
        # Debian 13 and later have version 2 under the name that was version 1's.
        if [ -z "$package" ] && [[ "$(apt-cache policy docker-compose | sed -n 's/^ *Candidate: *//p')" =~ ^(2|[3-9]|[0-9]{2})[.0-9] ]]; then
            package=docker-compose
        fi
        if [ -n "$package" ] && can_be_root; then apt_install "$package"; fi
        compose_answers || wanted+=(docker-compose)
    fi
    if ! buildx_answers; then
        package=$(first_package docker-buildx docker-buildx-plugin) || package=
        if [ -n "$package" ] && can_be_root; then apt_install "$package"; fi
        buildx_answers || wanted+=(docker-buildx)
    fi
    if [ ${#wanted[@]} -gt 0 ]; then fetch_plugins "${wanted[@]}"; fi
    compose_answers || die "docker compose (version 2) does not work here." \
        "$(docker compose version 2>&1 | tail -n 1)" "Install the package docker-compose-plugin, then run this again."
    buildx_answers || die "docker buildx does not work here." \
        "$(docker buildx version 2>&1 | tail -n 1)" "Install the package docker-buildx-plugin, then run this again."
}

# Sourced, it only defines (tests do that).
if [ "${BASH_SOURCE[0]}" != "$0" ]; then return; fi
ensure_engine
ensure_plugins
say "Docker engine $(ask_engine 10 version --format '{{.Server.Version}}'), $(docker compose version | head -n 1), buildx $(docker buildx version | cut -d' ' -f2)"
