"""A primary's checkpoint, captured and sent as the capture and the encoding have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from colobench.node.breakpoints import Breakpoints
from colobench.node.guest_control import GuestControl
from colobench.node.migration.checkpoint_sender import CheckpointSender
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.page_path import Pages
from colobench.node.phases import Phases
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Capture
from colobench.settings.settings import Settings

if TYPE_CHECKING:
    from colobench.node.migration.divergent import PageComparison


class OutgoingCheckpoint:
    """Captures and sends each checkpoint, by actions of the primary's table.

    Parameters
    ----------
    settings, guest, breakpoints
        The node's settings, guest and breakpoints.
    sender, dirty
        Sender of checkpoints, and the pages that the guest writes.
    comparison
        Comparison with the secondary's pages, of the encoding ``divergent``; otherwise None.
    announce
        Function that reports the digests of the checkpoint with this number and these devices.
    sent
        Function that is called when all of a checkpoint has been sent.

    Attributes
    ----------
    work
        Steps that the guest had done at the last checkpoint.
    """

    def __init__(
        self,
        settings: Settings,
        guest: GuestControl,
        breakpoints: Breakpoints,
        sender: CheckpointSender,
        dirty: DirtyPages,
        comparison: PageComparison | None,
        announce: Callable[[int, bytes], None],
        sent: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._guest = guest
        self._breakpoints = breakpoints
        self._sender = sender
        self._dirty = dirty
        self._comparison = comparison
        self._announce = announce
        self._sent = sent
        self._phases = Phases()
        #: Devices and pages that were copied, and are being sent.
        self._captured: tuple[bytes, Pages] | None = None
        #: Devices that were saved while the secondary compares.
        self._devices: bytes | None = None
        self.work = 0

    def begin(self, phases: Phases) -> None:
        """Begin a checkpoint, whose phases end on this stopwatch."""
        self._phases = phases

    def send(self) -> None:
        """Save and send the stopped guest."""
        devices_first = self._settings.checkpoint.devices_first
        self._sender.begin(at_once=devices_first)
        devices = self._save_devices() if devices_first else None
        self._send_pages(self._collect_pages())
        # If devices come last, RAM is still on its way.
        self._send_devices(self._save_devices() if devices is None else devices)

    def capture(self, point: str) -> None:
        """Copy the stopped guest, or freeze it, so that it can run on; then reach a point."""
        self._captured = self._save_devices(), self._collect_pages()
        self._sender.capture(self._dirty)
        self._phases.end("copy")
        self._breakpoints.reach(point)

    def send_captured(self) -> None:
        """Send what `capture` took, while the guest runs."""
        assert self._captured is not None
        devices, pages = self._captured
        self._captured = None
        self._breakpoints.reach("resumed")
        self._sender.complete(self._dirty)
        if self._settings.checkpoint.capture is Capture.COPY_ON_WRITE:
            self._breakpoints.reach("copied")
        self._sender.begin()
        self._send_pages(pages)
        self._send_devices(devices)

    def send_page_hashes(self) -> None:
        """Send the hashes of the stopped guest's dirty pages."""
        assert self._comparison is not None
        self._comparison.send_hashes(self._collect_pages())
        self._phases.end("hash")
        if self._settings.checkpoint.devices_first:
            # The secondary still hashes.
            self._devices = self._save_devices()

    def send_divergent(self) -> None:
        """Send the pages that differ, and the devices."""
        assert self._comparison is not None
        pages = self._comparison.divergent()
        self._phases.end("hash")
        self._breakpoints.reach("compared")
        self._sender.begin()
        self._send_pages(pages)
        devices, self._devices = self._devices, None
        self._send_devices(self._save_devices() if devices is None else devices)

    def statistics(self) -> dict[str, Any]:
        """Return sizes and counts of the last checkpoint, by their names in a record."""
        compared = {} if self._comparison is None else self._comparison.statistics()
        return self._sender.statistics() | compared

    def _collect_pages(self) -> Pages:
        missed = self._settings.experiment.bug is Bug.MISSED_DIRTY_BIT
        pages = self._dirty.collect_but_one() if missed else self._dirty.collect()
        self._phases.end("collect")
        return pages

    def _save_devices(self) -> bytes:
        devices = self._guest.save_devices()
        self.work = self._guest.machine.work
        self._phases.end("devices")
        if self._settings.checkpoint.verify:
            self._announce(self._guest.checkpoint + 1, devices)
            self._phases.end("verify")
        return devices

    def _send_pages(self, pages: Pages) -> None:
        self._sender.send_ram(pages)
        self._phases.end("ram")
        self._breakpoints.reach("ram-sent")

    def _send_devices(self, devices: bytes) -> None:
        self._sender.send_devices(devices)
        self._phases.end(self._sender.buffer_phase)
        self._sent()
