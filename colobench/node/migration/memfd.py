"""The transport `memfd`: multifd's packets without bytes; the secondary copies the pages itself.

Both nodes are on one host. The primary hands over the descriptor of its RAM with the handshake of
channel 0; the secondary maps it, read-only and sealed against a change of its length.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from typing import Final

import numpy as np

from colobench.memory.ram import PageMemory
from colobench.node.channel import Channel
from colobench.node.migration.multifd import (
    MultifdChannel,
    MultifdReceiver,
    MultifdSender,
    descriptor_error,
    seals_of,
)
from colobench.node.wait import Wait
from colobench.node.workers import Workers
from colobench.wire.errors import HeaderError

#: Send buffer in bytes of channels that carry only lists. It lets a sender be some thousand pages
#: ahead of its receiver, not all of RAM: live migration would end before RAM has arrived.
_LISTS_BUFFER: Final = 64 * 1024
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class MemfdSender(MultifdSender):
    """Sends lists of pages, and first the descriptor of the RAM with the pages."""

    _carried = False
    _send_buffer = _LISTS_BUFFER

    def _greet(self, connection: MultifdChannel, number: int) -> None:
        self._send_handshake(connection, number, None if number else self._memory.fd)


class MemfdReceiver(MultifdReceiver):
    """Receives lists of pages, and copies the pages from the mapped RAM of the primary."""

    _send_buffer = _LISTS_BUFFER

    def __init__(self, channel: Channel, memory: PageMemory, count: int, workers: Workers) -> None:
        super().__init__(channel, memory, count, workers)
        self._source: mmap.mmap | None = None

    def accept(self, listener: socket.socket, wait: Wait) -> None:
        """Wait for all channels and the descriptor; see `PageReceiver`."""
        super().accept(listener, wait)
        if self._source is None:
            raise HeaderError(
                "multifd handshake",
                expected="the descriptor of the primary's RAM with channel 0",
                found="none",
                offset=0,
            )

    def _descriptor_came(self, descriptor: int, number: int) -> None:
        """Map the primary's RAM, which must not be able to shrink while it is read."""
        length = len(self._memory.array)
        sealed = seals_of(descriptor) & _SEALS == _SEALS
        wanted = number == 0 and self._source is None
        if not wanted or not sealed or os.fstat(descriptor).st_size != length:
            expected = f"one, with channel 0, of {length} bytes, sealed against a change of that"
            raise descriptor_error(expected, descriptor, number)
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._source = mmap.mmap(descriptor, length, flags=flags, prot=mmap.PROT_READ)
        self._source_address = np.frombuffer(self._source, dtype=np.uint8).ctypes.data

    def close(self) -> None:
        """Close the connections, and let go of the primary's RAM."""
        super().close()
        if self._source is not None:
            self._source.close()
            self._source = None
