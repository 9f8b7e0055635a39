"""``colobench disk``: images of disks; each command has a module with its name."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType
from typing import Final

#: Commands, with their lines in the list.
COMMANDS: Final = {
    "show": "print what an image is: its state, generation and last checkpoint",
    "repair": "make an image usable that a killed node has left behind",
    "serve": "serve images by NBD to any program, until Ctrl-C",
    "copy": "copy a disk between image files and NBD servers",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands with their options."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        _module(name).add_options(commands.add_parser(name, help=summary, description=summary))


def run(options: argparse.Namespace) -> int:
    """Run a command; returns the exit status."""
    return int(_module(options.command).run(options))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"colobench.cli.disk.{name}")
