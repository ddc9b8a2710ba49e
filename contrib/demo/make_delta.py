#!/usr/bin/env python3
"""Makes a simple oci-delta artifact: unchanged files are copied from the old image.

usage: make_delta.py OLD_DIR OLD_NAME NEW_DIR NEW_NAME OUT

No file is diffed against its older version, so real deltas are much smaller.
Needs the `zstd` command.
"""

import hashlib
import io
import json
import posixpath
import subprocess
import sys
import tarfile

from layout import IMAGE_CONFIG, IMAGE_MANIFEST, Layout, dumps

PREFIX = "io.github.containers.delta."
DATA, OPEN, COPY = 0, 1, 2


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def op(code, size, data=b""):
    return bytes([code]) + varint(size) + data


def merged_files(layers):
    """SHA-256 of content -> path, for regular files that survive in the merged image."""
    files = {}
    for plain in layers:
        for m in tarfile.open(fileobj=io.BytesIO(plain)):
            folder, base = posixpath.split(m.name)
            if base.startswith(".wh."):
                gone = folder if base == ".wh..wh..opq" else posixpath.join(folder, base[4:])
                for path in [p for p in files if p == gone or p.startswith(gone + "/")]:
                    del files[path]
                continue
            if not m.isdir():
                for path in [p for p in files if p.startswith(m.name + "/")]:
                    del files[path]
            files.pop(m.name, None)
            if m.isreg() and not m.issparse() and m.size and m.mode & 0o004:
                body = plain[m.offset_data:m.offset_data + m.size]
                files[m.name] = hashlib.sha256(body).digest()
    return {content: path for path, content in files.items()}


def patch(plain, sources):
    """The op stream that rebuilds the layer tar `plain`."""
    out, done = [], 0
    for m in tarfile.open(fileobj=io.BytesIO(plain)):
        if not (m.isreg() and m.size) or m.issparse():
            continue
        end = m.offset_data + m.size
        path = sources.get(hashlib.sha256(plain[m.offset_data:end]).digest())
        if path is None or m.size <= len(path) + 4:
            continue
        literal = plain[done:m.offset_data]
        name = path.encode("utf-8", "surrogateescape")
        out += [op(DATA, len(literal), literal), op(OPEN, len(name), name), op(COPY, m.size)]
        done = end
    out.append(op(DATA, len(plain) - done, plain[done:]))
    frame = subprocess.run(["zstd", "-q", "-12", "-c"], input=b"".join(out), check=True, stdout=subprocess.PIPE)
    return b"tardf1\n\0" + frame.stdout


def main():
    if len(sys.argv) != 6:
        raise SystemExit(__doc__)
    old, new = Layout(sys.argv[1]), Layout(sys.argv[3])
    old_entry, target = old.find(sys.argv[2]), new.find(sys.argv[4])
    old_manifest, manifest_bytes = json.loads(old.get(old_entry["digest"])), new.get(target["digest"])
    manifest = json.loads(manifest_bytes)
    config_bytes = new.get(manifest["config"]["digest"])
    old_diff_ids = json.loads(old.get(old_manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    diff_ids = json.loads(config_bytes)["rootfs"]["diff_ids"]
    sources = merged_files([old.plain(d["digest"]) for d in old_manifest["layers"]])

    out = Layout(sys.argv[5])
    layers = [
        out.put(manifest_bytes, IMAGE_MANIFEST, **{PREFIX + "content": "image-manifest"}),
        out.put(config_bytes, IMAGE_CONFIG, **{PREFIX + "content": "image-config"}),
    ]
    reused = []
    for layer, diff_id in zip(manifest["layers"], diff_ids):
        if diff_id in old_diff_ids:
            reused.append((layer["digest"], diff_id))
            continue
        marks = {PREFIX + "content": "image-layer", PREFIX + "to": layer["digest"]}
        blob, media_type = patch(new.plain(layer["digest"]), sources), "application/vnd.tar-diff"
        if len(blob) >= layer["size"]:
            blob, media_type = new.get(layer["digest"]), layer["mediaType"]
        layers.append(out.put(blob, media_type, **marks))

    annotations = {}
    if reused:
        annotations[PREFIX + "reused"] = dumps([r[0] for r in reused]).decode()
        annotations[PREFIX + "reused-diff-id"] = dumps([r[1] for r in reused]).decode()
    annotations[PREFIX + "source"] = old_entry["digest"]
    annotations[PREFIX + "source-config"] = old_manifest["config"]["digest"]
    annotations[PREFIX + "target"] = target["digest"]
    artifact = {
        "schemaVersion": 2,
        "artifactType": "application/vnd.io.github.containers.oci-delta.v1",
        "config": out.put(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": layers,
        "subject": Layout.descriptor(target["digest"], len(manifest_bytes), IMAGE_MANIFEST),
        "annotations": annotations,
    }
    out.publish(out.put(dumps(artifact), IMAGE_MANIFEST))


if __name__ == "__main__":
    main()
