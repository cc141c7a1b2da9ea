#!/bin/bash
# Boots a small Debian guest whose kernel and file systems have fs-verity, and runs check_seal.py in
# it against this working tree. Needs x86_64, root (for debootstrap), a network the first time.
#   tests/guest/run.sh [WORKDIR]      what is built stays in WORKDIR for the next run
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:-/var/tmp/snapsync-guest}
python=$(realpath --no-symlinks "$(command -v "${PYTHON:-python3}")")
limit_seconds=${LIMIT_SECONDS:-600}
suite=bookworm guest_python=3.11

say() { printf '%s\n' "guest: $*" >&2; }

install_tools() {
    local missing=()
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
    command -v busybox >/dev/null || missing+=(busybox-static)
    command -v cpio >/dev/null || missing+=(cpio)
    command -v depmod >/dev/null || missing+=(kmod)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

build_root() {
    [ -e rootfs/.complete ] && return
    say "building the root file system"
    rm -rf rootfs
    debootstrap --variant=minbase --include=python3,kmod,e2fsprogs "$suite" rootfs >debootstrap.log
    touch rootfs/.complete
}

fetch_kernel() {
    [ -e kernel/.complete ] && return
    say "fetching the kernel"
    rm -rf kernel ./linux-image-*.deb
    # The guest's own package lists, so that kernel and root file system are of one suite.
    cp /etc/resolv.conf rootfs/etc/resolv.conf
    chroot rootfs apt-get -qq update
    local package
    package=$(chroot rootfs apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-6/{print $2}')
    chroot rootfs sh -c "cd /tmp && apt-get -qq -o APT::Sandbox::User=root download $package"
    mv rootfs/tmp/linux-image-*.deb .
    dpkg-deb -x ./linux-image-*.deb kernel
    touch kernel/.complete
}

fetch_libraries() {
    # Cloud stores are not part of this test, so their libraries stay out of the guest.
    "$python" - "$repo/pyproject.toml" >requirements.new <<'PY'
import re, sys, tomllib
with open(sys.argv[1], "rb") as source:
    wanted = tomllib.load(source)["project"]["dependencies"]
print("\n".join(each for each in wanted if not re.match("aiobotocore|pycurl", each)))
PY
    cmp -s requirements.new requirements.txt && [ -d libraries ] && return
    say "fetching the libraries"
    rm -rf libraries
    "$python" -m pip install --quiet --target libraries --only-binary=:all: --implementation cp \
        --python-version "$guest_python" --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -r requirements.new
    mv requirements.new requirements.txt
}

assemble() {
    version=$(ls kernel/lib/modules)
    rm -rf rootfs/lib/modules rootfs/opt initrd
    mkdir -p rootfs/lib/modules rootfs/opt/snapsync
    cp -a "kernel/lib/modules/$version" rootfs/lib/modules/
    depmod -b rootfs "$version"
    cp -a libraries rootfs/opt/libraries
    cp -a "$repo/snapd" "$repo/snapctl" "$repo/tests" rootfs/opt/snapsync/
    install -m755 "$repo/tests/guest/init.sh" rootfs/init.sh

    mkdir -p initrd/{bin,proc,sys,dev,new,lib/modules}
    cp "$(command -v busybox)" initrd/bin/busybox
    for applet in sh mount switch_root modprobe sleep; do ln -sf busybox "initrd/bin/$applet"; done
    cp -a "kernel/lib/modules/$version" initrd/lib/modules/
    find initrd/lib/modules -type f |
        grep -vE 'virtio|ext4|crc32c|crc16|jbd2|mbcache|libcrc|modules\.' | xargs rm -f
    depmod -b initrd "$version"
    install -m755 "$repo/tests/guest/initrd.sh" initrd/init
    (cd initrd && find . | cpio -o -H newc --quiet | gzip -1) >initrd.gz

    rm -f root.img
    truncate -s 1500M root.img
    mkfs.ext4 -q -F -d rootfs root.img
}

boot() {
    say "booting $version"
    # Emulation works everywhere; nested KVM does not.
    timeout "$limit_seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max \
        -m 1024 -smp 2 -nographic -no-reboot -net none \
        -kernel "kernel/boot/vmlinuz-$version" -initrd initrd.gz \
        -append 'console=ttyS0 quiet panic=-1' \
        -drive file=root.img,format=raw,if=virtio,snapshot=on </dev/null |
        tr -d '\r' | sed -n 's/^.*\(guest: \)/\1/p' | tee output.log
    grep -qx 'guest: all passed' output.log
}

[ "$(uname -m)" = x86_64 ] || { say "this needs x86_64"; exit 1; }
[ "$(id -u)" = 0 ] || { say "this needs root, for debootstrap"; exit 1; }
mkdir -p "$work"
chmod 755 "$work"
cd "$work"
install_tools
build_root
fetch_kernel
fetch_libraries
assemble
boot
