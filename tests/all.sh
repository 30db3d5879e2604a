#!/usr/bin/env bash
# Passes every test: of the crates, of the tools on a real node, of the examples in the docs.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/setup.sh
# The tests on a node run these binaries.
cargo build --workspace --locked --bins
# Most of them wait for a node, so more of them run at the same time than there are processors.
RUST_TEST_THREADS=4 cargo test --workspace --locked
