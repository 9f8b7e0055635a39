"""The encodings `zstd` and `lz4` on multifd's channels: each packet's pages compressed together."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from colobench.kernels import compressed_packets as kernels
from colobench.kernels import multifd_packets
from colobench.kernels.multifd_packets import BAD_FIELD, PACKET_BYTES, PACKET_PAGES
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.node.channel import Channel
from colobench.node.migration.multifd import MultifdChannel, MultifdReceiver, MultifdSender
from colobench.node.migration.page_path import Pages
from colobench.node.workers import Workers
from colobench.wire.compressed_packets import BLOCK_LIMIT, announce_block, parse_packet
from colobench.wire.compression import CompressionError, compressor, decompressor
from colobench.wire.errors import RAMError
from colobench.wire.multifd import Blocks, packet_error
from colobench.wire.ram import BlockSlice

_BYTES: Final = multifd_packets.BYTES
_EMPTY: Final = np.zeros(0, dtype=np.uint8)


class CompressedChannel(MultifdChannel):
    """A connection with packets of compressed pages.

    Parameters
    ----------
    connection, main, blocks, send_buffer
        See `MultifdChannel`.
    method, level
        The compression, and its level.

    Attributes
    ----------
    encoded_pages, bytes_saved
        Pages that were sent compressed, and the bytes by which that was less.

    Raises
    ------
    LocalError
        If the library is not installed.
    """

    def __init__(
        self,
        connection: socket.socket,
        main: Channel,
        blocks: Blocks,
        send_buffer: int,
        method: str,
        level: int,
    ) -> None:
        super().__init__(connection, main, blocks, send_buffer)
        self._method = method
        self._compressor = compressor(method, level)
        self._decompressor = decompressor(method)
        self._packet = np.zeros(PACKET_BYTES, dtype=np.uint8)
        self._room = np.zeros(max(BLOCK_LIMIT, PACKET_PAGES * PAGE_SIZE), dtype=np.uint8)
        places = zip(blocks.first_pages.tolist(), blocks.pages.tolist(), strict=True)
        names = blocks.names.reshape(-1, multifd_packets.NAME_BYTES)
        self._places = dict(zip(map(bytes, names), places, strict=True))
        self.encoded_pages = self.bytes_saved = 0

    def send(
        self,
        memory: PageMemory,
        pages: Pages,
        parts: Sequence[BlockSlice],
        turn: tuple[int, int],
        number: int,
        carried: bool,
    ) -> int:
        """Send this channel's packets of page lists, see `MultifdChannel`."""
        zero_pages = 0
        channel, channels = turn
        for part in parts:
            starts = range(part.begin, part.end, PACKET_PAGES)
            for index in range(channel, len(starts), channels):
                stop = min(starts[index] + PACKET_PAGES, part.end)
                zero_pages += self._send_packet(
                    memory, pages, (starts[index], stop), part, number + index
                )
            number += len(starts)
        return zero_pages

    def _send_packet(
        self,
        memory: PageMemory,
        pages: Pages,
        entries: tuple[int, int],
        part: BlockSlice,
        number: int,
    ) -> int:
        """Send one packet; returns how many of its pages were zero pages."""
        start, stop = entries
        first_page = part.block.first_page
        normal: int = kernels.fill_packet(
            self._packet,
            memory.array,
            pages,
            start,
            stop,
            first_page,
            self._names[first_page],
            number,
            self._room,
        )
        size = normal * PAGE_SIZE
        block = self._compressor.compress(self._room.data[:size]) if normal else b""
        announce_block(self._packet.data, self._method, len(block))
        self.send_now(self._packet.data)
        self.send_now(block)
        self.encoded_pages += normal
        self.bytes_saved += size - len(block)
        return stop - start - normal

    def receive(self, memory: PageMemory, source: int) -> int:
        """Receive pages up to SYNC, see `MultifdChannel`."""
        progress = self._progress
        progress[multifd_packets.PAGES :] = 0
        pages, is_sync = 0, False
        while not is_sync:
            offset = int(progress[_BYTES])
            progress[multifd_packets.PACKET_AT] = offset
            self._receive_into(self._packet.data)
            numbers = parse_packet(self._packet.data, self._method, offset)
            block = self._room.data[: numbers.size]
            self._receive_into(block)
            if numbers.normal + numbers.zero:
                place = self._place(numbers.name, offset)
                data = self._decompress(block, numbers.normal * PAGE_SIZE, offset)
                status = kernels.store_packet(
                    self._packet,
                    numbers.normal,
                    numbers.zero,
                    *place,
                    data.ctypes.data,
                    memory.array,
                    memory.bitmap,
                    progress,
                )
                if status == BAD_FIELD:
                    raise packet_error(progress, carried=True)
            pages += numbers.normal + numbers.zero
            progress[multifd_packets.ZERO_PAGES] += numbers.zero
            is_sync = numbers.is_sync
        return pages

    def _place(self, name: bytes, offset: int) -> tuple[int, int]:
        place = self._places.get(name)
        if place is None:
            at = offset + multifd_packets.NAME_AT
            expected = "the name of a RAM block"
            raise RAMError("multifd ramblock", expected=expected, found="another", offset=at)
        first_page, pages = place
        return first_page, pages

    def _decompress(self, block: memoryview, size: int, offset: int) -> npt.NDArray[np.uint8]:
        if not size:
            return _EMPTY
        try:
            data = self._decompressor.decompress(block, size)
        except CompressionError as error:
            raise RAMError(
                "multifd block",
                expected=f"{size} bytes by {self._method}",
                found=error,
                offset=offset + PACKET_BYTES,
            ) from error
        return np.frombuffer(data, dtype=np.uint8)

    def _receive_into(self, view: memoryview) -> None:
        """Receive exactly as many bytes as there is room for."""
        while view:
            try:
                count = self._socket.recv_into(view)
            except OSError as error:
                raise self.failed("receive", error.errno or 0) from error
            if not count:
                offset = int(self._progress[_BYTES])
                raise self.ended(f"page channel: connection closed at offset {offset}")
            self._progress[_BYTES] += count
            view = view[count:]


