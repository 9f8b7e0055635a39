"""``colobench disk serve``: images for any program that speaks NBD."""

from __future__ import annotations

import argparse
import signal


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="image; its name is the name of its export")
    words = "address: unix:PATH or tcp:127.0.0.1:PORT (port 0: any free one)"
    add("--socket", required=True, metavar="ADDRESS", help=words)
    add("--read-only", action="store_true", help="refuse requests that write")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    from colobench.node.address import Address
    from colobench.node.disk.serving import serve_images

    address = Address.parse(options.socket)
    with serve_images(options.files, address, read_only=options.read_only) as locations:
        for file, location in zip(options.files, locations, strict=True):
            print(f"{file}: {location}", flush=True)
        try:
            while True:
                signal.pause()
        except KeyboardInterrupt:
            # Ctrl-C is how one ends it.
            return 0
