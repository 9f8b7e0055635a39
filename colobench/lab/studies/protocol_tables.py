"""All tables that nodes run by, with their titles."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from colobench.block.generation import IMAGE_TABLE, ImageState
from colobench.errors import LocalError
from colobench.protocol import arbiter, colo, failover, replication
from colobench.protocol.table import Table, text
from colobench.settings.checkpoint import Capture, Layout


class ProtocolTable(NamedTuple):
    """A state machine.

    Attributes
    ----------
    title
        Title, with the side, the variant and the form of checkpoints.
    table
        The steps.
    start
        The first state.
    """

    title: str
    table: Table[Any, Any, Any]
    start: Enum

    def __repr__(self) -> str:
        return f"{self.title}\n\n{text(self.table)}"


def protocol_tables() -> dict[str, ProtocolTable]:
    """Give all tables by title, in the order in which ``colobench protocol`` prints them."""
    none = replication.ReplicationState.NONE
    tables = [
        *_conversations(),
        ProtocolTable("standing", arbiter.STANDING, arbiter.Standing.PAIRED),
        ProtocolTable("failover", failover.FAILOVER, failover.FailoverState.NONE),
        ProtocolTable("disks, primary", replication.PRIMARY_REPLICATION, none),
        ProtocolTable("disks, secondary", replication.SECONDARY_REPLICATION, none),
        ProtocolTable("image of a disk", IMAGE_TABLE, ImageState.CLEAN),
    ]
    return {each.title: each for each in tables}


def protocol_table(title: str) -> ProtocolTable:
    """Give the table with a title.

    Raises
    ------
    LocalError
        If there is none.
    """
    tables = protocol_tables()
    if title not in tables:
        raise LocalError(f"table: expected one of {'; '.join(tables)}, found {title!r}")
    return tables[title]


def _conversations() -> list[ProtocolTable]:
    """Give the tables of COLO's conversation, in all of its forms."""
    start = colo.ColoState.MIGRATING
    tables = [
        ProtocolTable(
            f"primary, {variant.name}, {capture.value}",
            colo.primary_table(variant, capture),
            start,
        )
        for variant in colo.VARIANTS.values()
        for capture in Capture
    ]
    tables += [
        ProtocolTable(
            f"secondary, {variant.name}, {layout.value}{of_capture}",
            colo.secondary_table(variant, layout, capture),
            start,
        )
        for variant in colo.VARIANTS.values()
        for layout, capture, of_capture in (
            *((layout, Capture.STOP_AND_SEND, "") for layout in Layout),
            (Layout.SEPARATED, Capture.GAP_PRECOPY, f", {Capture.GAP_PRECOPY.value}"),
        )
    ]
    upstream, separated = colo.UPSTREAM, Layout.SEPARATED
    primary = colo.comparing_primary_table(upstream)
    secondary = colo.comparing_secondary_table(upstream, separated)
    return [
        *tables,
        ProtocolTable(f"primary, {upstream.name}, divergent", primary, start),
        ProtocolTable(
            f"secondary, {upstream.name}, {separated.value}, divergent", secondary, start
        ),
    ]
