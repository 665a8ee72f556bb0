# Sourced by deploy/test.sh: the deadline of a whole run, enforced from outside of everything that could hang.
# shellcheck shell=bash

minutes=${GUNPOWDER_TEST_MINUTES:-30}
# Whole seconds of the setting, which accepts fractions of a minute.
deadline_seconds=$(awk -v minutes="$minutes" 'BEGIN { printf "%d", minutes * 60 }')
case $deadline_seconds in
    '' | 0 | *[!0-9]*)
        die "GUNPOWDER_TEST_MINUTES is '$minutes'." "A run needs a number of minutes above 0." \
            "Example: GUNPOWDER_TEST_MINUTES=30"
        ;;
esac
deadline=$((SECONDS + deadline_seconds))
current= # the process that is being waited for
ended_by= # what cut the run off, if anything did
by_deadline="the deadline of $minutes minutes"
last_words="The suite had not begun."
exec {never}<> <(:) # nothing ever arrives here: reading from it with a limit is a sleep without a process

# Ends a process and everything below it; nothing else knows the tree of a step that is cut off.
end_tree() {
    local tree=$1 found
    while :; do
        # pid, then after the name in parentheses: state and parent
        found=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v tree=" $tree " '{ pid = $1; sub(/^.*\) /, "");
            if (index(tree, " " $2 " ") && !index(tree, " " pid " ")) printf " %s", pid }')
        if [ -z "$found" ]; then break; fi
        tree+=$found
    done
    # shellcheck disable=SC2086
    kill -TERM $tree 2>/dev/null || true
    read -r -t 2 -u "$never" _ || true
    # shellcheck disable=SC2086
    kill -KILL $tree 2>/dev/null || true
}

# wait_until_deadline PID: the status of a child; 124 once time is up, and the child is still there then.
wait_until_deadline() {
    current=$1
    while kill -0 "$1" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then return 124; fi
        read -r -t 0.3 -u "$never" _ || true
    done
    current=
    wait "$1"
}

# For what comes before the suite: what is cut off is ended, and `step` shows the end of its log.
wait_for_step() {
    local status=0
    wait_until_deadline "$1" || status=$?
    if [ "$status" -eq 124 ] && [ -n "$current" ]; then
        ended_by=$by_deadline
        printf 'The run has had its %s minutes (GUNPOWDER_TEST_MINUTES); ending what it does now.\n' "$minutes" >&2
        end_tree "$1"
        current=
    fi
    return "$status"
}

# bounded COMMAND...: a command that is no step of its own.
bounded() {
    "$@" </dev/null &
    wait_for_step $!
}

# Which test each process is at, as the suite itself has written down (tests/suite/progress.py). The summary beside that is
# kept for the end: it is removed with everything else of this run.
tell_running_tests() {
    local file process since phase test
    for file in "$data/$id/report/running-"*; do
        if read -r process since phase test <"$file"; then
            printf '%s %s (%s since %(%H:%M:%S)T)\n' "$process" "$test" "$phase" "${since%.*}"
        else
            printf 'no test\n'
        fi 2>/dev/null
    done
    if [ -r "$data/$id/report/summary" ]; then last_words=$(cat "$data/$id/report/summary"); fi
}

# Says everything that a person needs to find out what hung. Nothing in here may hang itself.
tell_what_hangs() {
    local name
    set +e # whatever cannot be told now, the rest can
    printf '\n=== DEADLINE: %s minutes (GUNPOWDER_TEST_MINUTES) are over. What was running:\n' "$minutes"
    tell_running_tests
    on_host 150 /tools/host.sh stacks "$id" 2>&1 || printf '(processes and stacks are not to be had: status %s)\n' $?
    printf '\n--- containers\n'
    ask_engine 20 ps --all --format 'table {{.Names}}\t{{.Status}}\t{{.Image}}' 2>&1 | head -n 60
    while read -r name; do
        printf '\n--- the end of the log of %s\n' "$name"
        ask_engine 10 logs --tail 12 "$name" 2>&1 | cut -c1-300
    done < <(ask_engine 20 ps --all --filter "label=com.docker.compose.service" --format '{{.Names}}' 2>/dev/null |
        grep "^$id-" | head -n 20)
    set -e
}

# An engine that ends takes the run with it, and the client says only that it lost a connection.
tell_what_ended() {
    if ask_engine 10 version >/dev/null 2>&1; then return; fi
    ended_by="the end of the Docker engine, which does not answer any more"
    printf '\n=== The engine does not answer any more. What was running:\n'
    tell_running_tests
}

# The end of the output, after everything else: what failed, what was slow, what was running.
tell_summary() {
    printf '\n=== ENDED BY %s\n' "$ended_by"
    printf '%s\n' "$last_words"
}
