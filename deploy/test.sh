#!/usr/bin/env bash
# Runs checks and tests in the test image, against this machine's engine:
#   deploy/test.sh all [PYTEST ARGUMENT...]      engine, all images, linters, types, the whole suite      (make test)
#   deploy/test.sh pytest [PYTEST ARGUMENT...]   pytest alone; images are expected to exist               (make t)
#   deploy/test.sh run COMMAND...                any command in there                                     (make lint …)
#   deploy/test.sh shell                         a shell in there                                         (make test-shell)
#
# GUNPOWDER_TEST_MINUTES (30) is the deadline of all that: then it tells what was running, and ends it with status 124.
#
# The checkout is mounted at its own path and the network is the host's, so that paths and ports mean the same to the
# tests, to the engine and to the containers they start. Nothing here touches what `make up` runs, or another run.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

mode=${1:-all}
shift || true

# Everything that a run makes carries this name: its compose projects, prefixes, labels and data.
checkout=$(printf '%s' "$ROOT" | sha256sum | cut -c1-6)
number=$(((RANDOM * 32768 + RANDOM) % 10000000)) # not the process's, which may be another's again
if [ "$mode" = all ]; then id=gptest-$checkout-$number; else id=gpdev-$checkout-$number; fi
data=/var/lib/gunpowder-test
runner=$id-runner
arguments=()
made= # set once there is something to remove
late= # set while there is no image to tidy the host with

# shellcheck source=deploy/test/deadline.sh
. deploy/test/deadline.sh
# shellcheck source=deploy/test/leftovers.sh
. deploy/test/leftovers.sh

finish() {
    local status=$?
    trap '' INT TERM USR1
    set +e # whatever cannot be tidied or told, the rest can
    if [ -n "$current" ]; then end_tree "$current"; fi
    # 0 and 1 are the suite's own; everything else came from outside: a signal, an engine that ended, want of memory.
    if [ -n "$made" ] && [ "$status" -gt 1 ] && [ -z "$ended_by" ]; then
        ended_by="status $status from outside of the suite (above 128: a signal)"
        tell_running_tests
    fi
    if [ -n "$made" ]; then
        if ask_engine 10 version >/dev/null 2>&1; then
            remove_this_run
        else
            warn "The engine does not answer: what this run has made is removed by the next one."
        fi
    fi
    if [ -n "$ended_by" ]; then tell_summary; fi
    if [ "$mode" = all ]; then step_summary; fi
    exit "$status"
}

prepare() {
    STEP_WAITER=wait_for_step
    if [ "$mode" = all ]; then
        step "Docker engine, Compose, buildx" engine bash deploy/engine.sh
        step "Limits of the kernel" kernel bash deploy/kernel.sh now
    else
        bounded bash deploy/engine.sh >/dev/null
        bounded bash deploy/kernel.sh now >/dev/null
    fi
    test_image=$(bash deploy/images.sh --tags test)
    test_image=${test_image#*=}
    if ! ask_engine 30 image inspect "$test_image" >/dev/null 2>&1; then late=1; fi
    case $mode in
        all)
            step "What earlier runs have left" leftovers remove_leftovers before
            step "Images" images bash deploy/images.sh base app-deps app test nginx postgres redis workspace
            ;;
        pytest)
            bounded remove_leftovers before >&2
            bounded bash deploy/images.sh test >&2
            ;;
        *) bounded bash deploy/images.sh test >&2 ;;
    esac
    if [ -n "$late" ]; then
        case $mode in
            all) step "What they have left on the host" leftovers-host remove_leftovers after ;;
            pytest) bounded remove_leftovers after >&2 ;;
        esac
    fi
}

# Before anything else is done. Only what is on the host needs the image: without one, that is done as soon as there is.
remove_leftovers() {
    if [ "$1" = before ]; then
        remove_orphans || warn "The engine does not say what there is; nothing was removed."
    fi
    if [ -z "$late" ] || [ "$1" = after ]; then
        remove_orphans_from_host || warn "The host could not be tidied completely."
    fi
}

