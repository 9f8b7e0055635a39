"""A live table of the newest records."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from colobench.lab.report.run_summary import milliseconds
from colobench.lab.session.record import CheckpointRecord, Records
from colobench.ui.base.markup import table
from colobench.ui.base.pump import frames

#: Records that the table has room for.
ROWS = 10
COLUMNS: dict[str, Callable[[CheckpointRecord], str]] = {
    "checkpoint": lambda record: f"{record.number:,}",
    "cause": lambda record: record.cause,
    "pages": lambda record: f"{record.pages:,}",
    "bytes": lambda record: f"{record.bytes:,}",
    "pause (ms)": lambda record: f"{record.pause_ms:.2f}",
    "of it RAM": lambda record: f"{record.ram_ms:.2f}",
    "devices": lambda record: f"{record.devices_ms:.2f}",
    "until committed": lambda record: f"{record.received_ms:.2f}",
    "flush": lambda record: f"{record.flush_ms:.2f}",
    "load": lambda record: f"{record.load_ms:.2f}",
    "digests": lambda record: f"{record.verify_ms:.2f}",
    "equal": lambda record: {True: "yes", False: "NO", None: "–"}[record.verified],
}
#: Columns of a guest with disks, behind the others.
DISK_COLUMNS: dict[str, Callable[[CheckpointRecord], str]] = {
    "disk bytes": lambda record: f"{record.disk_bytes:,}",
    "requests at the stop": lambda record: f"{record.disk_requests:,}",
    "disk write, p50": lambda record: milliseconds(record.disk_write_p50_ms),
    "writes that waited": lambda record: f"{record.disk_waits:,}",
    "hidden layer (bytes)": lambda record: f"{record.disk_hidden_bytes:,}",
}


class RecordTable(ipywidgets.HTML):  # type: ignore[misc]
    """Shows the last `ROWS` records.

    Parameters
    ----------
    records
        Records to follow; any thread may append to them.
    """

    def __init__(self, records: Records) -> None:
        self._records, self._shown = records, -1
        super().__init__()
        self.refresh()
        frames.add(self)

    def refresh(self) -> None:
        """Show the records that came since the last time."""
        total = self._records.total
        if total != self._shown:
            self._shown = total
            self.value = format_table(self._records[-ROWS:])

    def close(self) -> None:
        """Close the table."""
        frames.remove(self)
        super().close()


def format_table(records: Records) -> str:
    """Write records as an HTML table, a row for each."""
    columns = dict(COLUMNS)
    if any(record.settings is not None and record.settings.guest.disks for record in records):
        columns |= DISK_COLUMNS
    rows = [[show(record) for show in columns.values()] for record in records]
    # So many columns fit into a page of 900 pixels.
    return table(rows, list(columns), right=range(len(columns)), gap=4)
