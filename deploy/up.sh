#!/usr/bin/env bash
# make up, make down, make purge. Values: the caller's environment, else .env, else the defaults in docker-compose.yml.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

OVERRIDE=$ROOT/docker-compose.override.yml
IMAGES=(app nginx postgres redis workspace)

# ------------------------------------------------------------------------------------------------------- settings

# The names that the stack knows, from the one list in docker-compose.yml.
setting_names() {
    sed -n '/^x-environment:/,/^x-service:/s/^  \([A-Z_]*\):.*/\1/p' docker-compose.yml |
        grep -vE '^(GUNPOWDER_INSTANCE|GUNPOWDER_SECRETS_DIR|GUNPOWDER_WORKSPACE_IMAGE)$'
}

declare -A DOTENV=()
# .env is read as Compose reads it: NAME=value, an optional "export", quotes, comments. It is never written.
read_dotenv() {
    local line name value
    [ -f .env ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line%$'\r'}
        [[ "$line" =~ ^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=[[:space:]]*(.*)$ ]] || continue
        name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        if [[ "$value" =~ ^\"(.*)\"[[:space:]]*(#.*)?$ ]] || [[ "$value" =~ ^\'(.*)\'[[:space:]]*(#.*)?$ ]]; then
            value=${BASH_REMATCH[1]}
        else
            value=${value%%[[:space:]]#*}
            if [[ "$value" == \#* ]]; then value=; fi
            value=${value%"${value##*[![:space:]]}"}
        fi
        DOTENV[$name]=$value
    done <.env
}

# value NAME [DEFAULT]
value() {
    local name=$1 result
    if [ -n "${!name:-}" ]; then result=${!name}; else result=${DOTENV[$name]:-}; fi
    printf '%s' "${result:-${2:-}}"
}

# A string in YAML that Compose will not interpolate.
quoted() {
    local text=${1//\'/\'\'}
    printf "'%s'" "${text//\$/\$\$}"
}

project_name() {
    local name
    name=$(value COMPOSE_PROJECT_NAME gunpowder)
    [[ "$name" =~ ^[a-z0-9][a-z0-9_-]*$ ]] ||
        die "COMPOSE_PROJECT_NAME cannot be '$name'." "Compose takes lower-case letters, digits, dashes and underscores." "For example: COMPOSE_PROJECT_NAME=gunpowder"
    printf '%s' "$name"
}

# The stack that plain `docker compose` in this checkout acts on: what `make up` wrote, else what it would write.
current_project() {
    local name=
    if [ -n "${COMPOSE_PROJECT_NAME:-}" ]; then name=$COMPOSE_PROJECT_NAME; fi
    if [ -z "$name" ] && [ -f "$OVERRIDE" ]; then name=$(sed -n "s/^name: '\(.*\)'$/\1/p" "$OVERRIDE"); fi
    if [ -z "$name" ]; then name=$(project_name); fi
    printf '%s' "$name"
}
current_setting() { # NAME, as the stack of this checkout has it
    local found=
    if [ -f "$OVERRIDE" ]; then found=$(sed -n "s/^  $1: '\(.*\)'$/\1/p" "$OVERRIDE" | head -n 1); fi
    printf '%s' "${found:-$(value "$1" "${2:-}")}"
}

# Compose must see what plain `docker compose` will see later: the files, not this process's variables.
compose() {
    (
        local name
        for name in $(setting_names) $(compgen -v GUNPOWDER_) COMPOSE_PROJECT_NAME COMPOSE_FILE COMPOSE_PROFILES; do unset "$name"; done
        exec docker compose "$@"
    )
}

# ---------------------------------------------------------------------------------------------------- make up

check_settings() {
    local port root
    port=$(value GUNPOWDER_PORT 8080)
    if ! [[ "$port" =~ ^[1-9][0-9]{0,4}$ ]] || [ "$port" -gt 65535 ]; then
        die "GUNPOWDER_PORT cannot be '$port'." "It must be a port number, 1 to 65535." "For example: GUNPOWDER_PORT=8080"
    fi
    if [ "$port" -lt "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024)" ]; then
        die "GUNPOWDER_PORT cannot be $port on this machine." "nginx runs without the right to open ports below $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)." \
            "Choose a higher port, for example GUNPOWDER_PORT=8080, or: sysctl net.ipv4.ip_unprivileged_port_start=$port"
    fi
    root=$(value GUNPOWDER_WORKSPACE_ROOT /x)
    [[ "$root" == /* && "$root" != *:* ]] ||
        die "GUNPOWDER_WORKSPACE_ROOT cannot be '$root'." "It must be an absolute path without a colon." "For example: GUNPOWDER_WORKSPACE_ROOT=/srv/workspaces"
    [ -S "$(docker_socket)" ] ||
        die "There is no engine socket at $(docker_socket)." "The worker needs it to start workspaces." "Set GUNPOWDER_DOCKER_SOCKET to the engine's unix socket."
}

write_override() {
    local project=$1 name text service root variable
    declare -A tag=()
    while IFS='=' read -r name variable; do tag[$name]=$variable; done < <(bash deploy/images.sh --tags "${IMAGES[@]}")
    root=$(value GUNPOWDER_WORKSPACE_ROOT "/var/lib/gunpowder/$project/workspace")
    # shellcheck disable=SC2016
    text=$(
        printf '# Written by "make up", with the values in force; do not edit. Put values into .env or the environment instead.\n'
        printf 'name: %s\n\nx-environment: &environment\n' "$(quoted "$project")"
        printf '  GUNPOWDER_INSTANCE: %s\n' "$(quoted "$project")"
        printf '  GUNPOWDER_WORKSPACE_IMAGE: %s\n' "$(quoted "$(value GUNPOWDER_WORKSPACE_IMAGE "${tag[GUNPOWDER_WORKSPACE_IMAGE]}")")"
        for name in $(setting_names); do
            case $name in
                GUNPOWDER_WORKSPACE_ROOT) printf '  %s: %s\n' "$name" "$(quoted "$root")" ;;
                GUNPOWDER_PUBLIC_SCHEME) printf '  %s: %s\n' "$name" "$(quoted "$(value GUNPOWDER_PUBLIC_SCHEME http)")" ;;
                GUNPOWDER_PORT) printf '  %s: %s\n' "$name" "$(quoted "$(value GUNPOWDER_PORT 8080)")" ;;
                DATABASE_URL) printf '  %s: %s\n' "$name" "$(quoted "$(value DATABASE_URL 'postgres://gunpowder@/gunpowder?host=/run/postgresql')")" ;;
                REDIS_URL) printf '  %s: %s\n' "$name" "$(quoted "$(value REDIS_URL unix:///run/redis/redis.sock)")" ;;
                *) printf '  %s: %s\n' "$name" "$(quoted "$(value "$name")")" ;;
            esac
        done
        printf '\nservices:\n'
        printf '  init: {image: %s}\n' "$(quoted "${tag[GUNPOWDER_POSTGRES_IMAGE]}")"
        printf '  postgres: {image: %s}\n' "$(quoted "${tag[GUNPOWDER_POSTGRES_IMAGE]}")"
        printf '  redis: {image: %s}\n' "$(quoted "${tag[GUNPOWDER_REDIS_IMAGE]}")"
        for service in migrate web beat; do
            printf '  %s: {image: %s, environment: *environment}\n' "$service" "$(quoted "${tag[GUNPOWDER_APP_IMAGE]}")"
        done
        printf '  hasher: {image: %s}\n' "$(quoted "${tag[GUNPOWDER_APP_IMAGE]}")"
        printf '  worker:\n    image: %s\n    environment: *environment\n    volumes:\n' "$(quoted "${tag[GUNPOWDER_APP_IMAGE]}")"
        printf '      - %s\n' "$(quoted "$(docker_socket):/var/run/docker.sock")" "$(quoted "$root:/app/workspace")"
        printf '  nginx:\n    image: %s\n    environment:\n' "$(quoted "${tag[GUNPOWDER_NGINX_IMAGE]}")"
        printf '      %s: %s\n' GUNPOWDER_PORT "$(quoted "$(value GUNPOWDER_PORT 8080)")" \
            GUNPOWDER_PUBLIC_SCHEME "$(quoted "$(value GUNPOWDER_PUBLIC_SCHEME http)")" \
            GUNPOWDER_TRUSTED_PROXIES "$(quoted "$(value GUNPOWDER_TRUSTED_PROXIES)")"
    )
    if [ -f "$OVERRIDE" ] && [ "$text" = "$(cat "$OVERRIDE")" ]; then
        say "docker-compose.override.yml is up to date"
    else
        # A secret from the caller's environment may be in it.
        (umask 077 && printf '%s\n' "$text" >"$OVERRIDE.new" && mv -f "$OVERRIDE.new" "$OVERRIDE")
        say "docker-compose.override.yml written"
    fi
    printf 'Project %s, port %s, workspaces in %s\n' "$project" "$(value GUNPOWDER_PORT 8080)" "$root" >&3
}

# nginx would only fail and be restarted for ever; say it here instead.
check_port() {
    local port=$1 holder
    if [ -n "$(compose ps --quiet --status running nginx 2>/dev/null)" ] && [ "$2" = "$port" ]; then return 0; fi
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        holder=$(ss -Hltnp "sport = :$port" 2>/dev/null | grep -o 'users:.*' | head -n 1) || true
        die "Port $port is taken." "Another program listens on it${holder:+ ($holder)}." \
            "Stop that program, or choose another port: GUNPOWDER_PORT=8081 make up"
    fi
}

start_services() {
    local status=0 service
    compose up --detach --wait --wait-timeout 240 --remove-orphans || status=$?
    if [ "$status" -eq 0 ]; then return 0; fi
    printf '\n-- services\n'
    compose ps --all --format 'table {{.Service}}\t{{.Status}}'
    # The end of the log of whatever is not well.
    for service in $(compose ps --all --format '{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}' |
        awk '!($2 == "running" && ($3 == "healthy" || $3 == "")) && !($2 == "exited" && $NF == 0) && $2 != "created" { print $1 }'); do
        printf '\n-- log of %s\n' "$service"
        compose logs --no-log-prefix --tail 15 "$service" 2>&1 | sed 's/\x1b\[[0-9;]*[A-Za-z]//g'
    done
    return "$status"
}

first_run() {
    # shellcheck disable=SC2016
    compose exec -T worker bash -c 'if [ -f /app/deploy/app/first_run.py ]; then exec python /app/deploy/app/first_run.py; fi' | tee /dev/fd/3
}

up() {
    local before project
    read_dotenv
    step "Docker engine, Compose, buildx" engine bash deploy/engine.sh
    step "Limits of the kernel" kernel env "GUNPOWDER_RAISE_LIMITS=$(value GUNPOWDER_RAISE_LIMITS yes)" bash deploy/kernel.sh keep
    check_settings
    project=$(project_name)
    before=$(current_setting GUNPOWDER_PORT)
    step "Images" images bash deploy/images.sh app nginx postgres redis workspace
    step "Settings" settings write_override "$project"
    check_port "$(value GUNPOWDER_PORT 8080)" "$before"
    step "Services" services start_services ||
        die "The stack did not become healthy." "See the service's log above." "docker compose ps; docker compose logs SERVICE; then 'make up' again."
    step "First workspace, through the public API" first-run first_run
    step_summary
}

# -------------------------------------------------------------------------------------------- make down, make purge

workspaces_of() { docker container ls --all --quiet --filter "label=gunpowder.instance=$1" "${@:2}"; }

engine_or_nothing() {
    if ! docker version >/dev/null 2>&1; then
        say "The Docker engine does not run, so nothing of the stack does."
        exit 0
    fi
}

down() {
    local project running
    read_dotenv
    engine_or_nothing
    project=$(current_project)
    # The worker first: it would take a workspace that stops for one that was stopped from outside.
    step "Services" down compose --project-name "$project" down --remove-orphans
    running=$(workspaces_of "$project" --filter status=running)
    # shellcheck disable=SC2086
    if [ -n "$running" ]; then step "Workspaces" down-workspaces docker container stop --time 10 $running; fi
    say "All stopped. Users' files, the database and the secrets are kept; 'make up' starts it again."
}

purge() {
    local project root containers networks volumes terminals answer images
    read_dotenv
    engine_or_nothing
    project=$(current_project)
    root=$(current_setting GUNPOWDER_WORKSPACE_ROOT "/var/lib/gunpowder/$project/workspace")
    containers=$(workspaces_of "$project")
    networks=$(docker network ls --quiet --filter "label=gunpowder.instance=$project")
    volumes=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$project")
    terminals=$(docker volume ls --quiet --filter "label=gunpowder.instance=$project")
    say "This deletes, for good:"
    say "  the services of project '$project'"
    say "  $(wc -w <<<"$containers") workspace containers and $(wc -w <<<"$networks") networks"
    say "  the volumes ${volumes//$'\n'/, } (database, broker, secrets)"
    say "  all users' files in $root"
    if [ "${PURGE:-}" != yes ]; then
        [ -t 0 ] || die "Nothing was deleted." "There is no terminal to ask on." "PURGE=yes make purge"
        read -r -p "Type yes to delete: " answer
        [ "$answer" = yes ] || die "Nothing was deleted." "The answer was not 'yes'."
    fi
    step "Services and volumes" purge compose --project-name "$project" down --volumes --remove-orphans
    # shellcheck disable=SC2086
    if [ -n "$containers" ]; then step "Workspace containers" purge-containers docker container rm --force --volumes $containers; fi
    # Those of containers that somebody removed by hand; the others have gone with theirs.
    # shellcheck disable=SC2086
    if [ -n "$terminals" ]; then step "Terminals left behind" purge-terminals docker volume rm --force $terminals; fi
    # Listed anew: workspaces that ended meanwhile took theirs with them.
    networks=$(docker network ls --quiet --filter "label=gunpowder.instance=$project")
    # shellcheck disable=SC2086
    if [ -n "$networks" ]; then step "Networks" purge-networks docker network rm $networks; fi
    # Only what the platform makes is removed, through a container: the files belong to the workspaces' user.
    images=$(docker image ls --quiet --filter label=gunpowder.image=app | head -n 1)
    if [ -n "$images" ]; then
        # shellcheck disable=SC2016
        step "Users' files" purge-files docker run --rm --network none --user 0:0 --entrypoint /bin/bash \
            --volume "$root:/purge" "$images" -c 'shopt -s nullglob; rm -rf --one-file-system /purge/user_* /purge/home_* /purge/notice_*; ls -A /purge'
    fi
    rm -f "$OVERRIDE"
    say "Purged. Images are kept; 'docker image ls gunpowder/*' lists them. Limits of the kernel stay raised: docs/operations.md."
}

# One at a time in a checkout: two would write the same files and fight over the same containers.
exec 8>"$STATE_DIR/lock"
flock --nonblock 8 || {
    say "Another make up, down or purge runs in this checkout; waiting for it"
    flock 8
}

case ${1:-} in
    up) up ;;
    down) down ;;
    purge) purge ;;
    *) die "deploy/up.sh does not know '${1:-}'." "" "Use one of: up, down, purge" ;;
esac
