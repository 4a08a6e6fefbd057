# demo, test, bench, install: each first installs what it needs (Debian packages, with sudo when not root), and says
# what and why. Where everything is there already, nothing is asked of the network.

PREFIX ?= /usr/local
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROGRAM := $(TARGET)/release/magnetfs
SOURCES := Cargo.toml Cargo.lock $(shell find src mount -name node_modules -prune -o -name '*.rs' -print \
	-o -name Cargo.toml -print -o -path 'src/web/*' -type f -print)

# What is looked for, and the package that has it.
#
# To build: a linker, a C compiler for the cryptography of https trackers, and npm for hls.js, which the page plays with.
BUILD_NEEDS := cc:build-essential node:nodejs npm:npm
# To run: a user who is not root mounts through fusermount3.
RUN_NEEDS := fusermount3:fuse3
# To play.
DEMO_NEEDS := $(BUILD_NEEDS) $(RUN_NEEDS) ffmpeg:ffmpeg
# To seed, to read and to play, as other people's programs do it, and to check the units.
TEST_NEEDS := $(DEMO_NEEDS) libtorrent:python3-libtorrent transmission-daemon:transmission-daemon \
	transmission-create:transmission-cli aria2c:aria2 mpv:mpv mkvmerge:mkvtoolnix fio:fio getfattr:attr \
	setpriv:util-linux cmp:diffutils systemd-analyze:systemd chromium:chromium
# To compare with.
BENCH_NEEDS := $(TEST_NEEDS) btfs:btfs nginx:nginx-light wrk:wrk

# need WHY,COMMAND:PACKAGE…
define need
	@missing=; for pair in $(2); do \
		command=$${pair%%:*}; package=$${pair##*:}; \
		case $$command in \
			libtorrent) /usr/bin/python3 -c 'import libtorrent' 2>/dev/null && continue ;; \
			*) PATH=$$PATH:/usr/sbin:/sbin command -v $$command >/dev/null && continue ;; \
		esac; \
		missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "$(1), these Debian packages are missing:$$missing"; \
	if [ "$$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi; \
	command -v apt-get >/dev/null || { echo "There is no apt-get here: install them, then call make again."; exit 1; }; \
	if [ -n "$$as_root" ] && ! command -v sudo >/dev/null; then \
		echo "There is no sudo here: as root, run apt-get install$$missing"; exit 1; \
	fi; \
	install="$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing"; \
	echo $$install; \
	$$install || { echo "The lists of packages may be old."; $$as_root apt-get update -q && $$install; } || exit 1; \
	case "$$missing" in *transmission-daemon*) \
		if [ -d /run/systemd/system ]; then \
			echo "The tests start transmission-daemon themselves; its service, which Debian starts, is stopped."; \
			$$as_root systemctl disable --now transmission-daemon; \
		fi ;; \
	esac
endef

.PHONY: all demo test soak bench install uninstall

all: $(PROGRAM)

$(PROGRAM): $(SOURCES)
	$(call need,To build the program,$(BUILD_NEEDS))
	$(CARGO) build --release --locked
	@touch $@

demo:
	$(call need,For the demo,$(DEMO_NEEDS))
	@$(MAKE) --no-print-directory $(PROGRAM)
	$(PROGRAM) demo

# `cargo test` ends with a line `test result: N passed; N failed` for each of its programs.
test:
	$(call need,For the tests,$(TEST_NEEDS))
	@$(CARGO) clippy --version >/dev/null 2>&1 && $(CARGO) fmt --version >/dev/null 2>&1 \
		|| rustup component add clippy rustfmt
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) test --workspace --locked -- --test-threads=2

# The long versions: SOAK times as many simulated swarms, CHURN_SECONDS of peers that die, return, stall and lie, KILLS
# of FFmpeg under play, and FUZZ_SECONDS of each fuzz target. Everything is run, then what each came to is said.
SOAK ?= 20
CHURN_SECONDS ?= 600
KILLS ?= 100
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := message handshake extension metadata tracker metainfo media
SOAK_DIR := $(TARGET)/soak

soak:
	$(call need,To soak,$(TEST_NEEDS))
	@mkdir -p $(SOAK_DIR)
	$(CARGO) test --workspace --locked --no-run
	cd tests/fuzz && $(CARGO) build --release --locked
	@failed=; \
	run() { \
		name=$$1; shift; echo "$$name runs; $(SOAK_DIR)/$$name.log"; \
		"$$@" > $(SOAK_DIR)/$$name.log 2>&1 || { failed="$$failed $$name"; tail -n 40 $(SOAK_DIR)/$$name.log; }; \
	}; \
	run simulator env SOAK=$(SOAK) $(CARGO) test --locked --lib swarm::simulator; \
	run churn env CHURN_SECONDS=$(CHURN_SECONDS) $(CARGO) test --locked --test whole churn; \
	run kills env KILLS=$(KILLS) $(CARGO) test --locked --test whole ffmpeg_killed; \
	for target in $(FUZZ_TARGETS); do \
		mkdir -p $(SOAK_DIR)/corpus/$$target; \
		run fuzz-$$target sh -c 'corpus=$$(realpath $(SOAK_DIR)/corpus/$$1) && cd tests/fuzz && \
			exec $(CARGO) run --release --locked --bin $$1 -- -max_total_time=$(FUZZ_SECONDS) $$corpus' sh $$target; \
	done; \
	grep -h '^test result: [^0]* [1-9]' $(SOAK_DIR)/simulator.log | sed 's/^/simulator: /'; \
	grep -h 'churn of' $(SOAK_DIR)/churn.log; \
	grep -h ' kills in ' $(SOAK_DIR)/kills.log; \
	for target in $(FUZZ_TARGETS); do \
		echo "fuzz $$target: $$(grep -h '^Done ' $(SOAK_DIR)/fuzz-$$target.log || echo a finding)"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

bench:
	$(call need,For the bench,$(BENCH_NEEDS))
	$(CARGO) bench --bench side_by_side --locked

# Where the binary is there and newer than its source, this needs no Rust: `make && sudo make install`.
install: $(PROGRAM)
	$(call need,To run the program,$(RUN_NEEDS))
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/magnetfs
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/systemd/user
	$(PROGRAM) man > $(DESTDIR)$(PREFIX)/share/man/man1/magnetfs.1
	$(PROGRAM) completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/magnetfs
	$(PROGRAM) completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_magnetfs
	$(PROGRAM) completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/magnetfs.fish
	for kind in system user; do for unit in systemd/$$kind/*; do \
		sed 's|/usr/local/|$(PREFIX)/|g' $$unit > $(DESTDIR)$(PREFIX)/lib/systemd/$$kind/$${unit##*/} || exit 1; \
	done; done

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/magnetfs $(DESTDIR)$(PREFIX)/share/man/man1/magnetfs.1
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/magnetfs
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_magnetfs
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/magnetfs.fish
	for kind in system user; do for unit in systemd/$$kind/*; do \
		rm -f $(DESTDIR)$(PREFIX)/lib/systemd/$$kind/$${unit##*/}; \
	done; done
