"""The connections that pages travel on, beside the main one: `multifd` and `memfd`."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt

from colobench.kernels import multifd, multifd_packets
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.node.address import Address
from colobench.node.connection import SOCKET_BUFFER, Connection, PeerLost
from colobench.node.wait import Wait
from colobench.node.watchdog import CALL_BYTES, Watchdog
from colobench.node.workers import Workers
from colobench.wire.errors import HeaderError
from colobench.wire.multifd import (
    HANDSHAKE_BYTES,
    SYNC_BEGIN,
    Blocks,
    handshake,
    packet_error,
    parse_handshake,
    sync_packet,
)
from colobench.wire.ram import RecordSlice

#: Fewer pages than this for each channel go on one channel: a second thread would come too late.
PAGES_FOR_A_THREAD = 2048
#: Send buffer of channels that bring lists alone: a sender is to be ahead of its reader by some
#: thousand pages, not by all of RAM, or live migration would end before RAM is there.
LISTS_BUFFER = 64 * 1024
#: A packet's pages fit into a pipe of this size.
PIPE_BYTES = 1 << 20
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class PageChannel(Connection):
    """One of the connections; see `Connection` for the first two parameters.

    Parameters
    ----------
    blocks
        The RAM blocks, the same on both sides.
    send_buffer
        See `Connection`.
    """

    def __init__(
        self, connection: socket.socket, stall_timeout: float, blocks: Blocks, send_buffer: int
    ) -> None:
        super().__init__(connection, stall_timeout, send_buffer)
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
        """From now on give the kernel the pages themselves, where the socket can take them."""
        if self._socket.family == socket.AF_UNIX:
            self._pipe = os.pipe()
            # A user may have used up what the system allows; it works with less, only slower.
            with suppress(OSError):
                fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)

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
        pages: npt.NDArray[np.int32],
        parts: Sequence[RecordSlice],
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
            number += packets_of(part)
        self.sent += int(progress[multifd_packets.BYTES])
        progress[multifd_packets.BYTES] = 0
        return int(progress[multifd_packets.ZERO_PAGES])

    def sync_waits(self) -> bool:
        """Say whether the next packet is there, and is a SYNC without pages."""
        try:
            begin = self._socket.recv(len(SYNC_BEGIN), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return begin == SYNC_BEGIN

    def receive(self, memory: PageMemory, source: int) -> int:
        """Receive pages up to SYNC; returns how many came. `zero_pages` has those of them."""
        progress = self._progress
        # What came so far stays: errors count from there.
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


def packets_of(part: RecordSlice) -> int:
    """Give how many packets the pages of a part make."""
    return -(-(part.end - part.begin) // multifd_packets.PACKET_PAGES)


class PageChannels:
    """All of them, from the handshakes to the end.

    Parameters
    ----------
    memory
        The RAM blocks: RAM on the primary, the RAM cache on the secondary.
    count
        How many channels.
    shared
        Whether the secondary copies the pages out of the primary's memory (`memfd`).
    workers
        Threads for all channels but the first.
    stall_timeout
        Seconds, see `Connection`.

    Attributes
    ----------
    watchdog
        That of the main connection, which watches these as well.
    """

    watchdog: Watchdog

    def __init__(
        self,
        memory: PageMemory,
        count: int,
        shared: bool,
        workers: Workers,
        stall_timeout: float,
    ) -> None:
        self._memory = memory
        self._count = count
        self._shared = shared
        self._workers = workers
        self._stall_timeout = stall_timeout
        self._blocks = Blocks.of(memory.blocks)
        self._channels: list[PageChannel] = []
        self._source: mmap.mmap | None = None
        self._source_address = 0
        self._number = 0
        self._busy = count
        self._failure: BaseException | None = None

    @property
    def sent(self) -> int:
        """Bytes sent so far on all of them."""
        return sum(channel.sent for channel in self._channels)

    @property
    def moved(self) -> int:
        """Bytes that came or have arrived by now, on all of them."""
        return sum(channel.moved for channel in self._channels)

    def connect(self, address: Address, wait: Wait) -> None:
        """Connect all channels, and say which each is.

        Raises
        ------
        LocalError
            If nobody answers.
        PeerLost, PeerStalled
        """
        for number in range(self._count):
            channel = self._add(address.connect_while(wait))
            if not self._shared:
                channel.splice()
            descriptor = self._memory.fd if self._shared and number == 0 else None
            with self.watchdog.due():
                channel.greet(number, self._count, descriptor)

    def accept(self, listener: socket.socket, wait: Wait) -> None:
        """Wait for all channels, in whatever order they come.

        Parameters
        ----------
        listener
            Where they come; shutting it down ends the wait.
        wait
            How long, and what else ends the wait.

        Raises
        ------
        PeerStalled
            If they do not come in time.
        HeaderError
            If one is not what it should be.
        PeerLost
        """
        found: dict[int, PageChannel] = {}
        while len(found) < self._count:
            wait.expected = f"{self._count} page channels, found {len(found)}"
            channel = self._add(wait.accept(listener))
            number, descriptors = channel.meet(self._count, wait)
            try:
                for descriptor in descriptors:
                    self._map(descriptor, number)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if number in found:
                raise HeaderError(
                    "multifd channel", expected="each once", found=f"{number} again", offset=24
                )
            found[number] = channel
        if self._shared and self._source is None:
            raise HeaderError(
                "multifd handshake",
                expected="the descriptor of the primary's RAM with channel 0",
                found="none",
                offset=0,
            )
        self._channels = [found[number] for number in range(self._count)]

    def _add(self, connection: socket.socket) -> PageChannel:
        send_buffer = LISTS_BUFFER if self._shared else SOCKET_BUFFER
        channel = PageChannel(connection, self._stall_timeout, self._blocks, send_buffer)
        channel.watchdog = self.watchdog
        self._channels.append(channel)
        return channel

    def _map(self, descriptor: int, number: int) -> None:
        """Map the primary's RAM, which must not be able to shrink under our reads."""
        length = len(self._memory.array)
        found = os.fstat(descriptor).st_size
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError:
            seals = 0
        wanted = self._shared and number == 0 and self._source is None
        if not wanted or found != length or seals & _SEALS != _SEALS:
            raise HeaderError(
                "descriptor of the primary's RAM",
                expected=f"one, with channel 0, of {length} bytes, sealed against a change of that"
                if self._shared
                else "none",
                found=f"one with channel {number}, of {found} bytes, seals {seals:#x}",
                offset=0,
            )
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._source = mmap.mmap(descriptor, length, flags=flags, prot=mmap.PROT_READ)
        self._source_address = np.frombuffer(self._source, dtype=np.uint8).ctypes.data

    def begin(self, pages: int) -> None:
        """Begin a section of so many pages: say SYNC on the channels that are not needed for it.

        Before the receiver looks, so that it need not wait for them on threads of their own.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._busy = max(1, min(self._count, pages // PAGES_FOR_A_THREAD))
        self._sync(self._channels[self._busy :])

    def send(self, pages: npt.NDArray[np.int32], parts: Sequence[RecordSlice]) -> int:
        """Send pages of the section that was begun; the receiver waits for `end` behind them.

        Returns
        -------
        int
            How many of them were zero pages.

        Raises
        ------
        PeerLost, PeerStalled
        """
        jobs = [
            partial(
                channel.send,
                self._memory,
                pages,
                parts,
                (turn, self._busy),
                self._number,
                not self._shared,
            )
            for turn, channel in enumerate(self._channels[: self._busy])
        ]
        self._number += sum(map(packets_of, parts))
        with self.watchdog.due(unseen=min(len(pages) * PAGE_SIZE, CALL_BYTES)):
            return sum(self._workers.run(jobs))

    def end(self) -> None:
        """Say that the section's pages are all sent.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._sync(self._channels[: self._busy])

    def _sync(self, channels: Sequence[PageChannel]) -> None:
        with self.watchdog.due():
            for channel in channels:
                channel.send_now(sync_packet(self._number))
                self._number += 1

    def receive(self, memory: PageMemory) -> tuple[int, int]:
        """Receive on all channels up to their SYNC.

        Returns
        -------
        pages, zero_pages
            How many pages came, and how many of them were zero pages.

        Raises
        ------
        PeerLost, PeerStalled
        RAMError
            If a packet is not right.
        """
        idle = [channel for channel in self._channels[1:] if channel.sync_waits()]
        busy = [channel for channel in self._channels if channel not in idle]
        jobs = [partial(self._receive_on, channel, memory) for channel in busy]
        try:
            for channel in idle:
                self._receive_on(channel, memory)
            pages = sum(self._workers.run(jobs))
        except BaseException as error:
            # What went wrong first, not what came of it on the other channels.
            failure = self._failure or error
            raise failure from failure.__cause__
        return pages, sum(channel.zero_pages for channel in self._channels)

    def _receive_on(self, channel: PageChannel, memory: PageMemory) -> int:
        try:
            return channel.receive(memory, self._source_address)
        except BaseException as error:
            self._failure = self._failure or error
            # The others would wait for their SYNC.
            self.shut_down()
            raise

    def shut_down(self) -> None:
        """End all channels both ways."""
        for channel in self._channels:
            channel.shut_down()

    def close(self) -> None:
        """Close them, and let go of the primary's RAM."""
        for channel in self._channels:
            channel.close()
        if self._source is not None:
            self._source.close()
            self._source = None
