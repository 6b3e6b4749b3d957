#!/bin/sh
# Makes sure that the tools are there. Silent when nothing is missing.
#
#   scripts/setup.sh build     what compiling needs
#   scripts/setup.sh run       also what a virtual machine under load needs
#   scripts/setup.sh check     also what the checks without a virtual machine need
#   scripts/setup.sh test      also what the virtual machines need (default)
#   scripts/setup.sh bench     also what the benchmarks need
#   scripts/setup.sh deb       what compiling and making the package needs; rpm: the other
#   scripts/setup.sh package   also what checking it needs
#   scripts/setup.sh metrics   what compiling and the checks of metrics need
#   scripts/setup.sh fuzz      what compiling and the fuzz targets need
#   scripts/setup.sh perfetto  what compiling and the check of traces need
#
# On Debian 12 and 13 it installs what is missing, as root or through sudo, and says what. Elsewhere it
# names what is missing and stops. It looks for tools, not for a distribution: where they are, it is content.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh

want=${1:-test}
case $want in
build | run | check | test | bench | deb | rpm | package | metrics | fuzz | perfetto) ;;
*) echo "usage: scripts/setup.sh [build|run|check|test|bench|deb|rpm|package|metrics|fuzz|perfetto]" >&2; exit 2 ;;
esac

has() { command -v "$1" >/dev/null 2>&1; }

# versioned NAME OLDEST: NAME itself, or NAME-NN, of this major version or later.
versioned() {
	for tool in "$1" $(seq -f "$1-%g" 30 -1 "$2"); do
		has "$tool" || continue
		major=$("$tool" --version | sed -n 's/.*version \([0-9]*\).*/\1/p' | head -n 1)
		[ "${major:-0}" -ge "$2" ] && return 0
	done
	return 1
}

libclang() {
	ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' ||
		ls "${LIBCLANG_PATH:-/usr/lib}"/libclang*.so* /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1
}

library() { has pkg-config && pkg-config --exists "$1"; }

static_busybox() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

python_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

# need DEBIAN-PACKAGE WHAT PROBE...: notes the package when the probe fails.
missing='' packages='' qemu=''
need() {
	package=$1 what=$2
	shift 2
	"$@" && return
	missing="$missing
  $what (Debian: $package)"
	# QEMU may have to come from another suite: it is installed apart.
	if [ "$package" = qemu-system-x86 ]; then qemu=$package; else packages="$packages $package"; fi
}

