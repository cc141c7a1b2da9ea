#!/bin/bash
# Runs the units under a real systemd, PID 1 of a container: hardening on, watchdog, reload, restart
# under a waiting client, socket activation, upgrade. Needs root, for podman; builds the image first.
#   tests/deploy/systemd.sh
# The image gives Python and packages; code and units are those of the working tree.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
export CONTAINERS_CONF=$repo/tests/deploy/containers.conf
name=snapsync-systemd-$$
site=/opt/snapsync/lib/python3.11/site-packages

say() { printf '%s\n' "systemd: $*" >&2; }
inside() { podman exec "$name" "$@"; }

podman image exists localhost/snapsync:test && [ -z "${REBUILD:-}" ] ||
    IMAGE_ONLY=1 "$repo/tests/deploy/image.sh"
if ! podman image exists localhost/snapsync-systemd:test || [ -n "${REBUILD:-}" ]; then
    say "adding systemd to the image"
    buildah bud --quiet --pull-never --network host -t localhost/snapsync-systemd:test \
        --ulimit nofile=16384:16384 --ulimit nproc=4096:4096 -f - "$repo/deploy/systemd" >/dev/null <<'END'
FROM localhost/snapsync:test
USER root
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        systemd systemd-sysv procps >/dev/null && rm -rf /var/lib/apt/lists/*
RUN ln -sf "$(command -v snapd)" /usr/bin/snapd; ln -sf "$(command -v snapctl)" /usr/bin/snapctl
END
fi

say "booting"
podman run --detach --rm --name "$name" --systemd=always --privileged --network none \
    --volume "$repo/snapd:$site/snapd:ro" --volume "$repo/snapctl:$site/snapctl:ro" \
    --user root --entrypoint /sbin/init --env container=podman localhost/snapsync-systemd:test >/dev/null
trap 'podman rm --force --time 2 "$name" >/dev/null 2>&1 || true' EXIT
podman cp "$repo/tests/deploy/check_systemd.sh" "$name:/root/check.sh"
podman cp "$repo/deploy/systemd" "$name:/root/units"
for _ in $(seq 100); do
    state=$(inside systemctl is-system-running 2>/dev/null || true)
    case $state in running | degraded) break ;; esac
    sleep 0.3
done
if ! inside bash /root/check.sh; then
    inside journalctl --no-pager -u snapsync -n 60 >&2 || true
    exit 1
fi
