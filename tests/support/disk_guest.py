"""A machine whose disks are used by hand, step by step, through the kernels of programs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from colobench.block.backend import BlockData, BlockError
from colobench.block.request import BlockRequest, RequestKind
from colobench.guest import disk as parts
from colobench.guest.disk_queue import DISK_BUFFER_BYTES, FUA, SLOT_BYTES, STATE, STATUS
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.kernels.jit import Bytes, Words, kernel
from colobench.memory.ram import PAGE_SIZE


@kernel("i8(u8[::1], u1[::1], u8[::1], u8[::1], i8, i8, i8, i8, i8, i8)")
def submit_one(
    control: Words, memory: Bytes, bitmap: Words, disks: Words,
    disk: int, slot: int, kind: int, offset: int, length: int, flags: int,
) -> int:  # fmt: skip
    """Submit a request, and kick."""
    at = parts.disk_block(disks, disk)
    parts.submit(memory, bitmap, at, slot, kind, offset, length, flags, 0)
    return parts.kick(control, disks, disk)


@kernel("i8(u1[::1], u8[::1], u8[::1], u1[::1], i8)")
def take(memory: Bytes, bitmap: Words, disks: Words, disk_data: Bytes, disk: int) -> int:
    """Take completions."""
    return parts.take_completions(memory, bitmap, disks, disk_data, disk)


@kernel("i8(u1[::1], u8[::1], u8[::1], i8, i8)")
def release_one(memory: Bytes, bitmap: Words, disks: Words, disk: int, slot: int) -> int:
    """Make a slot free."""
    return parts.release(memory, bitmap, parts.disk_block(disks, disk), slot)


class DiskGuest(contextlib.AbstractContextManager["DiskGuest"]):
    """An idle machine with disks; the test is its program."""

    def __init__(
        self, disks: Sequence[str], tracker: str = "marked", freezable: bool = False
    ) -> None:
        settings = GuestSettings(PAGE_SIZE, Program.IDLE, disks=disks)
        self.machine = Machine(settings, tracker, freezable)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.machine.close()

    def block(self, disk: int = 0) -> Bytes:
        """Give a disk's block of RAM."""
        machine = self.machine
        return machine.ram.block_bytes(machine.block(f"disk{disk}"))

    def word(self, slot: int, word: int, disk: int = 0) -> int:
        """Read a word of a slot."""
        at = slot * SLOT_BYTES + word
        return int(self.block(disk)[at : at + 8].view(np.uint64)[0])

    def state(self, slot: int, disk: int = 0) -> int:
        """Read the state of a slot."""
        return self.word(slot, STATE, disk)

    def status(self, slot: int, disk: int = 0) -> int:
        """Read the status of a slot."""
        return self.word(slot, STATUS, disk)

    def buffer(self, slot: int, disk: int = 0) -> bytes:
        """Read the buffer of a slot."""
        begin = parts.BUFFERS_AT + slot * DISK_BUFFER_BYTES
        return self.block(disk)[begin : begin + DISK_BUFFER_BYTES].tobytes()

    def registers(self, disk: int = 0) -> dict[str, int]:
        """Read the registers of a disk."""
        return {
            name: int(value[0]) for name, value in self.machine.disks[disk].device.state().items()
        }

    def submit(self, slot: int, request: BlockRequest, disk: int = 0) -> None:
        """Submit a request as a program does."""
        machine = self.machine
        begin = parts.BUFFERS_AT + slot * DISK_BUFFER_BYTES
        if request.data:
            self.block(disk)[begin : begin + len(request.data)] = np.frombuffer(
                request.data, np.uint8
            )
        submit_one(
            machine.control, machine.ram.array, machine.tracker.marks, machine.disk_arrays[0], disk,
            slot, int(request.kind), request.offset, request.length, FUA * request.fua,
        )  # fmt: skip

    def take_completions(self, disk: int = 0) -> int:
        """Take completions as a program does."""
        machine = self.machine
        return take(machine.ram.array, machine.tracker.marks, *machine.disk_arrays, disk)

    def release(self, slot: int, disk: int = 0) -> None:
        """Make a slot free."""
        machine = self.machine
        release_one(machine.ram.array, machine.tracker.marks, machine.disk_arrays[0], disk, slot)


class MemoryBackend:
    """A disk in memory, whose requests can be made to fail, or to wait by their offset."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.contents = bytearray(size)
        self.done: list[tuple[RequestKind, int, int]] = []
        self.error: BlockError | None = None
        self.gates: dict[int, threading.Event] = {}
        self.begun = threading.Event()

    def _do(self, kind: RequestKind, offset: int, length: int) -> None:
        gate = self.gates.get(offset) if kind is not RequestKind.FLUSH else None
        self.begun.set()
        if gate is not None:
            gate.wait()
        self.done.append((kind, offset, length))
        if self.error is not None:
            raise self.error

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes."""
        self._do(RequestKind.READ, offset, length)
        return bytes(self.contents[offset : offset + length])

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write bytes."""
        self._do(RequestKind.WRITE, offset, len(data))
        self.contents[offset : offset + len(data)] = data

    def flush(self) -> None:
        """Note the flush."""
        self._do(RequestKind.FLUSH, 0, 0)

    def discard(self, offset: int, length: int) -> None:
        """Write zeros."""
        self._do(RequestKind.DISCARD, offset, length)
        self.contents[offset : offset + length] = bytes(length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros."""
        self._do(RequestKind.WRITE_ZEROES, offset, length)
        self.contents[offset : offset + length] = bytes(length)
