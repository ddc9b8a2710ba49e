"""Reads and writes just enough of an OCI image layout for the demo (stdlib only)."""

import gzip
import hashlib
import json
import os

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
REF_NAME = "org.opencontainers.image.ref.name"


def dumps(value):
    return json.dumps(value, separators=(",", ":")).encode()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An image layout directory; made when it is not there."""

    def __init__(self, path):
        self.path = path
        os.makedirs(os.path.join(path, "blobs", "sha256"), exist_ok=True)
        with open(os.path.join(path, "oci-layout"), "w") as f:
            f.write('{"imageLayoutVersion":"1.0.0"}')

    def blob_path(self, name):
        algorithm, hexdigits = name.split(":")
        return os.path.join(self.path, "blobs", algorithm, hexdigits)

    def put(self, data, media_type, **annotations):
        """Stores a blob and returns its descriptor."""
        name = digest(data)
        with open(self.blob_path(name), "wb") as f:
            f.write(data)
        return self.descriptor(name, len(data), media_type, annotations)

    @staticmethod
    def descriptor(name, size, media_type, annotations=None):
        d = {"mediaType": media_type, "digest": name, "size": size}
        if annotations:
            d["annotations"] = annotations
        return d

    def get(self, name):
        with open(self.blob_path(name), "rb") as f:
            data = f.read()
        if digest(data) != name:
            raise SystemExit(f"{self.path}: blob {name} is damaged")
        return data

    def plain(self, name):
        """The blob without gzip, if it has any."""
        data = self.get(name)
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data

    def publish(self, descriptor, name=None):
        """Writes the index with this one manifest."""
        entry = dict(descriptor)
        if name:
            entry["annotations"] = {REF_NAME: name}
        index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [entry]}
        with open(os.path.join(self.path, "index.json"), "wb") as f:
            f.write(dumps(index))

    def find(self, name=None):
        """The descriptor of the manifest called `name`, or the first one."""
        with open(os.path.join(self.path, "index.json"), "rb") as f:
            manifests = json.load(f)["manifests"]
        for m in manifests:
            if name is None or m.get("annotations", {}).get(REF_NAME) == name:
                return m
        raise SystemExit(f"{self.path}: no image called {name}")
