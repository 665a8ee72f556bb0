#!/usr/bin/env bash
# Builds the images that are missing:  deploy/images.sh [NAME...]      (all when none is named)
# Prints their tags as settings:       deploy/images.sh --tags NAME...
#
# A tag is the hash of everything that goes into the image, so "is it up to date" is "does the tag exist": a second run
# builds nothing and takes a fraction of a second, and two checkouts with the same content share images.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

ALL=(base app-deps app test nginx postgres redis workspace)
SUITE=trixie
# Raise to rebuild everything from a fresh base (security updates, or a change in how the base is made).
BASE_EDITION=1
PULL_SECONDS=20
REGISTRY_DOWN=$STATE_DIR/registry-unreachable

# ---------------------------------------------------------------------------------------------------------- tags

# digest WORD... -- PATH...: twelve digits that change when a word, a file's name or its content changes.
digest() {
    local words=()
    while [ "$1" != -- ]; do words+=("$1") && shift; done
    shift
    {
        printf '%s\n' "${words[@]}"
        find "$@" -type f ! -path '*/__pycache__/*' ! -name '*.pyc' ! -name '*.swp' -print0 | sort -z | xargs -0r sha256sum
    } | sha256sum | cut -c1-12
}

declare -A TAGS=()

# tag_of NAME: sets TAG. What an image is made from is listed here and nowhere else.
tag_of() {
    local name=$1 parent
    if [ -n "${TAGS[$name]:-}" ]; then
        TAG=${TAGS[$name]}
        return
    fi
    case $name in
        base) TAG=$SUITE-$BASE_EDITION ;;
        app-deps) tag_of base && TAG=$(digest "$TAG" -- deploy/app/deps.Dockerfile requirements/production.txt) ;;
        app)
            tag_of app-deps
            parent=$TAG
            if [ ! -f manage.py ] || [ ! -d gunpowder ] || [ ! -d workspaces ]; then
                die "The application image cannot be built." "manage.py, gunpowder/ or workspaces/ is missing." "Check out the whole repository."
            fi
            TAG=$(digest "$parent" -- manage.py gunpowder workspaces hasher deploy/app)
            ;;
        test) tag_of app-deps && TAG=$(digest "$TAG" -- deploy/test/Dockerfile requirements/dev.txt) ;;
        nginx)
            # Only what decides the static files counts, so that a change of a view does not restart nginx.
            tag_of app-deps
            parent=$TAG
            local static=()
            mapfile -t static < <(find gunpowder workspaces -type d -name static 2>/dev/null | sort)
            TAG=$(digest "$parent" -- deploy/nginx nginx gunpowder/settings "${static[@]}")
            ;;
        postgres | redis) tag_of base && TAG=$(digest "$TAG" -- "deploy/$name") ;;
        workspace) tag_of base && TAG=$(digest "$TAG" -- deploy/workspace) ;;
        *) die "There is no image called '$name'." "" "Choose from: ${ALL[*]}" ;;
    esac
    TAG=gunpowder/$name:$TAG
    TAGS[$name]=$TAG
}

exists() { ask_engine 30 image inspect "$1" >/dev/null 2>&1; }

# ------------------------------------------------------------------------------------------------------- registry

# pull IMAGE: bounded, and a registry that could not be reached is not asked again for a day.
pull() {
    [ "${GUNPOWDER_NO_REGISTRY:-}" = 1 ] && return 1
    if [ -n "$(find "$REGISTRY_DOWN" -mmin -1440 2>/dev/null)" ]; then return 1; fi
    if timeout "$PULL_SECONDS" docker pull "$1" 2>&1; then
        rm -f "$REGISTRY_DOWN"
        return 0
    fi
    date -u +%FT%TZ >"$REGISTRY_DOWN"
    say "$1 cannot be pulled here; building our own from Debian packages"
    return 1
}

# -------------------------------------------------------------------------------------------------------- builds

# build NAME DOCKERFILE [ARGUMENT...]
build() {
    local name=$1 file=$2 arguments=() variable
    shift 2
    # The machine's CA bundle (a company CA may be in it) and its package indexes go in as secrets: present while a step
    # runs, in no layer.
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
        arguments+=(--secret "id=ca,src=/etc/ssl/certs/ca-certificates.crt")
    fi
    if [ -n "${PIP_INDEX_URL:-}" ]; then arguments+=(--secret "id=pip_index,env=PIP_INDEX_URL"); fi
    if [ -n "${npm_config_registry:-}" ]; then arguments+=(--secret "id=npm_registry,env=npm_config_registry"); fi
    for variable in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if [ -n "${!variable:-}" ]; then arguments+=(--build-arg "$variable"); fi
    done
    tag_of base
    arguments+=(--build-arg "BASE_IMAGE=$TAG")
    tag_of "$name"
    say "Building $TAG"
    # The default builder is the engine's own, the only one that sees local images as bases.
    docker buildx build --builder default --progress plain --file "$file" --tag "$TAG" \
        --label "gunpowder.image=$name" "${arguments[@]}" "$@" .
}

