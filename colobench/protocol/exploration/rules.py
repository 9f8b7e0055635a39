"""The protocol that is explored: as it is, or with one rule broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from colobench.protocol.arbiter import STANDING, Standing, StandingAction, StandingEvent
from colobench.protocol.colo import (
    UPSTREAM,
    V12,
    ColoAction,
    ColoEvent,
    ColoState,
    ColoTable,
    LocalEvent,
    Variant,
    primary_table,
    secondary_table,
)
from colobench.protocol.failover import FAILOVER, FailoverAction, FailoverEvent, FailoverState
from colobench.protocol.table import Table
from colobench.settings.checkpoint import Capture, Layout

StandingTable = Table[Standing, StandingEvent, StandingAction]
FailoverTable = Table[FailoverState, FailoverEvent, FailoverAction]


@dataclass(frozen=True)
class Rules:
    """The protocol that is explored: as it is, or with one rule broken.

    Attributes
    ----------
    outputs
        How many outputs the guest makes while the nodes are a pair; there is a checkpoint at most
        for each.
    compare
        Whether the primary may let out what the secondary's guest said itself.
    writes_first
        Whether the arbiter has a grant on disk before it answers.
    remembers
        Whether an arbiter that starts again reads what it had on disk.
    tells_frames_apart
        Whether a frame that the secondary's guest sent before a checkpoint counts for nothing after
        it, however late it comes.
    seals
        Whether a release lets out only what the guest had made when its checkpoint was captured.
    drops_passes
        Whether a takeover drops the pages that came between checkpoints.
    in_order
        Whether a release lets out the output of the older open epoch alone.
    human
        Whether somebody says x-colo-lost-heartbeat, whenever they like.
    """

    outputs: int = 2
    compare: bool = False
    standing: StandingTable = field(default_factory=lambda: STANDING)
    failover: FailoverTable = field(default_factory=lambda: FAILOVER)
    primary: ColoTable = field(
        default_factory=lambda: primary_table(UPSTREAM, Capture.STOP_AND_SEND)
    )
    secondary: ColoTable = field(
        default_factory=lambda: secondary_table(UPSTREAM, Layout.SEPARATED, Capture.STOP_AND_SEND)
    )
    writes_first: bool = True
    remembers: bool = True
    tells_frames_apart: bool = True
    seals: bool = True
    drops_passes: bool = True
    in_order: bool = True
    human: bool = False


def of_variant(
    variant: Variant,
    outputs: int,
    capture: Capture = Capture.STOP_AND_SEND,
    *,
    compare: bool = False,
) -> Rules:
    """Give the rules of a variant with a capture."""
    return Rules(
        outputs=outputs,
        compare=compare,
        primary=primary_table(variant, capture),
        secondary=secondary_table(variant, Layout.SEPARATED, capture),
    )


def _serving_on(state: Standing, event: StandingEvent) -> StandingTable:
    """Give the table in which `event` in `state` leads to serving alone."""
    alone = (Standing.ALONE, (StandingAction.TAKE_OVER,))
    return {**STANDING, state: {**STANDING[state], event: alone}}


_IMPATIENT = {
    FailoverEvent.BEGIN: (FailoverState.ACTIVE, (FailoverAction.CUT_OFF,)),
    FailoverEvent.LOADING: (FailoverState.ACTIVE, (FailoverAction.CUT_OFF,)),
}
_EARLY: Mapping[ColoEvent, tuple[ColoState, tuple[ColoAction, ...]]] = {
    LocalEvent.ALL_SENT: (ColoState.SENT, (ColoAction.RELEASE_OUTPUT,))
}
#: Protocols with one rule broken, by the fault that they have.
BROKEN_RULES: Final[Mapping[str, Rules]] = MappingProxyType(
    {
        "a node serves before it is granted": Rules(
            standing=_serving_on(Standing.PAIRED, StandingEvent.PEER_LOST)
        ),
        "a refused node serves": Rules(
            standing=_serving_on(Standing.ASKING, StandingEvent.REFUSED)
        ),
        "the arbiter forgets": Rules(remembers=False),
        "the arbiter answers before it writes": Rules(writes_first=False),
        "output is released before RECEIVED": Rules(
            primary={**primary_table(UPSTREAM, Capture.STOP_AND_SEND), ColoState.SENDING: _EARLY}
        ),
        "output of after the copy is released with that of before": replace(
            of_variant(V12, 2, Capture.COPY_THEN_SEND), seals=False
        ),
        "a commit releases the output of both open epochs": replace(
            of_variant(V12, 2, Capture.TWO_EPOCHS), in_order=False
        ),
        "a takeover flushes pages that came between checkpoints": replace(
            of_variant(V12, 2, Capture.GAP_PRECOPY), drops_passes=False
        ),
        "a takeover does not wait for the load": Rules(
            failover={**FAILOVER, FailoverState.REQUIRE: _IMPATIENT}
        ),
        "the secondary's frames outlive its state": Rules(compare=True, tells_frames_apart=False),
        "a human says x-colo-lost-heartbeat to both": Rules(human=True),
    }
)
