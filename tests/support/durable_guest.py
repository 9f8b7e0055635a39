"""A store with an append-only file on a disk of its own, and the disk: what it keeps, and loses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from colobench.block.request import RequestKind
from colobench.guest import append_only_disk, keyspace, kv, region, tcp
from colobench.guest import append_only_file as aof
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.clients import BYTES_PER_CLIENT
from colobench.guest.disk_queue import (
    BLOCK_AT,
    BUFFERS_AT,
    COUNTER_OF,
    DISK_BLOCK_BYTES,
    DISK_BUFFER_BYTES,
    DISK_SLOTS,
    QUEUE_BYTES,
    QUEUE_WORDS,
    SIZE,
    SLOT_BYTES,
    SlotState,
)
from colobench.guest.frame_queue import FrameQueue
from colobench.guest.numba.disks import DiskQueue
from colobench.guest.programs.kv import service_words
from colobench.guest.rings import BUFFERS_AT as TCP_BUFFERS_AT
from colobench.guest.rings import BYTES_PER_CONNECTION
from colobench.kernels.jit import entry_address
from naive_kv import Region, encode

MIB = 1 << 20
NOW = 1_700_000_000_000_000


class Disk:
    """A disk whose cache may be lost: what was written since the last flush is listed."""

    def __init__(self, image: bytearray) -> None:
        self.image = image
        self.written: list[tuple[int, bytes]] = []
        self.errors: dict[int, int] = {}
        self.fault: Callable[[int, int], int] = lambda kind, offset: 0
        self.flushes = 0
        #: The image at the last flush.
        self.safe = bytearray(image)

    def do(self, kind: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        """Execute a request; give its status and the data of a read."""
        status = self.fault(kind, offset)
        if status:
            return status, b""
        assert offset % 512 == length % 512 == 0
        if kind == RequestKind.FLUSH:
            self.flushes += 1
            self.written.clear()
            self.safe[:] = self.image
            return 0, b""
        if offset + length > len(self.image) or length > DISK_BUFFER_BYTES or not length:
            return 22, b""
        if kind == RequestKind.READ:
            return 0, bytes(self.image[offset : offset + length])
        assert kind == RequestKind.WRITE
        self.image[offset : offset + length] = data
        self.written.append((offset, data))
        return 0, b""

    def after_loss(self, kept: list[bool]) -> bytearray:
        """Give the image after a loss of power: of what was not flushed, each sector may be there.

        `kept` says that of the sectors in the order of their writes; it is repeated.
        """
        image, number = bytearray(self.safe), 0
        for offset, data in self.written:
            for at in range(0, len(data), 512):
                if kept and kept[number % len(kept)]:
                    image[offset + at : offset + at + 512] = data[at : at + 512]
                number += 1
        return image


class DurableGuest:
    """RAM with an append-only file, a stack that is not used, a store, and a block of a disk."""

    def __init__(
        self,
        image: bytearray,
        policy: str = "always",
        appendonly: bool = True,
        size: int = 4 * MIB,
        load: bool = True,
        now: int = NOW,
    ) -> None:
        self.size, self.now, self.slot = size, now, 0
        self.disk = Disk(image)
        self.memory = np.zeros(size + DISK_BLOCK_BYTES, np.uint8)
        self.bitmap = np.zeros(len(self.memory) // 4096 // 64 + 1, np.uint64)
        self.ram = aof.area_bytes(size)
        self.stack_size = size - self.ram
        connections = min(1024, self.stack_size // BYTES_PER_CONNECTION)
        self.received = self.ram + TCP_BUFFERS_AT
        self.area = self.ram + TCP_BUFFERS_AT + connections * 2 * BUFFER_BYTES
        self.area_size = connections * BYTES_PER_CLIENT
        self.store = self.area + self.area_size
        self.store_size = size - self.store
        words = np.zeros(QUEUE_WORDS, np.uint64)
        self.queue = DiskQueue(words, np.zeros(QUEUE_BYTES, np.uint8))
        words[SIZE], words[BLOCK_AT] = len(image), size
        self.result = service_words()
        self.receive, self.transmit = FrameQueue(), FrameQueue()
        self.serial, self.scrollback = np.zeros(1, np.uint64), np.zeros(512, np.uint8)
        self.in_flight: set[int] = set()
        tcp.initialize(self.memory, self.bitmap, self.ram, self.stack_size)
        append_only_disk.initialize(
            self.memory, self.bitmap, 0, size, aof.POLICIES.index(policy), int(appendonly)
        )
        if load:
            self.load()

    def word(self, at: int) -> int:
        return int(self.memory[at : at + 8].view(np.int64)[0])

    @property
    def phase(self) -> int:
        return self.word(aof.PHASE)

    def drive(self) -> int:
        """Let the guest take completions and submit requests."""
        return int(
            append_only_disk.drive(
                self.memory, self.bitmap, 0, self.ram, self.stack_size, self.queue.words,
                self.queue.data, np.uint64(self.now), np.uint64(entry_address(kv.execute)),
                self.result, self.serial, self.scrollback,
            )
        )  # fmt: skip

    def submitted(self) -> list[int]:
        """Give the slots that are submitted and not in the host's hands."""
        slots = self.memory[self.size :][: DISK_SLOTS * SLOT_BYTES].view(np.uint64).reshape(-1, 8)
        found = np.flatnonzero(slots[:, 5] == SlotState.SUBMITTED).tolist()
        return [slot for slot in found if slot not in self.in_flight]

    def perform(self, slot: int) -> None:
        """Let the disk execute a slot's request, and complete it."""
        at = self.size + slot * SLOT_BYTES
        kind, offset, length = (self.word(at + 8 * n) for n in range(3))
        buffer = self.size + BUFFERS_AT + slot * DISK_BUFFER_BYTES
        status, data = self.disk.do(
            kind, offset, length, self.memory[buffer : buffer + length].tobytes()
        )
        counter = COUNTER_OF[RequestKind(kind)]
        self.queue.put(slot, status, data, counter)

    def turn(self) -> bool:
        """Do one turn of guest and disk; tell whether anything happened."""
        more = self.drive() & 2
        # That is for the stack, which a turn leaves out.
        more = 0 if self.word(aof.RELEASE) else more
        slots = self.submitted()
        for slot in slots:
            self.perform(slot)
        return bool(slots or more) or self.word(aof.REWRITE) == aof.DUMPING

    def settle(self) -> None:
        """Let guest and disk go on until nothing more is to be done at this time."""
        idle = 0
        for _ in range(100_000):
            idle = 0 if self.turn() else idle + 1
            if idle == 3:
                return
        raise AssertionError("guest and disk do not come to rest")

    def load(self) -> None:
        self.settle()
        assert self.phase in (aof.SERVING, aof.OFF, aof.UNUSABLE)

    def execute(self, data: bytes) -> tuple[bytes, int]:
        """Execute bytes of a client once; give the replies, and the number of bytes consumed."""
        begin, replies = self.received, self.received + BUFFER_BYTES
        self.memory[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        kv.execute(
            self.memory, self.bitmap, self.store, self.store_size, self.area, self.area_size,
            self.slot, begin, begin + len(data), replies, replies + BUFFER_BYTES,
            np.uint64(self.now), 1, 1, self.result,
        )  # fmt: skip
        consumed, replied = int(self.result[0]), int(self.result[1])
        return self.memory[replies : replies + replied].tobytes(), consumed

    def send(self, data: bytes) -> bytes:
        """Execute bytes of a client; if the file has no room, guest and disk go on meanwhile."""
        replies = b""
        while True:
            piece = data[:BUFFER_BYTES]
            reply, consumed = self.execute(piece)
            replies, data = replies + reply, data[consumed:]
            if not data and not self.result[3]:
                return replies
            if not consumed and not reply and not self.turn():
                self.now += 1000

    def call(self, *arguments: bytes) -> bytes:
        return self.send(encode(*arguments))

    @property
    def region(self) -> Region:
        return Region(self.memory, self.store, self.store_size)

    def contents(self) -> dict[bytes, tuple[bytes, int]]:
        """Give value and time of expiry of each key that has not expired."""
        links = self.memory[self.store : self.store + self.store_size].view(np.uint64)
        first, last = keyspace.SUPERBLOCK_BYTES // 8, self.word(self.store + keyspace.CHAINS)
        generation, found = self.word(self.store + keyspace.GENERATION), {}
        chains = links[first : first + last]
        for link in chains[np.flatnonzero(chains >> np.uint64(40))].tolist():
            while link >> 40 == generation and link & (1 << 40) - 1:
                entry = link & (1 << 40) - 1
                lengths, when = self.word(entry + 8), self.word(entry + region.EXPIRES)
                middle = entry + region.KEY + (lengths & 0xFFFFFFFF)
                key = self.memory[entry + region.KEY : middle].tobytes()
                if not when or when >= self.now // 1000:
                    value = self.memory[middle : middle + (lengths >> 32)].tobytes()
                    found[key] = value, when
                link = self.word(entry)
        return found

    def exchange(self, *frames: bytes) -> list[bytes]:
        """Give the network stack frames; give its answers until it has nothing more to say."""
        answers, waiting = [], list(frames)
        while True:
            while waiting and self.receive.put(waiting[0]):
                waiting.pop(0)
            tcp.serve(
                self.memory, self.bitmap, self.ram, self.stack_size,
                self.receive.ends, self.receive.lengths, self.receive.frames,
                self.transmit.ends, self.transmit.lengths, self.transmit.frames,
                np.uint64(self.now // 1000), np.uint64(self.now), np.uint64(self.now),
                np.uint64(0), np.uint64(0), np.uint64(0), self.result,
            )  # fmt: skip
            said = self.transmit.take_all()
            answers += said
            if not waiting and not said and not self.result[2]:
                return answers

    @property
    def console(self) -> str:
        return self.scrollback[: int(self.serial[0])].tobytes().decode()

    def information(self) -> dict[str, str]:
        text = self.call(b"INFO", b"persistence").split(b"\r\n", 1)[1].decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