build_one() {
    local name=$1 parent
    case $name in
        base)
            tag_of base
            if pull "debian:$SUITE-slim"; then docker tag "debian:$SUITE-slim" "$TAG"; else bash deploy/base.sh "$SUITE" "$TAG"; fi
            ;;
        app-deps) build app-deps deploy/app/deps.Dockerfile ;;
        app)
            tag_of app-deps
            build app deploy/app/Dockerfile --build-arg "APP_DEPS_IMAGE=$TAG"
            ;;
        test)
            tag_of app-deps
            build test deploy/test/Dockerfile --build-arg "APP_DEPS_IMAGE=$TAG"
            ;;
        nginx)
            tag_of app
            build nginx deploy/nginx/Dockerfile --build-arg "APP_IMAGE=$TAG"
            ;;
        *) build "$name" "deploy/$name/Dockerfile" ;;
    esac
}

needs() {
    case $1 in
        base) ;;
        app | test) printf 'base app-deps' ;;
        nginx) printf 'base app-deps app' ;;
        *) printf 'base' ;;
    esac
}

# official NAME: the official image for this job, used wherever it can be had.
official() {
    case $1 in
        postgres) printf 'postgres:17' ;;
        redis) printf 'redis:8' ;;
    esac
}

# resolve NAME: sets IMAGE to the image that the stack uses, and MISSING when it does not exist yet. Our own comes first
# once it was built: an official one that appears later must not make the next `make up` replace a running service.
resolve() {
    local name=$1 theirs
    tag_of "$name"
    IMAGE=$TAG MISSING=
    exists "$TAG" && return
    theirs=$(official "$name")
    if [ -n "$theirs" ] && [ "${GUNPOWDER_NO_REGISTRY:-}" != 1 ] && exists "$theirs"; then
        IMAGE=$theirs
        return
    fi
    MISSING=1
}

# Every change of the code makes an image; keep the last few. Those in use cannot be removed and stay.
tidy() {
    docker image ls --format '{{.Repository}}:{{.Tag}}' "gunpowder/$1" | tail -n +6 |
        xargs -r -n 1 docker image rm >/dev/null 2>&1 || true
}

provide() {
    local name=$1 parent theirs
    resolve "$name"
    [ -n "$MISSING" ] || return 0
    theirs=$(official "$name")
    if [ -n "$theirs" ] && pull "$theirs"; then return 0; fi
    for parent in $(needs "$name"); do provide "$parent"; done
    # One builder of an image at a time on this machine; whoever waited finds it done.
    (
        flock 9
        resolve "$name"
        if [ -n "$MISSING" ]; then
            build_one "$name"
            tidy "$name"
        fi
    ) 9>"${TMPDIR:-/tmp}/gunpowder-image-$name.$(id -u).lock"
}

if [ "${1:-}" = --tags ]; then
    shift
    for name in "$@"; do
        resolve "$name"
        variable=${name^^}
        printf 'GUNPOWDER_%s_IMAGE=%s\n' "${variable//-/_}" "$IMAGE"
    done
    exit 0
fi

[ $# -gt 0 ] || set -- "${ALL[@]}"

# Two lanes when there is more to do than the workspace's image: it takes as long as all others together, and most of the
# time goes into downloads and single-threaded unpacking.
lane=
for name in "$@"; do
    if [ "$name" = workspace ] && [ $# -gt 1 ]; then
        resolve workspace
        if [ -n "$MISSING" ]; then
            provide base
            say "Building the workspace's image beside the others, log: ${LOG_DIR#"$ROOT"/}/image-workspace.log"
            (provide workspace) >"$LOG_DIR/image-workspace.log" 2>&1 &
            lane=$!
        fi
    fi
done
for name in "$@"; do
    if [ "$name" != workspace ] || [ $# -eq 1 ]; then provide "$name"; fi
done
if [ -n "$lane" ]; then
    status=0
    wait "$lane" || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 30 "$LOG_DIR/image-workspace.log"
        exit "$status"
    fi
fi
