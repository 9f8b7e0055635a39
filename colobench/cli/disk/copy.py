"""``colobench disk copy``: a disk from a file or an NBD server to another one."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = parser.add_argument
    form = "image file, nbd://HOST[:PORT][/EXPORT], or nbd+unix:///[EXPORT]?socket=PATH"
    add("source", metavar="SOURCE", help=form)
    words = "the same; a missing file is created, an existing one must have the source's size"
    add("destination", metavar="DESTINATION", help=words)


def run(options: argparse.Namespace) -> int:
    """Copy, with a progress bar."""
    from tqdm import tqdm

    from colobench.node.disk.copying import copy_disk

    with tqdm(unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def progress(done: int, size: int) -> None:
            bar.total = size
            bar.update(done - bar.n)

        size = copy_disk(options.source, options.destination, progress)
    print(f"{size} bytes copied to {options.destination}")
    return 0
