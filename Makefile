# Two commands are all a fresh Debian machine with Rust needs: `make demo` and `make test`.

CARGO ?= cargo

.PHONY: build demo test test-lean check fmt clippy doc deny docs-check docs-generate fuzz-smoke \
    tools demo-tools build-tools test-tools crates

build: build-tools
	$(CARGO) build --release --locked

# The main job on real input; see contrib/demo/run.sh.
demo: tools build-tools demo-tools
	contrib/demo/run.sh

test: tools test-tools crates
	$(CARGO) test --locked

# Without composefs: a program that does not need OpenSSL.
test-lean: tools test-tools crates
	$(CARGO) test --locked --no-default-features --features cli
	! ldd target/debug/oci-delta-fetch | grep -E 'libcrypto|libssl'
	$(CARGO) clippy --locked --no-default-features --features cli --all-targets -- -D warnings

# What CI checks beside the tests.
check: test-lean fmt clippy doc docs-check deny fuzz-smoke

fmt:
	$(CARGO) fmt --all --check

clippy: build-tools
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# Man page, completions and docs/cli.md come from the CLI definition.
docs-check:
	$(CARGO) run --locked --quiet --example generate -- --check

docs-generate:
	$(CARGO) run --locked --quiet --example generate

deny:
	command -v cargo-deny >/dev/null || $(CARGO) install --locked --debug cargo-deny
	$(CARGO) deny check licenses bans sources

fuzz-smoke:
	contrib/ci/fuzz-smoke

demo-tools:
	@contrib/ci/install python3:python3 zstd:zstd dpkg-deb:dpkg

# Tools of the main job and its tests.
tools:
	@contrib/ci/install skopeo:skopeo docker-registry:docker-registry

# The feature composefs links OpenSSL.
build-tools:
	@contrib/ci/install pkg-config:pkg-config /usr/include/openssl/ssl.h:libssl-dev

# The command makes the certificates of a test registry.
test-tools: build-tools
	@contrib/ci/install openssl:openssl

# The judge of what is written into composefs repositories, and a registry with the referrers API.
crates: build-tools
	@contrib/ci/install-crate composefs-ctl 0.9.4 cfsctl
	@contrib/ci/install-crate ferro-oci-server 1.0.0 ferro-oci-server
