# Shared by the scripts of this folder; sourced, never run.
# Needs bash, coreutils and (to install something) apt: a bare machine has no curl, no Python, perhaps no ca-certificates.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STATE_DIR=$ROOT/.gunpowder
LOG_DIR=$STATE_DIR/logs
mkdir -p "$LOG_DIR"

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# die WHAT WHY TODO: every failure says what happened, why, and what to do.
die() {
    printf '\n  %s\n' "$1" >&2
    [ -n "${2:-}" ] && printf '  Why:  %s\n' "$2" >&2
    [ -n "${3:-}" ] && printf '  Do:   %s\n' "$3" >&2
    exit 1
}

now_ms() { local t=${EPOCHREALTIME//[.,]/}; printf '%s' "${t%???}"; }
seconds_since() { local d=$(($(now_ms) - $1)); printf '%d.%d' $((d / 1000)) $((d % 1000 / 100)); }

STEP_SUMMARY=()
STEP_STARTED=$(now_ms)

# step NAME LOG COMMAND...: runs a command with its output in .gunpowder/logs/LOG.log, shows name, seconds and,
# when it fails, the end of that log. Lines that a command writes to descriptor 3 are for the person watching.
step() {
    local name=$1 log=$LOG_DIR/$2.log began status=0
    shift 2
    began=$(now_ms)
    printf '%-44s ' "$name"
    printf '== %s: %s\n' "$(date -u +%FT%TZ)" "$*" >"$log"
    # Not `… || status=$?`: that would switch `set -e` off inside the functions that are run as steps.
    set +e
    if [ -n "${STEP_WAITER:-}" ]; then
        # The caller has a deadline: its function waits for the process, and ends it when it must.
        (
            set -e
            "$@"
        ) >>"$log" 2>&1 3>"$log.notes" 8>&- </dev/null &
        "$STEP_WAITER" $!
    else
        (
            set -e
            "$@"
        ) >>"$log" 2>&1 3>"$log.notes" 8>&- </dev/null
    fi
    status=$?
    set -e
    local took
    took=$(seconds_since "$began")
    STEP_SUMMARY+=("$(printf '%8ss  %s' "$took" "$name")")
    if [ "$status" -ne 0 ]; then
        printf 'FAILED after %ss\n\n' "$took"
        tail -n 40 "$log" | sed 's/^/    /'
        printf '\n  "%s" failed (status %s). The whole log: %s\n' "$name" "$status" "${log#"$ROOT"/}"
        return "$status"
    fi
    printf '%7ss   %s\n' "$took" "${log#"$ROOT"/}"
    [ -s "$log.notes" ] && sed 's/^/    /' "$log.notes"
    rm -f "$log.notes"
    return 0
}

step_summary() {
    printf '\nSeconds per step\n'
    printf '%s\n' "${STEP_SUMMARY[@]}"
    printf '%8ss  in all\n' "$(seconds_since "$STEP_STARTED")"
}

is_root() { [ "$(id -u)" -eq 0 ]; }
has_systemd() { [ -d /run/systemd/system ]; }
apt_package_exists() { [ -n "$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([^(].*\)$/\1/p')" ]; }

# As root, or through sudo when that needs no password. "Ask for nothing that can be found out."
as_root() {
    if is_root; then "$@"; elif sudo -n true 2>/dev/null; then sudo -n "$@"; else return 97; fi
}
can_be_root() { is_root || sudo -n true 2>/dev/null; }

apt_install() {
    local quiet=(-o DPkg::Lock::Timeout=180 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
    # One that was cut off leaves packages half installed, and refuses to go on.
    as_root dpkg --configure -a --force-confdef
    # The package lists of a bare machine are often missing or old; one refresh an hour is enough.
    if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -60 2>/dev/null | head -n 1)" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get "${quiet[@]}" update
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get "${quiet[@]}" install -y --no-install-recommends "$@"
}

# The Debian mirror that this machine itself uses (both source formats), so that nothing here names a host.
debian_mirror() {
    if [ -n "${GUNPOWDER_DEBIAN_MIRROR:-}" ]; then
        printf '%s' "$GUNPOWDER_DEBIAN_MIRROR"
        return
    fi
    local codename files=() f
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && [ "${ID:-}" = debian ] && printf '%s' "${VERSION_CODENAME:-}") || true
    [ -n "$codename" ] || return 1
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -r "$f" ] && files+=("$f")
    done
    [ ${#files[@]} -gt 0 ] || return 1
    awk -v codename="$codename" '
        FNR == 1 { uris = ""; suites = "" }
        /^[ \t]*#/ { next }
        /^deb[ \t]/ {
            i = 2
            if ($i ~ /^\[/) { while ($i !~ /\]$/ && i < NF) i++; i++ }
            if ($(i + 1) == codename) { print $i; exit }
            next
        }
        /^[ \t]*$/ { uris = ""; suites = ""; next }
        tolower($1) == "uris:" { uris = $2 }
        tolower($1) == "suites:" { suites = " " substr($0, index($0, $2)) " " }
        uris != "" && index(suites, " " codename " ") { print uris; exit }
    ' "${files[@]}" | sed 's,/*$,,' | grep .
}

# ask_engine SECONDS ARGUMENT...: docker, with a deadline: an engine may accept a question and never answer it.
ask_engine() { timeout --kill-after=2 "$1" docker "${@:2}" </dev/null; }

# Where the engine listens; what the worker gets as its socket.
docker_socket() {
    if [ -n "${GUNPOWDER_DOCKER_SOCKET:-}" ]; then
        printf '%s' "$GUNPOWDER_DOCKER_SOCKET"
    elif [[ "${DOCKER_HOST:-}" == unix://* ]]; then
        printf '%s' "${DOCKER_HOST#unix://}"
    else
        printf '/var/run/docker.sock'
    fi
}
