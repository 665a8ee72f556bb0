#!/usr/bin/env bash
# Raises what the kernel counts by user to what deploy/kernel.conf says, where this machine lets it; safe to run again:
#   deploy/kernel.sh now      until the next boot
#   deploy/kernel.sh keep     and at every boot from now on (make up)
# Never lowers anything, and never fails: a stack works without it, and the doctor says what it then cannot carry.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

WANTED=$ROOT/deploy/kernel.conf
# After 99-sysctl.conf, where machines have their older values.
KEPT=${GUNPOWDER_SYSCTL_DIR:-/etc/sysctl.d}/99-z-gunpowder.conf
PROC=${GUNPOWDER_PROC:-/proc}
PAIR='^([a-z][a-z0-9._-]*) = ([0-9]+)$'

# enough NAME NOW WANTED: whether there is nothing to raise.
enough() {
    if [ "$1" = fs.pipe-user-pages-soft ]; then
        [ "$2" -eq 0 ]
    else
        [ "$2" -ge "$3" ]
    fi
}

# A line "NAME WANTED NOW" for each that this kernel counts; one that it does not have is left out.
limits() {
    local line now
    while IFS= read -r line; do
        if [[ ! "$line" =~ $PAIR ]]; then continue; fi
        now=$(cat "$(place "${BASH_REMATCH[1]}")" 2>/dev/null) || continue
        printf '%s %s %s\n' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "$now"
    done <"$WANTED"
}

place() { printf '%s' "$PROC/sys/${1//./\/}"; }

raise_all() {
    local name value now file raised=() refused=()
    while read -r name value now; do
        if enough "$name" "$now" "$value"; then continue; fi
        file=$(place "$name")
        # shellcheck disable=SC2016  # expanded by the inner shell, as root
        if as_root bash -c 'printf "%s\n" "$1" >"$0"' "$file" "$value" 2>/dev/null </dev/null &&
            enough "$name" "$(cat "$file")" "$value"; then
            raised+=("$name: $now to $value")
        else
            refused+=("$name = $value (now $now)")
        fi
    done < <(limits)
    if [ ${#raised[@]} -gt 0 ]; then printf 'raised %s\n' "${raised[@]}" >&3; fi
    if [ ${#refused[@]} -gt 0 ]; then
        printf 'not raised: %s\n' "${refused[@]}" >&3
        say "One workspace may use up what all share: have root run deploy/kernel.sh keep" >&3
    fi
}

# For the next boot: what was wanted and is not less than what this machine has by now.
lasting() {
    local name value now
    printf '# Written by "make up" of Gunpowder from deploy/kernel.conf, which says why. To have the old values: delete this, and boot.\n'
    while read -r name value now; do
        if enough "$name" "$now" "$value"; then value=$now; fi
        printf '%s = %s\n' "$name" "$value"
    done < <(limits)
}

keep() {
    local text
    text=$(lasting)
    if [ "$text" = "$(cat "$KEPT" 2>/dev/null)" ]; then return; fi
    # shellcheck disable=SC2016
    if [ -d "$(dirname "$KEPT")" ] && as_root bash -c 'umask 022; printf "%s\n" "$0" >"$1.new" && mv "$1.new" "$1"' "$text" "$KEPT" 2>/dev/null; then
        say "kept for the next boot in $KEPT" >&3
    else
        say "not kept for the next boot: $KEPT cannot be written" >&3
    fi
}

{ : >&3; } 2>/dev/null || exec 3>&1
mode=${1:-}
case $mode in
    now | keep) ;;
    *) die "deploy/kernel.sh does not know '$mode'." "" "Use one of: now, keep" ;;
esac
if [ -n "${DOCKER_HOST:-}" ] && [[ "$DOCKER_HOST" != unix://* ]]; then
    say "The engine is another machine's ($DOCKER_HOST); run deploy/kernel.sh there."
elif [[ "${GUNPOWDER_RAISE_LIMITS:-yes}" =~ ^([Nn]o|NO|[Ff]alse|FALSE|[Oo]ff|OFF|0)$ ]]; then
    say "GUNPOWDER_RAISE_LIMITS=$GUNPOWDER_RAISE_LIMITS: the kernel's limits are left as they are."
else
    [ -r "$WANTED" ] || die "$WANTED cannot be read." "It is part of this repository." "Restore it, then run this again."
    raise_all
    if [ "$mode" = keep ]; then keep; fi
fi
