#!/usr/bin/env bash
# Installs what building and testing need on Debian 12. Does nothing where it is there already.
set -euo pipefail

packages=(btrfs-progs build-essential ca-certificates containerd containernetworking-plugins debootstrap e2fsprogs iproute2
  iptables iputils-ping protobuf-compiler rsync runc strace systemd-container util-linux xfsprogs)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done

if ((${#missing[@]})); then
  if [ "$(id -u)" != 0 ]; then
    echo "These Debian packages are missing, and installing them needs root: ${missing[*]}" >&2
    command -v protoc >/dev/null || { echo "Without protobuf-compiler nothing can be built." >&2; exit 1; }
    echo "Going on without them: the lab falls back to its stand-in for containerd." >&2
  else
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # The packaged containerd would start on the machine itself; the lab runs its own, so it must not.
    if [ ! -e /usr/sbin/policy-rc.d ] && [ ! -d /run/systemd/system ]; then
      printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
fi

if ! command -v cargo >/dev/null; then
  echo "Rust is missing: install 1.89 or newer from https://rustup.rs, then run this again." >&2
  exit 1
fi
