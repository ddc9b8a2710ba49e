#!/usr/bin/env python3
"""Prints what an image is, hashed from its bytes: config digest, then one diff_id a layer.

usage: image_ids.py [--bytes] LAYOUT_DIR [NAME]

--bytes prints the size of all its blobs instead (manifest, config, layers).
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
        blobs = {d["digest"]: d["size"] for d in manifest["layers"] + [manifest["config"]]}
        print(entry["size"] + sum(blobs.values()))
        return
    print("config ", digest(layout.get(manifest["config"]["digest"])))
    for layer in manifest["layers"]:
        print("diff_id", digest(layout.plain(layer["digest"])))


if __name__ == "__main__":
    main()
