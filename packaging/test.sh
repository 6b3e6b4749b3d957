#!/bin/sh
# Checks the Debian package in target/debian: lintian, its life in a Debian tree, and that both packages are the same bytes
# when they are built again.
#
# As root: it makes the tree with mmdebstrap and runs programs in it (chroot). Nothing is installed on this machine.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh

fail() { echo "FAIL $1" >&2; exit 1; }
ok() { echo "ok   $1"; }

[ "$(id -u)" = 0 ] || fail "package-test needs root, to run programs in a Debian tree"
target=${CARGO_TARGET_DIR:-$PWD/target}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
deb=$target/debian/scheduler_$version-1_$(dpkg --print-architecture).deb
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# It is made again below.
cp "$deb" "$work/"
deb=$work/${deb##*/}

# --- lintian. The maintainer's address is for who publishes the package to fill in.
lintian --fail-on error --suppress-tags bogus-mail-host "$deb" || fail "lintian has errors"
ok "lintian finds no error"

# --- A Debian of this machine's release, with what the package depends on.
tree=$work/tree
depends=$(dpkg-deb -f "$deb" Depends | sed 's/([^)]*)//g; s/|[^,]*//g; s/ //g')
mmdebstrap --quiet --variant=minbase --include="$depends" "$(. /etc/os-release; echo "$VERSION_CODENAME")" "$tree" "$(debian_mirror)"
inside() { chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
# What is in the tree, but for what dpkg notes of all it ever did.
snapshot() {
	(cd "$tree" && find . \( -path ./var/lib/dpkg -o -path ./var/log \) -prune -o -print | sort)
}
# doctor NAME: it runs there, checks everything a line a check, and says by its exit code whether something is at fault.
doctor() {
	code=0
	inside scheduler doctor >"$work/doctor" || code=$?
	! grep -vE '^(ok|fault|skip) ' "$work/doctor" || fail "$1: doctor prints other lines"
	[ "$(wc -l <"$work/doctor")" -ge 9 ] || fail "$1: doctor prints too little"
	if grep -q '^fault ' "$work/doctor"; then expected=78; else expected=0; fi
	[ "$code" = "$expected" ] || fail "$1: doctor exits with $code, not $expected"
}
snapshot >"$work/before"

# --- Install an older one, upgrade, remove, purge.
packaging/deb.sh "$tree/tmp/older.deb" 0.0.1-1 >/dev/null
cp "$deb" "$tree/tmp/"
inside dpkg -i /tmp/older.deb >"$work/log" 2>&1 || { cat "$work/log"; fail "the older deb does not install"; }
doctor older
config=$tree/etc/scheduler/config.toml
inside scheduler config check /etc/scheduler/config.toml >/dev/null || fail "the settings that come along are not good"
[ "$(inside dpkg-query -W -f '${Conffiles}' scheduler | grep -c /etc/scheduler/config.toml)" = 1 ] || fail "the settings are no conffile"
echo 'slice_us = 4000' >>"$config"
inside dpkg -i "/tmp/${deb##*/}" >"$work/log" 2>&1 || { cat "$work/log"; fail "the deb does not upgrade"; }
[ "$(inside dpkg-query -W -f '${Version}' scheduler)" = "$version-1" ] || fail "it is not upgraded"
rm "$tree/tmp/"*.deb
doctor newer
inside scheduler config show | grep -q '^slice_us = 4000 .*config.toml' || fail "changed settings do not survive an upgrade"
for file in bin/scheduler lib/systemd/system/scheduler.service share/man/man8/scheduler.8.gz \
	share/bash-completion/completions/scheduler share/zsh/vendor-completions/_scheduler \
	share/fish/vendor_completions.d/scheduler.fish share/doc/scheduler/copyright \
	share/doc/scheduler/examples/grafana.json; do
	[ -s "$tree/usr/$file" ] || fail "/usr/$file is missing"
done
[ -x "$tree$(sed -n 's/^ExecStart=//p' "$tree/usr/lib/systemd/system/scheduler.service")" ] || fail "the unit starts nothing"
[ -z "$(find "$tree/etc/systemd" -name 'scheduler*' 2>/dev/null)" ] || fail "the service is enabled without being asked"
inside dpkg --remove scheduler >"$work/log" 2>&1 || { cat "$work/log"; fail "the deb cannot be removed"; }
[ -s "$config" ] || fail "changed settings do not survive a removal"
inside dpkg --purge scheduler >"$work/log" 2>&1 || { cat "$work/log"; fail "the deb cannot be purged"; }
snapshot >"$work/after"
diff "$work/before" "$work/after" || fail "files are left, or gone"
ok "install, doctor, upgrade, remove, purge; nothing is left"

# --- The other package, in the same tree.
packaging/rpm-test.sh "$tree"

# --- The same bytes, when all is built again from nothing.
rpm=$target/generate-rpm/scheduler-$version-1.$(uname -m).rpm
cp "$rpm" "$work/"
rm -rf "$target/package"
{ packaging/build.sh && packaging/deb.sh && packaging/rpm.sh; } >"$work/log" 2>&1 || { cat "$work/log"; fail "it cannot be built again"; }
cmp "$deb" "$target/debian/${deb##*/}" || fail "the deb has other bytes when it is built again"
cmp "$work/${rpm##*/}" "$rpm" || fail "the rpm has other bytes when it is built again"
ok "built again: the same bytes"
