"""A relay between primary and secondary: it keeps what crosses, and cuts or stalls at any byte.

With a gate, each message of the conversation waits in the relay until it is let through.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from colobench.errors import LocalError
from colobench.lab.session.message_gate import Direction, MessageGate
from colobench.lab.session.message_splitter import RAM_SECTION, MessagePart
from colobench.lab.session.page_lanes import PageLane, open_lane
from colobench.node.address import Address
from colobench.protocol.colo import Variant
from colobench.settings.checkpoint import Capture, Layout

#: Bytes that a relay keeps by default.
RELAY_LIMIT = 16 << 20
_RECEIVE_BYTES = 1 << 16
_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class Form(NamedTuple):
    """Form of a conversation, which the stream does not tell.

    Attributes
    ----------
    variant, layout, capture
        See `colobench.protocol.colo.Conversation`.
    devices_first
        Whether a stopped guest's devices are saved before its RAM is sent.
    """

    variant: Variant
    layout: Layout
    capture: Capture = Capture.STOP_AND_SEND
    devices_first: bool = True


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes that crossed together.

    Attributes
    ----------
    direction, offset
        Direction, and number of the bytes that went the same way before.
    time
        Monotonic time of their arrival, seconds.
    data
        The bytes.
    form
        Form of the conversation; None if the relay was not told.
    """

    direction: Direction
    offset: int
    time: float
    data: bytes
    form: Form | None = None


@dataclass(slots=True)
class _Lane:
    """One direction: counts of bytes in and out, and the count at which it stops."""

    received: int = 0
    sent: int = 0
    stop_at: int | None = None
    cut: bool = False