# Debian's own Rust is too old, so this is for the user to install.
RUST=1.91
need_rust() {
	if ! has cargo; then
		rust="cargo is not in \$PATH"
	elif ! printf '%s\n%s\n' "$RUST" "$(cargo --version | cut -d ' ' -f 2)" | sort -CV; then
		rust="$(cargo --version) is too old"
	elif [ "$want" != build ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
		rust="rustfmt or clippy is missing"
	else
		return 0
	fi
	echo "setup: $rust: Rust $RUST or later is needed, with rustfmt and clippy, as rustup installs it;" >&2
	echo "setup: as root through sudo: sudo env \"PATH=\$PATH\" make ..." >&2
	exit 1
}

guests() {
	need qemu-system-x86 "qemu-system-x86_64 10 or later" versioned qemu-system-x86_64 10
	need busybox-static "busybox, statically linked" static_busybox
	need stress-ng "stress-ng" has stress-ng
	need xz-utils "xz" has xz
	need zstd "zstd" has zstd
}

probe() {
	missing='' packages='' qemu=''
	need gcc "a C compiler, gcc" has gcc
	need make "make" has make
	need git "git" has git
	need clang-19 "clang 18 or later" versioned clang 18
	need libclang-19-dev "libclang, for bindgen" libclang
	need pkg-config "pkg-config" has pkg-config
	need libelf-dev "libelf with headers" library libelf
	need_rust
	need zlib1g-dev "zlib with headers" library zlib
	[ "$want" != build ] || return 0
	if [ "$want" = run ]; then
		guests
		return 0
	fi
	if [ "$want" = deb ] || [ "$want" = package ]; then
		need dpkg-dev "dpkg-shlibdeps" has dpkg-shlibdeps
		[ "$want" = package ] || return 0
		need lintian "lintian" has lintian
		need rpm "rpm" has rpm
		need mmdebstrap "mmdebstrap" has mmdebstrap
		need python3-venv "Python with venv" python_venv
		return 0
	fi
	if [ "$want" = rpm ]; then
		need binutils "strip" has strip
		return 0
	fi
	if [ "$want" = perfetto ]; then
		need python3-venv "Python with venv" python_venv
		return 0
	fi
	if [ "$want" = fuzz ]; then
		need g++ "a C++ compiler, g++" has c++
		return 0
	fi
	if [ "$want" = metrics ]; then
		need prometheus "prometheus and promtool" has promtool
		return 0
	fi
	need clang-format-19 "clang-format 18 or later" versioned clang-format 18
	need systemd "systemd-analyze" has systemd-analyze
	need mandoc "mandoc" has mandoc
	need zsh "zsh" has zsh
	need fish "fish" has fish
	[ "$want" != check ] || return 0
	guests
	need rt-tests "cyclictest and hackbench" has cyclictest
	need util-linux "setpriv and taskset" has setpriv
	[ "$want" = bench ] || return 0
	need linux-perf "perf" has perf
	# scx_rustland, one of the peers, is linked with it.
	need libseccomp-dev "libseccomp with headers" library libseccomp
}

# What no distribution packages, at pinned versions, in .cache.
package_tools() {
	if [ "$want" = perfetto ]; then
		"$PWD/.cache/perfetto/bin/python" -c 'import perfetto.protos' 2>/dev/null && return
		echo "setup: fetching perfetto 0.59.1 into .cache/perfetto"
		python3 -m venv "$PWD/.cache/perfetto"
		"$PWD/.cache/perfetto/bin/pip" install --quiet perfetto==0.59.1
	fi
	tools=$PWD/.cache/tools
	if [ "$want" = rpm ] || [ "$want" = package ]; then
		if [ "$("$tools/bin/cargo-generate-rpm" --version 2>/dev/null)" != "cargo-generate-rpm 0.21.1" ]; then
			echo "setup: building cargo-generate-rpm 0.21.1 into .cache/tools, a few minutes"
			cargo install --quiet --locked --version 0.21.1 --root "$tools" cargo-generate-rpm
		fi
	fi
	[ "$want" = deb ] || [ "$want" = package ] || return 0
	if [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != "cargo-deb 3.8.0" ]; then
		echo "setup: building cargo-deb 3.8.0 into .cache/tools, a few minutes"
		cargo install --quiet --locked --version 3.8.0 --root "$tools" cargo-deb
	fi
	[ "$want" = package ] || return 0
	# Helm's engine and the schemas of Kubernetes, which Debian does not package.
	"$PWD/.cache/helm/bin/python" -c 'import helm_python, kubernetes_validate' 2>/dev/null && return
	echo "setup: fetching helm-python-sdk and kubernetes-validate into .cache/helm"
	python3 -m venv "$PWD/.cache/helm"
	"$PWD/.cache/helm/bin/pip" install --quiet helm-python-sdk==0.2.2 kubernetes-validate==1.37.0
}

probe
[ -n "$missing" ] || { package_tools; exit 0; }

release=$(. /etc/os-release 2>/dev/null && echo "${ID:-}-${VERSION_ID:-}")
case $release in
debian-12 | debian-13) ;;
*)
	echo "setup: these are missing, install them and try again:$missing" >&2
	exit 1
	;;
esac
as_root=''
if [ "$(id -u)" != 0 ]; then
	has sudo || {
		echo "setup: these are missing, install them as root and try again:$missing" >&2
		exit 1
	}
	as_root=sudo
fi
export DEBIAN_FRONTEND=noninteractive

if [ -n "$packages" ]; then
	echo "setup: installing$packages"
	$as_root apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	$as_root apt-get install -y -qq --no-install-recommends $packages
fi
if [ -n "$qemu" ] && [ "$release" = debian-13 ]; then
	echo "setup: installing $qemu"
	$as_root apt-get update -qq
	$as_root apt-get install -y -qq --no-install-recommends "$qemu"
elif [ -n "$qemu" ]; then
	echo "setup: installing $qemu from bookworm-backports (your apt sources stay as they are)"
	apt_aside "$PWD/.cache/apt-qemu" bookworm bookworm-backports
	# shellcheck disable=SC2086
	$as_root apt-get $apt_options install -y -qq --no-install-recommends -t bookworm-backports "$qemu"
fi

probe
[ -z "$missing" ] || {
	echo "setup: still missing after the installation:$missing" >&2
	exit 1
}
package_tools
