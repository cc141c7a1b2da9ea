#!/bin/sh
# The first process of the guest: finds the disk and hands over to init.sh on it.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in virtio_pci virtio_blk crc32c_generic ext4; do modprobe $module; done
sleep 0.3
mount -t ext4 /dev/vda /new
mount -t devtmpfs dev /new/dev
exec switch_root /new /init.sh
