#!/bin/sh
# Packs what packaging/build.sh has built as an RPM package, into target/generate-rpm.
#
#   packaging/rpm.sh                   scheduler-VERSION-1.ARCHITECTURE.rpm
#   packaging/rpm.sh FILE [VERSION]    into this file, as if it were of that version; for packaging/rpm-test.sh
set -eu
cd -P "$(dirname "$0")/.."
umask 022
target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR="$target/package"
# The time that all files in the package have, so that the same files are packed to the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# cargo-generate-rpm neither strips nor compresses, and keeps the times of files that are older.
stage=$CARGO_TARGET_DIR/release/rpm share=$CARGO_TARGET_DIR/release/share
rm -rf "$stage"
mkdir -p "$stage" "$target/generate-rpm"
[ $# -gt 0 ] || rm -f "$target"/generate-rpm/scheduler-*.rpm
strip -o "$stage/scheduler" "$CARGO_TARGET_DIR/release/scheduler"
gzip -9 -n -c "$share/man/man8/scheduler.8" >"$stage/scheduler.8.gz"
cp "$share/bash-completion/completions/scheduler" "$stage/scheduler.bash"
cp "$share/zsh/site-functions/_scheduler" "$share/fish/vendor_completions.d/scheduler.fish" \
	packaging/scheduler.service packaging/config.toml packaging/metrics.conf packaging/policy.conf packaging/grafana.json \
	LICENSE CHANGELOG.md README.md "$stage/"
touch -d "@$SOURCE_DATE_EPOCH" "$stage"/*
.cache/tools/bin/cargo-generate-rpm --target-dir "$CARGO_TARGET_DIR" --auto-req builtin --output "${1:-$target/generate-rpm/}" ${2:+--set-metadata "version = \"$2\""}
