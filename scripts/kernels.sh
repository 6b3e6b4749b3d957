#!/bin/sh
# Fetches Debian's packaged kernels for the virtual machines into .cache/kernels/SERIES/{vmlinuz,config}.
# Nothing is installed. What is already there stays; silent when nothing is missing.
#
#   scripts/kernels.sh [SERIES...]     default: all that the tests use
#
# 6.12-stock is Debian's own 6.12, which has sched_ext off: the tests want it refused.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh

cache=$PWD/.cache/kernels
[ $# -gt 0 ] || set -- 6.12-stock 6.16 6.18 7.3

missing=
for series; do
	[ -r "$cache/$series/vmlinuz" ] && [ -r "$cache/$series/config" ] || missing="$missing $series"
done
[ -n "$missing" ] || exit 0

fail() {
	echo "kernels: $1" >&2
	echo "kernels: put vmlinuz and config of each into .cache/kernels/SERIES/ by hand, or name one kernel in \$KERNEL" >&2
	exit 1
}

echo "kernels: fetching$missing (nothing is installed)"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "Debian's apt is needed to fetch$missing"
apt_aside "$PWD/.cache/apt-kernels" trixie trixie-backports || fail "no Debian mirror answers"

# newest PATTERN: the package of the highest version whose whole name matches.
newest() {
	# shellcheck disable=SC2086
	apt-cache $apt_options pkgnames | grep -xE "$1" | sort -V | tail -n 1
}

# unpack PACKAGE FOLDER
unpack() {
	# shellcheck disable=SC2086
	(cd "$aside/archives" && apt-get $apt_options download -qq "$1" && dpkg-deb -x "$1"_*.deb "$2" && rm "$1"_*.deb)
}

for series in $missing; do
	number=$(echo "${series%-stock}" | sed 's/\./\\./g')
	unpacked=$aside/unpacked-$series
	rm -rf "$unpacked"
	# From 6.19 on the image package is empty: the kernel and its config have packages of their own.
	package=$(newest "linux-binary-$number\.[0-9.]+[^-]*-cloud-amd64")
	if [ -n "$package" ]; then
		base=linux-base-${package#linux-binary-}
		unpack "$base" "$unpacked" || fail "cannot fetch $base"
	else
		package=$(newest "linux-image-$number\.[0-9.]+[^-]*-cloud-amd64")
	fi
	[ -n "$package" ] || fail "the mirror has no kernel $series any more"
	unpack "$package" "$unpacked" || fail "cannot fetch $package"
	mkdir -p "$cache/$series"
	mv "$(find "$unpacked" -name 'vmlinuz*' -type f)" "$cache/$series/vmlinuz"
	mv "$(find "$unpacked" \( -name 'config' -o -name 'config-*' \) -type f)" "$cache/$series/config"
	rm -rf "$unpacked"
	echo "kernels: $series is $package"
done
