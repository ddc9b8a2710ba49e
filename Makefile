# Two commands are all a fresh Debian machine with Rust needs: `make demo` and `make test`.

CARGO ?= cargo

.PHONY: build demo test check fmt clippy doc deny docs-check docs-generate fuzz-smoke tools demo-tools test-tools

build:
	$(CARGO) build --release --locked

# The main job on real input; see contrib/demo/run.sh.
demo: tools demo-tools
	contrib/demo/run.sh

test: tools test-tools
	$(CARGO) test --locked

# What CI checks beside the tests.
check: fmt clippy doc docs-check deny fuzz-smoke

fmt:
	$(CARGO) fmt --all --check

clippy: test-tools
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# Man page, completions and docs/cli.md come from the CLI definition.
docs-check:
	$(CARGO) run --locked --quiet --example generate -- --check

docs-generate:
	$(CARGO) run --locked --quiet --example generate

deny:
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

fuzz-smoke:
	contrib/ci/fuzz-smoke

demo-tools:
	@contrib/ci/install python3:python3 zstd:zstd dpkg-deb:dpkg

# Tools of the main job and its tests.
tools:
	@contrib/ci/install skopeo:skopeo docker-registry:docker-registry

# A test-only dependency links OpenSSL; the command makes the certificates of a test registry.
test-tools:
	@contrib/ci/install openssl:openssl pkg-config:pkg-config /usr/include/openssl/ssl.h:libssl-dev
