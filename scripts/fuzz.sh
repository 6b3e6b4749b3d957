#!/bin/sh
# Feeds every parser with mutated input, each for so long: libFuzzer, guided by what the code covers.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]     default: 60 s each, all of fuzz/fuzz_targets
#
# On any toolchain: the instrumentation is a pass of LLVM that stable compilers have, too. What cargo-fuzz adds on nightly,
# AddressSanitizer, finds errors of memory, of which the parsers' language has none. With it: cargo fuzz run TARGET.
# What was found interesting stays in target/fuzz/corpus, and is where the next run begins; what failed, in target/fuzz/failed.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(ls fuzz/fuzz_targets | sed 's/\.rs$//')
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# The versions of the main build.
cp Cargo.lock fuzz/Cargo.lock
# With a target named, these are not for build scripts.
RUSTFLAGS="-Cpasses=sancov-module -Ccodegen-units=1 \
	-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
	cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target-dir "$target" --target "$host"

mkdir -p "$target/failed"
for name; do
	seeds=fuzz/seeds/$name
	case $name in
	scenario) seeds=scenarios ;;
	config) seeds="$target/seeds/config" && mkdir -p "$seeds" && cp packaging/config.toml "$seeds" ;;
	esac
	mkdir -p "$target/corpus/$name"
	echo "fuzz: $name, $seconds s"
	# Memory beyond these bounds, or five seconds for one input, is a failure, too.
	"$target/$host/release/$name" "$target/corpus/$name" "$seeds" -max_total_time="$seconds" -timeout=5 -max_len=65536 \
		-rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$target/failed/$name-" \
		>"$target/$name.log" 2>&1 || {
		tail -n 40 "$target/$name.log" >&2
		echo "fuzz: $name FAILED; the input is in $target/failed, all of the log in $target/$name.log" >&2
		exit 1
	}
	grep -E 'number_of_executed_units|peak_rss_mb' "$target/$name.log" | sed 's/^stat::/  /'
done
