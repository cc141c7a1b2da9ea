#!/bin/bash
# Runs in the guest as its only service: two file systems, the checks, power off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export PYTHONPATH=/opt/snapsync:/opt/libraries PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
modprobe loop
ip link set lo up 2>/dev/null
echo "guest: kernel $(uname -r)"
truncate -s 200M /tmp/verity.img /tmp/plain.img
mkfs.ext4 -q -b 4096 -O verity /tmp/verity.img
mkfs.ext4 -q -b 4096 /tmp/plain.img
mkdir -p /mnt/verity /mnt/plain
mount -o loop /tmp/verity.img /mnt/verity
mount -o loop /tmp/plain.img /mnt/plain
cd /opt/snapsync
if python3 -m tests.guest.check_seal 2>&1 | sed 's/^/guest: /'; [ "${PIPESTATUS[0]}" = 0 ]; then
    umount /mnt/verity
    if e2fsck -fn /tmp/verity.img >/tmp/fsck.log 2>&1; then
        echo "guest: ok    the file system is clean afterwards"
        echo "guest: all passed"
    else
        sed 's/^/guest: /' /tmp/fsck.log
        echo "guest: the file system is damaged"
    fi
else
    echo "guest: failed"
fi
sync
echo o >/proc/sysrq-trigger
sleep 10
