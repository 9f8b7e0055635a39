"""Logic of the switch between nodes and hosts, without I/O: frames in, frames and events out.

Like any switch, it learns the port of a station from source addresses. It is also the host 10.0.2.2
of QEMU's user network: it answers ARP and pings, asks for the guest by ARP, and has the host's ends
of all TCP connections to the guest. When a frame of the guest arrives at another port, or the guest
announces itself (a gratuitous ARP), every connection resends its unacknowledged data at once.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.net.frame import (
    ARP,
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    ECHO_REQUEST,
    ETHERNET_HEADER,
    FRAME_MAX,
    FRAME_MIN,
    GUEST_IP,
    HOST_IP,
    HOST_MAC,
    ICMP,
    IPV4_HEADER,
    RST,
    TCP,
    TCP_HEADER,
    ConnectionKey,
    FrameError,
    Packet,
    Segment,
    build_arp,
    build_echo,
    build_tcp,
    checksums_correct,
    parse_arp,
    parse_echo,
    parse_ipv4,
    parse_tcp,
)
from colobench.net.tcp import TCPConnection, refusal
from colobench.net.tcp_states import TCPState

#: Range of the host's ports for connections to the guest.
FIRST_PORT, LAST_PORT = 10000, 65535
#: Seconds between two ARP requests for the guest.
ASK_INTERVAL = 0.1
#: Number of stations other than the guest whose ports are remembered.
STATIONS_LIMIT = 1024
#: Number of resets, and their age in seconds, that are sent again when the guest moves.
RESETS_LIMIT, RESET_SECONDS = 4096, 60.0
_HEADERS = ETHERNET_HEADER + IPV4_HEADER + TCP_HEADER
_PING_IDENTIFIER = 0xC010
_PING_PAYLOAD = b"colobench".ljust(56, b".")


@dataclass(frozen=True, slots=True)
class GuestMoved:
    """A frame of the guest arrived at another port than before.

    Attributes
    ----------
    port
        Number of the new port.
    seconds
        Seconds since the guest's previous frame.
    """

    port: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """The guest answered a ping.

    Attributes
    ----------
    sequence
        Sequence number of the ping.
    seconds
        Round trip time, seconds.
    """

    sequence: int
    seconds: float


@dataclass(slots=True)
class PortCounters:
    """Traffic of a port: `received` is from the station, `sent` is to it.

    Attributes
    ----------
    malformed
        Received frames whose fields contradict each other, or with a wrong checksum.
    dropped
        Frames to the station that were dropped because the port was full.
    """

    received_frames: int = 0
    received_bytes: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0
    malformed: int = 0
    dropped: int = 0


class Switch:
    """Ports, position of the guest, and the host's connections to it.

    After any call, call `transmit`, and empty `output` and `events`. Times are seconds of a
    monotonic clock.

    Parameters
    ----------
    first_port
        The host's port of the first connection, FIRST_PORT to LAST_PORT. A random one avoids
        connections that an earlier switch has left in the guest.

    Attributes
    ----------
    ports
        Counters of the present ports, by number.
    connections
        TCP connections to the guest, by the host's port.
    ready
        Connections that have changed, in order: they may have data for their user, or segments to
        be sent.
    output
        Frames to be sent, each with the number of its port.
    events
        Events to be reported.
    guest_port
        Number of the guest's port, or None.
    guest_mac
        The guest's Ethernet address, or None before it is known.
    guest_since
        Time since which the guest is at its port.
    moves
        Number of times that the guest moved to another port.
    undeliverable
        Frames to the guest that were dropped while its port was unknown.
    """

    def __init__(self, first_port: int = FIRST_PORT) -> None:
        self.ports: dict[int, PortCounters] = {}
        self.connections: dict[int, TCPConnection] = {}
        self.ready: dict[TCPConnection, None] = {}
        self.output: list[tuple[int, bytes]] = []
        self.events: list[GuestMoved | PingAnswered] = []
        self.guest_port: int | None = None
        self.guest_mac: bytes | None = None
        self.guest_since = 0.0
        self.moves = 0
        self.undeliverable = 0
        self._next_port = first_port
        self._retransmissions = 0
        self._guest_seen = False
        self._heard_at = 0.0
        self._ask_at = 0.0
        self._stations: dict[bytes, int] = {}
        self._pings: dict[int, float] = {}
        # One timer for each connection, never later than the connection's deadline.
        self._timers: list[tuple[float, int]] = []
        self._timer_at: dict[int, float] = {}
        # A reset is not acknowledged, and a survivor may not have received it.
        self._resets: deque[tuple[float, Segment]] = deque(maxlen=RESETS_LIMIT)

    # Ports.

    def link_up(self, number: int) -> None:
        """Add a port."""
        self.ports[number] = PortCounters()
        self._ask_at = 0.0

    def link_down(self, number: int) -> None:
        """Remove a port, and forget its stations."""
        del self.ports[number]
        self._stations = {mac: at for mac, at in self._stations.items() if at != number}
        if self.guest_port == number:
            self.guest_port = None
            self._ask_at = 0.0

    def receive(self, number: int, frame: bytes, now: float) -> None:
        """Take in a frame from a port; a malformed one is counted and dropped."""
        port = self.ports[number]
        port.received_frames += 1
        port.received_bytes += len(frame)
        try:
            self._receive(number, frame, now)
        except FrameError:
            port.malformed += 1

    def _receive(self, number: int, frame: bytes, now: float) -> None:
        if not FRAME_MIN <= len(frame) <= FRAME_MAX:
            raise FrameError(
                f"frame: expected {FRAME_MIN} to {FRAME_MAX} bytes, found {len(frame)}"
            )
        destination, source = frame[:6], frame[6:12]
        if source[0] & 1 or source == HOST_MAC:
            raise FrameError(f"frame: expected a station's own address, found {source.hex(':')}")
        message = parse_arp(frame)
        if message is not None:
            self._arp(number, message, source)
        if source == self.guest_mac:
            announced = message is not None and message.sender == message.target
            self._guest_heard(number, now, announced)
        elif source in self._stations or len(self._stations) < STATIONS_LIMIT:
            self._stations[source] = number
        if destination == HOST_MAC:
            self._to_host(number, frame, now)
        else:
            self._forward(number, destination, frame)

    def _forward(self, number: int, destination: bytes, frame: bytes) -> None:
        """Send a frame to its station's port, or to all ports if that is unknown."""
        known = self.guest_port if destination == self.guest_mac else None
        known = self._stations.get(destination) if known is None else known
        for port in self.ports if known is None else (known,):
            if port != number:
                self._emit(port, frame)

    def _emit(self, number: int, frame: bytes) -> None:
        port = self.ports[number]
        port.sent_frames += 1
        port.sent_bytes += len(frame)
        self.output.append((number, frame))

    # Position of the guest.

    def _guest_heard(self, number: int, now: float, announced: bool) -> None:
        """Note the port of a frame of the guest."""
        moved = number != self.guest_port
        if moved:
            if self._guest_seen:
                self.moves += 1
                self.events.append(GuestMoved(number, now - self._heard_at))
            self.guest_port, self.guest_since, self._guest_seen = number, now, True
        self._heard_at = now
        if moved or announced:
            for tcp in self.connections.values():
                tcp.connection_moved(now)
                self.ready[tcp] = None
            for sequence in self._pings:
                self._send_ping(sequence)
            for sent, reset in self._resets:
                if now - sent < RESET_SECONDS and reset.connection[1] not in self.connections:
                    self._send_segment(reset, now)

    def _ask(self, now: float) -> None:
        """Send an ARP request for the guest to all ports, at most every ASK_INTERVAL."""
        if now >= self._ask_at:
            self._ask_at = now + ASK_INTERVAL
            question = ARP(ARP_REQUEST, HOST_MAC, HOST_IP, bytes(6), GUEST_IP)
            for number in self.ports:
                self._emit(number, build_arp(BROADCAST, question))

    def _asks(self) -> bool:
        """Say whether the guest's port is unknown and needed."""
        return self.guest_port is None and bool(self.ports and (self.connections or self._pings))

    # The host 10.0.2.2.

    def _to_guest(self, frame: bytes, now: float) -> None:
        """Send a frame of the host to the guest."""
        if self.guest_port is None:
            self.undeliverable += 1
            self._ask(now)
        else:
            self._emit(self.guest_port, frame)

    def _to_host(self, number: int, frame: bytes, now: float) -> None:
        """Take in a frame for the host."""
        packet = parse_ipv4(frame)
        if packet is not None and packet.destination == HOST_IP and not packet.fragment:
            if not checksums_correct(frame):
                raise FrameError("frame: expected correct checksums")
            if packet.protocol == TCP:
                self._tcp(parse_tcp(packet), now)
            elif packet.protocol == ICMP:
                self._echo(number, packet, now)

    def _arp(self, number: int, message: ARP, source: bytes) -> None:
        """Take in an ARP message: learn the guest's address, or answer a request for ours."""
        if message.sender_mac != source:
            raise FrameError("ARP: expected the sender's own address, found another's")
        if message.sender == GUEST_IP:
            self.guest_mac = source
            self._stations.pop(source, None)
        if message.operation == ARP_REQUEST and message.target == HOST_IP != message.sender:
            answer = ARP(ARP_REPLY, HOST_MAC, HOST_IP, source, message.sender)
            self._emit(number, build_arp(source, answer))

    def _tcp(self, segment: Segment, now: float) -> None:
        """Take in a segment for the host."""
        tcp = self.connections.get(segment.connection.destination_port)
        if tcp is not None and tcp.connection[2:] == segment.connection[:2]:
            tcp.receive(segment, now)
            self.ready[tcp] = None
            return
        answer = refusal(segment)
        if answer is not None and answer.connection.destination == GUEST_IP:
            self._send_segment(answer, now)

    def _send_segment(self, segment: Segment, now: float) -> None:
        self._to_guest(build_tcp(self.guest_mac or BROADCAST, HOST_MAC, segment), now)

    def _echo(self, number: int, packet: Packet, now: float) -> None:
        """Answer a ping, or take in the answer to our own."""
        echo = parse_echo(packet)
        if echo is None:
            return
        if echo.kind == ECHO_REQUEST:
            answer = (HOST_IP, packet.source, 0, echo.identifier, echo.sequence, echo.payload)
            self._emit(number, build_echo(packet.source_mac, HOST_MAC, *answer))
        elif echo.identifier == _PING_IDENTIFIER and echo.sequence in self._pings:
            seconds = now - self._pings.pop(echo.sequence)
            self.events.append(PingAnswered(echo.sequence, seconds))

    def ping(self, sequence: int, now: float) -> None:
        """Ping the guest; a `PingAnswered` follows if it answers."""
        self._pings[sequence] = now
        if self.guest_port is None:
            self._ask(now)
        else:
            self._send_ping(sequence)

    def forget_ping(self, sequence: int) -> None:
        """Stop waiting for a ping's answer."""
        self._pings.pop(sequence, None)

    def _send_ping(self, sequence: int) -> None:
        assert self.guest_port is not None
        assert self.guest_mac is not None
        numbers = (ECHO_REQUEST, _PING_IDENTIFIER, sequence, _PING_PAYLOAD)
        frame = build_echo(self.guest_mac, HOST_MAC, HOST_IP, GUEST_IP, *numbers)
        self._emit(self.guest_port, frame)

    # Connections to the guest.

    def open(self, guest_port: int, iss: int, now: float) -> TCPConnection:
        """Begin a connection to a port of the guest with the initial sequence number `iss`.

        Raises
        ------
        LocalError
            If all of the host's ports are in use.
        """
        ports = LAST_PORT - FIRST_PORT + 1
        if len(self.connections) >= ports:
            raise LocalError(f"connections: expected fewer than {ports}, found {ports}")
        while self._next_port in self.connections:
            self._next_port = self._port_after(self._next_port)
        tcp = TCPConnection(ConnectionKey(HOST_IP, self._next_port, GUEST_IP, guest_port), iss)
        self.connections[self._next_port] = tcp
        self._next_port = self._port_after(self._next_port)
        tcp.open(now)
        self.ready[tcp] = None
        return tcp

    @staticmethod
    def _port_after(port: int) -> int:
        return port + 1 if port < LAST_PORT else FIRST_PORT

    @property
    def retransmissions(self) -> int:
        """Number of segments that were sent again."""
        return self._retransmissions + sum(tcp.retransmissions for tcp in self.connections.values())

    def transmit(self, now: float, room: int) -> None:
        """Send the segments of ready connections until `room` is used up.

        Parameters
        ----------
        now
            The time, seconds.
        room
            Number of bytes that the guest's port takes. Connections beyond it stay ready.
        """
        for tcp in list(self.ready):
            if room <= 0:
                break
            del self.ready[tcp]
            for segment in tcp.segments(now):
                room -= _HEADERS + len(segment.payload)
                self._send_segment(segment, now)
                if segment.flags & RST:
                    self._resets.append((now, segment))
            number = tcp.connection.source_port
            if self.connections.get(number) is not tcp:
                continue
            if tcp.state is TCPState.CLOSED:
                self._retransmissions += tcp.retransmissions
                del self.connections[number]
            else:
                self._schedule(number, tcp)

    # Time.

    def _schedule(self, number: int, tcp: TCPConnection) -> None:
        """Set a timer for the connection's deadline, unless an earlier one is set."""
        due = tcp.deadline
        if due is not None and due < self._timer_at.get(number, float("inf")):
            self._timer_at[number] = due
            heapq.heappush(self._timers, (due, number))

    def deadline(self) -> float | None:
        """Return the time at which `tick` is to be called, or None."""
        due = [self._timers[0][0]] if self._timers else []
        due += [self._ask_at] if self._asks() else []
        return min(due, default=None)

    def tick(self, now: float) -> None:
        """Do what is due at time `now`."""
        if self._asks():
            self._ask(now)
        while self._timers and self._timers[0][0] <= now:
            due, number = heapq.heappop(self._timers)
            if self._timer_at.get(number) != due:
                continue
            del self._timer_at[number]
            tcp = self.connections.get(number)
            if tcp is None:
                continue
            if tcp.deadline is not None and tcp.deadline <= now:
                tcp.tick(now)
                self.ready[tcp] = None
            self._schedule(number, tcp)
