#!/usr/bin/env bash
# Sets everything up and shows the main job on a broken node that it makes for itself.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/setup.sh
cargo build --release --locked --quiet -p mend-veth -p mend-ipam -p nodemend-lab
exec target/release/nodemend-lab demo "$@"
