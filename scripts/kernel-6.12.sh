#!/bin/sh
# Builds Linux 6.12 with sched_ext from Debian's source package into .cache/kernels/6.12: the oldest kernel
# that the scheduler supports, and one that Debian packages with sched_ext off. Takes 18 minutes on two idle cores.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh

kernel=$PWD/.cache/kernels/6.12
options=$PWD/lab/kernel-6.12.config
if [ -r "$kernel/vmlinuz" ] && [ -r "$kernel/config" ]; then
	exit 0
fi

lacking=
for tool in gcc make flex bison bc pahole openssl rsync cpio xz; do
	command -v "$tool" >/dev/null || lacking="$lacking $tool"
done
for library in libelf openssl; do
	pkg-config --exists "$library" || lacking="$lacking $library"
done
if [ -n "$lacking" ]; then
	echo "kernel-6.12: install these first:$lacking" >&2
	echo "kernel-6.12: on Debian: apt-get install gcc make flex bison bc dwarves libssl-dev libelf-dev rsync cpio xz-utils" >&2
	exit 1
fi

apt_aside "$PWD/.cache/apt-kernels" trixie || {
	echo "kernel-6.12: no Debian mirror answers" >&2
	exit 1
}
work=$PWD/.cache/build-6.12
mkdir -p "$work"
echo "kernel-6.12: fetching the source"
# shellcheck disable=SC2086 # a list of words
(cd "$aside/archives" && apt-get $apt_options download -qq linux-source-6.12 &&
	dpkg-deb -x linux-source-6.12_*.deb "$work" && rm linux-source-6.12_*.deb)
tar -C "$work" -xf "$work/usr/src/linux-source-6.12.tar.xz"

echo "kernel-6.12: building"
cd "$work/linux-source-6.12"
make -s x86_64_defconfig kvm_guest.config
scripts/kconfig/merge_config.sh -m .config "$options" >/dev/null
make -s olddefconfig
grep -qx CONFIG_SCHED_CLASS_EXT=y .config || {
	echo "kernel-6.12: sched_ext did not stay on; is pahole 1.24 or later, so that BTF can be made?" >&2
	exit 1
}
nice make -s -j"$(nproc)" bzImage
mkdir -p "$kernel"
cp .config "$kernel/config"
cp arch/x86/boot/bzImage "$kernel/vmlinuz"
rm -rf "$work"
