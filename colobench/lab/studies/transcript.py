"""Transcript of checkpoints: captured bytes in order, message by message."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from colobench.guest.numba.devices import standard_devices
from colobench.lab.session.message_gate import DIRECTIONS, Direction
from colobench.lab.session.message_splitter import BUFFER, RAM_SECTION
from colobench.lab.session.relay import Chunk, Form
from colobench.wire.dissect import Item, dissect_checkpoint
from colobench.wire.messages import Message
from colobench.wire.vmstate import Device


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message, or the bytes that follow one.

    Attributes
    ----------
    direction
        ``P→S`` or ``S→P``.
    time
        Time at which its first byte crossed, in seconds since the first message.
    name
        A message's name, `RAM_SECTION` or `BUFFER`.
    data
        Bytes of the message.
    items
        Decoded bytes; offsets count from the first byte captured in that direction.
    form
        Form of the conversation; None if the relay was not told.
    """

    direction: Direction
    time: float
    name: str
    data: bytes
    items: tuple[Item, ...]
    form: Form | None = None


def read_messages(
    chunks: Sequence[Chunk], devices: Iterable[Device] | None = None
) -> list[WireMessage]:
    """Put captured bytes in order.

    Parameters
    ----------
    chunks
        Bytes of whole checkpoints that a `Relay` kept; the last one may be torn.
    devices
        Devices whose states are decoded, by default those of our machine.

    Returns
    -------
    list of WireMessage
        Messages by time, which together have all of the bytes.
    """
    devices = list(standard_devices() if devices is None else devices)
    messages = [part for direction in DIRECTIONS for part in _one_side(chunks, direction, devices)]
    # Of messages at the same moment, the primary's comes first.
    messages.sort(key=lambda message: message.time)
    begin = messages[0].time if messages else 0.0
    return [replace(message, time=message.time - begin) for message in messages]


def _one_side(
    chunks: Sequence[Chunk], direction: Direction, devices: list[Device]
) -> Iterator[WireMessage]:
    chunks = [chunk for chunk in chunks if chunk.direction == direction]
    data = b"".join(chunk.data for chunk in chunks)
    # Where each chunk ends in the data.
    ends = list(accumulate(len(chunk.data) for chunk in chunks))
    for name, items in _parts(dissect_checkpoint(data, devices=devices)):
        begin = items[0].offset
        end = items[-1].offset + items[-1].length
        # A torn end may be an item without a byte.
        chunk = chunks[min(bisect_right(ends, begin), len(chunks) - 1)]
        yield WireMessage(direction, chunk.time, name, data[begin:end], tuple(items), chunk.form)


def _parts(items: Iterable[Item]) -> Iterator[tuple[str, list[Item]]]:
    """Divide items into messages and what lies between them."""
    name = RAM_SECTION
    for is_message, group in groupby(items, key=lambda item: item.kind == "message"):
        if not is_message:
            yield name, list(group)
            continue
        for item in group:
            yield item.title, [item]
            name = BUFFER if item.title == Message.VMSTATE_SIZE.name else RAM_SECTION
