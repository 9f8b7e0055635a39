"""The other end of the guest's network stack: a machine without a CPU, and a small TCP client.

`Guest` calls the kernels as the CPU does, and looks after each call for what must never happen: a
page that changed without a mark or a copy of what it was, a byte written outside of pc.ram, a frame
with a wrong checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from colobench.guest import rings, tcp
from colobench.guest.frame_queue import FrameQueue
from colobench.guest.programs.kv import service_words
from colobench.net import frame as net
from colobench.net.frame import ACK, FIN, PSH, RST, SYN, ConnectionKey, Segment, sequence_difference
from freezing import FrozenMemory

PAGE = 4096
#: Pages of other blocks' RAM before and after pc.ram.
BEFORE, AFTER = 3, 2
MIB = 1 << 20


class Guest:
    """A network stack in a RAM of its own, with a NIC, and time that stands unless it is told."""

    def __init__(self, size: int = MIB, seed: int = 1) -> None:
        self.size, self.ram = size, BEFORE * PAGE
        pages = size // PAGE + BEFORE + AFTER
        self.random = np.random.default_rng(seed)
        # What was there before a start is anything.
        self.memory = self.random.integers(1, 256, pages * PAGE, dtype=np.uint8)
        self.frozen = FrozenMemory(self.memory)
        self.marks, self.bitmap = self.frozen.marks, self.frozen.dirty
        self.receive, self.transmit = FrameQueue(), FrameQueue()
        self.host = service_words()
        self.now, self.requests = 1_000, 0
        self.jitter = self.shuffle = self.bugs = 0
        self.checked = True
        self._outside = self._around()
        before = self.memory.copy()
        self.frozen.freeze()
        self.connections = tcp.initialize(self.memory, self.marks, self.ram, size)
        self._check(before)

    def copy(self) -> Guest:
        """Give a machine with the same RAM, devices and time, but other random numbers."""
        other = Guest(self.size, int(self.random.integers(1 << 32)))
        other.memory[:] = self.memory
        other._outside = other._around()
        for mine, its in ((self.receive, other.receive), (self.transmit, other.transmit)):
            its.ends[:], its.lengths[:], its.frames[:] = mine.ends, mine.lengths, mine.frames
        other.now, other.checked = self.now, self.checked
        other.jitter, other.shuffle, other.bugs = self.jitter, self.shuffle, self.bugs
        return other

    def inside(self) -> np.ndarray:
        """View pc.ram."""
        return self.memory[self.ram : self.ram + self.size]

    def _around(self) -> bytes:
        return self.memory[: self.ram].tobytes() + self.memory[self.ram + self.size :].tobytes()

    def _check(self, before: np.ndarray) -> None:
        different = self.memory.view(np.uint64) != before.view(np.uint64)
        changed = np.flatnonzero(different.reshape(-1, PAGE // 8).any(axis=1))
        marked = np.unpackbits(self.bitmap.view(np.uint8), bitorder="little")
        assert marked[changed].all(), "a page changed without a mark"
        assert self._around() == self._outside, "written outside of pc.ram"
        self.bitmap[:] = 0
        self.frozen.check(before)

    def call(self) -> None:
        """Call the stack once."""
        queues = []
        for queue in (self.receive, self.transmit):
            queues += [queue.ends, queue.lengths, queue.frames]
        words = (
            self.now, self.now * 1000, int(self.random.integers(1 << 63)), self.jitter,
            self.shuffle, self.bugs,
        )  # fmt: skip
        self.requests += tcp.serve(
            self.memory, self.marks, self.ram, self.size, *queues, *map(np.uint64, words),
            self.host,
        )  # fmt: skip

    def serve(self, take: bool = True) -> list[bytes]:
        """Call the stack once; gives the frames that it put out, unless they are to stay there."""
        before = None
        if self.checked:
            before = self.memory.copy()
            self.frozen.freeze()
        self.call()
        if before is not None:
            self._check(before)
        frames = self.transmit.take_all() if take else []
        for frame in frames:
            assert net.checksums_correct(frame)
        return frames

    def exchange(self, *frames: bytes) -> list[bytes]:
        """Give the NIC frames, and call the stack until it has nothing more to do or say."""
        answers = []
        waiting = list(frames)
        while True:
            while waiting and self.receive.put(waiting[0]):
                waiting.pop(0)
            said = self.serve()
            answers += said
            if not waiting and not said and not self.host[2]:
                return answers

    def timeline(self, ms: int) -> list[tuple[int, list[bytes]]]:
        """Let time pass; gives when something was said, from now on, and what."""
        begin, said = self.now, []
        while self.now < begin + ms:
            superblock = self.inside()[:64].view(np.uint64)
            soonest = int(superblock[rings.NEXT_DEADLINE // 8]) or begin + ms
            waiting = superblock[rings.READY_TAKEN // 8] != superblock[rings.READY_FILLED // 8]
            step = 1 if waiting else max(1, soonest - self.now)
            self.now = min(begin + ms, self.now + step)
            answers = self.exchange()
            if answers:
                said.append((self.now - begin, answers))
        return said

    def tick(self, ms: int) -> list[bytes]:
        """Let time pass; gives the frames of that time."""
        return [frame for _, frames in self.timeline(ms) for frame in frames]

    def counter(self, name: str) -> int:
        """Read a counter of the superblock."""
        return rings.counters(self.memory, self.ram)[name]

    def block(self, key: ConnectionKey) -> int:
        """Find the address of a connection's block, as `find` does; 0 if there is none."""
        word = (
            int.from_bytes(key.source, "big") << 32 | key.source_port << 16 | key.destination_port
        )
        for number in range(self.connections):
            at = self.ram + rings.BLOCKS_AT + number * rings.BLOCK_BYTES
            words = self.memory[at : at + rings.BLOCK_BYTES].view(np.uint64)
            if words[0] and words[1] == word:
                return at
        return 0

    def state(self, key: ConnectionKey) -> int:
        """Give the state of a connection."""
        at = self.block(key)
        return int(self.memory[at]) if at else 0


