#!/bin/sh
# Builds what the packages hold, into target/package: the same bytes each time, and without paths of this machine. Apart
# from what `make build` has built, because with other flags for the compiler all is compiled again. RUSTFLAGS do not count.
set -eu
cd -P "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
# Flags are told apart by this character: paths may have blanks.
between=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$PWD=/scheduler$between--remap-path-prefix=${CARGO_HOME:-${HOME:-}/.cargo}=/cargo"
export CARGO_ENCODED_RUSTFLAGS
"${CARGO:-cargo}" build --release --locked --target-dir "$target/package"
packaging/share.sh "$target/package/release/scheduler" "$target/package/release/share"
