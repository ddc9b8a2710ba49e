"""What the benchmarks share: timed runs, image pairs, tables."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# One that was built elsewhere is not built again.
BUILT = os.environ.get("OCI_DELTA_FETCH")
TOOL = pathlib.Path(BUILT or ROOT / "target/release/oci-delta-fetch")


class Run:
    """CPU and wall seconds, and peak resident memory in KiB, of one process."""

    def __init__(self, argv, **kwargs):
        start = time.monotonic()
        with tempfile.TemporaryFile() as err:
            process = subprocess.Popen([str(a) for a in argv], stderr=err, **{"stdout": subprocess.DEVNULL, **kwargs})
            self.started(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                err.seek(0)
                raise SystemExit(f"{argv}: {err.read().decode()}")
        self.wall = time.monotonic() - start
        self.cpu = usage.ru_utime + usage.ru_stime
        self.rss = usage.ru_maxrss

    def started(self, pid):
        """For those who want to watch it while it runs."""


def paired(runs, figures=("wall", "cpu", "rss"), **commands):
    """Runs the commands in turn, several times; the medians of the figures by name."""
    seen = {name: [] for name in commands}
    for _ in range(runs):
        for name, run in commands.items():
            seen[name].append(run())
    return {
        name: {key: statistics.median(getattr(r, key) for r in rs) for key in figures}
        for name, rs in seen.items()
    }


def warm(folder, size):
    """Takes memory and gives it back: a virtual machine's first touch of a page is
    several times slower than the next, and would be all that is measured."""
    path = pathlib.Path(folder, "warm")
    with open(path, "wb") as out:
        for _ in range(size >> 20):
            out.write(bytes(1 << 20))
    path.unlink()


def build():
    if BUILT:
        return
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--bins", "--examples"], cwd=ROOT, check=True)


def scratch(name):
    """A folder in memory where there is one, so that the disk does not decide."""
    shm = pathlib.Path("/dev/shm")
    parent = shm if os.access(shm, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=parent)


def registry(tmp):
    """A docker-registry on loopback with its data below `tmp`: the process, to be killed, and the address."""
    config = tmp / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {tmp}/registry\n"
        "http:\n  addr: 127.0.0.1:0\n"
    )
    log = tmp / "registry.log"
    with open(log, "w") as out:
        server = subprocess.Popen(["docker-registry", "serve", config], stdout=out, stderr=out)
    for _ in range(200):
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
            return server, found.group(1)
        time.sleep(0.05)
    server.kill()
    raise SystemExit("docker-registry does not start")


def blob(layout, digest):
    return pathlib.Path(layout, "blobs/sha256", digest.split(":")[1])


def image(layout):
    """Manifest and config of the only image in a layout."""
    index = json.loads(pathlib.Path(layout, "index.json").read_text())
    manifest = json.loads(blob(layout, index["manifests"][0]["digest"]).read_text())
    return manifest, json.loads(blob(layout, manifest["config"]["digest"]).read_text())


def plain_layout(layout, to):
    """A copy of an image with plain tars for layers: what a repository of ours holds."""
    manifest, config = image(layout)
    to = pathlib.Path(to)
    (to / "blobs/sha256").mkdir(parents=True)
    shutil.copy(blob(layout, manifest["config"]["digest"]), to / "blobs/sha256")
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        path = blob(to, diff_id)
        unpack(blob(layout, layer["digest"]), path)
        media_type = "application/vnd.oci.image.layer.v1.tar"
        layer.update(mediaType=media_type, digest=diff_id, size=path.stat().st_size)
    raw = json.dumps(manifest).encode()
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    blob(to, digest).write_bytes(raw)
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(raw)}
    (to / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (to / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def unpack(source, to):
    magic = open(source, "rb").read(4)
    tool = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}.get(magic[:2])
    with open(source, "rb") as src, open(to, "wb") as dst:
        if tool:
            subprocess.run([tool, "-dc"], stdin=src, stdout=dst, check=True)
        else:
            shutil.copyfileobj(src, dst)


def write_image(layout, tars):
    """An image of these tar files, moved in as layers."""
    layout = pathlib.Path(layout)
    (layout / "blobs/sha256").mkdir(parents=True)

    def put(raw):
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        blob(layout, digest).write_bytes(raw)
        return {"digest": digest, "size": len(raw)}

    layers = []
    for tar in tars:
        digest = "sha256:" + hashlib.file_digest(open(tar, "rb"), "sha256").hexdigest()
        size = os.path.getsize(tar)
        shutil.move(tar, blob(layout, digest))
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    config = put(json.dumps(config).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": layers,
    }
    entry = {"mediaType": manifest["mediaType"], **put(json.dumps(manifest).encode())}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def table(head, rows):
    rows = [head, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
