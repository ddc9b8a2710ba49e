#!/usr/bin/env python3
"""Prints what an image is, hashed from its bytes: config digest, then one diff_id a layer.

usage: image_ids.py [--bytes] LAYOUT_DIR [NAME]

--bytes prints the bytes that cross the wire instead: manifest, config, layers; of two patches for one layer of
a delta only the smaller.
"""

import json
import sys

from layout import Layout, digest


def main():
    args = sys.argv[1:]
    count = "--bytes" in args
    args = [a for a in args if a != "--bytes"]
    if not args:
        raise SystemExit(__doc__)
    layout = Layout(args[0])
    entry = layout.find(args[1] if len(args) > 1 else None)
    manifest = json.loads(layout.get(entry["digest"]))
    if count:
        # Two layers may be one blob: it crosses the wire once.
        blobs, patches = {}, {}
        for part in manifest["layers"] + [manifest["config"]]:
            to = part.get("annotations", {}).get("io.github.containers.delta.to")
            if to in patches and part["size"] >= patches[to]["size"]:
                continue
            if to in patches:
                del blobs[patches[to]["digest"]]
            if to:
                patches[to] = part
            blobs[part["digest"]] = part["size"]
        print(entry["size"] + sum(blobs.values()))
        return
    print("config ", digest(layout.get(manifest["config"]["digest"])))
    for layer in manifest["layers"]:
        print("diff_id", digest(layout.plain(layer["digest"])))


if __name__ == "__main__":
    main()
