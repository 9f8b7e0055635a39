"""Dissector of recorded bytes: a list of items, of which each byte is in exactly one.

`colobench.wire.reader` reads them; here all bytes are at hand.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

from colobench.wire.buffer import StreamBuffer
from colobench.wire.lookahead import LOOK_AHEAD_LIMIT as LIMIT
from colobench.wire.lookahead import WINDOW, Driver
from colobench.wire.reader import UNEXPLAINED, StreamReader
from colobench.wire.recorded import Item, ItemList, format_items
from colobench.wire.steps import Steps
from colobench.wire.vmstate import Device

__all__ = ["UNEXPLAINED", "Item", "dissect", "dissect_checkpoint", "format_items"]


def dissect(
    data: bytes, *, devices: Iterable[Device] = (), conversation: bool = False
) -> list[Item]:
    """Dissect a migration stream.

    Parameters
    ----------
    data
        The stream, beginning with its magic.
    devices
        Devices whose states are decoded. Of any other device only the size is found: from the
        vmdescription after the sections, or else by its footer.
    conversation
        True if COLO's checkpoints follow the migration, as from primary to secondary.

    Returns
    -------
    list of Item
        Ascending and contiguous, from the first byte to the last. What cannot be read is an item of
        kind `UNEXPLAINED`, which has the error as its title. Reading goes on behind it if the end
        of the section, the package or the sized buffer is known or can be found.

    Notes
    -----
    Without a vmdescription (QEMU's ``suppress-vmdesc=on``, a checkpoint, a torn stream), the
    payload of a device that is not in `devices` is found by its footer;
    `colobench.wire.footers.find_payload_ends` says which bytes are ambiguous.
    """
    whole = StreamReader.conversation if conversation else StreamReader.migration
    return _dissected(data, devices, whole)


def dissect_checkpoint(
    data: bytes, *, devices: Iterable[Device] = (), offset: int = 0
) -> list[Item]:
    """Dissect bytes of COLO's conversation in either direction, beginning with a message.

    Parameters
    ----------
    data
        Messages, RAM sections and device buffers.
    devices
        As for `dissect`.
    offset
        Offset of the first byte in the stream, added to the items' offsets.

    Returns
    -------
    list of Item
        As from `dissect`.
    """
    items = _dissected(data, devices, StreamReader.checkpoints)
    return [item._replace(offset=item.offset + offset) for item in items]


def _dissected(
    data: bytes, devices: Iterable[Device], part: Callable[[StreamReader], Steps[None]]
) -> list[Item]:
    at, found = StreamBuffer(min(WINDOW, len(data) + 1), LIMIT + WINDOW), ItemList()
    reader = StreamReader(at, found, devices, one_kind=True)
    Driver(at, io.BytesIO(data).readinto).run(part(reader))
    return found.items()
