"""colo-compare: it releases a frame of the primary's guest once the secondary's sent the same.

So a client never has an answer that the other guest does not know. Output of only one guest waits.
At the first difference, or if output waits for too long, a checkpoint is requested. At the
checkpoint both guests have the same state, and all output of the primary is released.

TCP is compared as streams (`compare_tcp`), all other IP by packets (`compare_packets`): UDP by its
payload, ICMP, other protocols and fragments by all that follows the IP header. ARP and other frames
that are not IP pass, because they do not change guest state that a client knows. A malformed frame
cannot be compared and is held until the next checkpoint.

Idea and names: QEMU's net/colo-compare.c. `Quirk` lists the points where QEMU differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from colobench.errors import LocalError
from colobench.net.compare_packets import Flow, Held, Packets
from colobench.net.compare_tcp import TcpConnection
from colobench.net.frame import (
    ETHERNET_HEADER,
    TCP,
    UDP,
    UDP_HEADER,
    ConnectionKey,
    FrameError,
    Segment,
    parse_ipv4,
    parse_tcp,
)
from colobench.net.mirror import MARK, EpochGate
from colobench.net.outcome import (
    FRAGMENTS,
    NOTHING,
    CompareCause,
    Counters,
    Miscompare,
    Outcome,
    Overflow,
    Timeout,
)
from colobench.settings.compare import Quirk

#: Seconds without a frame after which a closed connection is forgotten.
CLOSED_LINGER = 60.0
#: Protocol, and addresses and ports of guest and client.
_Key = tuple[int, ConnectionKey | None]
#: Key under which all malformed frames are held.
_MALFORMED: _Key = (0, None)


class ColoCompare:
    """Filter of the primary's output, which compares it with the secondary's.

    Parameters
    ----------
    compare_timeout
        Seconds that a frame may wait before a checkpoint is requested.
    expired_scan_cycle
        Seconds between calls of `scan`. A TCP segment that has waited for this time is eased.
    max_queue_size
        Frames that may wait in one connection on one side before a checkpoint is requested.
        Further frames of the primary are held nevertheless; the secondary's are dropped.
    quirks
        Names of QEMU's quirks to imitate, see `Quirk`.
    max_connections
        Number of connections that are remembered. Closed ones are forgotten first, then those in
        which no frame waits.
    tcp
        Class of a connection; another one has a planted bug.

    Notes
    -----
    The secondary sends a `MARK` between its frames where its guest stopped for a checkpoint.

    Raises
    ------
    LocalError
        If a name in `quirks` is unknown.
    """

    def __init__(
        self,
        compare_timeout: float = 3.0,
        expired_scan_cycle: float = 1.0,
        max_queue_size: int = 1024,
        quirks: Iterable[str] = frozenset(),
        max_connections: int = 4096,
        tcp: type[TcpConnection] = TcpConnection,
    ) -> None:
        try:
            self._quirks = frozenset(Quirk(name) for name in quirks)
        except ValueError as error:
            names = ", ".join(Quirk)
            raise LocalError(f"quirks: expected names out of {names}, found {quirks}") from error
        self._compare_timeout = compare_timeout
        self._expired_scan_cycle = expired_scan_cycle
        self._max_queue_size = max_queue_size
        self._max_connections = max_connections
        self._tcp = tcp
        self._counters = Counters()
        self._flows: dict[_Key, Flow[Any]] = {}
        self._closed: dict[_Key, None] = {}
        self._gate = EpochGate()
        self._order = self._held = 0
        self._now = 0.0
        self._alone = False

    def primary(self, frame: bytes, now: float) -> Outcome:
        """Take in a frame of the primary's guest at time `now`, seconds."""
        self._now = now
        self._counters.frames_primary += 1
        self._order += 1
        if self._alone:
            return self._pass(frame)
        try:
            found = _split(frame)
        except FrameError:
            self._counters.malformed += 1
            found = (_MALFORMED, frame)
        if found is None:
            return self._pass(frame)
        key, content = found
        if Quirk.SEGMENTS in self._quirks and isinstance(content, Segment):
            content = content.payload
            if not content:
                return self._pass(frame)
        flow = self._flow(key, content, now)
        before = len(flow.held)
        released = flow.primary(Held(self._order, now, frame, content))
        return self._outcome(key, flow, released, before)

    def secondary(self, frame: bytes, now: float) -> Outcome:
        """Take in a frame or a mark from the secondary at time `now`, seconds."""
        self._now = now
        if self._alone:
            return NOTHING
        if Quirk.STALE in self._quirks:
            return NOTHING if frame == MARK else self._said(frame, now)
        passed = self._gate.frame(frame)
        return self._said(passed[0], now) if passed else NOTHING

    def scan(self, now: float) -> Outcome:
        """Look for frames that have waited too long; to be called every expired_scan_cycle."""
        self._now = now
        eased: list[bytes] = []
        oldest: tuple[float, _Key] | None = None
        for key, flow in list(self._flows.items()):
            since = flow.oldest()
            if since is None:
                if flow.closed and now - flow.last >= CLOSED_LINGER:
                    self._forget(key)
                continue
            if flow.held and now - flow.held[0].arrived >= self._expired_scan_cycle:
                eased += flow.ease()
            if now - since >= self._compare_timeout and not flow.asked:
                flow.asked = True
                oldest = min(oldest or (since, key), (since, key), key=lambda each: each[0])
        if oldest is None:
            return Outcome(tuple(eased)) if eased else NOTHING
        since, (protocol, connection) = oldest
        self._counters.timeouts += 1
        return self._ask(eased, Timeout(protocol, connection, now - since))

    def seal(self) -> None:
        """Do nothing: the guest stands still until the checkpoint is committed."""

    def checkpoint(self) -> list[bytes]:
        """Return all held frames in order: the secondary has this state (RECEIVED)."""
        frames = self._release_all()
        for key, flow in list(self._flows.items()):
            if not flow.checkpoint():
                del self._flows[key]
                self._closed.pop(key, None)
        self._held = 0
        if Quirk.STALE not in self._quirks:
            # Frames that the secondary sent in the new state may have arrived already.
            for frame in self._gate.checkpoint():
                self._said(frame, self._now)
        for flow in self._flows.values():
            flow.asked = False
        return frames

    def failover(self) -> list[bytes]:
        """Return all held frames in order, and let all later ones pass: the secondary is gone."""
        self._alone = True
        frames = self._release_all()
        self._flows.clear()
        self._closed.clear()
        self._held = 0
        return frames

    def early(self) -> int:
        """Return the number of frames and marks of the secondary for later checkpoints."""
        return self._gate.early

    def unsealed(self) -> int:
        """Return the number of frames that are held: a sealed checkpoint releases all at once."""
        return self._held

    def counters(self) -> dict[str, int]:
        """Return `Counters` so far, and the numbers of frames held and connections known now."""
        self._counters.dropped_secondary += self._gate.dropped
        self._gate.dropped = 0
        return asdict(self._counters) | {"held": self._held, "connections": len(self._flows)}

    def _said(self, frame: bytes, now: float) -> Outcome:
        """Take in a frame that the secondary's guest sent in this epoch."""
        self._counters.frames_secondary += 1
        try:
            found = _split(frame)
        except FrameError:
            self._counters.malformed += 1
            found = None
        if found is None:
            self._counters.dropped_secondary += 1
            return NOTHING
        key, content = found
        if Quirk.SEGMENTS in self._quirks and isinstance(content, Segment):
            content = content.payload
            if not content:
                return NOTHING
        flow = self._flow(key, content, now)
        before = len(flow.held)
        return self._outcome(key, flow, flow.secondary(content, now), before)

    def _pass(self, frame: bytes) -> Outcome:
        self._counters.frames_passed += 1
        return Outcome((frame,))

    def _flow(self, key: _Key, content: Segment | bytes, now: float) -> Flow[Any]:
        """Find or begin the flow that a frame belongs to."""
        flow = self._flows.get(key)
        if flow is None:
            kind = self._tcp if isinstance(content, Segment) else Packets
            flow = kind(self._max_queue_size, self._quirks, self._counters)
            self._flows[key] = flow
            if len(self._flows) > self._max_connections:
                self._make_room(key)
            self._counters.connections_high_water = max(
                self._counters.connections_high_water, len(self._flows)
            )
        flow.last = now
        return flow

    def _make_room(self, new: _Key) -> None:
        """Forget a connection in which no frame waits, a closed one if possible."""
        for keys in (self._closed, self._flows):
            for key in keys:
                if key != new and self._flows[key].oldest() is None:
                    self._forget(key)
                    return

    def _outcome(self, key: _Key, flow: Flow[Any], released: list[bytes], before: int) -> Outcome:
        counters = self._counters
        self._held += len(flow.held) - before
        if self._held > counters.queue_high_water:
            counters.queue_high_water = self._held
        if flow.closed:
            self._closed[key] = None
        elif key in self._closed:
            del self._closed[key]
        cause: CompareCause | None = None
        if not flow.asked or Quirk.SEMAPHORE in self._quirks:
            cause = self._cause(key, flow)
        if cause is not None:
            flow.asked = True
            return self._ask(released, cause)
        return Outcome(tuple(released)) if released else NOTHING

    def _cause(self, key: _Key, flow: Flow[Any]) -> CompareCause | None:
        protocol, connection = key
        if flow.difference is not None and connection is not None:
            self._counters.miscompares += 1
            return Miscompare(protocol, connection, *flow.difference)
        side = flow.overflowing()
        if side is None and len(self._flows) > self._max_connections:
            side = "connections"
        if side is None or (side != "connections" and Quirk.DROP_OVERFLOW in self._quirks):
            return None
        self._counters.overflows += 1
        return Overflow(protocol, connection, side)

    def _ask(self, frames: list[bytes], cause: CompareCause) -> Outcome:
        self._counters.checkpoints_requested += 1
        return Outcome(tuple(frames), cause)

    def _release_all(self) -> list[bytes]:
        held = sorted(
            (held.order, held.frame) for flow in self._flows.values() for held in flow.held
        )
        self._counters.frames_released_checkpoint += len(held)
        return [frame for _, frame in held]

    def _forget(self, key: _Key) -> None:
        del self._flows[key]
        self._closed.pop(key, None)
        self._counters.connections_forgotten += 1


