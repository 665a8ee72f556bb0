#!/usr/bin/env bash
# Runs in a container with the host's processes and network (deploy/test/leftovers.sh, deploy/test/deadline.sh):
#   host.sh list                  prints the ids of all runs of which the host holds anything, a line each
#   host.sh undo RUN...           carries out what these runs noted as to be undone
#   host.sh clean RUN...          that, and removes their mounts, devices, namespaces, firewall rules, processes and folders
#   host.sh mounted COMMAND...    runs a command where the engine's mounts are
#   host.sh stacks RUN            prints the processes of a run, and the stack of each Python among them
# Only what bears a run's id is touched. See leftovers.sh.
set -uo pipefail

data=$GUNPOWDER_TEST_ROOT
verb=$1
shift
runs=" $* "

# run_of WORD: the id of the run that a word begins with.
run_of() {
    local run
    [[ $1 =~ ^($RUN_ID) ]] || return 1
    run=${BASH_REMATCH[1]}
    case ${1#"$run"} in
        [0-9A-Za-z]*) return 1 ;;
    esac
    printf '%s' "$run"
}

# chosen WORD: whether it belongs to a run that is meant. When all are listed, the run is told instead, and nothing done.
chosen() {
    local run
    run=$(run_of "$1") || return 1
    if [ "$verb" = list ]; then
        printf '%s\n' "$run"
        return 1
    fi
    [[ $runs == *" $run "* ]]
}
told() { printf 'Left by a run that is over: %s\n' "$1"; }

# A process whose mounts are the engine's: dockerd itself, not one in a container. Process 1 may refuse to be looked at.
engine=1
for process in $(pgrep -x dockerd); do
    if [ "$(readlink "/proc/$process/ns/pid")" = "$(readlink /proc/self/ns/pid)" ]; then engine=$process; fi
done
in_host() { timeout --kill-after=2 20 nsenter --target "$engine" --mount -- "$@"; }

# Each note is a file with a command, a word a line; the newest first, as in a stack. One that fails is told and kept: the
# folder goes with the run, so it is tried once more and not for ever.
undo() {
    local folder note words
    for folder in "$data"/*/undo; do
        [ -d "$folder" ] && chosen "$(basename "$(dirname "$folder")")" || continue
        while read -r note; do
            mapfile -t words <"$folder/$note"
            printf 'Undoing what a run left: %s\n' "${words[*]}"
            if timeout --kill-after=2 30 "${words[@]}" </dev/null; then
                rm -f "$folder/$note"
            else
                printf '  it failed (status %s)\n' $?
            fi
        done < <(find "$folder" -maxdepth 1 -name '*.undo' -printf '%f\n' | sort -r)
    done
}

# Paths below the tests' data belong to the run whose folder they are in.
run_of_path() {
    case $1 in
        "$data"/*) printf '%s' "${1#"$data"/}" | cut -d/ -f1 ;;
    esac
}

# The run that a process belongs to: its environment says so.
mark_of() { cat "$1/environ" 2>/dev/null | tr '\0' '\n' | sed -n 's/^GUNPOWDER_\(TEST_ID\|INSTANCE\)=//p' | head -n 1; }

processes() {
    local entry pid mark
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        # In a container: what started the run from outside may bear its name, too.
        [ "$(readlink "$entry/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] || continue
        mark=$(mark_of "$entry")
        if [ -n "$mark" ] && chosen "$mark"; then
            told "process $pid ($(cat "$entry/comm" 2>/dev/null))"
            kill -KILL "$pid" 2>/dev/null
        fi
    done
}

# Deepest first. A device that a run attached to a file of its own may be mounted anywhere.
mounts_and_devices() {
    local point source device file
    while read -r point source; do
        file=$source
        if [[ $source == /dev/loop* ]]; then file=$(cat "/sys/block/${source#/dev/}/loop/backing_file" 2>/dev/null); fi
        if chosen "$(run_of_path "$point")" || chosen "$(run_of_path "$file")"; then
            told "mount $point"
            in_host umount --lazy "$point"
            umount --lazy "$point" 2>/dev/null # this container has a copy of what was mounted below the data
        fi
    done < <(awk '{ for (i = 7; i <= NF; i++) if ($i == "-") print $5, $(i + 2) }' "/proc/$engine/mountinfo" | sort -r)
    for device in /sys/block/loop*/loop/backing_file; do
        [ -r "$device" ] || continue
        if chosen "$(run_of_path "$(cat "$device")")"; then
            file=$(cut -d/ -f4 <<<"$device")
            told "loop device $file of $(cat "$device")"
            in_host losetup --detach "/dev/$file"
        fi
    done
}

