#!/bin/sh
# Writes what the program says of its own command line, the man page and the completions of shells, into a folder that is
# laid out as PREFIX/share.
#
#   packaging/share.sh BINARY FOLDER
set -eu
binary=$1 share=$2
mkdir -p "$share/man/man8" "$share/bash-completion/completions" "$share/zsh/site-functions" "$share/fish/vendor_completions.d"
"$binary" man >"$share/man/man8/scheduler.8"
"$binary" completions bash >"$share/bash-completion/completions/scheduler"
"$binary" completions zsh >"$share/zsh/site-functions/_scheduler"
"$binary" completions fish >"$share/fish/vendor_completions.d/scheduler.fish"
