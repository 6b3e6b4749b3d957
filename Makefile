# Two commands: `make run` shows the scheduler at work, `make test` checks everything.

PREFIX ?= /usr/local
DESTDIR ?=
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Where the program looks for its settings.
CONFDIR = /etc/scheduler
CARGO ?= cargo
CLANG_FORMAT ?= $(shell ls /usr/bin/clang-format /usr/bin/clang-format-* 2>/dev/null | grep -E 'format(-(1[89]|[2-9][0-9]))?$$' | sort -V | tail -n 1)
C_FILES = $(wildcard src/bpf/*.[ch] src/sim/*.c src/sim/include/*.h src/sim/include/scx/*.h)
TARGET = $(or $(CARGO_TARGET_DIR),target)

# What packaging/share.sh writes below $(TARGET)/release/share, and goes to $(PREFIX)/share.
SHARED = man/man8/scheduler.8 bash-completion/completions/scheduler zsh/site-functions/_scheduler \
	fish/vendor_completions.d/scheduler.fish

# For `make vm`: words of case names or case numbers, and series of kernels. Without either: what `make test` runs.
CASE ?=
KERNELS ?=

# For `make bench`: words of lab/scenarios (default: all), peers too or some of them, samples, parallel CPUs, the scheduler's
# arguments, another folder for the report.
SCENARIO ?=
PEERS ?=
SAMPLES ?= 5
MODE ?= deterministic
JOBS ?= 2
ARGS ?=
OUT ?= lab/results

# For `make soak`: seeds of the simulator, and seconds for each parser. For `make fuzz`: TARGETS of fuzz/fuzz_targets, all by default.
SEEDS ?= 10000
SECONDS ?= 60
TARGETS ?=

.PHONY: run metrics bench sim-bench soak fuzz perfetto gate examples test test-all check unit vm-all build share install uninstall kernel-6.12 kernels lint format vm deb rpm package-test clean

# Says first where: on this machine if its kernel has sched_ext, you are root and you agree; else in a VM.
run:
	@scripts/where.sh
	@$(MAKE) --no-print-directory build
	@scripts/setup.sh run
	@scripts/kernels.sh 7.3
	$(CARGO) build --release -p lab
	@$(TARGET)/release/lab run $(TARGET)/release/scheduler

build:
	@scripts/setup.sh build
	$(CARGO) build --release
	@$(MAKE) --no-print-directory share

# The man page and the completions.
share:
	@packaging/share.sh $(TARGET)/release/scheduler $(TARGET)/release/share

# Every case on the newest kernel, the core ones on the others, and a short benchmark against the baseline.
test:
	@scripts/timed.sh $(MAKE) lint unit kernels vm gate

# Every case everywhere.
test-all:
	@scripts/timed.sh $(MAKE) lint unit kernels vm-all

# What needs no virtual machine.
check: lint unit

# All tests are of the release build: it is what users run, and half of the artefacts are `make build`'s.
unit:
	@scripts/setup.sh check
	$(CARGO) test --release --workspace

lint:
	@scripts/setup.sh check
	$(CARGO) fmt --all --check
	$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --release --no-deps -p scheduler

format:
	$(CARGO) fmt --all
	$(CLANG_FORMAT) -i $(C_FILES)

# Some cases on some kernels: make vm CASE=fairness KERNELS="6.18 7.3". Fetches those kernels that they run on.
vm: examples
	@scripts/setup.sh test
	@missing=$$(VM=1 $(CARGO) test --quiet --release --test vm -- $(CASE) --kernel "$(KERNELS)" --missing) || exit; \
		[ -z "$$missing" ] || scripts/kernels.sh $$missing
	VM=1 $(CARGO) test --release --test vm -- $(CASE) --kernel "$(KERNELS)"

vm-all: kernels examples
	$(CARGO) test --release --test vm -- --all

kernels:
	@scripts/kernels.sh

# The policies that cases run. `cargo test` builds but their tests.
examples:
	@scripts/setup.sh build
	$(CARGO) build --release --examples

# Against the kernel's default: make bench SCENARIO=hogs; with peers: make bench PEERS=1, or PEERS=scx_lavd,scx_flash
bench: build
	@scripts/setup.sh bench
	@scripts/kernels.sh 7.3
	@$(CARGO) build --quiet --release -p lab -p lab-guest
	@$(TARGET)/release/lab bench $(SCENARIO) --scheduler $(TARGET)/release/scheduler --samples $(SAMPLES) --mode $(MODE) \
		--jobs $(JOBS) --args="$(ARGS)" --out $(OUT) $(if $(PEERS),--peers$(if $(filter-out 1,$(PEERS)),=$(PEERS)))

# How fast the simulator is, from 4 to 1,024 CPUs: a table, and the chart lab/results/simulator.svg. Alone on the machine.
sim-bench: build
	@$(CARGO) build --quiet --release -p lab
	@$(TARGET)/release/lab scale --scheduler $(TARGET)/release/scheduler --out $(OUT)

# What takes too long for `make test`: the simulator's log over many seeds, in two runs and in a build without optimisation,
# twelve minutes on two idle cores for 10,000; as many random machines; and a minute of bad input for each parser.
soak: build
	@scripts/setup.sh fuzz
	SEEDS=$(SEEDS) $(CARGO) test --release --test simulate every_run -- --nocapture
	PROPTEST_CASES=$(SEEDS) PROPTEST_RNG_SEED=2 $(CARGO) test --release --test simulate no_machine -- --nocapture
	@scripts/fuzz.sh $(SECONDS)

# Bad input for parsers: make fuzz TARGETS=scenario SECONDS=600
fuzz:
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh $(SECONDS) $(TARGETS)

# A trace of the simulator, decoded with the code that Perfetto publishes of its schema.
perfetto: build
	@scripts/setup.sh perfetto
	@.cache/perfetto/bin/python scripts/perfetto-check.py $(TARGET)/release/scheduler scenarios/real-time-neighbour.toml

# A short benchmark against lab/results/baseline.json.
gate: build
	@scripts/setup.sh bench
	@scripts/kernels.sh 7.3
	@$(CARGO) build --quiet --release -p lab -p lab-guest
	VM=1 $(CARGO) test --quiet --release -p lab --test repeat
	@$(TARGET)/release/lab gate --scheduler $(TARGET)/release/scheduler

# What is told to Prometheus, checked and scraped by one.
metrics:
	@scripts/setup.sh metrics
	REQUIRE_PROMETHEUS=1 $(CARGO) test --release --test metrics

kernel-6.12:
	@scripts/kernel-6.12.sh

# After `make build`. The unit starts the binary where it will be once DESTDIR is the root. Settings that are there stay.
# A PREFIX with a blank is quoted in the unit.
PROGRAM = $(PREFIX)/bin/scheduler
install:
	@for file in scheduler $(SHARED:%=share/%); do test -f "$(TARGET)/release/$$file" || { \
		echo "install: run 'make build' first, as the user who has cargo" >&2; exit 1; }; done
	install -D -m 755 "$(TARGET)/release/scheduler" "$(DESTDIR)$(PROGRAM)"
	install -D -m 644 packaging/scheduler.service "$(DESTDIR)$(UNITDIR)/scheduler.service"
	sed -i 's|^ExecStart=.*|ExecStart=$(if $(word 2,$(PROGRAM)),"$(PROGRAM)",$(PROGRAM))|' "$(DESTDIR)$(UNITDIR)/scheduler.service"
	for file in $(SHARED); do \
		install -D -m 644 "$(TARGET)/release/share/$$file" "$(DESTDIR)$(PREFIX)/share/$$file" || exit 1; done
	test -e "$(DESTDIR)$(CONFDIR)/config.toml" || \
		install -D -m 644 packaging/config.toml "$(DESTDIR)$(CONFDIR)/config.toml"

# Settings that somebody changed stay.
uninstall:
	! cmp -s packaging/config.toml "$(DESTDIR)$(CONFDIR)/config.toml" || rm "$(DESTDIR)$(CONFDIR)/config.toml"
	rm -f "$(DESTDIR)$(PROGRAM)" "$(DESTDIR)$(UNITDIR)/scheduler.service"
	for file in $(SHARED); do rm -f "$(DESTDIR)$(PREFIX)/share/$$file" || exit 1; done

# Into target/debian.
deb:
	@scripts/setup.sh deb
	@CARGO="$(CARGO)" packaging/build.sh
	@packaging/deb.sh

# Into target/generate-rpm.
rpm:
	@scripts/setup.sh rpm
	@CARGO="$(CARGO)" packaging/build.sh
	@packaging/rpm.sh

# The packages as a machine of a user sees them, and the chart. As root; it takes minutes.
package-test: deb
	@scripts/setup.sh package
	@packaging/rpm.sh
	@.cache/helm/bin/python packaging/chart-test.py
	@packaging/test.sh

clean:
	$(CARGO) clean
	rm -rf .cache
