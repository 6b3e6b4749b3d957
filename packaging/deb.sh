#!/bin/sh
# Packs what packaging/build.sh has built as a Debian package, into target/debian.
#
#   packaging/deb.sh                   scheduler_VERSION-1_ARCHITECTURE.deb
#   packaging/deb.sh FILE [VERSION]    into this file, as if it were of that version; for packaging/test.sh
set -eu
cd -P "$(dirname "$0")/.."
umask 022
# The time that all files in the package have, so that the same files are packed to the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR="$target/package"
# cargo-deb compresses no file of the target folder.
gzip -9 -n -f -k "$CARGO_TARGET_DIR/release/share/man/man8/scheduler.8"
mkdir -p "$target/debian"
# One that is older would be in the image.
[ $# -gt 0 ] || rm -f "$target"/debian/scheduler_*.deb
.cache/tools/bin/cargo-deb --quiet --no-build --strip --output "${1:-$target/debian/}" ${2:+--deb-version "$2"}
