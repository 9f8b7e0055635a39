"""``colobench disk show``: what images are, and which of two is current."""

from __future__ import annotations

import argparse
import json

from colobench.errors import LocalError
from colobench.text_table import align

#: Exit status if no guest can be started on an image, as of `colobench status`.
_REFUSED = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    words = "an image, or the two images of a pair, of which the current one is named"
    parser.add_argument("images", nargs="+", metavar="FILE", help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Exit status: 0 if a guest can be started on each image, 3 if not. What is known of an "
        "image is in FILE.generation beside it."
    )


def run(options: argparse.Namespace) -> int:
    """Print what the images are."""
    from colobench.node.disk.description import compare_images, describe_image

    if len(options.images) > 2:
        raise LocalError(f"FILE: expected one image or two, found {len(options.images)}")
    found = [describe_image(path) for path in options.images]
    pair = compare_images(*found) if len(found) == 2 else None
    if options.json:
        told: dict[str, object] = {"images": [each.as_json() for each in found]}
        if pair is not None:
            told["relation"], told["differing"] = pair[0].name.lower().replace("_", "-"), pair[1]
        print(json.dumps(told))
    else:
        for each in found:
            print(f"{each.path}: {each.size} bytes, of which {each.allocated} are allocated")
            print(*(f"  {line}" for line in align(each.lines())), sep="\n")
        if pair is not None:
            print(f"{pair[0].value}; they may differ in {pair[1]} bytes")
    return _REFUSED if any(each.refusal for each in found) else 0
