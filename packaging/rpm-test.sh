#!/bin/sh
# Checks the RPM package in target/generate-rpm: its life in a tree of files. For packaging/test.sh, whose tree it takes.
#
#   packaging/rpm-test.sh TREE
set -eu
cd "$(dirname "$0")/.."
tree=$1
target=${CARGO_TARGET_DIR:-$PWD/target}

fail() { echo "FAIL $1" >&2; exit 1; }
ok() { echo "ok   $1"; }
# The programs that it names are in the tree, but no database of another kind of packages.
in_tree() { rpm --root "$tree" "$@" --nodeps >"$tree/tmp/log" 2>&1 || { cat "$tree/tmp/log"; fail "rpm $*"; }; }
inside() { chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
# Files, and folders of our name: others are there for whoever comes first.
snapshot() {
	(cd "$tree" && find . \( -path ./var/lib/rpm -o -path ./tmp \) -prune -o \( ! -type d -o -name '*scheduler*' \) -print | sort)
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
rpm=$target/generate-rpm/scheduler-$version-1.$(uname -m).rpm
rpm -qpR "$rpm" 2>/dev/null | grep -q '^libelf.so.1' || fail "it does not ask for libelf"
mkdir -p "$tree/var/lib/rpm"
rpm --root "$tree" --initdb
snapshot >"$tree/tmp/before"

# --- Install an older one, upgrade, remove.
packaging/rpm.sh "$tree/tmp/older.rpm" 0.0.1 >/dev/null
in_tree -i "$tree/tmp/older.rpm"
config=$tree/etc/scheduler/config.toml
inside scheduler config check /etc/scheduler/config.toml >/dev/null || fail "the settings that come along are not good"
inside scheduler -V | grep -q "^scheduler $version " || fail "the program does not run"
for file in bin/scheduler lib/systemd/system/scheduler.service share/man/man8/scheduler.8.gz \
	share/bash-completion/completions/scheduler share/zsh/site-functions/_scheduler \
	share/fish/vendor_completions.d/scheduler.fish share/licenses/scheduler/LICENSE \
	share/doc/scheduler/examples/grafana.json; do
	[ -s "$tree/usr/$file" ] || fail "/usr/$file is missing"
done
[ -x "$tree$(sed -n 's/^ExecStart=//p' "$tree/usr/lib/systemd/system/scheduler.service")" ] || fail "the unit starts nothing"
echo 'slice_us = 4000' >>"$config"
in_tree -U "$rpm"
[ "$(rpm --root "$tree" -q scheduler)" = "scheduler-$version-1.$(uname -m)" ] || fail "it is not upgraded"
inside scheduler config show | grep -q '^slice_us = 4000 .*config.toml' || fail "changed settings do not survive an upgrade"
[ -z "$(find "$tree/etc/systemd" -name 'scheduler*' 2>/dev/null)" ] || fail "the service is enabled without being asked"
in_tree -e scheduler
grep -q '^slice_us = 4000' "$config.rpmsave" || fail "changed settings do not survive a removal"
rm -r "$tree/etc/scheduler"
snapshot >"$tree/tmp/after"
diff "$tree/tmp/before" "$tree/tmp/after" || fail "files are left, or gone"
ok "rpm: install, upgrade, remove; nothing is left"