namespaces_and_interfaces() {
    local name path
    for name in $(in_host ls /run/netns 2>/dev/null); do
        if chosen "$name"; then
            told "network namespace $name"
            in_host umount --lazy "/run/netns/$name"
            in_host rm -f "/run/netns/$name"
        fi
    done
    for path in /sys/class/net/*/ifalias; do
        name=$(basename "$(dirname "$path")")
        if chosen "$(cat "$path" 2>/dev/null)"; then
            told "interface $name"
            timeout 20 ip link delete "$name"
        fi
    done
}

# rules_of TOOL: lines "TABLE|RULE|RUN'S MARK" and "TABLE|:CHAIN|CHAIN" of all rules with a comment and all chains.
rules_of() {
    timeout 20 "$1-save" 2>/dev/null | awk '
        /^\*/ { table = substr($0, 2); next }
        /^:/ { print table "|" $1 "|" substr($1, 2) }
        /^-A/ && match($0, /--comment "?[^" ]+/) {
            mark = substr($0, RSTART, RLENGTH); sub(/^--comment "?/, "", mark)
            print table "|" $0 "|" mark
        }'
}

# Rules first, then the chains that they led to.
firewall() {
    local tool table rule mark family name
    for tool in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
        while IFS='|' read -r table rule mark; do
            [[ $rule == -A* ]] && chosen "$mark" || continue
            told "firewall rule $rule"
            # Split as a shell would, without being one: the text is whatever somebody called a rule.
            xargs timeout 20 "$tool" --wait 5 --table "$table" --delete <<<"${rule#-A }"
        done < <(rules_of "$tool")
        while IFS='|' read -r table rule mark; do
            [[ $rule == :* ]] && chosen "$mark" || continue
            told "firewall chain $mark"
            timeout 20 "$tool" --wait 5 --table "$table" --flush "$mark"
            timeout 20 "$tool" --wait 5 --table "$table" --delete-chain "$mark"
        done < <(rules_of "$tool")
    done
    for family in inet ip ip6 bridge; do
        while read -r _ _ name; do
            if chosen "$name"; then
                told "firewall table $family $name"
                timeout 20 nft delete table "$family" "$name"
            fi
        done < <(timeout 20 nft list tables "$family" 2>/dev/null)
    done
}

folders() {
    local folder
    for folder in "$data"/*; do
        if [ -d "$folder" ] && chosen "$(basename "$folder")"; then
            told "folder $folder"
            rm -rf --one-file-system "$folder"
        fi
    done
}

clean() {
    undo
    processes
    mounts_and_devices
    namespaces_and_interfaces
    firewall
    folders
}

# Everything that runs for this run, oldest first, with what the kernel waits for; then the stacks, pytest's own first.
stacks() {
    local entry pid mark shown=() ours=() others=()
    printf '\n--- its processes (pid, seconds, state, waits in, command)\n'
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        mark=$(mark_of "$entry")
        if [ -z "$mark" ] || ! chosen "$mark"; then continue; fi
        shown+=("$pid")
        [[ $(readlink "/proc/$pid/exe" 2>/dev/null) == */python3* ]] || continue
        if grep -qsz '^GUNPOWDER_TEST_ID=' "$entry/environ"; then ours+=("$pid"); else others+=("$pid"); fi
    done
    [ ${#shown[@]} -gt 0 ] || return 0
    ps -o pid=,etimes=,stat=,wchan:20=,args= --sort=-etimes -p "$(IFS=, && printf '%s' "${shown[*]}")" | cut -c1-160 | head -n 60
    for pid in "${ours[@]}" "${others[@]}"; do
        printf '\n--- Python stack of process %s: %s\n' "$pid" "$(cat "/proc/$pid/cmdline" 2>/dev/null | tr '\0' ' ' | cut -c1-120)"
        timeout --kill-after=2 10 py-spy dump --nonblocking --pid "$pid" 2>&1 | grep -v '^Process\|^Python v' | head -n 40
    done
}

case $verb in
    list) clean | sort -u ;;
    undo) undo ;;
    clean) clean ;;
    mounted) in_host "$@" ;;
    stacks) stacks ;;
esac
