"""``colobench disk repair``: an image that a killed node has left behind is made usable."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

#: Exit status if there is something to repair, and nothing says how.
_NOT_REPAIRED = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("image", metavar="FILE", help="the image")
    how = parser.add_mutually_exclusive_group()
    words = "copy what differs from the current image, with which FILE is a pair afterwards"
    how.add_argument("--from", dest="source", metavar="IMAGE", help=words)
    words = "undo what no checkpoint committed, if the secondary kept its layers in this directory"
    how.add_argument("--disk-buffer", metavar="DIR", help=words)
    words = "undo what a primary wrote after the checkpoint in this file of `colobench receive`"
    how.add_argument("--checkpoint", metavar="FILE", help=words)
    words = "take FILE as it is: a secondary's that was killed has writes of no one moment"
    how.add_argument("--accept", action="store_true", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Without one of these nothing is changed. Exit status: 0 if the image is clean at "
        "the end, 3 if it is not."
    )


def run(options: argparse.Namespace) -> int:
    """Repair the image, or say what is wrong with it."""
    from colobench.node.disk.description import describe_image
    from colobench.node.disk.repair import accept, restore, undo
    from colobench.node.receive.disks import bring_image_together

    written = 0
    if options.source is not None:
        written = restore(options.image, options.source)
    elif options.disk_buffer is not None:
        written = undo(options.image, options.disk_buffer)
    elif options.checkpoint is not None:
        written = bring_image_together(options.image, Path(options.checkpoint))
    elif options.accept:
        accept(options.image)
    found = describe_image(options.image)
    clean = found.state == "clean" or (found.generation is None and not found.refusal)
    if options.json:
        print(json.dumps({**found.as_json(), "written": written}))
    elif written or clean:
        print(f"{found.path}: {written} bytes were written; it is {found.state}")
    else:
        words = found.refusal or found.state
        how = "--from, --disk-buffer, --checkpoint or --accept"
        print(f"{found.path}: {words}; repair it with {how}")
    return 0 if clean else _NOT_REPAIRED
