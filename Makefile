# Everything here installs what it lacks (Debian: apt-get, with sudo unless root) and then does its work.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# rustup's directory may not be in the PATH of a fresh machine, nginx's (/usr/sbin) is not in an ordinary user's.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

CARGO ?= cargo
# In CI the committed Cargo.lock is the truth; at a desk cargo may bring it up to date.
LOCKED := $(if $(CI),--locked)

# command:package, in Debian's names.
BUILD_TOOLS := cc:build-essential cmake:cmake
TEST_TOOLS := $(BUILD_TOOLS) redis-server:redis-server curl:curl
BROWSER_TOOLS := $(TEST_TOOLS) chromium:chromium
CLIENT_TOOLS := $(TEST_TOOLS) node:nodejs python3:python3-venv
BENCH_TOOLS := $(BUILD_TOOLS) nginx:nginx haproxy:haproxy varnishd:varnish wrk:wrk h2load:nghttp2-client openssl:openssl \
	valgrind:valgrind taskset:util-linux python3:python3

TRAIN_TOOLS := $(BUILD_TOOLS) nginx:nginx wrk:wrk h2load:nghttp2-client openssl:openssl taskset:util-linux python3:python3

# Installs the packages whose commands are missing. Package lists are fetched only when the ones at hand do not do.
define install_missing
@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust, see https://rustup.rs" >&2; exit 1; }; \
missing=(); \
for tool in $(1); do command -v "$${tool%%:*}" >/dev/null || missing+=("$${tool##*:}"); done; \
[ $${#missing[@]} -gt 0 ] || exit 0; \
if ! command -v apt-get >/dev/null; then \
	echo "missing: $${missing[*]} (Debian's package names). Install them with this system's package manager." >&2; exit 1; \
fi; \
as_root=(env); \
if [ "$$(id -u)" -ne 0 ]; then \
	command -v sudo >/dev/null || { echo "missing: $${missing[*]}. Not root and no sudo: as root, run: apt-get install $${missing[*]}" >&2; exit 1; }; \
	as_root=(sudo env); \
fi; \
apt=("$${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120); \
install=("$${apt[@]}" install -y --no-install-recommends "$${missing[@]}"); \
echo "installing: $${missing[*]}"; \
"$${install[@]}" || { "$${apt[@]}" update && "$${install[@]}"; }
endef

# With nextest where it is there: a browser then has the machine for itself.
run_tests = $(if $(shell $(CARGO) nextest --version 2>/dev/null),$(CARGO) nextest run $(LOCKED) -E 'test(/^$(1)/)',$(CARGO) test $(LOCKED) --test forebay $(1))

# What rustc is made with, and where the profile-guided build is put.
LLVM = $(shell rustc -vV | sed -nE 's/^LLVM version: ([0-9]+).*/\1/p')
GUIDED := $(or $(CARGO_TARGET_DIR),target)/guided/forebay

# Python's packages, out of the way of the tree.
VENV := target/clients

.PHONY: help run test check format lint docs test-build test-browser test-clients release bench bench-slow bench-compression bench-l2 bench-parts bench-admin \
	build-tools test-tools browser-tools client-tools bench-tools train-tools guide-tools llvm-package

help: ## This list.
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 18

run: build-tools ## Build the release binary and run `forebay demo`: an app with Forebay in front of it.
	$(CARGO) run --release $(LOCKED) --bin forebay -- demo

# The documentation's examples come first, so that the summary of the whole run is the last thing to read.
test: test-tools ## All tests; those with a browser where Chromium is installed.
	@command -v chromium >/dev/null || echo "chromium is not installed: the tests with a browser are skipped (make test-browser installs it)"
	$(CARGO) test $(LOCKED) --doc
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -x; exec $(CARGO) nextest run $(LOCKED) $(if $(CI),--profile ci); \
	else \
		set -x; exec $(CARGO) test $(LOCKED) --lib --bins --tests $(if $(CI),--no-fail-fast); \
	fi

test-build: test-tools
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -x; exec $(CARGO) nextest run $(LOCKED) --no-run; \
	else \
		set -x; exec $(CARGO) test $(LOCKED) --lib --bins --tests --no-run; \
	fi

test-browser: browser-tools ## The tests with Chromium, which is installed if it is missing: compression, dictionaries, the dashboard.
	FOREBAY_BROWSER=required $(call run_tests,browser::)

test-clients: client-tools ## What other clients read: curl, Node's fetch, Python's httpx.
	@[ -x $(VENV)/bin/python ] || python3 -m venv $(VENV)
	@$(VENV)/bin/python -c 'import httpx, brotli, zstandard' 2>/dev/null || $(VENV)/bin/pip -q install 'httpx[brotli,zstd,http2]'
	FOREBAY_CLIENTS=required FOREBAY_PYTHON=$(CURDIR)/$(VENV)/bin/python $(call run_tests,compression::clients::)

check: format lint docs ## Formatting, lints and documentation, warnings denied.

format:
	$(CARGO) fmt --check

lint: build-tools
	$(CARGO) clippy $(LOCKED) --all-targets -- -D warnings

# Private items too: the documentation is read by those who work on them.
docs: build-tools
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --no-deps --document-private-items

release: guide-tools ## The binary to install, compiled with what a load tells of the code (profile-guided): ten minutes; target/guided/forebay.
	benches/guided.sh

bench: bench-tools $(if $(QUICK)$(FOREBAY),,release) ## Forebay (make release) beside nginx, HAProxy, Varnish: ten minutes after its build, two of the plain build with QUICK=1; benches/results.md.
	$(if $(QUICK),$(CARGO) build $(LOCKED) --release --bin forebay)
	$(if $(QUICK),,FOREBAY=$(or $(FOREBAY),$(GUIDED))) python3 benches/compare/compare.py $(if $(QUICK),--quick) $(BENCH)

bench-slow: bench-tools ## One slow server of three: least_time beside nginx's least_conn; half a minute.
	$(CARGO) build $(LOCKED) --release --bin forebay
	python3 benches/compare/slow_server.py $(BENCH)

bench-compression: bench-tools ## Stored compression beside nginx's gzip: sizes, CPU, what streaming JSON waits; three minutes.
	$(CARGO) build $(LOCKED) --release --bin forebay
	python3 benches/compare/compression.py $(BENCH)

bench-l2: bench-tools test-tools ## What a hit out of Redis costs beside one out of memory, and what clients wait while Redis hangs; a minute.
	$(CARGO) build $(LOCKED) --release --bin forebay
	python3 benches/compare/l2.py $(BENCH)

bench-parts: build-tools ## Micro-benches: parsing, routing, a hit's parts, the store.
	$(CARGO) bench $(LOCKED) --benches

bench-admin: test-tools ## What purging and warming up cost: 100,000 responses of one tag, 10,000 URLs, 10,000 races.
	FOREBAY_RACES=10000 $(CARGO) test $(LOCKED) --release --test forebay -- --test-threads 1 --include-ignored --nocapture \
		admin::figures purges_of_every_kind_race fills_and_purges_race

build-tools:
	$(call install_missing,$(BUILD_TOOLS))

test-tools:
	$(call install_missing,$(TEST_TOOLS))

browser-tools:
	$(call install_missing,$(BROWSER_TOOLS))

client-tools:
	$(call install_missing,$(CLIENT_TOOLS))

# rustup's tool where it can be fetched, otherwise LLVM's own of the same version.
guide-tools: train-tools
	@benches/guided.sh tool >/dev/null 2>&1 || rustup component add llvm-tools 2>/dev/null || $(MAKE) llvm-package

llvm-package:
	$(call install_missing,llvm-profdata-$(LLVM):llvm-$(LLVM))

train-tools:
	$(call install_missing,$(TRAIN_TOOLS))

bench-tools:
	$(call install_missing,$(BENCH_TOOLS))
