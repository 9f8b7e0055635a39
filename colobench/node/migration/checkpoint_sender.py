"""Sending the guest: precopy, the switchover, and checkpoints in either layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

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

if TYPE_CHECKING:
    from colobench.node.migration.copy_on_write import EpochCopies

#: Precopy ends when a pass leaves no more than one page in so many dirty, or after so many passes.
PRECOPY_GOAL = 128
PRECOPY_PASSES = 16
_VMSTATE_SEND = encode_message(Message.VMSTATE_SEND)
_MIGRATE_RAM_BACKGROUND = encode_message(Message.MIGRATE_RAM_BACKGROUND)


class CheckpointSender:
    """Sends a guest and its checkpoints on one channel, with RAM and devices separated.

    A checkpoint is `begin`, `send_ram` and `send_devices`. If pages are sent from a copy, `capture`
    and `complete` precede all that, and between them the guest starts.

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

    @property
    def epochs(self) -> EpochCopies:
        """The copies of open epochs, if the capture has two of them."""
        from colobench.node.migration.copy_on_write import EpochCopies  # It takes a kernel.

        assert isinstance(self._page_copy, EpochCopies)
        return self._page_copy

    def capture(self, dirty: DirtyPages) -> None:
        """Capture the pages of the last collection, while the guest stands still."""
        if self._page_copy is not None:
            self._page_copy.capture(dirty.bitmap)

    def complete(self, dirty: DirtyPages) -> None:
        """Complete the copy of the captured pages, while the guest runs."""
        if self._page_copy is not None:
            self._page_copy.complete(dirty.bitmap)

    def begin(self, at_once: bool = False) -> None:
        """Begin a checkpoint; VMSTATE_SEND is sent with the next bytes, or at once.

        If it is sent at once, the secondary wakes up and parses it while devices are saved here.
        """
        self._channel.write(_VMSTATE_SEND)
        if at_once:
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

    def begin_ram(self, count: int) -> None:
        """Begin to send this number of pages in parts, which `send_part` and `end_ram` follow.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._count = count
        self._pages.begin(SectionType.END, count)

    def send_part(self, pages: Pages) -> None:
        """Send some of the pages of a checkpoint; the section is over only with `end_ram`.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._pages.send(pages)

    def end_ram(self) -> None:
        """End the pages of a checkpoint; the last bytes are sent together with the devices.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._pages.end()
        self._channel.write(savevm.EOF)

    def send_devices(self, devices: bytes) -> None:
        """Send the saved devices, which end the checkpoint.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._device_bytes = len(devices)
        self._send_sized(devices)

    def send_pass(self, pages: Pages) -> None:
        """Send pages between checkpoints, while the guest runs.

        Raises
        ------
        PeerLost, PeerStalled
        """
        self._channel.write(_MIGRATE_RAM_BACKGROUND)
        self._send_section(SectionType.PART, pages, "pass")
        self._channel.write(savevm.EOF)
        self._channel.flush()
        self._breakpoints.reach("pass-sent")

    def statistics(self) -> dict[str, Any]:
        """Return sizes and counts of the last checkpoint, by their names in a record.

        ``buffer-bytes`` is the memory that the checkpoint needed besides RAM: the device buffer, or
        in the buffered layout RAM and devices together; and the memory for copies of pages.
        """
        section = self._checkpoint_pages.section
        copies = 0 if self._page_copy is None else self._page_copy.size
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

    def _send_section(self, kind: SectionType, pages: Pages, halfway: str = "ram") -> None:
        """Send a RAM section; its last bytes are sent together with the next ones."""
        sender = self._pages
        sender.begin(kind, len(pages))
        if self._breakpoints.is_set(halfway):
            half = len(pages) // 2
            sender.send(pages[:half])
            self._breakpoints.reach(halfway)
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
