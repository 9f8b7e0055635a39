"""Inputs of a model: the strategy's axes, the workload, the link and the calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from colobench.strategy.model.costs import CheckpointCosts
from colobench.strategy.model.curve import DirtyCurve
from colobench.strategy.model.slack import AT_ONCE, GuestPace, Preparation
from colobench.strategy.model.spread import NO_SPREAD, Spread
from colobench.strategy.trigger import Trigger


@dataclass(frozen=True, slots=True)
class Axes:
    """Axes of a strategy that its model looks at, as settings write them.

    Transport, variant and tracker are not among them: their costs are in the calibration. The time
    between passes is gap pre-copy's.
    """

    trigger: Trigger
    capture: str = "stop-and-send"
    encoding: str = "none"
    layout: str = "separated"
    output: str = "buffer"
    pass_period_ms: float = 20.0


class LinkProperties(Protocol):
    """Properties of a link, as `colobench.settings.link.Link` has them."""

    @property
    def rate(self) -> int:
        """Bits per second in each direction; 0: no limit."""

    @property
    def delay_us(self) -> int:
        """Microseconds in each direction."""

    @property
    def jitter_us(self) -> int:
        """Most microseconds that the delay is longer; its mean is half of them."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of the pages that are sent in the time that is predicted.

    They are not the same at all times: at first each page is sent for the first time.

    Attributes
    ----------
    first_per_step
        Pages that are sent for the first time, for each step of work.
    differing
        Pages of each checkpoint that two guests have written differently.
    age
        Steps of work that the guest has done in all, at the middle of that time.
    """

    first_per_step: float = 0.0
    differing: float = 0.0
    age: float = 0.0

    def whole(self, work: float) -> float:
        """Give the pages that are sent as they are, after so much work."""
        return self.first_per_step * work + self.differing


#: Pages that were all sent before, of a guest that has just begun.
NO_CONTENTS = Contents()


@dataclass(frozen=True, slots=True)
class Workload:
    """A guest and its clients, without a strategy.

    Attributes
    ----------
    curve
        Distinct dirty pages over work.
    work_per_ms
        Steps of work in a millisecond of the unprotected guest.
    frames_per_ms
        Frames of output in a millisecond.
    clients
        Whether the output answers clients, who ask whether or not the guest stands still.
    latency_ms, latency_p99_ms
        Percentiles 50 and 99 of the time from a request to its answer, without protection; None if
        nobody asks.
    matched_ms, matched_p99_ms
        Likewise while output is compared, in time without checkpoints; None if it is not.
    miscompares_per_ms
        Checkpoints for which colo-compare asks, in a millisecond in which the guest runs.
    pace
        How much the guest rests, and what becomes of the ticks in which it stands still.
    contents
        What an encoding by contents finds.
    """

    curve: DirtyCurve
    work_per_ms: float
    frames_per_ms: float = 0.0
    clients: bool = False
    latency_ms: float | None = None
    latency_p99_ms: float | None = None
    matched_ms: float | None = None
    matched_p99_ms: float | None = None
    miscompares_per_ms: float = 0.0
    pace: GuestPace = field(default_factory=GuestPace)
    contents: Contents = NO_CONTENTS


@dataclass(frozen=True, slots=True)
class Calibration:
    """Costs on this machine, of one transport, encoding, layout, capture and output.

    Attributes
    ----------
    costs
        Costs of a checkpoint over its pages.
    primary_memory_bytes, secondary_memory_bytes
        Extra memory on each side.
    most_pages
        Largest number of pages of a checkpoint when the memory was measured.
    page_ms
        Milliseconds that the guest's first write to a page after a checkpoint takes longer.
    lost_beside
        Share of its work that the guest loses while a checkpoint is sent and loaded beside it,
        because threads of the pair take the processors that it needs.
    spread
        Single pauses beside the line of the costs.
    preparation
        Checkpoints that are due as soon as they can be.
    """

    costs: CheckpointCosts
    primary_memory_bytes: float | None = None
    secondary_memory_bytes: float | None = None
    most_pages: float = 0.0
    page_ms: float = 0.0
    lost_beside: float = 0.0
    spread: Spread = NO_SPREAD
    preparation: Preparation = AT_ONCE
