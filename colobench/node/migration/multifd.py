"""The transport `multifd`: QEMU's packets, on connections that carry only pages."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import ClassVar, Final

import numpy as np

from colobench.kernels import multifd, multifd_packets
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.node.address import Address
from colobench.node.channel import Channel
from colobench.node.connection import SOCKET_BUFFER, Connection, PeerLost
from colobench.node.migration.page_path import PageReceiver, Pages, PageSender
from colobench.node.wait import Wait
from colobench.node.watchdog import CALL_BYTES
from colobench.node.workers import PAGES_FOR_A_THREAD, Workers
from colobench.wire import savevm
from colobench.wire.errors import HeaderError
from colobench.wire.format import SectionType
from colobench.wire.multifd import (
    HANDSHAKE_BYTES,
    SYNC_BEGIN,
    Blocks,
    handshake,
    packet_error,
    parse_handshake,
    sync_packet,
)
from colobench.wire.ram import BlockSlice, PagesByBlock

#: A packet's pages fit into a pipe of this size.
_PIPE_BYTES: Final = 1 << 20
#: The main stream's part of a section.
_SECTIONS: Final = {
    kind: savevm.ram_section_multifd(kind, savevm.RAM_SECTION_ID)
    for kind in (SectionType.PART, SectionType.END)
}


class MultifdChannel(Connection):
    """A connection that carries only pages.

    Parameters
    ----------
    connection, send_buffer
        See `Connection`.
    main
        The main connection, whose time limits this one shares.
    blocks
        The RAM blocks, the same on both sides.
    """

    def __init__(
        self, connection: socket.socket, main: Channel, blocks: Blocks, send_buffer: int
    ) -> None:
        super().__init__(connection, main.stall_timeout, send_buffer)
        self.watchdog = main.watchdog
        self._blocks = blocks
        self._names = blocks.by_first_page()
        self._packets = np.zeros(max(multifd.SEND_BYTES, multifd.RECEIVE_BYTES), dtype=np.uint8)
        self._iov = np.zeros(multifd.IOV_WORDS, dtype=np.uint64)
        self._progress = np.zeros(multifd_packets.PROGRESS_SLOTS, dtype=np.int64)
        #: Bytes of RAM that were copied because lists of pages came.
        self._copied, self._copies = 0, False
        #: Its reading and its writing end, or -1 twice.
        self._pipe = (-1, -1)

    def splice(self) -> None:
        """From now on hand pages to the kernel without a copy, if the socket allows it."""
        if self._socket.family == socket.AF_UNIX:
            self._pipe = os.pipe()
            # A user may have used up what the system allows; it works with less, only slower.
            with suppress(OSError):
                fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def close(self) -> None:
        """Close the socket and the pipe."""
        super().close()
        for end in self._pipe:
            if end >= 0:
                os.close(end)
        self._pipe = (-1, -1)

    @property
    def moved(self) -> int:
        """Bytes that came or have arrived by now; with `memfd` those copied count, too."""
        on_their_way = int(self._progress[multifd_packets.BYTES])
        copies = int(self._progress[multifd_packets.PAGES]) * PAGE_SIZE if self._copies else 0
        return self.sent + on_their_way - self.in_flight + self._copied + copies

    def greet(self, channel: int, channels: int, descriptor: int | None) -> None:
        """Send the handshake, and with it a descriptor if there is one."""
        data = handshake(channel, channels)
        if descriptor is None:
            self.send_now(data)
            return
        try:
            socket.send_fds(self._socket, [data], [descriptor])
        except OSError as error:
            raise self.failed("send", error.errno or 0) from error
        self.sent += len(data)

    def meet(self, channels: int, wait: Wait) -> tuple[int, list[int]]:
        """Receive the handshake: which channel this is, and the descriptors that came with it."""
        data, descriptors = b"", list[int]()
        try:
            while len(data) < HANDSHAKE_BYTES:
                wait.until_readable(self._socket)
                piece, came, _, _ = socket.recv_fds(
                    self._socket, HANDSHAKE_BYTES - len(data), 1, socket.MSG_CMSG_CLOEXEC
                )
                descriptors += came
                if not piece:
                    raise PeerLost("page channel: connection closed before its handshake")
                data += piece
            self._progress[multifd_packets.BYTES] = HANDSHAKE_BYTES
            return parse_handshake(data, channels), descriptors
        except BaseException as error:
            for each in descriptors:
                os.close(each)
            if isinstance(error, OSError):
                raise self.failed("receive", error.errno or 0) from error
            raise

    def send(
        self,
        memory: PageMemory,
        pages: Pages,
        parts: Sequence[BlockSlice],
        turn: tuple[int, int],
        number: int,
        carried: bool,
    ) -> int:
        """Send this channel's packets of page lists; returns how many were zero pages."""
        progress = self._progress
        progress[:] = 0
        for part in parts:
            status = multifd.send_packets(
                self._socket.fileno(),
                *self._pipe,
                memory.array,
                pages,
                part.begin,
                part.end,
                part.block.first_page,
                self._names[part.block.first_page],
                *turn,
                number,
                int(carried),
                self._packets,
                self._iov,
                progress,
            )
            if status < 0:
                raise self.failed("send", -status)
            number += _packets_of(part)
        self.sent += int(progress[multifd_packets.BYTES])
        progress[multifd_packets.BYTES] = 0
        return int(progress[multifd_packets.ZERO_PAGES])

    def sync_waits(self) -> bool:
        """Tell whether the next packet has arrived, and is a SYNC without pages."""
        try:
            begin = self._socket.recv(len(SYNC_BEGIN), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return begin == SYNC_BEGIN

    def receive(self, memory: PageMemory, source: int) -> int:
        """Receive pages up to SYNC; returns how many came. `zero_pages` has those of them."""
        progress = self._progress
        # The bytes so far stay: errors count from there.
        progress[multifd_packets.PAGES :] = 0
        self._copies = source != 0
        status = multifd.receive_packets(
            self._socket.fileno(),
            self._packets,
            memory.array,
            memory.bitmap,
            source,
            *self._blocks,
            self._iov,
            progress,
        )
        if status == multifd_packets.BAD_FIELD:
            raise packet_error(progress, carried=source == 0)
        if status == multifd_packets.END:
            offset = int(progress[multifd_packets.BYTES])
            raise self.ended(f"page channel: connection closed at offset {offset}")
        if status < 0:
            raise self.failed("receive", -status)
        pages = int(progress[multifd_packets.PAGES])
        self._copied += pages * PAGE_SIZE * self._copies
        progress[multifd_packets.PAGES] = 0
        return pages

    @property
    def zero_pages(self) -> int:
        """How many of the pages of the last call were zero pages."""
        return int(self._progress[multifd_packets.ZERO_PAGES])


def _packets_of(part: BlockSlice) -> int:
    """Return the number of packets for the pages of a part."""
    return -(-(part.end - part.begin) // multifd_packets.PACKET_PAGES)


class MultifdSender(PageSender):
    """Sends packets on all channels, announced in the main stream.

    Parameters
    ----------
    channel
        The main connection.
    memory
        RAM that pages are sent from.
    count
        Number of channels.
    workers
        Threads for all channels but the first.
    """

    #: Whether the pages' bytes follow the packets.
    _carried: ClassVar[bool] = True
    _send_buffer: ClassVar[int] = SOCKET_BUFFER

    def __init__(self, channel: Channel, memory: PageMemory, count: int, workers: Workers) -> None:
        super().__init__(memory)
        self._channel = channel
        self._count = count
        self._workers = workers
        self._blocks = Blocks.of(memory.blocks)
        self._by_block = PagesByBlock(memory.blocks)
        self.connections: list[MultifdChannel] = []
        self._number = 0
        self._busy = count
        channel.attach(self)

    @property
    def moved(self) -> int:
        """Bytes that have reached the peer, on all channels."""
        return sum(connection.moved for connection in self.connections)

    def connect(self, address: Address, wait: Wait) -> None:
        """Connect all channels, and send each one's number; see `PageSender`."""
        for number in range(self._count):
            connection = self._open(address.connect_while(wait))
            self.connections.append(connection)
            self._greet(connection, number)

    def _open(self, connection: socket.socket) -> MultifdChannel:
        return MultifdChannel(connection, self._channel, self._blocks, self._send_buffer)

    def _greet(self, connection: MultifdChannel, number: int) -> None:
        connection.splice()
        self._send_handshake(connection, number, None)

    def _send_handshake(
        self, connection: MultifdChannel, number: int, descriptor: int | None
    ) -> None:
        with self._channel.watchdog.due():
            connection.greet(number, self._count, descriptor)

    def begin(self, kind: SectionType, count: int) -> None:
        """Begin a section: send SYNC on the channels that are not needed for it.

        These are sent before the announcement, so that the receiver needs no threads to wait on
        idle channels. The announcement precedes the pages, so that the receiver already waits for
        them.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self.section.clear()
        self._busy = max(1, min(self._count, count // PAGES_FOR_A_THREAD))
        if self._busy < self._count:
            self._sync(self.connections[self._busy :])
        self._channel.write(_SECTIONS[kind])
        self._channel.flush()

    def send(self, pages: Pages) -> None:
        """Send pages; the receiver waits for `end` behind them. See `PageSender`."""
        parts = self._by_block.slices(pages)
        jobs = [
            partial(
                connection.send,
                self._memory,
                pages,
                parts,
                (turn, self._busy),
                self._number,
                self._carried,
            )
            for turn, connection in enumerate(self.connections[: self._busy])
        ]
        self._number += sum(map(_packets_of, parts))
        with self._channel.watchdog.due(unseen=min(len(pages) * PAGE_SIZE, CALL_BYTES)):
            self.section.zero_pages += sum(self._workers.run(jobs))

    def end(self) -> None:
        """Send SYNC on the channels that had pages.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._sync(self.connections[: self._busy])

    def _sync(self, connections: Sequence[MultifdChannel]) -> None:
        with self._channel.watchdog.due():
            for connection in connections:
                connection.send_now(sync_packet(self._number))
                self._number += 1


class MultifdReceiver(PageReceiver):
    """Receives packets on all channels, with their pages stored directly in the RAM cache.

    Parameters
    ----------
    channel
        The main connection.
    memory
        The RAM cache.
    count, workers
        See `MultifdSender`.
    """

    _send_buffer: ClassVar[int] = SOCKET_BUFFER
    #: Address of the primary's RAM, or 0.
    _source_address = 0

    def __init__(self, channel: Channel, memory: PageMemory, count: int, workers: Workers) -> None:
        super().__init__()
        self._channel = channel
        self._memory = memory
        self._count = count
        self._workers = workers
        self._blocks = Blocks.of(memory.blocks)
        self.connections: list[MultifdChannel] = []
        self._failure: BaseException | None = None
        channel.attach(self)
        channel.receive_with(self)

    @property
    def moved(self) -> int:
        """Bytes received or copied so far, on all channels."""
        return sum(connection.moved for connection in self.connections)

    def accept(self, listener: socket.socket, wait: Wait) -> None:
        """Wait for all channels, in whatever order they come; see `PageReceiver`."""
        found: dict[int, MultifdChannel] = {}
        while len(found) < self._count:
            wait.expected = f"{self._count} page channels, found {len(found)}"
            connection = self._open(wait.accept(listener))
            self.connections.append(connection)
            number, descriptors = connection.meet(self._count, wait)
            try:
                for descriptor in descriptors:
                    self._descriptor_came(descriptor, number)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if number in found:
                raise HeaderError(
                    "multifd channel", expected="each once", found=f"{number} again", offset=24
                )
            found[number] = connection
        self.connections = [found[number] for number in range(self._count)]

    def _open(self, connection: socket.socket) -> MultifdChannel:
        return MultifdChannel(connection, self._channel, self._blocks, self._send_buffer)

    def _descriptor_came(self, descriptor: int, number: int) -> None:
        """Check a descriptor that came with the handshake of channel `number`."""
        raise descriptor_error("none", descriptor, number)

    def take_synced(self, memory: PageMemory) -> tuple[int, int]:
        """Receive on all channels up to their SYNC; see `PageSource`.

        Raises
        ------
        PeerLost, PeerStalled
        RAMError
            If a packet is not right.
        """
        idle = [connection for connection in self.connections[1:] if connection.sync_waits()]
        busy = [connection for connection in self.connections if connection not in idle]
        jobs = [partial(self._receive_on, connection, memory) for connection in busy]
        try:
            for connection in idle:
                self._receive_on(connection, memory)
            pages = sum(self._workers.run(jobs))
        except BaseException as error:
            # The first failure, not its consequences on the other channels.
            failure = self._failure or error
            raise failure from failure.__cause__
        return pages, sum(connection.zero_pages for connection in self.connections)

    def _receive_on(self, connection: MultifdChannel, memory: PageMemory) -> int:
        try:
            return connection.receive(memory, self._source_address)
        except BaseException as error:
            self._failure = self._failure or error
            # The others would wait for their SYNC.
            self.shut_down()
            raise


def descriptor_error(expected: str, descriptor: int, number: int) -> HeaderError:
    """Return the error for an unexpected descriptor with the handshake of channel `number`."""
    found = f"one with channel {number}, of {os.fstat(descriptor).st_size} bytes"
    return HeaderError(
        "descriptor of the primary's RAM",
        expected=expected,
        found=f"{found}, seals {seals_of(descriptor):#x}",
        offset=0,
    )


def seals_of(descriptor: int) -> int:
    """Return the seals of a memfd (fcntl(2)), or 0 for another file."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        return 0
