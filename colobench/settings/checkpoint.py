"""Settings of checkpoints: interval, contents, and transport to the secondary."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from colobench.errors import LocalError
from colobench.fields.kinds import Choice, Flag, Integer, Number, Written
from colobench.fields.part import Part, setting
from colobench.memory.tracker_names import ALL_TRACKERS
from colobench.settings.own_trigger import check_can_travel, make_trigger, trigger_as_json
from colobench.settings.transport import (
    CHANNELS_LIMIT,
    TRANSPORTS,
    Encoding,
    PageTransport,
    Transport,
    usual_channels,
)
from colobench.strategy.compatibility import check_compatible, without_parameters
from colobench.strategy.trigger import NEVER_MS, Trigger
from colobench.strategy.triggers import usual_trigger
from colobench.strategy.written import TRIGGERS
from colobench.wire.compression import ZSTD_LEVELS

#: Time between checkpoints if nobody says another, in milliseconds.
DELAY_MS = 100
#: Time between passes of the capture gap-precopy if nobody says another, in milliseconds.
PASS_PERIOD_MS = 10
#: Less than a microsecond (in seconds) would be no limit to the kernel.
STALL_TIMEOUT_MIN, STALL_TIMEOUT_MAX = 0.001, 1e6


class Layout(enum.Enum):
    """Layout of a checkpoint in the stream."""

    #: RAM directly in the stream, devices in a sized buffer (patch 31 and later).
    SEPARATED = "separated"
    #: RAM and devices together in one sized buffer, as before patch 31.
    BUFFERED = "buffered"


class Capture(enum.Enum):
    """How the state of a checkpoint is captured, and so how long the guest stands still."""

    #: The guest stands still until the secondary has loaded the checkpoint.
    STOP_AND_SEND = "stop-and-send"
    #: The guest stands still while the checkpoint is copied, and runs while the copy is sent.
    COPY_THEN_SEND = "copy-then-send"
    #: Dirty pages travel between checkpoints, too; then the guest stands still for the rest.
    GAP_PRECOPY = "gap-precopy"
    #: The guest stands still while its written pages are frozen, and runs while they are copied.
    COPY_ON_WRITE = "copy-on-write"
    #: Likewise, and while a checkpoint travels, the guest may be cut for the next one.
    TWO_EPOCHS = "copy-on-write-2"

    @property
    def copies(self) -> bool:
        """Whether a copy is sent while the guest runs."""
        return self is Capture.COPY_THEN_SEND or self.freezes

    @property
    def freezes(self) -> bool:
        """Whether pages are frozen, so that the guest copies them before it writes."""
        return self in (Capture.COPY_ON_WRITE, Capture.TWO_EPOCHS)


class SaveOrder(enum.Enum):
    """Order in which a stopped guest is saved; RAM is always sent first."""

    #: RAM first if its pages have connections of their own, else devices first.
    BY_TRANSPORT = "by-transport"
    #: Devices are saved while RAM waits, and the secondary prepares (QEMU since 2018).
    DEVICES_FIRST = "devices-first"
    #: Devices are saved while RAM is on its way (COLO-Frame v12).
    RAM_FIRST = "ram-first"


class Output(enum.Enum):
    """Filter between the guest's NIC and the network."""

    #: Every frame waits for the next checkpoint (filter-buffer).
    BUFFER = "buffer"
    #: A frame waits until the secondary's guest has sent the same (colo-compare).
    COMPARE = "compare"


