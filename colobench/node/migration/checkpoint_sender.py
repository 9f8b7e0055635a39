"""Sending the guest: precopy, the switchover, and checkpoints in either layout."""

from __future__ import annotations

from typing import Any, ClassVar

from colobench.guest.interface import Guest
from colobench.memory.ram import PAGE_SIZE
from colobench.node.address import Address
from colobench.node.breakpoints import Breakpoints
from colobench.node.channel import Channel
from colobench.node.migration.buffered import BufferedSender
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.page_copy import PageCopy
from colobench.node.migration.page_path import Pages, PageSender
from colobench.node.wait import Wait
from colobench.wire import savevm
from colobench.wire.format import MigrationCommand, SectionType
from colobench.wire.messages import Message, encode_message

#: Precopy ends when a pass leaves no more than one page in so many dirty, or after so many passes.
PRECOPY_GOAL = 128
PRECOPY_PASSES = 16
_VMSTATE_SEND = encode_message(Message.VMSTATE_SEND)


class CheckpointSender:
    """Sends a guest and its checkpoints on one channel, with RAM and devices separated.

    A checkpoint is `begin`, `send_ram` and `send_devices`. The devices are saved before `send_ram`
    if `devices_first`, else after it. If pages are sent from a copy, `copy` precedes all that.

    Parameters
    ----------
    machine, channel
        The guest, and the connection to the secondary.
    pages
        Sender of RAM sections.
    breakpoints
        Points at which a checkpoint can be held.
    page_copy
        The copy from which `pages` sends; None if it sends from RAM.

    Attributes
    ----------
    passes, remaining_pages
        Precopy's progress.
    buffer_phase
        Phase of a checkpoint that includes sending the sized buffer.
    """

    buffer_phase: ClassVar[str] = "devices"

    def __init__(
        self,
        machine: Guest,
        channel: Channel,
        pages: PageSender,
        breakpoints: Breakpoints,
        page_copy: PageCopy | None = None,
    ) -> None:
        self._machine = machine
        self._page_copy = page_copy
        self._channel = channel
        self._pages = pages
        #: Sender of the pages of checkpoints.
        self._checkpoint_pages: PageSender = pages
        self._breakpoints = breakpoints
        self._count = self._device_bytes = self._buffer_bytes = 0
        self.passes = 0
        self.remaining_pages = machine.ram.pages

    @property
    def devices_first(self) -> bool:
        """Whether a checkpoint's devices are saved before its RAM is sent."""
        return self._pages.devices_first

    def connect(self, address: Address, wait: Wait) -> None:
        """Make the connections that carry only pages, see `PageSender`."""
        self._pages.connect(address, wait)

    def precopy(self, dirty: DirtyPages) -> None:
        """Send all of RAM, then repeatedly the pages dirtied meanwhile, until few are left.

        Raises
        ------
        PeerLost, PeerStalled
        """
        ram, channel = self._machine.ram, self._channel
        channel.write(savevm.command(MigrationCommand.ENABLE_COLO))
        channel.write(savevm.ram_section_start(savevm.RAM_SECTION_ID, ram.blocks))
        pages = dirty.arm()
        while True:
            self.passes += 1
            self.remaining_pages = len(pages)
            self.copy(dirty)
            self._send_section(SectionType.PART, pages)
            channel.flush()
            if len(pages) <= ram.pages // PRECOPY_GOAL or self.passes == PRECOPY_PASSES:
                return
            pages = dirty.collect()

    def switchover(self, pages: Pages, devices: bytes) -> None:
        """Send the last dirty pages and the saved devices of the stopped guest.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self.remaining_pages = 0
        self._send_section(SectionType.END, pages)
        self._channel.write(devices)
        self._channel.write(savevm.vmdescription_section(self._machine.devices))
        self._channel.flush()

    def copy(self, dirty: DirtyPages) -> None:
        """Copy the pages of the last collection, if they are sent from a copy."""
        if self._page_copy is not None:
            self._page_copy.take(dirty.bitmap)

    def begin(self) -> None:
        """Begin a checkpoint of the stopped guest; VMSTATE_SEND is sent with the next bytes."""
        self._channel.write(_VMSTATE_SEND)
        if self.devices_first:
            # The secondary wakes up and parses it while the devices are saved here.
            self._channel.flush()

    def send_ram(self, pages: Pages) -> None:
        """Send the pages of a checkpoint.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._count = len(pages)
        self._send_section(SectionType.END, pages)
        self._channel.write(savevm.EOF)

    def send_devices(self, devices: bytes) -> None:
        """Send the saved devices, which end the checkpoint.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._device_bytes = len(devices)
        self._send_sized(devices)

    def statistics(self) -> dict[str, Any]:
        """Return sizes and counts of the last checkpoint, by their names in a record.

        ``buffer-bytes`` is the memory that the checkpoint needed besides RAM: the device buffer, or
        in the buffered layout RAM and devices together; and the memory for copies of pages.
        """
        section = self._checkpoint_pages.section
        copies = 0 if self._page_copy is None else len(self._page_copy.memory.array)
        return {
            "pages": self._count,
            "zero-pages": section.zero_pages,
            "encoded-pages": section.encoded_pages,
            "bytes-saved": section.bytes_saved,
            "device-bytes": self._device_bytes,
            "buffer-bytes": self._buffer_bytes + copies,
        }

    def close(self) -> None:
        """Release the memory for copies; the connections have been closed."""
        if self._page_copy is not None:
            self._page_copy.close()

    def _send_section(self, kind: SectionType, pages: Pages) -> None:
        """Send a RAM section; its last bytes are sent together with the next ones."""
        sender = self._pages
        sender.begin(kind, len(pages))
        if self._breakpoints.is_set("ram"):
            half = len(pages) // 2
            sender.send(pages[:half])
            self._breakpoints.reach("ram")
            pages = pages[half:]
        sender.send(pages)
        sender.end()

    def _send_sized(self, sized: bytes | memoryview) -> None:
        """Send VMSTATE_SIZE and the buffer that it announces."""
        channel = self._channel
        self._buffer_bytes = len(sized)
        channel.write(encode_message(Message.VMSTATE_SIZE, len(sized)))
        if self._breakpoints.is_set("buffer"):
            half = len(sized) // 2
            channel.write(sized[:half])
            channel.flush()
            self._breakpoints.reach("buffer")
            sized = sized[half:]
        if len(sized) > PAGE_SIZE:
            channel.flush()
            channel.send_in_time(sized)
        else:
            channel.write(sized)
            channel.flush()


class BufferedCheckpointSender(CheckpointSender):
    """Sends checkpoints with RAM and devices in one buffer.

    Parameters
    ----------
    machine, channel, pages, breakpoints, page_copy
        See `CheckpointSender`; `pages` sends only the migration.
    buffered
        Writer of a checkpoint's pages into the buffer.
    """

    buffer_phase = "ram"

    def __init__(
        self,
        machine: Guest,
        channel: Channel,
        pages: PageSender,
        breakpoints: Breakpoints,
        page_copy: PageCopy | None,
        buffered: BufferedSender,
    ) -> None:
        super().__init__(machine, channel, pages, breakpoints, page_copy)
        self._checkpoint_pages = self._buffered = buffered

    def send_ram(self, pages: Pages) -> None:
        """Write the pages of a checkpoint into the buffer."""
        self._count = len(pages)
        self._buffered.begin(SectionType.END, len(pages))
        self._buffered.send(pages)
        self._buffered.end()
        self._breakpoints.reach("ram")

    def send_devices(self, devices: bytes) -> None:
        """Send the buffer, with the devices in it; see `CheckpointSender`."""
        self._device_bytes = len(devices)
        self._send_sized(self._buffered.with_devices(devices))
