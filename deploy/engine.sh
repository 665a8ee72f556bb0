#!/usr/bin/env bash
# Makes sure that a Docker engine runs and that `docker compose` and `docker buildx` exist. Changes nothing when all is
# there; never restarts an engine that is up.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ENGINE_LOG=/var/log/gunpowder-dockerd.log
# Debian's release whose Compose and buildx packages need nothing but libc and so run on the one before as well.
PLUGIN_SUITE=trixie

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
compose_answers() { docker compose version --short 2>/dev/null | grep -q '^v\?[2-9]'; }
buildx_answers() { docker buildx version >/dev/null 2>&1; }

wait_for_engine() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        engine_answers && return 0
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
        as_root systemctl start docker ||
            die "The Docker engine does not start." "systemctl start docker failed." "See: journalctl -u docker -n 50"
        return
    fi
    local pid
    pid=$(cat /var/run/docker.pid 2>/dev/null || true)
    if [ -n "$pid" ] && [ -d "/proc/$pid" ]; then
        say "An engine (process $pid) is starting already"
        return
    fi
    say "Starting dockerd, log: $ENGINE_LOG"
    if ! mountpoint -q /sys/fs/cgroup; then
        as_root mount -t cgroup2 cgroup2 /sys/fs/cgroup || true
    fi
    # Own session, own log, no inherited descriptor (make's job pipes among them): it must outlive this script without
    # holding anybody's pipe open. It listens on its unix socket only.
    # shellcheck disable=SC2016  # expanded by the inner shell, as root
    as_root setsid bash -c '
        ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
        cd /
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if [ "$fd" -gt 2 ]; then eval "exec $fd>&-" 2>/dev/null || true; fi
        done
        exec dockerd --host unix:///var/run/docker.sock >>"$0" 2>&1 </dev/null
    ' "$ENGINE_LOG" </dev/null >/dev/null 2>&1 &
    disown
}

ensure_engine() {
    if command -v docker >/dev/null && engine_answers; then return; fi
    if [ -n "${DOCKER_HOST:-}" ]; then
        die "The Docker engine at DOCKER_HOST does not answer." \
            "$(docker version 2>&1 >/dev/null | tail -n 1)" "Start it, or unset DOCKER_HOST to use this machine's own."
    fi
    if command -v docker >/dev/null && ! can_be_root && [ -S /var/run/docker.sock ]; then
        die "The Docker engine does not let you in." \
            "$(docker version 2>&1 >/dev/null | tail -n 1)" \
            "Ask an administrator to run 'usermod -aG docker $(id -un)', then log in again."
    fi
    if ! command -v dockerd >/dev/null; then install_engine; fi
    if ! can_be_root; then
        die "The Docker engine is installed but does not run." "You are not root, so I cannot start it." \
            "Ask an administrator to start it (systemctl start docker), then run 'make up' again."
    fi
    if ! engine_answers; then start_engine; fi
    wait_for_engine || die "The Docker engine did not answer within a minute." \
        "$(as_root tail -n 3 "$ENGINE_LOG" 2>/dev/null || docker version 2>&1 | tail -n 1)" \
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

ensure_engine
ensure_plugins
say "Docker engine $(docker version --format '{{.Server.Version}}'), $(docker compose version | head -n 1), buildx $(docker buildx version | cut -d' ' -f2)"