collect_arguments() {
    local name value tags
    # While the application is being written some images may not exist yet; tests that need one say so.
    tags=$(bash deploy/images.sh --tags app nginx postgres redis workspace)
    while IFS='=' read -r name value; do
        arguments+=(--env "$name=$value" --env "${name/GUNPOWDER_/GUNPOWDER_TEST_}=$value")
    done <<<"$tags"
    for name in CI GUNPOWDER_TEST_WORKERS PYTEST_ADDOPTS GUNPOWDER_FAULT_{HOURS,PEOPLE,SEED} GUNPOWDER_ATTACK_{CASES,SECONDS,SEED}; do
        if [ -n "${!name:-}" ]; then arguments+=(--env "$name"); fi
    done
    if [ -t 1 ]; then arguments+=(--env GUNPOWDER_TEST_TERMINAL=1); fi
    arguments+=(
        # The browser is in here, too, and does more than any single one of the containers that it waits for.
        --rm --network host --shm-size 1g --cpu-shares 4096 --name "$runner" --label "gunpowder.test=$runner"
        --volume "$ROOT:$ROOT" --workdir "$ROOT"
        --volume "$(docker_socket):/var/run/docker.sock"
        --volume "$data:$data"
        # Caches of the tools, shared by all checkouts, outside of them: root in here must leave nothing in a user's folder.
        --volume gunpowder-test-cache:/cache
        --env "GUNPOWDER_TEST_IMAGE=$test_image" --env "GUNPOWDER_TEST_ID=$id" --env "GUNPOWDER_TEST_DATA=$data/$id"
        --env "GUNPOWDER_DOCKER_SOCKET=$(docker_socket)"
        --env "RUFF_CACHE_DIR=/cache/$checkout/ruff" --env "MYPY_CACHE_DIR=/cache/mypy"
        --env "IMPORT_LINTER_CACHE_DIR=/cache/$checkout/import-linter"
        --env "PYTEST_CACHE_DIR=/cache/$checkout/pytest" --env "HYPOTHESIS_STORAGE_DIRECTORY=/cache/$checkout/hypothesis"
        --env "COLUMNS=120"
    )
    # pip-compile asks the package index, perhaps through a company's proxy.
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
        arguments+=(--volume /etc/ssl/certs/ca-certificates.crt:/run/ca.crt:ro --env PIP_CERT=/run/ca.crt)
    fi
    # What these commands write into the checkout belongs to whoever asked for it.
    if [ "$mode" = run ] && ! is_root; then
        arguments+=(--user "$(id -u):$(id -g)")
        arguments=("${arguments[@]//\/cache\/$checkout/\/tmp/cache}")
    fi
}

# In the background and waited for, so that a signal reaches this script at once and the traps run.
in_container() {
    docker run "${arguments[@]}" "$test_image" "$@" </dev/null &
    wait_for_container $!
}

# The same, and the container ends with this process, however that ends: it reads from a pipe whose other end nobody else
# holds.
in_container_of_ours() {
    local alive holding reading
    alive=$(mktemp -u "${TMPDIR:-/tmp}/gunpowder-alive.XXXXXX")
    mkfifo -m 0600 "$alive"
    exec {holding}<>"$alive" {reading}<"$alive"
    rm "$alive"
    made=1
    docker run --interactive "${arguments[@]}" "$test_image" "$@" <&"$reading" {holding}>&- {reading}<&- &
    wait_for_container $!
}

wait_for_container() {
    local status=0
    wait_until_deadline "$1" || status=$?
    if [ "$status" -eq 124 ] && [ -n "$current" ]; then
        ended_by=$by_deadline
        tell_what_hangs
        ask_engine 30 kill "$runner" >/dev/null 2>&1 || true
    elif [ "$status" -ne 0 ]; then
        tell_what_ended
    fi
    return "$status"
}

play() {
    case $mode in
        all | pytest) in_container_of_ours bash deploy/test/run "$mode" "$@" ;;
        run) in_container "$@" ;;
        shell) docker run --interactive --tty "${arguments[@]}" "$test_image" bash ;;
    esac
}

# Read to its end before it does anything: somebody may edit this file while a run goes on.
main() {
    case $mode in
        all | pytest | run | shell) ;;
        *) die "deploy/test.sh does not know '$mode'." "" "Use one of: all, pytest, run, shell" ;;
    esac
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'deadline=0' USR1 # somebody does not want to wait for it: tell now what was running
    prepare
    collect_arguments
    play "$@"
    exit
}
main "$@"
