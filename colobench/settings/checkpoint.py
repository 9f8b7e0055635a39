"""Settings of checkpoints: interval, contents, and transport to the secondary."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from colobench.errors import LocalError
from colobench.fields.kinds import Choice, Flag, Integer, Number, Written
from colobench.fields.part import Part, setting
from colobench.memory.tracker_names import TRACKERS
from colobench.settings.own_trigger import make_trigger, trigger_as_json
from colobench.settings.transport import (
    CHANNELS_LIMIT,
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
        Written(Trigger, make_trigger, trigger_as_json, "NAME[:…]"),
        None,
        "when a checkpoint is due; usually after the delay, and at a miscompare where output is "
        f"compared; one of {', '.join(TRIGGERS)}, as degradation:target=0.1,maximum=1000",
        derived=True,
    )
    transport: Transport = setting(
        Written(Transport, Transport.parse),
        Transport(PageTransport.STREAM, "unix"),
        "transport of pages: stream, multifd or memfd, over UNIX sockets or, as in multifd+tcp, "
        "over TCP; unix and tcp are short for stream+unix and stream+tcp",
        agreed=True,
    )
    encoding: Encoding = setting(
        Choice.of_members(Encoding),
        Encoding.NONE,
        "bytes of a page that are sent: all; those that changed since it was sent last (xbzrle, "
        "only with transport stream); or many pages compressed together (zstd, lz4)",
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
        "Remus, which takes as much memory as RAM",
        agreed=True,
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
        Choice.of_names(*TRACKERS), "marked", "method that finds the pages that the guest wrote"
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

    def changes(self) -> dict[str, Any]:
        """Give the value of each axis, for `override` of other settings; None for derived ones."""
        return self.values() | dict.fromkeys(self._derived_by_itself())

    def has_own_trigger(self) -> bool:
        """Say whether the trigger is another than the one that follows from delay and output."""
        return self.trigger != usual_trigger(self.delay, self.output is Output.COMPARE)

    def _settle_trigger(self) -> None:
        """Derive the trigger from the delay or, if there is one, the delay from the trigger."""
        self.derive("trigger", usual_trigger(self.delay, self.output is Output.COMPARE))
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
