"""A guest for tests of the switch: at the other end of links, with RFC 862's echo on port 7.

It is a thread, not a machine: what it remembers is at whichever link it is told to be at, as a
guest's state is after a failover.
"""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from colobench.net import frame as net
from colobench.net.frame import ARP, Segment
from colobench.net.link import LinkDecoder, encode_frame
from colobench.net.tcp import TCPConnection, refusal
from colobench.net.tcp_states import TCPState
from colobench.node.address import Address

ECHO_PORT = 7


class Link:
    """One link of the guest's, to a port of the switch."""

    def __init__(self, uri: str) -> None:
        self.socket = Address.parse(uri).connect(10)
        self.decoder = LinkDecoder()
        self.out = bytearray()

    def flush(self) -> None:
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            while self.out:
                del self.out[: self.socket.send(self.out[: 1 << 18])]


class EchoGuest:
    """The guest, at one of its links at a time; what comes on the others is ignored.

    Attributes
    ----------
    loss
        How many of its frames are lost, either way: 0 to 1.
    mute
        Whether it neither reads nor writes frames.
    hungry
        Whether its program takes what has come.
    """

    def __init__(self, uri: str, seed: int = 0) -> None:
        self.loss = 0.0
        self.mute = False
        self.hungry = True
        self.connections: dict[net.ConnectionKey, TCPConnection] = {}
        self.errors: list[BaseException] = []
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._todo: list[Callable[[], None]] = []
        self._ended = False
        self._turned = threading.Condition()
        self._links: list[Link] = []
        self.link = self._add(uri)
        self._thread = threading.Thread(target=self._run, name="guest")
        self._thread.start()

    # What a test does, from its own thread.

    def do(self, action: Callable[[], None]) -> None:
        """Have the guest's thread do something, and wait until it is done."""
        done = threading.Event()
        self._todo += [action, done.set]
        self._waker.send(b"w")
        assert done.wait(30), self.errors

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something has become true of the guest."""
        with self._turned:
            assert self._turned.wait_for(condition, 30), self.errors

    def move(self, uri: str, *, announce: bool = True, close: bool = True) -> None:
        """Go to a new link; whatever was on its way on the old one is lost."""

        def go() -> None:
            old, self.link = self.link, self._add(uri)
            if close:
                self._drop(old)
            if announce:
                self.announce()

        self.do(go)

    def drop_link(self) -> None:
        """Lose the link, and have no other."""
        self.do(lambda: self._drop(self.link))

    def announce(self) -> None:
        """Announce the guest, as QEMU's announce-self does."""
        message = ARP(net.ARP_REQUEST, net.GUEST_MAC, net.GUEST_IP, bytes(6), net.GUEST_IP)
        self._send(net.build_arp(net.BROADCAST, message))

    def close(self) -> None:
        self._ended = True
        self._waker.send(b"w")
        self._thread.join()
        for link in self._links:
            link.socket.close()
        self._selector.close()
        self._wake.close()
        self._waker.close()
        assert not self.errors

    # The guest's thread.

    def _add(self, uri: str) -> Link:
        link = Link(uri)
        self._links.append(link)
        self._selector.register(link.socket, selectors.EVENT_READ, link)
        return link

    def _drop(self, link: Link) -> None:
        self._links.remove(link)
        self._selector.unregister(link.socket)
        link.socket.close()

    def _run(self) -> None:
        while not self._ended:
            try:
                self._turn()
            except BaseException as error:
                self.errors.append(error)
                raise

    def _turn(self) -> None:
        deadlines = [tcp.deadline for tcp in self.connections.values() if tcp.deadline is not None]
        wait = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        happened = self._selector.select(wait)
        now = time.monotonic()
        for key, _ in happened:
            if key.fileobj is self._wake:
                self._wake.recv(100)
                while self._todo:
                    self._todo.pop(0)()
            elif not self.mute and key.data in self._links:
                # Else it was dropped just now.
                self._read(key.data, now)
        for key, tcp in list(self.connections.items()):
            self._act(tcp, now)
            if tcp.state is TCPState.CLOSED:
                del self.connections[key]
        if not self.mute and self.link in self._links:
            self.link.flush()
        with self._turned:
            self._turned.notify_all()

    def _read(self, link: Link, now: float) -> None:
        try:
            data = link.socket.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(link.socket)
        for frame in link.decoder.feed(data):
            if link is self.link and self._random.random() >= self.loss:
                self._receive(frame, now)

    def _receive(self, frame: bytes, now: float) -> None:
        assert net.checksums_correct(frame)
        if (message := net.parse_arp(frame)) is not None:
            if message.target == net.GUEST_IP:
                back = (message.sender_mac, message.sender)
                answer = ARP(net.ARP_REPLY, net.GUEST_MAC, net.GUEST_IP, *back)
                self._send(net.build_arp(message.sender_mac, answer))
            return
        packet = net.parse_ipv4(frame)
        assert packet is not None
        if (echo := net.parse_echo(packet)) is not None:
            numbers = (net.ECHO_REPLY, echo.identifier, echo.sequence, echo.payload)
            macs = (packet.source_mac, net.GUEST_MAC, net.GUEST_IP, packet.source)
            self._send(net.build_echo(*macs, *numbers))
        elif packet.protocol == net.TCP:
            self._segment(net.parse_tcp(packet), now)

    def _segment(self, segment: Segment, now: float) -> None:
        tcp = self.connections.get(segment.connection)
        syn = segment.flags & (net.SYN | net.ACK) == net.SYN
        if tcp is not None:
            tcp.receive(segment, now)
        elif syn and segment.connection.destination_port == ECHO_PORT:
            tcp = TCPConnection.accept(segment, self._random.getrandbits(32), now)
            self.connections[segment.connection] = tcp
        elif (answer := refusal(segment)) is not None:
            self._send(net.build_tcp(net.HOST_MAC, net.GUEST_MAC, answer))

    def _act(self, tcp: TCPConnection, now: float) -> None:
        tcp.tick(now)
        if self.hungry and (count := min(tcp.room, len(tcp.inbox))):
            tcp.send(bytes(tcp.inbox[:count]))
            tcp.consume(count)
        if tcp.end_of_data and not tcp.inbox and tcp.state is TCPState.CLOSE_WAIT:
            tcp.close(now)
        for segment in tcp.segments(now):
            self._send(net.build_tcp(net.HOST_MAC, net.GUEST_MAC, segment))

    def _send(self, frame: bytes) -> None:
        if self._random.random() >= self.loss:
            self.link.out += encode_frame(frame)
