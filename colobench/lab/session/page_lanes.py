"""Page channels in a relay: connections beside the main one, which carry only pages.

A descriptor that comes with a channel's handshake (transport ``memfd``) goes on with it. While a
gate holds messages, the packets of a RAM section wait until that section is let through.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from colobench.node.address import Address
from colobench.wire.multifd import packet_at

_RECEIVE_BYTES = 1 << 18
#: One with each handshake, at most.
_DESCRIPTORS = 1
_CONNECT_SECONDS = 10.0


class PageLane:
    """One page channel, from the primary to the secondary.

    Parameters
    ----------
    source, sink
        The two connected sockets, which this object closes.
    holds
        Event from which on packets wait; None lets everything pass.
    """

    def __init__(
        self, source: socket.socket, sink: socket.socket, holds: threading.Event | None
    ) -> None:
        self._source, self._sink, self._holds = source, sink, holds
        self._waiting = bytearray()
        #: RAM sections that were let through, and that have not passed yet.
        self._let_through = 0
        self._ended = self._closed = False
        #: What passes in the place of the next packet, and whether the connection ends behind it.
        self._instead: tuple[bytes, bool] | None = None
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=each, name="relay pages", daemon=True)
            for each in (self._take_in, self._pass_on, self._watch_sink)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Number of bytes that wait."""
        return len(self._waiting)

    def packets(self) -> int:
        """Count the whole packets that wait, without those that only end a section."""
        count = at = 0
        with self._changed:
            while (found := packet_at(self._waiting, at)) is not None:
                count += not found[1]
                at += found[0]
        return count

    def next_packet(self) -> bytes:
        """Give the packet that waits first, with its pages; nothing if none is here whole."""
        with self._changed:
            found = packet_at(self._waiting)
            if found is None or len(self._waiting) < found[0]:
                return b""
            return bytes(self._waiting[: found[0]])

    def replace_packet(self, data: bytes, *, end: bool = False) -> None:
        """Let other bytes pass in the place of the packet that waits first.

        Parameters
        ----------
        data
            The bytes.
        end
            Whether both ends are cut off behind them.
        """
        with self._changed:
            self._instead = data, end

    def let_section_through(self) -> None:
        """Let the packets of the next RAM section pass, also those that have not come yet."""
        with self._changed:
            self._let_through += 1
            self._changed.notify_all()

    def drop(self) -> None:
        """Drop what waits."""
        with self._changed:
            self._waiting.clear()
            self._instead = None
            self._changed.notify_all()

    def cut(self) -> None:
        """Cut both ends off."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for end in (self._source, self._sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut both ends off, and wait for the threads."""
        self.cut()
        for thread in self._threads:
            thread.join()
        self._source.close()
        self._sink.close()

    def _take_in(self) -> None:
        unix = self._source.family == socket.AF_UNIX
        while True:
            descriptors: list[int] = []
            try:
                if unix:
                    data, descriptors, _, _ = socket.recv_fds(
                        self._source, _RECEIVE_BYTES, _DESCRIPTORS
                    )
                else:
                    data = self._source.recv(_RECEIVE_BYTES)
            except OSError:
                data = b""
            try:
                if not data or not self._took(data, descriptors):
                    break
            finally:
                for each in descriptors:
                    os.close(each)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _took(self, data: bytes, descriptors: list[int]) -> bool:
        """Send bytes on, or keep them; say whether the receiver takes them."""
        with self._changed:
            if self._holds is not None and self._holds.is_set():
                self._waiting += data
                self._changed.notify_all()
                return not self._closed
        try:
            if descriptors:
                sent = socket.send_fds(self._sink, [data], descriptors)
                data = data[sent:]
            self._sink.sendall(data)
        except OSError:
            return False
        return True

    def _pass_on(self) -> None:
        """Send the packets of sections that were let through, and then the end."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_something_to_do)
                if self._closed:
                    return
                passing = self._next_packet()
                end = False
                if passing and self._instead is not None:
                    (passing, end), self._instead = self._instead, None
            with suppress(OSError):
                if end:
                    self._sink.sendall(passing)
                    self.cut()
                elif passing:
                    self._sink.sendall(passing)
                else:
                    self._sink.shutdown(socket.SHUT_WR)
                    return

    def _has_something_to_do(self) -> bool:
        if self._closed or (self._ended and not self._waiting):
            return True
        found = packet_at(self._waiting) if self._let_through else None
        return found is not None and len(self._waiting) >= found[0]

    def _next_packet(self) -> bytes:
        """Take out the next packet; nothing if the primary's side has ended."""
        found = packet_at(self._waiting)
        if found is None:
            return b""
        length, is_sync = found
        self._let_through -= is_sync
        packet = bytes(self._waiting[:length])
        del self._waiting[:length]
        return packet

    def _watch_sink(self) -> None:
        """Let the primary see the end of the secondary's side, which sends nothing."""
        with suppress(OSError):
            while self._sink.recv(1):
                pass
        with suppress(OSError):
            self._source.shutdown(socket.SHUT_RDWR)


def open_lane(
    listener: socket.socket, secondary: Address, holds: threading.Event | None
) -> PageLane | None:
    """Accept the primary's next page channel, and lead it on; None if that is not possible."""
    try:
        source, _ = listener.accept()
    except OSError:
        # Closed before it came.
        return None
    try:
        sink = secondary.connect(_CONNECT_SECONDS)
    except BaseException:
        source.close()
        raise
    for end in (source, sink):
        end.setblocking(True)
        if end.family == socket.AF_INET:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return PageLane(source, sink, holds)
