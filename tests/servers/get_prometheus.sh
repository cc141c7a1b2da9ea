#!/bin/bash
# Puts Debian's `prometheus` and `promtool` below DIRECTORY/usr/bin unless the machine has them.
# Nothing is installed and no service is started; root is only needed if apt has no lists yet.
#   tests/servers/get_prometheus.sh DIRECTORY
set -euo pipefail

directory=$1
say() { printf '%s\n' "prometheus: $*" >&2; }

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit 0; fi
if [ -x "$directory/usr/bin/promtool" ]; then exit 0; fi
if ! command -v apt-get >/dev/null; then
    say "this machine has no apt-get; install prometheus and promtool yourself, or their tests fail"
    exit 0
fi
mkdir -p "$directory"
cd "$directory"
download() { apt-get -qq -o APT::Sandbox::User=root download prometheus; }
say "fetching Debian's package"
if ! download 2>/dev/null; then
    apt-get -qq update || true
    if ! download; then
        say "can't be fetched; install the package prometheus yourself, or its tests fail"
        exit 0
    fi
fi
dpkg-deb -x ./prometheus_*.deb .
rm -f ./prometheus_*.deb
