#!/usr/bin/env bash
# Runs checks and tests in the test image, against this machine's engine:
#   deploy/test.sh all [PYTEST ARGUMENT...]      engine, all images, linters, types, the whole suite      (make test)
#   deploy/test.sh pytest [PYTEST ARGUMENT...]   pytest alone; images are expected to exist               (make t)
#   deploy/test.sh run COMMAND...                any command in there                                     (make lint …)
#   deploy/test.sh shell                         a shell in there                                         (make test-shell)
#
# The checkout is mounted at its own path and the network is the host's, so that paths and ports mean the same to the
# tests, to the engine and to the containers they start. Nothing here touches what `make up` runs.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

mode=${1:-all}
shift || true

# Everything that a run makes carries this name: its compose project, prefix, labels and data. One name per checkout for
# the whole suite, so that a run also clears what a killed one left; one per process for the rest.
checkout=$(printf '%s' "$ROOT" | sha256sum | cut -c1-6)
if [ "$mode" = all ]; then id=gptest-$checkout; else id=gpdev-$checkout-$$; fi
data=/var/lib/gunpowder-test
stack=(app nginx postgres redis workspace)

case $mode in
    all)
        step "Docker engine, Compose, buildx" engine bash deploy/engine.sh
        step "Images" images bash deploy/images.sh base app-deps app test nginx postgres redis workspace
        ;;
    *)
        bash deploy/engine.sh >/dev/null
        bash deploy/images.sh test >&2
        stack=(app nginx postgres redis workspace)
        ;;
esac

arguments=()
# While the application is being written some images may not exist yet; tests that need one say so.
while IFS='=' read -r name value; do
    arguments+=(--env "$name=$value" --env "${name/GUNPOWDER_/GUNPOWDER_TEST_}=$value")
done < <(bash deploy/images.sh --tags "${stack[@]}")
test_image=$(bash deploy/images.sh --tags test)
test_image=${test_image#*=}

# Objects of this run, by label and by name; the data through a container, because its owner is not us.
remove() { if [ -n "$2" ]; then xargs -r docker "$1" rm "${@:3}" <<<"$2" >/dev/null 2>&1 || true; fi; }
of_this_run() {
    docker "$@" --format '{{.ID}}|{{.Label "com.docker.compose.project"}}|{{.Label "gunpowder.instance"}}|{{.Label "gunpowder.test"}}' 2>/dev/null |
        awk -F'|' -v id="$id" 'index($2, id) == 1 || index($3, id) == 1 || index($4, id) == 1 { print $1 }'
}
cleanup() {
    remove container "$(of_this_run container ls --all)" --force --volumes
    remove network "$(of_this_run network ls)"
    remove image "$(docker image ls --quiet "gunpowder-test/$id-*")" --force
    remove volume "$(docker volume ls --format '{{.Name}}|{{.Label "com.docker.compose.project"}}|{{.Label "gunpowder.instance"}}' |
        awk -F'|' -v id="$id" 'index($2, id) == 1 || index($3, id) == 1 { print $1 }')"
    docker run --rm --network none --volume "$data:$data" --label gunpowder.test=cleanup "$test_image" \
        rm -rf --one-file-system "$data/$id" >/dev/null 2>&1 || true
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ "$mode" = all ]; then cleanup; fi

for name in CI GUNPOWDER_TEST_WORKERS PYTEST_ADDOPTS GUNPOWDER_FAULT_{HOURS,PEOPLE,SEED}; do
    if [ -n "${!name:-}" ]; then arguments+=(--env "$name"); fi
done
arguments+=(
    # The browser is in here, too, and does more than any single one of the containers that it waits for.
    --rm --network host --shm-size 1g --cpu-shares 4096 --name "$id-runner" --label "gunpowder.test=$id-runner"
    --volume "$ROOT:$ROOT" --workdir "$ROOT"
    --volume "$(docker_socket):/var/run/docker.sock"
    --volume "$data:$data"
    # Caches of the tools, shared by all checkouts, outside of them: root in here must leave nothing in a user's folder.
    --volume gunpowder-test-cache:/cache
    --env "GUNPOWDER_TEST_ID=$id" --env "GUNPOWDER_TEST_DATA=$data/$id"
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

# In the background and waited for, so that a signal reaches this script at once and the traps run.
in_container() {
    local status=0
    docker run "${arguments[@]}" "$test_image" "$@" </dev/null &
    wait $! || status=$?
    return "$status"
}

status=0
case $mode in
    all) in_container bash deploy/test/run all "$@" || status=$? ;;
    pytest) in_container bash deploy/test/run pytest "$@" || status=$? ;;
    run) in_container "$@" || status=$? ;;
    shell) docker run --interactive --tty "${arguments[@]}" "$test_image" bash || status=$? ;;
    *) die "deploy/test.sh does not know '$mode'." "" "Use one of: all, pytest, run, shell" ;;
esac
if [ "$mode" = all ]; then step_summary; fi
exit "$status"
