"""``colobench send``: a COLO primary that sends a recorded session to a real QEMU."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from colobench.cli.options import positive_number, whole_number
from colobench.errors import LocalError

if TYPE_CHECKING:
    from colobench.peers.secondary_qemu import SecondaryMonitor
    from colobench.wire.replayed_session import (
        EditedPage,
        LeftOutMessage,
        SessionChanges,
        Tear,
    )

_EPILOG = """
FILE is what a primary has sent in one session, as colobench record-qemu writes it. TO is the
address of a secondary (QEMU's -incoming unix:PATH, with x-colo), or a QEMU to start, after --.
Without it, the QEMU is started that the manifest beside FILE names, under KVM or else emulated.
Exit status 0: all checkpoints were loaded; 3: QEMU left before, and its message is printed.
"""
_LEFT_BEFORE = 3


def _numbered(text: str) -> tuple[str, int | None]:
    """Read WORD[:NUMBER]."""
    word, colon, number = text.partition(":")
    return word, whole_number(number) if colon else None


def _tear(text: str) -> Tear:
    from colobench.wire.replayed_session import Tear

    checkpoint, length = _numbered(text)
    return Tear(positive_number(checkpoint), length)


def _left_out(text: str) -> LeftOutMessage:
    from colobench.wire.messages import Message
    from colobench.wire.replayed_session import LEFT_OUT, LeftOutMessage

    name, checkpoint = _numbered(text)
    if name not in [each.name for each in LEFT_OUT]:
        names = ", ".join(each.name for each in LEFT_OUT)
        raise argparse.ArgumentTypeError(f"expected one of {names}, found {name!r}")
    number = 1 if checkpoint is None else positive_number(str(checkpoint))
    return LeftOutMessage(Message[name], number)


def _edited_page(text: str) -> EditedPage:
    from colobench.wire.replayed_session import EditedPage

    place, sign, file = text.partition("=")
    block, colon, number = place.rpartition(":")
    if not (sign and colon and block and file and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected BLOCK:N=FILE, found {text!r}")
    try:
        return EditedPage(block, int(number), Path(file).read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{file}: {error.strerror}") from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    from colobench.peers.session_sender import ANSWER_TIMEOUT, DELAY_MS

    add = parser.add_argument
    words = "checkpoints to send, beyond the recorded ones the last one again [all recorded ones]"
    add("--checkpoints", type=positive_number, metavar="N", help=words)
    words = f"time between two checkpoints, ms [{DELAY_MS}]"
    add("--delay", type=whole_number, default=DELAY_MS, metavar="MS", help=words)
    words = f"silence of the secondary that ends the session, s [{ANSWER_TIMEOUT:g}]"
    add("--timeout", type=positive_number, default=int(ANSWER_TIMEOUT), metavar="S", help=words)
    words = "a page that has the 4096 bytes of FILE in each checkpoint; may be repeated"
    place = "BLOCK:N=FILE"
    add("--edit-page", type=_edited_page, action="append", default=[], metavar=place, help=words)
    words = "end the connection in the middle of a checkpoint, or behind BYTES of it"
    add("--tear", type=_tear, metavar="CHECKPOINT[:BYTES]", help=words)
    words = "leave out CHECKPOINT_REQUEST, VMSTATE_SEND or VMSTATE_SIZE of a checkpoint [the first]"
    place = "MESSAGE[:CHECKPOINT]"
    add("--leave-out", type=_left_out, action="append", default=[], metavar=place, help=words)
    words = "leave out a device's state everywhere, such as kvmclock for a QEMU without KVM"
    add("--leave-out-device", action="append", default=[], metavar="NAME", help=words)
    words = "monitor (QMP) of a QEMU that was not started here; it tells of its errors"
    add("--qmp", metavar="PATH", help=words)
    words = "let the secondary take over at the end: x-colo-lost-heartbeat"
    add("--fail-over", action="store_true", help=words)
    add("--json", action="store_true", help="print JSON")
    add("file", metavar="FILE", help="the recorded session; xz is unpacked")
    add("to", nargs="*", metavar="TO", help="unix:PATH, tcp:HOST:PORT, or -- and a QEMU to start")
    parser.epilog = _EPILOG


def run(options: argparse.Namespace) -> int:
    """Send the session, and print a line for each checkpoint."""
    from colobench.node.address import Address
    from colobench.peers.recorded_session import open_session
    from colobench.peers.session_sender import SessionSender, send_session
    from colobench.wire.replayed_session import ReplayedSession

    if options.delay < 0:
        raise LocalError(f"--delay: expected 0 or more, found {options.delay}")
    with contextlib.ExitStack() as closing:
        data, places = closing.enter_context(open_session(options.file))
        lacks, address, monitor = _secondary(options, closing)
        session = ReplayedSession(data, places, _changes(options, lacks))
        count = options.checkpoints or session.recorded
        _check_numbers(session.changes, count)
        connection = Address.parse(address).connect(options.timeout)
        sender = SessionSender(session, connection, monitor, options.timeout)
        said = (lambda line: None) if options.json else _say
        with sender:
            found = send_session(sender, count, options.delay, said)
            state = _fail_over(options, monitor)
    if options.json:
        values = {"checkpoints": [each.as_json() for each in found], "state": state}
        print(json.dumps(values, indent=1))
    else:
        loaded = sum(each.loaded for each in found)
        _say(f"{loaded} of {count} checkpoints were loaded{f'; {state}' if state else ''}")
    return 0 if len(found) == count and found[-1].loaded else _LEFT_BEFORE


def _say(line: str) -> None:
    print(line, flush=True)


def _changes(options: argparse.Namespace, lacks: tuple[str, ...]) -> SessionChanges:
    from colobench.wire.replayed_session import SessionChanges

    devices = tuple(dict.fromkeys([*options.leave_out_device, *lacks]))
    return SessionChanges(tuple(options.edit_page), options.tear, tuple(options.leave_out), devices)


def _check_numbers(changes: SessionChanges, count: int) -> None:
    """Refuse a change of a checkpoint that is not sent."""
    numbers = [("--leave-out", each.checkpoint) for each in changes.messages]
    if changes.tear is not None:
        numbers.append(("--tear", changes.tear.checkpoint))
    for option, number in numbers:
        if number > count:
            raise LocalError(f"{option}: expected a checkpoint of 1 to {count}, found {number}")


def _secondary(
    options: argparse.Namespace, closing: contextlib.ExitStack
) -> tuple[tuple[str, ...], str, SecondaryMonitor | None]:
    """Give the devices that the secondary lacks, its address, and its monitor if there is one."""
    from colobench.peers.recorded_session import recorded_guest
    from colobench.peers.secondary_qemu import SecondaryQEMU, attached_secondary

    is_address = len(options.to) == 1 and options.to[0].startswith(("unix:", "tcp:"))
    if is_address:
        if options.qmp:
            return (), options.to[0], closing.enter_context(attached_secondary(options.qmp))
        if options.fail_over:
            raise LocalError("--fail-over: expected --qmp with the address of a secondary")
        return (), options.to[0], None
    if options.qmp:
        raise LocalError("--qmp: expected the address of a secondary with it")
    if options.to:
        qemu = closing.enter_context(SecondaryQEMU(options.to))
        return (), qemu.address, qemu
    guest = recorded_guest(options.file)
    qemu = closing.enter_context(SecondaryQEMU(guest.command, guest.image))
    return guest.lacks, qemu.address, qemu


def _fail_over(options: argparse.Namespace, monitor: SecondaryMonitor | None) -> str:
    if not options.fail_over or monitor is None:
        return ""
    return f"after x-colo-lost-heartbeat its guest is {monitor.lost_heartbeat()}"
