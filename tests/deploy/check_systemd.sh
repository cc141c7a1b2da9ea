#!/bin/bash
# The inside of systemd.sh: a host with systemd on which the daemon is installed, used and upgraded.
set -euo pipefail
if [ "${container:-}" != podman ] || [ ! -d /root/units ]; then
    echo "this changes the host it runs on: systemd.sh runs it in a container" >&2
    exit 2
fi

ok() { printf 'ok  %s\n' "$*"; }
fail() {
    printf 'NOT OK  %s\n' "$*" >&2
    exit 1
}
show() { systemctl show snapsync --value --property "$1"; }
until_true() { # SECONDS WORDS...
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 10))); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    return 1
}

install -m 644 /root/units/snapsync.{service,socket} /etc/systemd/system/
install -m 644 /root/units/snapsync.sysusers /usr/lib/sysusers.d/snapsync.conf
install -m 644 /root/units/snapsync.tmpfiles /usr/lib/tmpfiles.d/snapsync.conf
systemd-sysusers
systemd-tmpfiles --create snapsync.conf
useradd --create-home --groups snapsync trainer
mkdir -p /srv/store /srv/data/d /etc/snapsync
for n in $(seq 300); do head -c 20000 /dev/urandom >/srv/data/d/$n; done
printf '[daemon]\nstores = ["file:///srv/store"]\ngrace_seconds = 1\n' >/etc/snapsync/config.toml
id=$(snapctl push /srv/data --store file:///srv/store --quiet)
# The limits of this container are lower than those of a host; the watchdog is quicker for the test.
mkdir -p /etc/systemd/system/snapsync.service.d
printf '[Service]\nLimitNOFILE=4096\nWatchdogSec=3\n' >/etc/systemd/system/snapsync.service.d/test.conf
systemctl daemon-reload

systemctl enable --quiet --now snapsync.socket
[ "$(systemctl is-active snapsync.service)" = inactive ] || fail "the service runs before anybody asks"
runuser -u trainer -- snapctl status >/dev/null || fail "the socket does not start the daemon"
[ "$(systemctl is-active snapsync.service)" = active ] || fail "not active"
ok "the first client starts the daemon through the socket unit"

pid=$(show MainPID)
[ "$(ps -o user= -p "$pid")" = snapsync ] || fail "it does not run as snapsync"
[ "$(show NotifyAccess)/$(show WatchdogUSec)" = main/3s ] || fail "no watchdog"
grep -q '^Seccomp:	2' "/proc/$pid/status" || fail "no system call filter"
grep -q '^CapEff:	0000000000000000' "/proc/$pid/status" || fail "it has capabilities"
ok "it runs as its own user, without capabilities, with its system calls filtered"

tree=$(runuser -u trainer -- snapctl pull --id "$id" --store file:///srv/store --quiet)
runuser -u trainer -- cmp "$tree/d/1" /srv/data/d/1 || fail "the tree differs"
runuser -u trainer -- ln -s "$tree" /home/trainer/unused
(cd /tmp && runuser -u trainer -- snapctl checkout --id "$id" --mode symlink /tmp/link --quiet)
snapctl leases | grep -q /tmp/link || fail "a link in /tmp holds nothing"
if runuser -u nobody -- snapctl status >/dev/null 2>&1; then fail "anybody may ask"; fi
ok "a pull by a member of the group, a lease for a link in /tmp, and nobody else"

code=0
runuser -u trainer -- snapctl doctor || code=$?
[ $code = 0 ] || fail "the doctor finds failures: $code"
ok "the doctor finds no failure"

sed -i 's/grace_seconds = 1/grace_seconds = 2/' /etc/snapsync/config.toml
systemctl reload snapsync
[ "$(show MainPID)" = "$pid" ] || fail "a reload restarts it"
ok "a reload"

sleep 7
[ "$(show MainPID)/$(show NRestarts)" = "$pid/0" ] || fail "the watchdog bit a healthy daemon"
kill -STOP "$pid"
until_true 20 bash -c '[ "$(systemctl show snapsync --value -p NRestarts)" = 1 ]' || fail "a hanging daemon is left alone"
until_true 20 runuser -u trainer -- snapctl status || fail "it does not come back"
[ "$(show MainPID)" != "$pid" ] || fail "the same process"
ok "a daemon that hangs is ended by the watchdog and started again"

runuser -u trainer -- snapctl pull --id "$id" --store file:///srv/store --quiet --timeout 60s >/dev/null || fail "no pull after it"
for _ in 1 2 3; do
    systemctl restart snapsync &
    restart=$!
    runuser -u trainer -- snapctl pull --id "$id" --store file:///srv/store --quiet --timeout 60s >/dev/null ||
        fail "a pull during a restart"
    wait $restart
done
ok "pulls during restarts wait for the next daemon"

systemctl stop snapsync.socket snapsync.service
[ -d /run/snapsync ] && [ -r "$tree/d/1" ] || fail "stopping takes trees or directories away"
echo 99 >/var/lib/snapsync/version
if systemctl start snapsync.service 2>/dev/null; then fail "a newer state directory is taken"; fi
journalctl -u snapsync --no-pager | grep -q 'layout version 99' || fail "nobody says why"
ok "a newer state directory is refused, and the journal says why"
echo 1 >/var/lib/snapsync/version
systemctl reset-failed snapsync
systemctl start snapsync.service
runuser -u trainer -- snapctl pull --id "$id" --store file:///srv/store --quiet >/dev/null || fail "not after going back"
ok "with its own version it starts again and has all it had"
