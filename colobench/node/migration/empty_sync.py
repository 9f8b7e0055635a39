"""A planted bug of the transport `multifd`, see ``docs/bug-museum.md``."""

from __future__ import annotations

import socket
import struct
from typing import Final

import numpy as np

from colobench.kernels.multifd_packets import OFFSETS_AT, PACKET_BYTES, SYNC, ZERO_PAGES_AT
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.node.connection import PeerLost
from colobench.node.migration.multifd import MultifdChannel, MultifdReceiver
from colobench.wire.errors import HeaderError
from colobench.wire.multifd import SYNC_BEGIN

#: Bytes of a packet up to its flags.
_FLAGS_END: Final = 12


class EmptySyncChannel(MultifdChannel):
    """Channel that takes a packet with the flag SYNC for one without pages (`Bug.EMPTY_SYNC`).

    It reads one packet after the other, without a kernel, as nothing depends on its speed.
    """

    def sync_waits(self) -> bool:
        """Tell whether the next packet has arrived, and has SYNC; its pages are not looked at."""
        try:
            begin = self._socket.recv(_FLAGS_END, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return begin == SYNC_BEGIN[:_FLAGS_END]

    def receive(self, memory: PageMemory, source: int) -> int:
        """Receive pages up to a packet with SYNC, whose own pages are not read."""
        received = 0
        while True:
            packet = self._read(PACKET_BYTES)
            if packet[:8] != SYNC_BEGIN[:8]:
                raise HeaderError(
                    "multifd magic and version",
                    expected=SYNC_BEGIN[:8].hex(),
                    found=packet[:8].hex(),
                    offset=0,
                )
            flags, _, normal = struct.unpack_from(">III", packet, 8)
            if flags & SYNC:
                return received
            (zero,) = struct.unpack_from(">I", packet, ZERO_PAGES_AT)
            name = packet[64:OFFSETS_AT].rstrip(b"\0").decode()
            first = next(block.first_page for block in memory.blocks if block.name == name)
            offsets = struct.unpack_from(f">{normal + zero}Q", packet, OFFSETS_AT)
            for at, offset in enumerate(offsets):
                data = self._read(PAGE_SIZE) if at < normal else bytes(PAGE_SIZE)
                page = first + offset // PAGE_SIZE
                begin = page * PAGE_SIZE
                memory.array[begin : begin + PAGE_SIZE] = np.frombuffer(data, dtype=np.uint8)
                memory.bitmap[page // 64] |= np.uint64(1 << page % 64)
            received += len(offsets)

    def _read(self, length: int) -> bytes:
        data = self._socket.recv(length, socket.MSG_WAITALL)
        if len(data) < length:
            raise PeerLost(f"page channel: expected {length} bytes, found {len(data)} and the end")
        return data


class EmptySyncReceiver(MultifdReceiver):
    """Receiver with such channels."""

    def _open(self, connection: socket.socket) -> MultifdChannel:
        return EmptySyncChannel(connection, self._channel, self._blocks, self._send_buffer)