@dataclass(frozen=True, slots=True)
class Strategy(Part):
    """A way of checkpointing: a value of each axis in which ways differ.

    Raises
    ------
    LocalError
        If values do not go together, see `colobench.strategy.compatibility`.
    """

    title = "strategy"

    delay: int | None = setting(
        Integer(0, NEVER_MS, "ms", or_none=True),
        DELAY_MS,
        "longest time from one checkpoint to the next; 0: back to back, none: on request alone; "
        "what a trigger says of it goes before",
        qemu="x-checkpoint-delay",
    )
    trigger: Trigger = setting(
        Written(Trigger, make_trigger, trigger_as_json, "NAME[:…]", known=tuple(TRIGGERS)),
        None,
        "when a checkpoint is due; usually after the delay, and at a miscompare where output is "
        f"compared; one of {', '.join(TRIGGERS)}, as degradation:target=0.1,maximum=1000",
        derived=True,
    )
    transport: Transport = setting(
        Written(Transport, Transport.parse, known=TRANSPORTS, closed=True),
        Transport(PageTransport.STREAM, "unix"),
        "transport of pages: stream, multifd or memfd, over UNIX sockets or, as in multifd+tcp, "
        "over TCP; unix and tcp are short for stream+unix and stream+tcp",
        agreed=True,
    )
    encoding: Encoding = setting(
        Choice.of_members(Encoding),
        Encoding.NONE,
        "bytes of a page that are sent: all; those that changed since it was sent last (xbzrle, "
        "only with transport stream); many pages compressed together (zstd, lz4); or all of those "
        "pages alone that differ from the secondary's (divergent, which compares hashes and needs "
        "variant upstream)",
        qemu="xbzrle, multifd-compression",
        agreed=True,
    )
    zstd_level: int = setting(
        Integer(*ZSTD_LEVELS),
        1,
        "level of the encoding zstd: higher ones send less, and take longer",
        qemu="multifd-zstd-level",
    )
    multifd_channels: int = setting(
        Integer(0, CHANNELS_LIMIT),
        None,
        "connections for pages, of multifd and memfd; derived from the number of cores if left out",
        qemu="multifd-channels",
        derived=True,
        agreed=True,
    )
    layout: Layout = setting(
        Choice.of_members(Layout),
        Layout.SEPARATED,
        "order of a checkpoint in the stream: RAM directly and devices in a sized buffer, or both "
        "in one buffer (as before patch 31)",
        agreed=True,
    )
    capture: Capture = setting(
        Choice.of_members(Capture),
        Capture.STOP_AND_SEND,
        "how a checkpoint is captured; copy-then-send: the guest runs on once it is copied, as in "
        "Remus, which takes as much memory as RAM; copy-on-write: the guest runs on at once, and "
        "copies a page before it writes to it; copy-on-write-2: likewise, with two checkpoints on "
        "their way at once; gap-precopy: passes between checkpoints send dirty "
        "pages, too, so that fewer are left",
        agreed=True,
    )
    pass_period: int = setting(
        Integer(1, 10_000, "ms"),
        PASS_PERIOD_MS,
        "shortest time from one pass of the capture gap-precopy to the next; a pass that takes "
        "more than half of it is followed by a rest of its own length",
    )
    save_order: SaveOrder = setting(
        Choice.of_members(SaveOrder),
        SaveOrder.BY_TRANSPORT,
        "part of the stopped guest that is saved first: its devices, or RAM, so that devices are "
        "saved while RAM is on its way; by-transport: RAM with transport multifd and memfd",
    )
    output: Output = setting(
        Choice.of_members(Output),
        Output.BUFFER,
        "event that releases the guest's output: the next checkpoint (buffer), or the same output "
        "of the secondary's guest (compare)",
        agreed=True,
    )
    variant: str = setting(
        Choice.of_names("v12", "upstream"),
        None,
        "the secondary's guest between checkpoints: it stands still (v12), or runs (upstream, "
        "implied by output compare)",
        derived=True,
        agreed=True,
    )
    tracker: str = setting(
        Choice.of_names(*ALL_TRACKERS),
        "marked",
        "method that finds the pages that the guest wrote; kvm is that of a guest of KVM, which "
        "has it instead of marked",
    )

    def complete(self) -> None:
        """Derive trigger, channels and variant, and check what goes with what."""
        self._settle_trigger()
        pages = self.transport.pages
        self.derive("multifd_channels", usual_channels(pages))
        if pages is PageTransport.STREAM and self.multifd_channels:
            raise LocalError(
                "multifd_channels: expected none with transport stream, "
                f"found {self.multifd_channels}"
            )
        if pages is not PageTransport.STREAM and not self.multifd_channels:
            raise LocalError(
                f"multifd_channels: expected 1 to {CHANNELS_LIMIT} with transport {pages.value}, "
                "found 0"
            )
        self.derive("variant", "upstream" if self.output is Output.COMPARE else "v12")
        written = self.as_json().items()
        check_compatible({n: without_parameters(v) for n, v in written if isinstance(v, str)})

    @property
    def devices_first(self) -> bool:
        """Whether a stopped guest's devices are saved before its RAM is sent."""
        if self.save_order is SaveOrder.BY_TRANSPORT:
            return self.transport.pages is PageTransport.STREAM
        return self.save_order is SaveOrder.DEVICES_FIRST

    def changes(self) -> dict[str, Any]:
        """Give the value of each axis, for `override` of other settings; None for derived ones."""
        return self.values() | dict.fromkeys(self._derived_by_itself())

    def has_own_trigger(self) -> bool:
        """Say whether the trigger is another than the one that follows from delay and output."""
        return self.trigger != usual_trigger(self.delay, self.output is Output.COMPARE)

    def _settle_trigger(self) -> None:
        """Derive the trigger from the delay or, if there is one, the delay from the trigger."""
        self.derive("trigger", usual_trigger(self.delay, self.output is Output.COMPARE))
        check_can_travel(self.trigger)
        longest = self.trigger.longest_ms
        if self.delay not in (longest, DELAY_MS):
            raise _two_delays(self.trigger, self.delay)
        object.__setattr__(self, "delay", longest)

    def _changed(self, changes: Mapping[str, Any]) -> Self:
        """Give other settings; a delay alone replaces the trigger, a trigger alone the delay."""
        has_delay, has_trigger = "delay" in changes, changes.get("trigger") is not None
        if has_trigger:
            changed = Part._changed(self, {"delay": DELAY_MS, **changes})
            if has_delay and changes["delay"] != changed.delay:
                raise _two_delays(changed.trigger, changes["delay"])
            return changed
        return Part._changed(self, {**changes, "trigger": None} if has_delay else changes)


