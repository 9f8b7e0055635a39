"""Packets of multifd as a QEMU before 9.0 sends them: the flag SYNC may come along with pages.

QEMU's commit "migration/multifd: Separate SYNC request with normal jobs" (9.0) ended that; a
receiver has to go on reading such packets.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import numpy as np

from colobench.errors import RemoteError
from colobench.kernels.multifd_packets import MAGIC, PACKET_PAGES, SYNC, VERSION
from colobench.memory.ram import PAGE_SIZE, PageMemory, lay_out
from colobench.node.channel import Channel
from colobench.node.connection import SOCKET_BUFFER
from colobench.node.migration.multifd import MultifdChannel
from colobench.wire.multifd import Blocks, sync_packet

BLOCKS: Final = lay_out({"pc.ram": 64 * PAGE_SIZE})
_SECONDS: Final = 10.0
#: Pages of the stream's packets: all of the first section, the last three of them with SYNC.
SENT: Final = ((3, 4, 5), (9, 10, 11))


def packet_with_pages(pages: Sequence[int], flags: int, number: int) -> bytes:
    """Encode a packet of pages, each of which is filled with its number."""
    head = struct.pack(
        ">IIIIIIQI28x256s",
        *(MAGIC, VERSION, flags, PACKET_PAGES, len(pages), len(pages) * PAGE_SIZE, number, 0),
        b"pc.ram",
    )
    offsets = b"".join(struct.pack(">Q", page * PAGE_SIZE) for page in pages)
    data = b"".join(bytes([page]) * PAGE_SIZE for page in pages)
    return head + offsets.ljust(8 * PACKET_PAGES, b"\0") + data


def older_stream() -> bytes:
    """Give two sections of a channel: six pages, three of them with SYNC; and no page."""
    normal, synced = SENT
    return packet_with_pages(normal, 0, 1) + packet_with_pages(synced, SYNC, 2) + sync_packet(3)


def receive_older_stream(kind: type[MultifdChannel]) -> list[str]:
    """Receive `older_stream` by a class of channels, and say what is wrong; nothing is right."""
    near, far = socket.socketpair()
    main, other = socket.socketpair()

    def send() -> None:
        with far:
            far.sendall(older_stream())

    sender = threading.Thread(target=send)
    with (
        closing(PageMemory("colobench-older", BLOCKS)) as memory,
        other,
        closing(Channel(main, _SECONDS)) as of_main,
        closing(kind(near, of_main, Blocks.of(BLOCKS), SOCKET_BUFFER)) as channel,
    ):
        sender.start()
        try:
            return list(_problems(channel, memory))
        finally:
            channel.shut_down()
            sender.join()


def _problems(channel: MultifdChannel, memory: PageMemory) -> Sequence[str]:
    found = []
    try:
        came = channel.receive(memory, 0), channel.receive(memory, 0)
        expected = (sum(map(len, SENT)), 0)
        if came != expected:
            found.append(f"expected {expected} pages in two sections, found {came}")
    except RemoteError as error:
        found.append(f"the second section cannot be read: {error}")
    pages = memory.array.reshape(-1, PAGE_SIZE)
    missing = [page for part in SENT for page in part if not np.all(pages[page] == page)]
    if missing:
        found.append(f"pages {missing} were sent and are not in the RAM cache")
    return found
