# Two commands are all a fresh Debian machine with Rust needs: `make demo` and `make test`.

CARGO ?= cargo
# Says what is at work while cargo says nothing.
ALIVE = @contrib/ci/alive

.PHONY: build install demo test test-rootless test-lean check fmt clippy doc deny docs-check docs-generate fuzz-smoke \
    tools demo-tools build-tools test-tools

build: build-tools
	$(CARGO) build --release --locked

# With OCI_DELTA=yes also a link `oci-delta`, by which the program has the reference tool's command line.
PREFIX ?= /usr/local
install: build
	install -D -m 755 target/release/oci-delta-fetch $(DESTDIR)$(PREFIX)/bin/oci-delta-fetch
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 contrib/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	$(if $(filter yes,$(OCI_DELTA)),ln -sf oci-delta-fetch $(DESTDIR)$(PREFIX)/bin/oci-delta)

# The main job on real input; see contrib/demo/run.sh.
demo: tools build-tools demo-tools
	contrib/demo/run.sh

test: test-tools
	$(ALIVE) $(CARGO) test --locked

# Podman of a user without rights. As root: it makes the user.
test-rootless: test-tools
	contrib/ci/rootless

# Without composefs: it compiles, does the main job under the tests that are built already, and needs no OpenSSL. It is
# checked with the features that users of it get, the library without the program's part as well. What runs shares its
# dependencies with the tests (an example is what makes cargo take their features), so that only our own code is built.
LEAN = --locked -p oci-delta-fetch --no-default-features
test-lean: test-tools
	$(ALIVE) $(CARGO) build $(LEAN) --lib --example fake-skopeo
	@tests=$$($(CARGO) test --locked --test all --no-run 2>&1 | sed -n 's/.*main.rs (\(.*\))/\1/p') && \
		contrib/ci/alive $(CARGO) build $(LEAN) --features cli --bin oci-delta-fetch --example fake-skopeo && \
		contrib/ci/alive "$$tests" exact::
	! ldd target/debug/oci-delta-fetch | grep -E 'libcrypto|libssl'

# What CI checks beside the tests. There clippy is the compiler of all of them: contrib/ci/rustc-clippy.
check: test-lean fmt clippy doc docs-check deny fuzz-smoke

fmt:
	$(CARGO) fmt --all --check

clippy: build-tools
	$(ALIVE) $(CARGO) clippy --locked --all-targets -- -D warnings

doc: build-tools
	RUSTDOCFLAGS="-D warnings" contrib/ci/alive $(CARGO) doc --locked --no-deps

# Man page, completions and docs/cli.md come from the CLI definition.
docs-check:
	$(CARGO) run --locked --quiet --example generate -- --check

docs-generate:
	$(CARGO) run --locked --quiet --example generate

deny:
	@contrib/ci/install python3:python3
	contrib/ci/licences

fuzz-smoke:
	$(ALIVE) contrib/ci/fuzz-smoke

demo-tools:
	@contrib/ci/install python3:python3 zstd:zstd dpkg-deb:dpkg

# Tools of the main job.
tools:
	@contrib/ci/install skopeo:skopeo docker-registry:docker-registry

# The feature composefs links OpenSSL.
build-tools:
	@contrib/ci/install pkg-config:pkg-config /usr/include/openssl/ssl.h:libssl-dev

# The command openssl makes the certificates of a test registry; podman takes what export gives; gzip, bzip2, xz and Python
# make members. The others make the streams of tests/fresh.rs in crates/exact, and are wanted where CI asks for them.
test-tools: tools build-tools
	@contrib/ci/install openssl:openssl pigz:pigz podman:podman buildah:buildah ostree:ostree \
		gzip:gzip bzip2:bzip2 xz:xz-utils python3:python3
ifdef EXACT_TOOLS
	@contrib/ci/install umoci:umoci zstd:zstd
	@contrib/ci/alive contrib/ci/streams
endif
