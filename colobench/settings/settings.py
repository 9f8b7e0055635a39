"""All settings of a session, and checks of combinations across their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from colobench.errors import LocalError
from colobench.fields.part import Part, part
from colobench.guest.settings import GuestSettings
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import CheckpointSettings, Output
from colobench.settings.compare import CompareSettings
from colobench.settings.disk_buffer import DiskBufferSettings
from colobench.settings.experiment import ExperimentSettings
from colobench.settings.heartbeat import HeartbeatSettings
from colobench.settings.link import LinkSettings
from colobench.settings.network import NetworkSettings
from colobench.settings.transport import PageTransport
from colobench.strategy.compatibility import check_guest_compatible


@dataclass(frozen=True, slots=True)
class Settings(Part):
    """All settings of a session.

    Raises
    ------
    LocalError
        If a check refuses a setting, or a combination of settings.

    Examples
    --------
    >>> Settings().override(ram="16M", output="compare").checkpoint.variant
    'upstream'
    """

    guest: GuestSettings = part(GuestSettings)
    checkpoint: CheckpointSettings = part(CheckpointSettings)
    disk_buffer: DiskBufferSettings = part(DiskBufferSettings)
    link: LinkSettings = part(LinkSettings)
    network: NetworkSettings = part(NetworkSettings)
    heartbeat: HeartbeatSettings | None = part(HeartbeatSettings, optional=True, by_name=True)
    experiment: ExperimentSettings = part(ExperimentSettings)

    def complete(self) -> None:
        """Check combinations of settings of different parts."""
        self._settle_tracker()
        compares = self.checkpoint.output is Output.COMPARE
        self._check_link()
        if self.guest.disks and self.experiment.bug is Bug.JOINT_RELEASE:
            raise LocalError(
                f"bug {Bug.JOINT_RELEASE.value}: expected a guest without disks, found disks, "
                "which have one commit for each checkpoint"
            )
        if self.network.pcap_mirror is not None and not compares:
            raise LocalError("pcap_mirror: expected output compare, found buffer: nothing is there")
        if self.network.compare != CompareSettings() and not compares:
            raise LocalError("compare: expected output compare, found buffer: nothing is compared")
        if self.experiment.arbiter_state is not None and self.heartbeat is None:
            raise LocalError("arbiter_state: expected a heartbeat, found none: nobody asks")

    def _changed(self, changes: Mapping[str, Any]) -> Self:
        """Give other settings; with another guest, KVM's log gives way to the usual tracker."""
        if "guest" in changes and self.checkpoint.tracker == "kvm":
            changes = {"tracker": "marked", **changes}
        return Part._changed(self, changes)

    def _settle_tracker(self) -> None:
        """Replace the usual tracker for a guest of KVM, and check that guest and tracker match."""
        checkpoint, guest = self.checkpoint, self.guest.program.label
        check_guest_compatible(guest, {"capture": checkpoint.capture.value})
        if self.guest.program.needs_kvm and checkpoint.tracker == "marked":
            checkpoint = replace(checkpoint, tracker="kvm")
            object.__setattr__(self, "checkpoint", checkpoint)
        check_guest_compatible(guest, {"tracker": checkpoint.tracker})

    def _check_link(self) -> None:
        """Check that pages can travel over the link, and that an answer takes less than a stall."""
        link, checkpoint = self.link.link, self.checkpoint
        if checkpoint.transport.pages is PageTransport.MEMFD and not link.is_local:
            raise LocalError(
                f"link {link}: expected transport stream or multifd, whose pages travel, found "
                "memfd: the secondary would read the primary's RAM past the link"
            )
        round_trip = 2 * (link.delay_us + link.jitter_us) / 1e6
        if round_trip and round_trip >= checkpoint.stall_timeout:
            raise LocalError(
                f"link {link}: expected a round trip shorter than the stall timeout of "
                f"{checkpoint.stall_timeout:g} s, found {round_trip:g} s"
            )
