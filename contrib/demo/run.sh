#!/usr/bin/env bash
# The whole way, for real: two images out of Debian packages, a delta between
# them, a registry, a fetch, a proof.  Leaves nothing behind.
#
#   DEMO_KEEP=1         keep the working directory
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
T=$(mktemp -d "${TMPDIR:-/tmp}/oci-delta-demo.XXXXXX")
registry=

cleanup() {
    [ -z "$registry" ] || kill "$registry" 2>/dev/null || true
    [ -z "$registry" ] || wait "$registry" 2>/dev/null || true
    if [ -n "${DEMO_KEEP:-}" ]; then echo "kept: $T"; else rm -rf "$T"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n== %s\n' "$*"; }
die() { echo "demo: $*" >&2; exit 1; }
skopeo_quiet() { skopeo --insecure-policy "$@" >/dev/null; }
ids() { python3 -B "$here/image_ids.py" "$@"; }

for tool in skopeo docker-registry python3 zstd dpkg-deb apt-get; do
    command -v "$tool" >/dev/null || die "'$tool' is missing; 'make demo' installs it"
done

say "Build"
(cd "$root" && cargo build --release --locked)
bin=${CARGO_TARGET_DIR:-$root/target}/release/oci-delta-fetch
fetch() { "$bin" --tls-verify=false --insecure-policy --repo "$T/repo" "$@"; }

say "Two images out of Debian packages"
# Package lists of our own when the machine has none: needs no root.
apt=(-o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1)
if ! apt-cache madison bash 2>/dev/null | grep -q Packages; then
    mkdir -p "$T/apt/lists/partial" "$T/apt/cache/archives/partial"
    apt+=(-o Dir::State::Lists="$T/apt/lists" -o Dir::Cache="$T/apt/cache")
    apt-get "${apt[@]}" -qq update
fi
# All versions that the mirrors have, newest first.
versions() { apt-cache "${apt[@]}" madison "$1" | awk -F' *[|] *' '$3 ~ /Packages/ {print $2}'; }
download() { # download newest|oldest DIR PACKAGE...
    local which=$1 dir=$2 package version specs=()
    shift 2
    for package; do
        case $which in
        newest) version=$(versions "$package" | sed -n 1p) ;;
        oldest) version=$(versions "$package" | sed -n '$p') ;;
        esac
        [ -n "$version" ] || die "the mirror has no package '$package'"
        specs+=("$package=$version")
    done
    mkdir -p "$dir"
    (cd "$dir" && apt-get "${apt[@]}" -qq download "${specs[@]}")
}
system=(base-files coreutils libc6)
app=(bash perl-base tzdata ca-certificates openssl)
extra=(less)
download oldest "$T/debs/system" "${system[@]}"
download oldest "$T/debs/old" "${app[@]}"
download newest "$T/debs/new" "${app[@]}" "${extra[@]}"
arch=$(dpkg --print-architecture)
case $arch in armhf) arch=arm ;; i386) arch=386 ;; ppc64el) arch=ppc64le ;; esac
python3 -B "$here/make_image.py" "$T/old" old --arch "$arch" "$T/debs/system" "$T/debs/old"
python3 -B "$here/make_image.py" "$T/new" new --arch "$arch" \
    --move usr/share/doc/perl-base=usr/share/doc/perl-renamed "$T/debs/system" "$T/debs/new"
echo "old: system layer + $(cd "$T/debs/old" && echo *)"
echo "new: same system layer + $(cd "$T/debs/new" && echo *)"

say "A delta from old to new"
"$bin" create "oci:$T/old:old" "oci:$T/new:new" "oci:$T/delta" --statistics

say "Push both images and the delta to a registry on loopback"
cat >"$T/registry.yml" <<CONFIG
version: 0.1
log: {accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $T/registry}}
http: {addr: "127.0.0.1:0"}
CONFIG
docker-registry serve "$T/registry.yml" >"$T/registry.log" 2>&1 &
registry=$!
port=
for _ in $(seq 100); do
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$T/registry.log")
    [ -z "$port" ] || break
    kill -0 "$registry" 2>/dev/null || { cat "$T/registry.log" >&2; die "the registry did not start"; }
    sleep 0.1
done
[ -n "$port" ] || die "the registry did not start in 10 seconds"
hub=docker://127.0.0.1:$port/demo
skopeo_quiet copy --preserve-digests --dest-tls-verify=false "oci:$T/old:old" "$hub:1"
skopeo_quiet copy --preserve-digests --dest-tls-verify=false "oci:$T/new:new" "$hub:2"
"$bin" push "oci:$T/delta" "$hub" --tls-verify=false
"$bin" deltas "$hub:2" --tls-verify=false --insecure-policy

full=$(ids --bytes "$T/new" new)
delta=$(ids --bytes "$T/delta")

say "Fetch the old image (whole: nothing is here yet)"
fetch "$hub:1"

say "Fetch the new image: its delta is found, and the image rebuilt here"
fetch "$hub:2" --tag demo:new

say "Copy it out with skopeo and compare"
skopeo_quiet copy "oci:$T/repo:demo:new" "oci:$T/out:new"
ids "$T/new" new >"$T/want"
ids "$T/out" new >"$T/got"
cat "$T/got"
cmp "$T/want" "$T/got" || die "the rebuilt image is not the original"
echo "config digest and every diff_id match the original"
awk -v full="$full" -v delta="$delta" 'BEGIN {
    printf "full image %.2f MB, delta %.2f MB: %.1f %% saved\n", full / 1e6, delta / 1e6, 100 * (1 - delta / full) }'