def _two_delays(trigger: Trigger, delay: int | None) -> LocalError:
    return LocalError(
        f"delay: expected {trigger.longest_ms} ms or none at all beside trigger "
        f"{trigger.kind}, found {delay}"
    )


@dataclass(frozen=True, slots=True)
class CheckpointSettings(Strategy):
    """Settings of checkpoints, with those that are not part of a strategy."""

    title = "checkpoints"

    stall_timeout: float = setting(
        Number(STALL_TIMEOUT_MIN, STALL_TIMEOUT_MAX),
        10.0,
        "longest silence of a peer from which a message is due",
    )
    verify: bool = setting(
        Flag(),
        True,
        "compare RAM and devices of both sides at each checkpoint; this lengthens the pause",
        agreed=True,
    )
    report_pages: bool = setting(
        Flag(), False, "keep in the records which pages were sent, and which were flushed"
    )

    def complete(self) -> None:
        """Check, besides the strategy, that the secondary does not wait for the guest too long."""
        Strategy.complete(self)
        check_lead(self.trigger, self.stall_timeout)


def check_lead(trigger: Trigger, stall_timeout: float) -> None:
    """Refuse, with LocalError, a trigger after whose requests the secondary would wait too long."""
    if trigger.longest_lead_ms >= 1000 * stall_timeout:
        raise LocalError(
            f"trigger {trigger.kind}: minimum: expected less than the stall_timeout, "
            f"{stall_timeout:g} s, found {trigger.longest_lead_ms} ms"
        )
