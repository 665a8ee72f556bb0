# Sourced by deploy/test.sh: finds and removes what a run of the tests has made.
#
# Everything that a run makes bears its id, gptest-CHECKOUT-NUMBER (make test) or gpdev-CHECKOUT-NUMBER (make t): as the
# beginning of a container's, network's or volume's name or of one of its labels, of a firewall chain's name or a rule's
# comment, of a network namespace's name or an interface's alias, and as the folder below the tests' data that holds its
# files, what it mounts, and its list of what has to be undone. A run lives as long as its container ID-runner is there:
# that one ends with the process that started it (deploy/test/run). Whatever bears the id of a run that does not live is
# removed before the next suite begins, whichever checkout it came from.
#
# Who is alive is asked after what there is, and only what belongs to a run that was seen then and does not live is
# touched: a run that begins meanwhile has nothing to fear. Where one of the questions is not answered, nothing is removed.
# shellcheck shell=bash

# Six digits, the form of deploy/test.sh, written out: not every awk counts. Runs had no number once.
RUN_ID=${RUN_ID:-'gp(test|dev)-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f](-[0-9]+)?'}

# Lines "RUN OBJECT" for lines "OBJECT|NAME|LABEL|LABEL…" in which one begins with a run's id. A name alone has to have the
# number, too: anybody may call something gpdev.
marked() {
    awk -F'|' -v id="$RUN_ID" '{
        for (i = 2; i <= NF; i++) {
            sub(/^gunpowder-test\//, "", $i)
            if (!match($i, "^" id)) continue
            if (length($i) > RLENGTH && substr($i, RLENGTH + 1, 1) ~ /[0-9A-Za-z]/) continue
            found = substr($i, 1, RLENGTH)
            if (i == 2 && found !~ /-[0-9]+$/) continue
            print found, $1
            next
        }
    }'
}

marked_objects() {
    local labels='{{.Label "com.docker.compose.project"}}|{{.Label "gunpowder.instance"}}|{{.Label "gunpowder.test"}}'
    local found
    case $1 in
        container) found=$(ask_engine 30 container ls --all --format "{{.ID}}|{{.Names}}|$labels") ;;
        network) found=$(ask_engine 30 network ls --format "{{.ID}}|{{.Name}}|$labels") ;;
        volume) found=$(ask_engine 30 volume ls --format "{{.Name}}|{{.Name}}|$labels") ;;
        image) found=$(ask_engine 30 image ls --format '{{.Repository}}:{{.Tag}}|{{.Repository}}') ;;
    esac || return 1
    marked <<<"$found"
}

# Lines "KIND RUN OBJECT" of everything that the engine has of any run.
all_objects() {
    local kind found
    for kind in container network volume image; do
        found=$(marked_objects "$kind") || return 1
        sed -n "s/./$kind &/p" <<<"$found"
    done
}

# The runs that live, this one among them: those with a runner, running or just being made, and those that prepare one.
# What has been "created" for minutes was left so by an engine that ended between the two.
living_runs() {
    local found
    found=$(ask_engine 30 container ls --all --format '{{.Names}} {{.State}} {{.RunningFor}}') || return 1
    sed -nE "s/^($RUN_ID)-(runner|host-[0-9]+) ((running|restarting|paused) |created .*(second|About a minute)).*/\\1/p" <<<"$found"
    printf '%s\n' "$id"
}

# dead_among: of the runs on standard input, those that do not live now.
dead_among() {
    local candidates living
    candidates=$(sort -u)
    living=$(living_runs) || return 1
    { grep -vxFf <(printf '%s\n' "$living") <<<"$candidates" || true; } | grep . || true
}

# remove_objects OBJECTS RUN...: of these lines of `all_objects`, those of these runs; nothing that has appeared since.
# What cannot be removed holds up nothing else.
remove_objects() {
    local objects=$1 kind found object flags
    shift
    for kind in container network volume image; do
        found=$(awk -v kind="$kind" -v runs=" $* " '$1 == kind && index(runs, " " $2 " ") { print $3 }' <<<"$objects")
        if [ -z "$found" ]; then continue; fi
        if [ "$*" != "$id" ]; then say "Left by a run that is over: $(wc -l <<<"$found") $kind(s)"; fi
        case $kind in
            container) flags=(--force --volumes) ;; # its nameless volumes bear no mark
            network)
                flags=()
                for object in $found; do disconnect_all "$object"; done
                ;;
            *) flags=(--force) ;;
        esac
        # Side by side: the engine takes half a second for each container.
        xargs -P 4 -n 8 timeout --kill-after=2 120 docker "$kind" rm "${flags[@]}" <<<"$found" >/dev/null 2>&1 || true
        found=$({ marked_objects "$kind" || true; } | awk '{ print $2 }' | { grep -xFf <(printf '%s\n' "$found") || true; })
        if [ -n "$found" ]; then warn "The engine could not remove of its ${kind}s: $(tr '\n' ' ' <<<"$found")"; fi
    done
}

# An engine that was killed may count endpoints that are gone, and keeps a network for them.
disconnect_all() {
    local container
    for container in $(ask_engine 20 network inspect --format '{{range .Containers}}{{.Name}} {{end}}' "$1" 2>/dev/null); do
        ask_engine 20 network disconnect --force "$1" "$container" >/dev/null 2>&1 || true
    done
}

# on_host SECONDS ARGUMENT...: bash in the test image, with this folder as /tools and the host's processes, network and
# loop devices; whoever may use the engine may do that. Not --privileged: a machine may lack one of all capabilities, and
# would then refuse them all.
on_host() {
    local seconds=$1 capability arguments=()
    shift
    for capability in SYS_ADMIN SYS_CHROOT SYS_PTRACE NET_ADMIN NET_RAW DAC_READ_SEARCH; do
        arguments+=(--cap-add "$capability")
    done
    ask_engine "$seconds" run --rm --pid host --network host "${arguments[@]}" \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --device-cgroup-rule 'b 7:* rwm' --device-cgroup-rule 'c 10:237 rwm' \
        --name "$id-host-$RANDOM" --label "gunpowder.test=$id-host" \
        --volume "$ROOT/deploy/test:/tools:ro" --volume "$data:$data" --volume "$(docker_socket):/var/run/docker.sock" \
        --env "RUN_ID=$RUN_ID" --env "GUNPOWDER_TEST_ROOT=$data" --entrypoint /bin/bash \
        "$test_image" "$@"
}

# Everything of runs that are over. Needs the engine; the second half needs the test image, too.
remove_orphans() {
    local objects runs
    objects=$(all_objects) || return 1
    runs=$(awk '{ print $2 }' <<<"$objects" | dead_among) || return 1
    # shellcheck disable=SC2086
    if [ -n "$runs" ]; then remove_objects "$objects" $runs; fi
}

# What only the host knows: what has to be undone, mounts, loop devices, namespaces, interfaces, firewall rules, processes
# whose container is gone, folders.
remove_orphans_from_host() {
    local found runs
    found=$(on_host 60 /tools/host.sh list) || return 1
    runs=$(dead_among <<<"$found") || return 1
    # shellcheck disable=SC2086
    if [ -n "$runs" ]; then on_host 120 /tools/host.sh clean $runs; fi
}

# This run's own things, at its end. First what has to be undone: to let a stopped service go on it must still be there.
remove_this_run() {
    if compgen -G "$data/$id/undo/*.undo" >/dev/null; then on_host 60 /tools/host.sh undo "$id"; fi
    remove_objects "$(all_objects)" "$id"
    on_host 120 /tools/host.sh clean "$id" >/dev/null || warn "Files of this run may be left in $data/$id; the next run removes them."
}
