"""``colobench protect``: keep a real QEMU's checkpoints, and bring it back when it is killed."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from colobench.cli.console import say_error
from colobench.cli.options import new_file, positive_number
from colobench.errors import LocalError

if TYPE_CHECKING:
    from colobench.node.receive.records import ReceivedCheckpoint, SavedCheckpoint
    from colobench.peers.protected_qemu import ProtectedQEMU

#: File of the checkpoint if none is named.
DEFAULT_FILE = Path("colobench-guest.migration")
#: QEMUs in a row that may crash, each within so many seconds of its start: those that follow would
#: crash, too.
CRASHES, CRASH_SECONDS = 5, 10.0
#: Signals by which a program ends because of an error of its own.
CRASH_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}
)
_EPILOG = f"""
QEMU has to use KVM. It ends with this command, and is started again only after a signal has
ended it: then a fresh one, with the same arguments, goes on from the last checkpoint. After
{CRASHES} crashes in a row, each within {CRASH_SECONDS:g} s of its start, it is not started again.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    from colobench.peers.protected_qemu import DELAY_MS

    add = parser.add_argument
    words = f"file of the last checkpoint, as large as the guest's RAM [{DEFAULT_FILE}]"
    add("--save", type=new_file, default=DEFAULT_FILE, metavar="FILE", help=words)
    words = f"time from one checkpoint to the next, ms [{DELAY_MS}]"
    add("--delay", type=positive_number, default=DELAY_MS, metavar="MS", help=words)
    add("--each", action="store_true", help="print a line for each checkpoint")
    words = "protect a guest of our own, which counts in its RAM, and print its counter"
    add("--example", action="store_true", help=words)
    add("command", nargs="*", metavar="COMMAND", help="QEMU and its arguments, after --")
    parser.epilog = _EPILOG


def run(options: argparse.Namespace) -> int:
    """Protect until QEMU ends by itself, or this command is interrupted."""
    from colobench.node.kernels import compile_kernels
    from colobench.node.receive.receiver import kernel_modules
    from colobench.peers import example_guest
    from colobench.peers.protected_qemu import ProtectedQEMU

    if bool(options.command) == options.example:
        raise LocalError("expected a QEMU to protect, after --, or --example")
    command = example_guest.example_command() if options.example else options.command
    compile_kernels(kernel_modules(), lambda step: None)
    vm = ProtectedQEMU(
        command,
        options.save,
        delay_ms=options.delay,
        image=example_guest.IMAGE if options.example else None,
        on_checkpoint=_print if options.each else lambda checkpoint: None,
        on_unsaved=_print,
    )
    try:
        with vm:
            _print(f"QEMU started: pid {vm.process.pid}")
            status = _protect(vm, options)
    except (KeyboardInterrupt, SystemExit) as interrupt:
        say_error(f"colobench protect: interrupted{_left(vm, options.save)}")
        is_interrupt = isinstance(interrupt, KeyboardInterrupt)
        return 128 + (signal.SIGINT if is_interrupt else signal.SIGTERM)
    _print(f"QEMU has ended with status {status}")
    return 1 if status else 0


def _protect(vm: ProtectedQEMU, options: argparse.Namespace) -> int:
    """Protect and bring back until QEMU ends by itself; give its exit status."""
    from colobench.peers.protected_qemu import ProtectionFailed

    crashes, started = 0, time.monotonic()
    while True:
        status: int | None
        try:
            machine = vm.protect().machine
        except ProtectionFailed:
            # One that was brought back may be killed before it is protected again.
            if not vm.can_come_back():
                raise
            status = vm.wait_for_exit()
        else:
            _print(f"protected: {machine}, every {options.delay} ms in {options.save}")
            status = vm.wait_for_end()
        if status is None:
            assert vm.receiver is not None
            _print(f"protection has ended: {vm.receiver.error}; the guest runs on unprotected")
            return vm.wait_for_exit()
        if status >= 0:
            return status
        name = _signal_name(-status)
        _print(f"QEMU was killed by {name}")
        early = time.monotonic() - started < CRASH_SECONDS
        crashes = crashes + 1 if -status in CRASH_SIGNALS and early else 0
        if crashes == CRASHES:
            raise ProtectionFailed(
                f"QEMU: expected it to run for {CRASH_SECONDS:g} s, found {crashes} crashes in a "
                f"row, the last one by {name}; {options.save} has the last checkpoint"
            )
        started = time.monotonic()
        number = vm.bring_back()
        _print(f"QEMU started from checkpoint {number}: pid {vm.process.pid}{_count(vm, options)}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Realtime signals have names only at both ends of their range.
        return f"signal {number}"


def _count(vm: ProtectedQEMU, options: argparse.Namespace) -> str:
    from colobench.peers.example_guest import read_counter

    return f"; its guest has counted to {read_counter(vm)}" if options.example else ""


def _left(vm: ProtectedQEMU, file: Path) -> str:
    if vm.receiver is None or vm.receiver.saved is None:
        return ", before QEMU was protected"
    return f": QEMU is ended, and {file} has checkpoint {vm.receiver.saved}"


def _print(line: ReceivedCheckpoint | SavedCheckpoint | str) -> None:
    # If its reader has gone, or its disk is full, the protection goes on.
    with suppress(OSError):
        # One call: checkpoints are printed in another thread.
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