class Relay:
    """The main connection, accepted from the primary and led on to the secondary; page channels.

    It listens as soon as it exists. The end of one side's stream reaches the other side behind the
    last byte, as it would without a relay.

    Parameters
    ----------
    listen, connect
        Address for the primary, and address of the secondary: ``unix:PATH`` or
        ``tcp:HOST:PORT`` in the loopback network.
    limit
        Number of bytes that are kept; later ones are only counted.
    form
        Form of the conversation, for readers of the chunks.
    gate
        Gate at which messages wait; without one, everything passes.
    channels
        Number of page channels, which the primary opens after the main connection. Their bytes are
        not kept.

    Attributes
    ----------
    address
        Address at which it listens, with a real port in place of port 0.
    chunks
        Bytes that crossed since the beginning or the last `forget`, in order.
    truncated
        Whether more crossed than `chunks` holds.
    reached
        Event that is set when a cut is made or a stall begins.
    error
        Error of a connection to the secondary, or None.
    gate
        As the parameter.
    lanes
        The page channels that are open.

    Raises
    ------
    LocalError
        If an address is wrong or cannot be had.
    """

    def __init__(
        self,
        listen: str,
        connect: str,
        *,
        limit: int = RELAY_LIMIT,
        form: Form | None = None,
        gate: MessageGate | None = None,
        channels: int = 0,
    ) -> None:
        self._form = form
        self.gate, self._channels = gate, channels
        self.lanes: list[PageLane] = []
        self._secondary = Address.parse(connect)
        self._listener, self._address = Address.parse(listen).listen()
        self.address = str(self._address)
        self.chunks: list[Chunk] = []
        self.truncated = False
        self.reached = threading.Event()
        self.error: LocalError | None = None
        self._room = self._limit = limit
        self._lanes: dict[Direction, _Lane] = {"P→S": _Lane(), "S→P": _Lane()}
        self._ends: tuple[socket.socket, ...] = ()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def crossed(self, direction: Direction) -> int:
        """Count the bytes that went that way so far."""
        return self._lanes[direction].received

    def passed(self, direction: Direction) -> int:
        """Count the bytes that have been sent on that way so far."""
        return self._lanes[direction].sent

    def let_through(
        self, direction: Direction, data: bytes | None = None, *, end: bool = False
    ) -> MessagePart | None:
        """Let the oldest message of the gate pass that way.

        Parameters
        ----------
        direction
            Direction of the message.
        data
            Bytes that pass in its place.
        end
            Whether both ends are cut off behind it.

        Returns
        -------
        MessagePart or None
            The message; None if none was waiting.
        """
        part = None if self.gate is None else self.gate.take(direction)
        if part is None:
            return None
        lane, sink = self._lanes[direction], self._ends[direction == "P→S"]
        passing = part.data if data is None else data
        with suppress(OSError):
            sink.sendall(passing)
        lane.sent += len(passing)
        if part.name == RAM_SECTION and not end:
            # Announced first, so that the receiver already waits for the pages.
            for channel in self.lanes:
                channel.let_section_through()
        if end:
            self.cut()
        return part

    def drop(self) -> None:
        """Drop what waits at the gate."""
        if self.gate is not None:
            self.gate.drop()
        for channel in self.lanes:
            channel.drop()

    def data(self, direction: Direction) -> bytes:
        """Join the bytes that `chunks` holds of that direction."""
        return b"".join(chunk.data for chunk in list(self.chunks) if chunk.direction == direction)

    def forget(self) -> None:
        """Drop the chunks, and keep new ones from here on."""
        with self._lock:
            self.chunks = []
            self.truncated = False
            self._room = self._limit

    def cut_after(self, direction: Direction, offset: int) -> None:
        """Cut both ends off when exactly `offset` bytes have gone that way.

        Raises
        ------
        LocalError
            If more have gone already.

        Notes
        -----
        The receiver gets all of them; over TCP only if it is not sending at that moment, as its own
        bytes then come back as a reset.
        """
        self._stop(direction, offset, cut=True)

    def stall_after(self, direction: Direction, offset: int) -> None:
        """Stop one direction, also its end, when exactly `offset` bytes have gone that way.

        Raises
        ------
        LocalError
            If more have gone already.
        """
        self._stop(direction, offset, cut=False)

    def cut(self) -> None:
        """Cut both ends off now."""
        with self._lock:
            self._ended.set()
            for end in self._ends:
                _shut_down(end, socket.SHUT_RDWR)
            for channel in self.lanes:
                channel.cut()
        self.reached.set()

    def close(self) -> None:
        """Cut both ends off, if they are not, and stop listening."""
        self.cut()
        _shut_down(self._listener, socket.SHUT_RDWR)
        self._thread.join()
        for channel in self.lanes:
            channel.close()
        self._address.remove()

    def _stop(self, direction: Direction, offset: int, *, cut: bool) -> None:
        with self._lock:
            lane = self._lanes[direction]
            if offset < lane.received:
                raise LocalError(
                    f"relay {direction}: expected an offset from {lane.received} on, found {offset}"
                )
            lane.stop_at, lane.cut = offset, cut
        self._stopped(lane)

    def _stopped(self, lane: _Lane) -> bool:
        """Cut or stall if that lane is where it is to stop; tell whether it is."""
        with self._lock:
            if lane.stop_at is None or lane.sent < lane.stop_at:
                return False
        if lane.cut:
            self.cut()
        self.reached.set()
        return True

    def _serve(self) -> None:
        with self._listener:
            try:
                primary, _ = self._listener.accept()
            except OSError:
                # Closed before anyone came.
                return
            if not self._channels:
                self._listener.close()
            with primary:
                try:
                    secondary = self._secondary.connect(_CONNECT_SECONDS)
                except LocalError as error:
                    self.error = error
                    return
                with secondary:
                    self._relay(primary, secondary)

    def _open_lanes(self) -> None:
        """Lead the primary's page channels on."""
        holds = None if self.gate is None else self.gate.holds
        try:
            for _ in range(self._channels):
                lane = open_lane(self._listener, self._secondary, holds)
                if lane is None:
                    return
                with self._lock:
                    self.lanes.append(lane)
                    if self._ended.is_set():
                        lane.cut()
        except LocalError as error:
            self.error = error
            self.cut()

    def _relay(self, primary: socket.socket, secondary: socket.socket) -> None:
        for end in (primary, secondary):
            end.setblocking(True)
            if end.family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._ends = (primary, secondary)
            if self._ended.is_set():
                return
        back = threading.Thread(
            target=self._copy, args=("S→P", secondary, primary), name="relay S→P", daemon=True
        )
        pages = threading.Thread(target=self._open_lanes, name="relay pages", daemon=True)
        for thread in (back, pages):
            thread.start()
        self._copy("P→S", primary, secondary)
        # The primary opens no more channels.
        _shut_down(self._listener, socket.SHUT_RDWR)
        for thread in (back, pages):
            thread.join()

    def _copy(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        lane = self._lanes[direction]
        while data := _receive(source):
            data = self._keep(direction, lane, data)
            if self.gate is not None:
                data = self.gate.pass_by(direction, data)
            try:
                sink.sendall(data)
            except OSError:
                _abandon(source)
                return
            lane.sent += len(data)
            if self._stopped(lane):
                break
        while self.gate is not None and self.gate.holds_back(direction):
            # The end is behind the messages that wait.
            if self._ended.wait(_LOOK_SECONDS):
                break
        if self._stopped(lane):
            self._ended.wait()
            _abandon(source)
        else:
            _shut_down(sink, socket.SHUT_WR)

    def _keep(self, direction: Direction, lane: _Lane, data: bytes) -> bytes:
        """Count and keep what may still go that way of the data, and return it."""
        with self._lock:
            if lane.stop_at is not None:
                data = data[: lane.stop_at - lane.received]
            kept = data[: self._room]
            if kept:
                self.chunks.append(
                    Chunk(direction, lane.received, time.monotonic(), kept, self._form)
                )
            self._room -= len(kept)
            self.truncated |= len(kept) < len(data)
            lane.received += len(data)
        return data


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(_RECEIVE_BYTES)
    except OSError:
        # A reset is an end, too.
        return b""


def _abandon(source: socket.socket) -> None:
    """Let a sender find out that its bytes are not read any more."""
    # TCP: by a reset. A mere close can leave it waiting before a window that never opens again.
    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
    _shut_down(source, socket.SHUT_RD)


def _shut_down(end: socket.socket, how: int) -> None:
    with suppress(OSError):
        end.shutdown(how)
