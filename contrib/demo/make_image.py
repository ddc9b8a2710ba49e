#!/usr/bin/env python3
"""Makes an OCI image out of Debian packages, without root and always the same.

usage: make_image.py OUT NAME [--move FROM=TO]... LAYER_DIR...

Each LAYER_DIR holds .deb files and becomes one gzip layer.  OUT is an OCI image
layout directory; NAME is the image's name in its index.  --move renames a path
prefix in the last layer, as a new upstream release often does.
"""

import argparse
import gzip
import io
import os
import subprocess
import tarfile

from layout import IMAGE_CONFIG, IMAGE_MANIFEST, LAYER_GZIP, Layout, digest, dumps


def package_tar(deb):
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE).stdout
    return tarfile.open(fileobj=io.BytesIO(data))


def moved(name, moves):
    for old, new in moves:
        if name == old or name.startswith(old + "/"):
            return new + name[len(old):]
    return name


def clean(name):
    return name.removeprefix("./").strip("/")


def layer(directory, moves):
    """Merges the packages of a directory into one plain tar."""
    out, seen = io.BytesIO(), set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as merged:
        for deb in sorted(os.listdir(directory)):
            with package_tar(os.path.join(directory, deb)) as package:
                for member in package:
                    content = package.extractfile(member) if member.isreg() else None
                    name = moved(clean(member.name), moves)
                    if name in ("", ".") or name in seen:
                        continue
                    seen.add(name)
                    member.name = name
                    if member.islnk():
                        member.linkname = moved(clean(member.linkname), moves)
                    merged.addfile(member, content)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("name")
    parser.add_argument("--arch", default="amd64")
    parser.add_argument("--move", action="append", default=[], metavar="FROM=TO")
    parser.add_argument("layers", nargs="+")
    args = parser.parse_args()

    layout = Layout(args.out)
    moves = [tuple(m.split("=", 1)) for m in args.move]
    descriptors, diff_ids = [], []
    for directory in args.layers:
        plain = layer(directory, moves if directory == args.layers[-1] else [])
        diff_ids.append(digest(plain))
        descriptors.append(layout.put(gzip.compress(plain, 6, mtime=0), LAYER_GZIP))
    config = layout.put(
        dumps({
            "architecture": args.arch,
            "os": "linux",
            "config": {"Cmd": ["/bin/bash"], "Labels": {"demo": args.name}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }),
        IMAGE_CONFIG,
    )
    manifest = {"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "config": config, "layers": descriptors}
    layout.publish(layout.put(dumps(manifest), IMAGE_MANIFEST), args.name)


if __name__ == "__main__":
    main()
