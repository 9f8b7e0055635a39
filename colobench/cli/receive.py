"""``colobench receive``: be the COLO secondary of a real QEMU, and keep its last checkpoint."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from colobench.cli.console import say_error
from colobench.cli.options import new_file, positive_number
from colobench.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from colobench.node.receive.disks import ReceivedDisks
    from colobench.node.receive.receiver import Receiver
    from colobench.node.receive.records import Record

_EPILOG = """
In QEMU's monitor: migrate_set_capability x-colo on, then migrate to the same address. The file is
a migration file: qemu-system-x86_64 … -incoming "exec: cat FILE" resumes the guest. Exit status 0:
the primary has ended after it entered COLO, or N checkpoints are committed; and one of them is in
the file, if there is to be one.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add("address", metavar="unix:PATH|tcp:HOST:PORT", help="address for QEMU's migrate command")
    words = "keep the last committed checkpoint in FILE, which is replaced whole"
    add("--save", type=new_file, metavar="FILE", help=words)
    words = "keep a disk that QEMU writes to at the same checkpoint; once for each disk"
    add("--disk", action="append", default=[], metavar="FILE[,size=SIZE]", help=words)
    words = "address of the disks' NBD server [unix:PATH.nbd]"
    add("--nbd", metavar="unix:PATH|tcp:HOST:PORT", help=words)
    words = "end after N checkpoints"
    add("--checkpoints", type=positive_number, metavar="N", help=words)
    words = "time without progress after which the primary is lost [10]"
    add("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help=words)
    add("--json", action="store_true", help="print lines of JSON")
    parser.epilog = _EPILOG


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 3600 seconds, found {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Follow a primary, and print a line for each checkpoint."""
    from colobench.node.kernels import compile_kernels
    from colobench.node.receive.receiver import Receiver, kernel_modules
    from colobench.node.receive.records import Listening
    from colobench.processes.resource_limits import free_memory

    compile_kernels(kernel_modules(), lambda step: None)
    say = partial(_print_record, as_json=options.json)
    disks = _disks(options, say)
    receiver = Receiver(
        options.address,
        options.save,
        disks=disks,
        checkpoints=options.checkpoints,
        stall_timeout=options.timeout,
        ram_limit=free_memory(),
        on_checkpoint=say,
        on_saved=say,
    )
    try:
        address = receiver.start()
        say(Listening(address, tuple(map(str, disks.locations)) if disks else ()))
        receiver.wait()
    except (KeyboardInterrupt, SystemExit) as interrupt:
        receiver.stop()
        say_error(f"colobench receive: interrupted{_left(receiver, options.save)}")
        is_interrupt = isinstance(interrupt, KeyboardInterrupt)
        return 128 + (signal.SIGINT if is_interrupt else signal.SIGTERM)
    return _ended(receiver, options)


def _disks(options: argparse.Namespace, say: Callable[[Record], object]) -> ReceivedDisks | None:
    from colobench.node.receive.disks import ReceivedDisks

    if not options.disk:
        if options.nbd is not None:
            raise LocalError("--nbd: expected --disk FILE with it, found none")
        return None
    address = options.nbd
    if address is None:
        if not options.address.startswith("unix:"):
            raise LocalError("--disk: expected --nbd ADDRESS with it, found none")
        address = f"{options.address}.nbd"
    return ReceivedDisks(options.disk, address, say)


def _ended(receiver: Receiver, options: argparse.Namespace) -> int:
    """Say how it has ended, and give the exit status."""
    from colobench.node.connection import PeerLost

    left = _left(receiver, options.save)
    is_end = isinstance(receiver.error, PeerLost) and receiver.committed is not None
    if receiver.error is not None and not (is_end and options.checkpoints is None):
        say_error(f"colobench receive: {receiver.error}{left}")
        return 1
    is_unsaved = options.save is not None and receiver.saved is None
    if is_end or is_unsaved:
        by = "the primary has ended" if is_end else "all checkpoints have come"
        say_error(f"colobench receive: {by}{left}")
    return 1 if is_unsaved else 0


def _left(receiver: Receiver, file: Path | None) -> str:
    """Say what is committed and what is in the file."""
    from colobench.node.receive.records import saved_title

    if receiver.committed is None:
        return ", before the guest had arrived"
    words = f"; the last committed checkpoint is {receiver.committed}"
    if file is None:
        return words
    return f"{words}, and {file} has {saved_title(receiver.saved)}"


def _print_record(record: Record, as_json: bool) -> None:
    """Print a line at once; if its reader has gone, or its disk is full, the protection goes on."""
    line = json.dumps(record.as_json()) if as_json else str(record)
    with suppress(OSError):
        # One call: two threads print.
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
