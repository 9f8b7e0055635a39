"""``colobench record-qemu``: record the migration streams of a real QEMU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from colobench.peers.recordings import PLANS

#: Directory of the recordings if none is named.
DEFAULT_DIRECTORY = Path("datasets/qemu")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    words = f"directory of the recordings [{DEFAULT_DIRECTORY}]"
    add("-o", "--output", type=Path, default=DEFAULT_DIRECTORY, metavar="DIR", help=words)
    add("--list", action="store_true", help="list the recordings, and make none")
    names = [plan.name for plan in PLANS]
    add("names", nargs="*", choices=[[], *names], metavar="NAME", help="all recordings by default")
    parser.epilog = (
        "It needs qemu-system-x86_64 and /dev/kvm. The guest and its firmware are colobench's own; "
        "no operating system and no option ROM is in a recording."
    )


def run(options: argparse.Namespace) -> int:
    """Make the recordings, and print a line for each."""
    if options.list:
        for plan in PLANS:
            print(f"{plan.name:<20} {plan.summary}")
        return 0
    from tqdm import tqdm

    from colobench.peers.dataset import write_recordings

    plans = [plan for plan in PLANS if plan.name in (options.names or [plan.name])]
    with tqdm(total=len(plans), unit=" recordings", disable=None, leave=False) as bar:

        def said(line: str) -> None:
            bar.write(line, file=sys.stdout)
            bar.update()

        write_recordings(options.output, plans, said)
    print(f"recordings: {options.output}")
    return 0
