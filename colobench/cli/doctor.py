"""``colobench doctor``: features of this machine, each one tried out."""

from __future__ import annotations

import argparse
import sys

from colobench import doctor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the findings."""
    if options.json:
        print(doctor.render_json(doctor.examine()))
    else:
        for finding in doctor.examine(_announce):
            print(doctor.render([finding]))
    return 0


def _announce(check: str) -> None:
    """Print the name of the running check on a terminal; its finding is printed over that."""
    if sys.stdout.isatty():
        print(f"  {check} …\x1b[K", end="\r", flush=True)
