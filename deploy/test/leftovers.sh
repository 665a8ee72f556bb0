# Sourced by deploy/test.sh: finds and removes what a run of the tests has made.
#
# Everything that a run makes bears its id, gptest-CHECKOUT-NUMBER (make test) or gpdev-CHECKOUT-NUMBER (make t): as the
# beginning of a container's, network's or volume's name or of one of its labels, of a firewall chain's name or a rule's
# comment, of a network namespace's name or an interface's alias, and as the folder below the tests' data that holds its
# files, what it mounts, and its list of what has to be undone. A run lives as long as its container ID-runner runs: that
# one ends with the process that started it (deploy/test/run). Whatever bears the id of a run that does not live is
# removed before the next run makes anything, whichever checkout it came from.
# shellcheck shell=bash

RUN_ID='gp(test|dev)-[0-9a-f]+(-[0-9]+)?'

# Lines "RUN OBJECT" for lines "OBJECT|WORD|WORD…" in which a word begins with a run's id.
marked() {
    awk -F'|' -v id="$RUN_ID" '{
        for (i = 2; i <= NF; i++) {
            sub(/^gunpowder-test\//, "", $i)
            if (match($i, "^" id) && (length($i) == RLENGTH || substr($i, RLENGTH + 1, 1) !~ /[0-9A-Za-z]/)) {
                print substr($i, 1, RLENGTH), $1
                next
            }
        }
    }'
}

marked_objects() {
    local labels='{{.Label "com.docker.compose.project"}}|{{.Label "gunpowder.instance"}}|{{.Label "gunpowder.test"}}'
    case $1 in
        container) ask_engine 30 container ls --all --format "{{.ID}}|{{.Names}}|$labels" ;;
        network) ask_engine 30 network ls --format "{{.ID}}|{{.Name}}|$labels" ;;
        volume) ask_engine 30 volume ls --format "{{.Name}}|{{.Name}}|$labels" ;;
        image) ask_engine 30 image ls --format '{{.Repository}}:{{.Tag}}|{{.Repository}}' ;;
    esac 2>/dev/null | marked
}

# The runs that live: "ID ID …", this one among them.
living_runs() {
    local running
    running=$(ask_engine 30 container ls --filter status=running --format '{{.Names}}' 2>/dev/null |
        sed -nE "s/^($RUN_ID)-runner\$/\\1/p" | tr '\n' ' ')
    printf '%s %s' "$id" "$running"
}

# remove_objects CHOICE RUN...: the engine's objects of these runs ("of"), or of all runs but these ("but").
remove_objects() {
    local choice=$1 kind found
    shift
    for kind in container network volume image; do
        found=$(marked_objects "$kind" | awk -v choice="$choice" -v runs=" $* " '
            (index(runs, " " $1 " ") > 0) == (choice == "of") { print $2 }')
        if [ -z "$found" ]; then continue; fi
        if [ "$choice" = but ]; then say "Left by a run that is over: $(wc -l <<<"$found") $kind(s)"; fi
        # Side by side: the engine takes half a second for each container. One that it cannot remove holds up no other.
        xargs -P 4 -n 8 timeout --kill-after=2 120 docker "$kind" rm --force <<<"$found" >/dev/null 2>&1 || true
        if [ "$kind" = container ]; then
            found=$(marked_objects container | awk -v choice="$choice" -v runs=" $* " '
                (index(runs, " " $1 " ") > 0) == (choice == "of") { print $2 }')
            if [ -n "$found" ]; then warn "The engine could not remove: $(tr '\n' ' ' <<<"$found")"; fi
        fi
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

# What only the host knows: what has to be undone, mounts, loop devices, namespaces, interfaces, firewall rules, processes
# whose container is gone, folders.
remove_from_host() {
    local choice=$1
    shift
    on_host 120 /tools/host.sh clean "$choice" "$@" || warn "The host could not be tidied completely."
}

# Everything of runs that are over. Needs the engine; the second half needs the test image, too.
remove_orphans() {
    local runs
    read -ra runs <<<"$(living_runs)"
    remove_objects but "${runs[@]}"
}
remove_orphans_from_host() {
    local runs
    read -ra runs <<<"$(living_runs)"
    remove_from_host but "${runs[@]}"
}

# This run's own things, at its end. First what has to be undone: to unpause a service it must still be there.
remove_this_run() {
    if compgen -G "$data/$id/undo/*.undo" >/dev/null; then on_host 60 /tools/host.sh undo of "$id" 2>&1 || true; fi
    remove_objects of "$id"
    remove_from_host of "$id" 2>&1
}
