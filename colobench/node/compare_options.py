"""The options of a command line that say how output is compared."""

from __future__ import annotations

import argparse

from colobench.net.compare_settings import CompareSettings
from colobench.net.outcome import Quirk


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how output is compared, by QEMU's names."""
    usual, add = CompareSettings(), parser.add_argument
    for name, metavar, words in (
        ("compare_timeout", "MS", "what waits so long asks for a checkpoint"),
        ("expired_scan_cycle", "MS", "how often that is looked for"),
        ("max_queue_size", "N", "frames of a connection that may wait"),
    ):
        words += f" [{getattr(usual, name)}]"
        option = f"--{name.replace('_', '-')}"
        add(option, type=int, default=getattr(usual, name), metavar=metavar, help=words)
    words = "a way of QEMU's, off unless asked for: " + ", ".join(Quirk)
    add("--quirk", action="append", default=[], metavar="NAME", help=words)


def compare_settings(found: argparse.Namespace) -> CompareSettings:
    """Give what the options of `add_compare_options` say.

    Raises
    ------
    LocalError
        If one of them is not what is expected.
    """
    return CompareSettings(
        found.compare_timeout, found.expired_scan_cycle, found.max_queue_size, tuple(found.quirk)
    )
