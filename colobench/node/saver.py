"""Saving the guest onto the stream: precopy, the switch, and checkpoints in either layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colobench.guest.machine import MACHINE_TYPE, Machine
from colobench.kernels import bitmap, page_records
from colobench.memory.ram import PAGE_SIZE
from colobench.node.breakpoints import Breakpoints
from colobench.node.channel import Channel
from colobench.node.node import RAM_SECTION_ID
from colobench.node.phases import Phases
from colobench.protocol.colo import Layout
from colobench.wire import savevm
from colobench.wire.format import Command, SectionType
from colobench.wire.messages import Message, encode_message
from colobench.wire.ram import RAMRecordState, RecordSlice

#: Precopy ends when a pass leaves no more than one page in so many dirty, or after so many passes.
PRECOPY_GOAL = 128
PRECOPY_PASSES = 16

Pages = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Saved:
    """What went into the last checkpoint.

    `buffer_bytes` is the memory that the checkpoint needed besides RAM: the device buffer, or in
    the buffered layout RAM and devices together. `work` is the guest's work counter. `sent_at` is
    when the last byte was given to the socket, in nanoseconds of CLOCK_MONOTONIC.
    """

    pages: int = 0
    zero_pages: int = 0
    device_bytes: int = 0
    buffer_bytes: int = 0
    work: int = 0
    sent_at: int = 0


def _halves(parts: list[RecordSlice], half: int) -> list[list[RecordSlice]]:
    """Divide the parts of a page list before its entry `half`."""
    first, second = [], []
    for part in parts:
        if part.begin < half:
            first.append(part._replace(end=min(part.end, half)))
        if part.end > half:
            begun = part.begin < half
            name = part.name[:0] if begun else part.name
            second.append(part._replace(begin=max(part.begin, half), name=name))
    return [first, second]


class Saver:
    """Writes one guest onto one channel, for as long as that lasts.

    Parameters
    ----------
    machine, channel
        What is saved, and where it goes.
    breakpoints
        Where a checkpoint can be held.
    forgets
        Whether one dirty page of each checkpoint is forgotten (`Bug.MISSED_DIRTY_BIT`).

    Attributes
    ----------
    saved
        What the last checkpoint consisted of.
    passes, remaining_pages
        Precopy's progress.
    """

    def __init__(
        self,
        machine: Machine,
        channel: Channel,
        breakpoints: Breakpoints,
        *,
        forgets: bool = False,
    ) -> None:
        self._forgets = forgets
        self._checkpoints = 0
        self._machine = machine
        self._channel = channel
        self._breakpoints = breakpoints
        self._records = RAMRecordState(machine.ram.blocks)
        #: The pages that are to be sent, as QEMU's migration bitmap, and as a list.
        self._bitmap: npt.NDArray[np.uint64] = np.zeros_like(machine.ram.bitmap)
        self._pages: Pages = np.zeros(machine.ram.pages + bitmap.LIST_SLACK, dtype=np.int32)
        self._ram_buffer: npt.NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self._progress = np.zeros(2, dtype=np.int64)
        self.saved = Saved()
        self.passes = 0
        self.remaining_pages = machine.ram.pages

    def precopy(self) -> None:
        """Send all of RAM, then what the running guest dirties meanwhile, until little is left."""
        ram = self._machine.ram
        self._channel.write(savevm.stream_header(MACHINE_TYPE))
        self._channel.write(savevm.command(Command.ENABLE_COLO))
        self._channel.write(savevm.ram_section_start(RAM_SECTION_ID, ram.blocks))
        self._machine.tracker.arm()
        everything = [np.arange(b.first_page, b.first_page + b.pages) for b in ram.blocks]
        pages: Pages = np.concatenate(everything).astype(np.int32)
        while True:
            self.passes += 1
            self.remaining_pages = len(pages)
            self._send_section(SectionType.PART, pages)
            self._channel.flush()
            if len(pages) <= ram.pages // PRECOPY_GOAL or self.passes == PRECOPY_PASSES:
                return
            pages = self._collect()

    def switch(self, device_buffer: bytes) -> None:
        """Send what is left of RAM, and the saved devices; the guest must be stopped."""
        pages = self._collect()
        self.remaining_pages = 0
        self._send_section(SectionType.END, pages)
        self._channel.write(device_buffer)
        self._channel.write(savevm.vmdescription_section(self._machine.devices))
        self._channel.flush()

    def send_checkpoint(
        self, save_devices: Callable[[], bytes], layout: Layout, phases: Phases
    ) -> None:
        """Send a checkpoint of the stopped guest, VMSTATE_SEND first.

        Parameters
        ----------
        save_devices
            Saves the devices: ahead of RAM as in patch 31, or with page channels, in whose case RAM
            is on its way meanwhile, behind it.
        layout
            SEPARATED: RAM goes straight onto the stream, then the device buffer.
            BUFFERED: RAM and the devices go into one buffer, then the buffer.
        phases
            Gets the time of collecting, of sending RAM (with BUFFERED: the buffer), and of sending
            the device buffer.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._channel.write(encode_message(Message.VMSTATE_SEND))
        ahead = self._channel.pages is None
        device_buffer = save_devices() if ahead else b""
        pages = self._collect()
        if self._forgets and len(pages):
            self._checkpoints += 1
            pages = np.delete(pages, self._checkpoints * 7919 % len(pages))
        phases.end("collect")
        if layout is Layout.SEPARATED:
            zero_pages = self._send_section(SectionType.END, pages)
            self._channel.write(savevm.EOF)
            phases.end("ram")
            self._breakpoints.reach("ram-sent")
            if not ahead:
                device_buffer = save_devices()
            sized: bytes | memoryview = device_buffer
        else:
            sized, zero_pages = self._buffer_checkpoint(pages, device_buffer)
        self._send_sized(sized)
        sent_at = phases.end("devices" if layout is Layout.SEPARATED else "ram")
        work = self._machine.work
        self.saved = Saved(len(pages), zero_pages, len(device_buffer), len(sized), work, sent_at)

    def sent_bitmap(self) -> npt.NDArray[np.uint64]:
        """Give the bitmap of the pages that the last checkpoint sent: uint64[pages / 64]."""
        return self._bitmap

    def _collect(self) -> Pages:
        bitmap.clear(self._bitmap)
        self._machine.tracker.collect(self._bitmap)
        return self._pages[: bitmap.list_pages(self._bitmap, self._pages)]

    def _send_section(self, kind: SectionType, pages: Pages) -> int:
        """Send a RAM section; its last bytes wait for what follows. Returns the zero pages."""
        channel = self._channel
        halves = [self._records.slices(pages)]
        if self._breakpoints.is_set("ram"):
            halves = _halves(halves[0], len(pages) // 2)
        zero_pages = 0
        if channel.pages is None:
            channel.write(savevm.ram_section_begin(kind, RAM_SECTION_ID))
        else:
            channel.pages.begin(len(pages))
            # Ahead of the pages, so that the peer is there when they come.
            channel.write(savevm.ram_section_multifd(kind, RAM_SECTION_ID))
            channel.flush()
        for i, half in enumerate(halves):
            if i:
                self._breakpoints.reach("ram")
            zero_pages += self._send_pages(pages, half)
        if channel.pages is None:
            channel.write(savevm.ram_section_finish(RAM_SECTION_ID))
        else:
            channel.pages.end()
        return zero_pages

    def _send_pages(self, pages: Pages, parts: list[RecordSlice]) -> int:
        """Send pages as the transport does; returns how many were zero pages."""
        channel = self._channel
        if channel.pages is not None:
            return channel.pages.send(pages, parts)
        return sum(channel.send_pages(self._machine.ram, pages, part) for part in parts)

    def _send_sized(self, sized: bytes | memoryview) -> None:
        """Send VMSTATE_SIZE and the buffer that it announces."""
        self._channel.write(encode_message(Message.VMSTATE_SIZE, len(sized)))
        if self._breakpoints.is_set("buffer"):
            half = len(sized) // 2
            self._channel.write(sized[:half])
            self._channel.flush()
            self._breakpoints.reach("buffer")
            sized = sized[half:]
        if len(sized) > PAGE_SIZE:
            self._channel.flush()
            self._channel.send_in_time(sized)
        else:
            self._channel.write(sized)
            self._channel.flush()

    def _buffer_checkpoint(self, pages: Pages, devices: bytes) -> tuple[memoryview, int]:
        """Put a RAM section and the devices into one buffer; give that, and the zero pages."""
        ram = self._machine.ram
        begin = savevm.ram_section_begin(SectionType.END, RAM_SECTION_ID)
        finish = savevm.ram_section_finish(RAM_SECTION_ID) + devices
        slices = self._records.slices(pages)
        room = len(begin) + len(finish) + len(pages) * page_records.PAGE_RECORD_BYTES
        room += len(slices) * page_records.NAME_BYTES
        if len(self._ram_buffer) < room:
            self._ram_buffer = np.zeros(room, dtype=np.uint8)
        view = self._ram_buffer.data
        view[: len(begin)] = begin
        end, zero_pages = len(begin), 0
        for part in slices:
            end += page_records.encode_page_records(
                self._ram_buffer[end:],
                ram.array,
                pages,
                part.begin,
                part.end,
                part.block.first_page,
                part.named,
                part.name,
                self._progress,
            )
            zero_pages += int(self._progress[1])
        view[end : end + len(finish)] = finish
        self._breakpoints.reach("ram")
        return view[: end + len(finish)], zero_pages