def segments(frames: Iterable[bytes]) -> list[Segment]:
    """Take the TCP segments out of frames."""
    packets = [net.parse_ipv4(frame) for frame in frames]
    return [net.parse_tcp(packet) for packet in packets if packet and packet.protocol == net.TCP]


class Client:
    """A TCP that opens a connection and keeps what comes out of order to itself, not at all.

    It is driven by hand: `say` gives the frames that it would send now, all that is not
    acknowledged yet; `hear` takes frames in.
    """

    def __init__(self, port: int = 40_000, service: int = 7, iss: int = 100, mss: int = 1460):
        self.connection = ConnectionKey(net.HOST_IP, port, net.GUEST_IP, service)
        self.una = self.nxt = self.iss = iss
        self.mss, self.window = mss, 65_535
        self.rcv: int | None = None
        self.out, self.heard = b"", b""
        self.fin = self.peer_fin = self.reset = False
        self.peer_window = 0

    def frame(self, flags: int, seq: int, payload: bytes = b"", mss: int | None = None) -> bytes:
        """Build a frame that acknowledges what was heard."""
        ack = self.rcv or 0
        segment = Segment(self.connection, seq, ack, flags, self.window, payload, mss)
        return net.build_tcp(net.GUEST_MAC, net.HOST_MAC, segment)

    def syn(self) -> bytes:
        """Ask for a connection."""
        return self.frame(SYN, self.iss, mss=self.mss)

    def acknowledge(self) -> bytes:
        """Say what was heard so far."""
        return self.frame(ACK, (self.una + len(self.out) + self.fin) % 2**32)

    def say(self, cut: Callable[[int], int] = lambda limit: limit) -> list[bytes]:
        """Give frames of all that is to be said; `cut` chooses the lengths."""
        if self.rcv is None:
            return [self.syn()]
        frames, at = [], 0
        window = max(self.peer_window, 1)
        while at < min(len(self.out), window):
            length = max(1, min(cut(min(self.mss, len(self.out) - at)), window - at))
            part = self.out[at : at + length]
            frames.append(self.frame(ACK | PSH, (self.una + at) % 2**32, part))
            at += length
        if self.fin and at == len(self.out):
            frames.append(self.frame(ACK | FIN, (self.una + at) % 2**32))
        return frames or [self.acknowledge()]

    def hear(self, frames: Iterable[bytes]) -> None:
        """Take in what is next."""
        for segment in segments(frames):
            if segment.connection != self.connection.reversed():
                continue
            if segment.flags & RST:
                # Whoever speaks after both sides have closed is told so; that is no loss.
                self.reset |= not self.peer_fin or self.fin or bool(self.out)
            elif segment.flags & SYN:
                if self.rcv is None and segment.ack == (self.iss + 1) % 2**32:
                    self.rcv, self.una = segment.end, segment.ack
                    self.peer_window = segment.window
            elif self.rcv is not None:
                self._hear_data(segment)

    def _hear_data(self, segment: Segment) -> None:
        assert self.rcv is not None
        acknowledged = sequence_difference(segment.ack, self.una)
        assert acknowledged <= len(self.out) + self.fin, "acknowledges what was never sent"
        if acknowledged >= 0:
            if acknowledged > len(self.out):
                self.fin = False
            self.out = self.out[acknowledged:]
            self.una, self.peer_window = segment.ack, segment.window
        known = sequence_difference(self.rcv, segment.seq)
        if 0 <= known <= segment.length:
            fresh = segment.payload[known:][: self.window]
            self.heard += fresh
            self.rcv = (self.rcv + len(fresh)) % 2**32
            if segment.flags & FIN and not self.peer_fin and self.rcv == (segment.end - 1) % 2**32:
                self.peer_fin, self.rcv = True, segment.end


def connect(guest: Guest, client: Client) -> Client:
    """Do the three-way handshake."""
    client.hear(guest.exchange(client.syn()))
    assert client.rcv is not None
    assert guest.exchange(client.acknowledge()) == []
    return client
