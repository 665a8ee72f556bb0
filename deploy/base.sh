#!/usr/bin/env bash
# Makes Debian's base image without a registry: deploy/base.sh SUITE TAG
# debootstrap from the mirror in this machine's own apt sources, slimmed like Debian's official slim image, imported.
set -euo pipefail
# shellcheck source=deploy/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=$1 tag=$2
mirror=$(debian_mirror) || die "The base image can neither be pulled nor made." \
    "No image registry answers, and this machine's apt sources name no Debian mirror." \
    "Set GUNPOWDER_DEBIAN_MIRROR to a Debian mirror's address (…/debian), or load debian:$suite-slim with 'docker load'."

# The work itself; runs as root, on the machine or in a container that sees the machine's files.
bootstrap() {
    local suite=$1 mirror=$2 security=$3 target
    target=$(mktemp -d /var/tmp/gunpowder-base.XXXXXX)
    # shellcheck disable=SC2064
    trap "rm -rf --one-file-system '$target'" EXIT
    chmod 0755 "$target" # it becomes the image's /
    # Files nobody reads inside a container; the same choice as in Debian's slim images (licences stay).
    mkdir -p "$target/etc/dpkg/dpkg.cfg.d" "$target/etc/apt/apt.conf.d"
    printf '%s\n' 'path-exclude /usr/share/doc/*' 'path-include /usr/share/doc/*/copyright' 'path-exclude /usr/share/man/*' \
        'path-exclude /usr/share/groff/*' 'path-exclude /usr/share/info/*' 'path-exclude /usr/share/linda/*' \
        'path-exclude /usr/share/lintian/*' 'path-exclude /usr/share/locale/*' >"$target/etc/dpkg/dpkg.cfg.d/docker"
    printf '%s\n' 'APT::Install-Recommends "false";' 'Acquire::Languages "none";' 'Acquire::Retries "3";' \
        'Apt::AutoRemove::SuggestsImportant "false";' 'DPkg::Use-Pty "0";' \
        'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' \
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };' \
        >"$target/etc/apt/apt.conf.d/docker"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$target" "$mirror" >&2
    printf 'deb %s %s main\ndeb %s %s-updates main\n' "$mirror" "$suite" "$mirror" "$suite" >"$target/etc/apt/sources.list"
    [ -z "$security" ] || printf 'deb %s %s-security main\n' "$security" "$suite" >>"$target/etc/apt/sources.list"
    chroot "$target" apt-get update >&2
    DEBIAN_FRONTEND=noninteractive chroot "$target" apt-get -y upgrade >&2
    chroot "$target" apt-get clean
    rm -rf "$target"/var/lib/apt/lists/* "$target"/var/cache/apt/* "$target"/var/log/* "$target"/etc/resolv.conf \
        "$target"/etc/hostname "$target"/usr/share/man/* "$target"/usr/share/locale/* "$target"/usr/share/info/*
    find "$target/usr/share/doc" -type f ! -name copyright -delete
    printf '#!/bin/sh\nexit 101\n' >"$target/usr/sbin/policy-rc.d"
    chmod 0755 "$target/usr/sbin/policy-rc.d"
    tar --numeric-owner --one-file-system --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -C "$target" -c .
}

# The security archive sits beside the main one on most mirrors; take what this machine uses for its own release.
# shellcheck disable=SC1091
security=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    grep -v '^[[:space:]]*#' | grep -oE '[a-z+]+://[^ ]*debian-security' | head -n 1) || true

# Without the tag: a bootstrap that broke off must leave nothing that looks like a base.
import() {
    docker import -c 'CMD ["bash"]' -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' -
}

say "No registry: bootstrapping Debian $suite from $mirror"
if can_be_root; then
    command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] || apt_install debootstrap
    image=$(as_root bash -c "set -euo pipefail; $(declare -f bootstrap); bootstrap \"\$@\"" bootstrap "$suite" "$mirror" "$security" | import)
else
    # A member of the docker group without root: the same work in a container that sees this machine's files through a
    # throw-away overlay, so that debootstrap can be installed there and nothing here changes.
    say "Not root: working in a container made of this machine's own files"
    tar -c --files-from /dev/null | docker import - gunpowder/empty:1 >/dev/null
    loader=$(readlink -f /lib64/ld-linux-x86-64.so.2 2>/dev/null || readlink -f /lib/ld-linux-aarch64.so.1)
    # shellcheck disable=SC2016
    inner='set -euo pipefail
        mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
        mount -t tmpfs tmpfs /mnt/root/var/tmp
        mount -t tmpfs tmpfs /mnt/root/run
        mount -t proc proc /mnt/root/proc
        mount --rbind /dev /mnt/root/dev
        printf "%s\n" "$RESOLV" >/mnt/root/etc/resolv.conf.new && mv -f /mnt/root/etc/resolv.conf.new /mnt/root/etc/resolv.conf
        chroot /mnt/root bash -c "apt-get update >&2; apt-get install -y --no-install-recommends debootstrap >&2"
        exec chroot /mnt/root bash -c "$0" bootstrap "$@"'
    # What mounting takes and no more: not every machine grants --privileged.
    image=$(docker run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --network host -v /:/host:ro -e RESOLV="$(cat /etc/resolv.conf)" \
        -e PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin -e DEBIAN_FRONTEND=noninteractive \
        --entrypoint "/host$loader" gunpowder/empty:1 \
        --library-path "/host/lib/$(uname -m)-linux-gnu:/host/usr/lib/$(uname -m)-linux-gnu" \
        /host/usr/sbin/chroot /host /bin/bash -c "$inner" \
        "set -euo pipefail; $(declare -f bootstrap); bootstrap \"\$@\"" "$suite" "$mirror" "$security" | import)
fi
docker tag "$image" "$tag"
