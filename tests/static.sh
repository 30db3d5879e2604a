#!/usr/bin/env bash
# Builds the tools as static binaries, and checks what is promised of them: nothing is loaded at start, each is below its limit, and each works
# with the system calls of Linux 3.10.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
# In bytes. mend-containerd has sandboxes, veth, ipam and mend-rm in it.
limit() { case $1 in mend-containerd) echo 6000000 ;; *) echo 5000000 ;; esac; }
tools=(mend-veth mend-ipam mend-pods mend-sandboxes mend-rm mend-containerd)

packages=()
for tool in "${tools[@]}"; do packages+=(-p "$tool"); done
# Without --target the flag would reach build scripts and procedural macros, too, and those cannot be static.
# Packed, the relocations of a binary that lies anywhere in memory take a tenth of their room (glibc 2.36 or later).
RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" cargo build --release --locked --target "$target" "${packages[@]}"
dir=$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/$target/release

failed=0
wrong() { echo "$1" >&2; failed=1; }

# readelf is asked once for each tool: a pipe into `grep -q` would break it under pipefail.
check() {
  local path=$1 elf size limit
  elf=$(readelf --wide --program-headers --dynamic --section-headers "$path")
  size=$(stat --format %s "$path")
  limit=$(limit "${path##*/}")
  printf '%-20s %9d bytes\n' "${path##*/}" "$size"
  case $elf in *INTERP*) wrong "$path asks for a dynamic loader" ;; esac
  case $elf in *NEEDED*) wrong "$path needs shared libraries" ;; esac
  case $elf in *.symtab* | *.debug_*) wrong "$path is not stripped" ;; esac
  ((size < limit)) || wrong "$path is not below $limit bytes"
}
for tool in "${tools[@]}"; do check "$dir/$tool"; done
((failed == 0)) || exit 1

cargo build --locked -p nodemend-lab
NODEMEND_STATIC_DIR=$dir cargo test --locked -p nodemend-lab --lib --test old_kernel
