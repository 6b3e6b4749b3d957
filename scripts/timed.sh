#!/bin/sh
# Makes targets one after the other, and says at the end how long each took.
#
#   scripts/timed.sh MAKE TARGET...
set -eu
make=$1
shift
times='' all=0
for target; do
	begin=$(date +%s)
	$make --no-print-directory "$target"
	took=$(($(date +%s) - begin))
	all=$((all + took))
	times="$times  $target $took s
"
done
printf '\ntimes\n%s  together %s s\n' "$times" "$all"