def _split(frame: bytes) -> tuple[_Key, Segment | bytes] | None:
    """Find a frame's flow and its content to compare; None for a frame that is not IP."""
    packet = parse_ipv4(frame)
    if packet is None:
        return None
    protocol, source, destination, body = (
        packet.protocol,
        packet.source,
        packet.destination,
        packet.body,
    )
    if packet.fragment:
        # The fragment's offset is compared, its identification is not: each guest chooses its own.
        place = frame[ETHERNET_HEADER + 6 : ETHERNET_HEADER + 8]
        connection = ConnectionKey(source, 0, destination, 0)
        return (FRAGMENTS, connection), bytes([protocol]) + place + body
    if protocol == TCP:
        segment = parse_tcp(packet)
        return (TCP, segment.connection), segment
    if protocol != UDP:
        return (protocol, ConnectionKey(source, 0, destination, 0)), body
    if len(body) < UDP_HEADER or not UDP_HEADER <= int.from_bytes(body[4:6], "big") <= len(body):
        raise FrameError(f"UDP: expected a header and a length within it, found {body[:8].hex()}")
    ports = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
    length = int.from_bytes(body[4:6], "big")
    connection = ConnectionKey(source, ports[0], destination, ports[1])
    return (UDP, connection), body[UDP_HEADER:length]
