#!/bin/bash
# Builds the image twice and runs daemon and jobs from it as containers (check_image.py). Needs root, for
# podman and debootstrap, Debian's packages and PyPI.
#   tests/deploy/image.sh
#   BASE=docker.io/library/python:3.11-slim-bookworm tests/deploy/image.sh   another base than Debian's own
#   IMAGE_ONLY=1 tests/deploy/image.sh        builds it once, as localhost/snapsync:test (or $IMAGE), and stops
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
work=${WORK:-/var/tmp/snapsync-image}
python=$(realpath --no-symlinks "$(command -v "${PYTHON:-python3}")")
base=${BASE:-localhost/snapsync-base:latest}
export IMAGE=${IMAGE:-localhost/snapsync:test}
export CONTAINERS_CONF=$repo/tests/deploy/containers.conf

say() { printf '%s\n' "image: $*" >&2; }

install_tools() {
    local missing=()
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    command -v podman >/dev/null || missing+=(podman)
    command -v buildah >/dev/null || missing+=(buildah)
    command -v runc >/dev/null || missing+=(runc)
    command -v mkfs.xfs >/dev/null || missing+=(xfsprogs)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# A base without a registry: Debian with its own Python.
build_base() {
    [ -z "${BASE:-}" ] || return 0
    podman image exists "$base" && return
    say "making the base"
    rm -rf "$work/rootfs"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm \
        "$work/rootfs" >"$work/debootstrap.log"
    rm -f "$work/rootfs/var/cache/apt/archives/"*.deb
    tar -C "$work/rootfs" -c . | podman import --quiet - "$base" >/dev/null
    rm -rf "$work/rootfs"
}

build_image() {
    say "building $1"
    # The host's certificates, for hosts whose way out has a certificate of its own.
    buildah bud --quiet --pull-never --no-cache --network host --timestamp 315532800 \
        --ulimit nofile=16384:16384 --ulimit nproc=4096:4096 \
        --volume /etc/ssl/certs:/etc/ssl/certs:ro \
        --volume /usr/share/ca-certificates:/usr/share/ca-certificates:ro \
        --volume /usr/local/share/ca-certificates:/usr/local/share/ca-certificates:ro \
        --build-arg "BASE=$base" -f "$repo/deploy/Dockerfile" -t "$1" "$repo" >/dev/null
}

[ "$(id -u)" = 0 ] || { say "this needs root"; exit 1; }
mkdir -p "$work"
install_tools
build_base
[ -z "${BASE:-}" ] || podman image exists "$base" || podman pull --quiet "$base"
build_image "$IMAGE"
[ -z "${IMAGE_ONLY:-}" ] || exit 0
build_image "$IMAGE-again"
first=$(podman image inspect --format '{{.Id}}' "$IMAGE")
again=$(podman image inspect --format '{{.Id}}' "$IMAGE-again")
[ "$first" = "$again" ] || { say "two builds differ: $first and $again"; exit 1; }
say "two builds give the same image, $first"
# Of an image with two names this takes one.
podman untag "$IMAGE-again" "$IMAGE-again"
cd "$repo"
exec "$python" -m pytest -p no:cacheprovider -q "${@:-tests/deploy/check_image.py}"