class CompressedMultifdSender(MultifdSender):
    """Sends packets of compressed pages on all channels.

    Parameters
    ----------
    channel, memory, count, workers
        See `MultifdSender`.
    method, level
        The compression, and its level.
    """

    def __init__(
        self,
        channel: Channel,
        memory: PageMemory,
        count: int,
        workers: Workers,
        method: str,
        level: int,
    ) -> None:
        super().__init__(channel, memory, count, workers)
        self._compression = method, level
        self._counted = 0, 0

    def send(self, pages: Pages) -> None:
        """Send pages, see `MultifdSender`."""
        super().send(pages)
        opened = [each for each in self.connections if isinstance(each, CompressedChannel)]
        encoded = sum(each.encoded_pages for each in opened)
        saved = sum(each.bytes_saved for each in opened)
        self.section.encoded_pages += encoded - self._counted[0]
        self.section.bytes_saved += saved - self._counted[1]
        self._counted = encoded, saved

    def _open(self, connection: socket.socket) -> MultifdChannel:
        return CompressedChannel(
            connection, self._channel, self._blocks, self._send_buffer, *self._compression
        )

    def _greet(self, connection: MultifdChannel, number: int) -> None:
        self._send_handshake(connection, number, None)


class CompressedMultifdReceiver(MultifdReceiver):
    """Receives packets of compressed pages on all channels.

    Parameters
    ----------
    channel, memory, count, workers, method, level
        See `CompressedMultifdSender`; `memory` is the RAM cache.
    """

    def __init__(
        self,
        channel: Channel,
        memory: PageMemory,
        count: int,
        workers: Workers,
        method: str,
        level: int,
    ) -> None:
        super().__init__(channel, memory, count, workers)
        self._compression = method, level

    def _open(self, connection: socket.socket) -> MultifdChannel:
        return CompressedChannel(
            connection, self._channel, self._blocks, self._send_buffer, *self._compression
        )
