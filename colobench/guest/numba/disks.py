"""The machine's disks: devices with versioned state, and their side towards the host."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colobench.block.backend import BlockError
from colobench.block.request import GUEST_LENGTH_MAX, BlockRequest, RequestKind
from colobench.errors import LocalError
from colobench.guest.disk_queue import (
    BLOCK_AT,
    BUFFERS_AT,
    COUNTER_OF,
    COUNTERS,
    DISK_BUFFER_BYTES,
    DISK_SLOTS,
    FLAGS,
    FUA,
    KICK_FD,
    KIND,
    LENGTH,
    LENGTHS,
    OFFSET,
    PUT,
    QUEUE_BYTES,
    QUEUE_WORDS,
    REFUSED,
    REGISTERS,
    SLOT_BYTES,
    SLOT_NUMBERS,
    STATE,
    STATUSES,
    TAKEN,
    SlotState,
)
from colobench.guest.interface import SubmittedRequest
from colobench.guest.numba.devices import Registers, register_fields
from colobench.memory.ram import PAGE_SIZE, RAM
from colobench.wire.vmstate import StateParser, VMStateDescription, VMStateError

DISK_REGISTERS = (
    "size",
    "reads",
    "writes",
    "flushes",
    "discards",
    "writes_of_zeroes",
    "errors",
    "refused",
)
_HAS_DATA = (RequestKind.READ, RequestKind.WRITE)


class DiskDevice(Registers):
    """A disk's registers: its size in bytes, and numbers of requests that were completed.

    ``errors`` counts the requests that failed, and ``refused`` those among them that were
    malformed. The requests themselves are in RAM, see `colobench.guest.disk_queue`.
    """

    vmstate = VMStateDescription("disk", 1, 1, register_fields(DISK_REGISTERS))

    def __init__(self, number: int, size: int, registers: npt.NDArray[np.uint64]) -> None:
        super().__init__(DISK_REGISTERS, registers)
        self.instance_id = number
        self["size"] = size

    def parse(self, version_id: int) -> StateParser:
        """Decode and check a state; that of a disk of another size is refused."""
        state = yield from super().parse(version_id)
        size = int(state["size"][0])
        if size != self["size"]:
            raise VMStateError(
                f"device 'disk' {self.instance_id}, field 'size': expected {self['size']} bytes, "
                f"found {size}"
            )
        return state


class DiskQueue:
    """Completions of one disk, with one consumer, the guest's CPU; the caller serialises producers.

    Parameters
    ----------
    words
        uint64[QUEUE_WORDS]: the disk's registers; the eventfd by which the guest kicks the host;
        address of its block, in bytes from the beginning of RAM; number of completions taken by the
        guest so far, and put by the host so far. Completion n is in entry n % 64 of four arrays of
        64 words: slot, status, bytes of data, and the register that counts it.
    data
        uint8[QUEUE_BYTES]: the data read for slot n are at n * 64 KiB.
    """

    def __init__(self, words: npt.NDArray[np.uint64], data: npt.NDArray[np.uint8]) -> None:
        self.words, self.data = words, data

    def taken(self) -> int:
        """Return the number of completions that the guest has taken so far."""
        return int(self.words[TAKEN])

    def slot(self, n: int) -> int:
        """Return the slot of completion n, one of the last 64."""
        return int(self.words[SLOT_NUMBERS + n % DISK_SLOTS])

    def put(self, slot: int, status: int, data: bytes, counter: int) -> None:
        """Complete the request of a slot, which has no other completion in the queue."""
        begin = slot * DISK_BUFFER_BYTES
        if data:
            self.data[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        words, entry = self.words, int(self.words[PUT]) % DISK_SLOTS
        words[SLOT_NUMBERS + entry], words[STATUSES + entry] = slot, status
        words[LENGTHS + entry], words[COUNTERS + entry] = len(data), counter
        words[PUT] += np.uint64(1)

    def clear(self) -> None:
        """Drop all completions; the guest stands still."""
        self.words[TAKEN] = self.words[PUT] = 0


class Disk:
    """A disk, seen from its host: a `colobench.guest.interface.GuestDisk`.

    Parameters
    ----------
    device
        The disk's registers.
    queue
        Its completions.
    block
        uint8[DISK_BLOCK_BYTES], its block of RAM, which is only read here.
    wake_fd
        Eventfd that wakes the CPU.

    Attributes
    ----------
    kick_fd
        Descriptor that becomes readable when the guest has submitted requests (an eventfd).
    """

    def __init__(
        self, device: DiskDevice, queue: DiskQueue, block: npt.NDArray[np.uint8], wake_fd: int
    ) -> None:
        self.device, self._queue, self._wake_fd = device, queue, wake_fd
        self._slots = block[:BUFFERS_AT].view(np.uint64).reshape(-1, SLOT_BYTES // 8)
        self._buffers = block[BUFFERS_AT:].reshape(-1, DISK_BUFFER_BYTES)
        self._lock = threading.Lock()
        #: Requests that the host executes, by slot; slots with a completion in the queue, and the
        #: number of completions, taken by the guest, that this set reflects.
        self._executed: dict[int, SubmittedRequest] = {}
        self._completed: set[int] = set()
        self._seen = 0
        self.kick_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def name(self) -> str:
        """Name of its block of RAM."""
        return f"disk{self.device.instance_id}"

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.device["size"]

    def describe(self) -> dict[str, int]:
        """Return its size and counters, as QMP names them."""
        return {slot.replace("_", "-"): self.device[slot] for slot in DISK_REGISTERS}

    def take(self) -> list[SubmittedRequest]:
        """Take the requests that were submitted since the last call; see `GuestDisk`."""
        with self._lock:
            # First what the guest has taken, then its slots: a slot that is submitted anew in
            # between is taken at the next kick.
            taken = self._queue.taken()
            self._completed -= {self._queue.slot(n) for n in range(self._seen, taken)}
            self._seen = taken
            submitted = np.flatnonzero(self._slots[:, STATE // 8] == SlotState.SUBMITTED)
            new = [
                n for n in submitted.tolist() if n not in self._executed.keys() | self._completed
            ]
            requests = [request for n in new if (request := self._take_slot(n)) is not None]
        if len(requests) < len(new):
            self.wake()
        return requests

    def _take_slot(self, slot: int) -> SubmittedRequest | None:
        """Copy a slot's request; complete it with an error and return None if it is malformed."""
        try:
            request = _read_request(self._slots[slot].tolist(), self._buffers[slot], self.size)
        except BlockError as error:
            self._put(slot, error.errno, b"", REFUSED)
            return None
        self._executed[slot] = submitted = SubmittedRequest(slot, request)
        return submitted

    def complete(self, submitted: SubmittedRequest, status: int, data: bytes = b"") -> None:
        """Complete a request, see `GuestDisk`."""
        reads = submitted.request.kind is RequestKind.READ and status == 0
        expected = submitted.request.length if reads else 0
        if len(data) != expected:
            raise LocalError(
                f"completion of {submitted.request.kind.name} with status {status}: expected "
                f"{expected} bytes of data, found {len(data)}"
            )
        with self._lock:
            if self._executed.get(submitted.slot) is submitted:
                del self._executed[submitted.slot]
                self._put(submitted.slot, status, data, COUNTER_OF[submitted.request.kind])

    def _put(self, slot: int, status: int, data: bytes, counter: int) -> None:
        self._completed.add(slot)
        self._queue.put(slot, status, data, counter)

    def wake(self) -> None:
        """Wake a sleeping CPU, so that it takes completions."""
        os.eventfd_write(self._wake_fd, 1)

    def reset(self) -> None:
        """Forget what is under way, and drop all completions: a state has been loaded."""
        with self._lock:
            self._executed.clear()
            self._completed.clear()
            self._seen = 0
            self._queue.clear()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.kick_fd)


def _read_request(words: list[int], buffer: npt.NDArray[np.uint8], size: int) -> BlockRequest:
    """Make the request of a slot's words, for a disk of that size; raise BlockError if none."""
    kind, offset, length = words[KIND // 8], words[OFFSET // 8], words[LENGTH // 8]
    if kind not in list(RequestKind):
        raise BlockError(errno.EINVAL, f"kind: expected one of {list(RequestKind)}, found {kind}")
    data = buffer[:length].tobytes() if kind == RequestKind.WRITE else b""
    request = BlockRequest(RequestKind(kind), offset, length, data, bool(words[FLAGS // 8] & FUA))
    request.check(size, DISK_BUFFER_BYTES if kind in _HAS_DATA else GUEST_LENGTH_MAX)
    return request


class Disks:
    """All disks of a machine, which share the arrays for the kernels.

    Attributes
    ----------
    arrays
        The arguments `disks` and `disk_data` of `colobench.guest.disk`.
    """

    def __init__(self, sizes: Sequence[int], ram: RAM, wake_fd: int) -> None:
        words = np.zeros(len(sizes) * QUEUE_WORDS, np.uint64)
        data = np.zeros(len(sizes) * QUEUE_BYTES, np.uint8)
        self.arrays = (words, data)
        self.all: list[Disk] = []
        for number, size in enumerate(sizes):
            mine = words[number * QUEUE_WORDS :][:QUEUE_WORDS]
            block = ram.block(f"disk{number}")
            assert block is not None
            device = DiskDevice(number, size, mine[:REGISTERS])
            queue = DiskQueue(mine, data[number * QUEUE_BYTES :][:QUEUE_BYTES])
            disk = Disk(device, queue, ram.block_bytes(block), wake_fd)
            mine[KICK_FD], mine[BLOCK_AT] = disk.kick_fd, block.first_page * PAGE_SIZE
            self.all.append(disk)

    def devices(self) -> tuple[DiskDevice, ...]:
        """Return the devices, in the order of their numbers."""
        return tuple(disk.device for disk in self.all)

    def reset(self) -> None:
        """Reset all disks, see `Disk.reset`."""
        for disk in self.all:
            disk.reset()

    def close(self) -> None:
        """Close all disks."""
        for disk in self.all:
            disk.close()
