"""Statistics of a run, computed from its records, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from colobench.lab.percentiles import percentiles
from colobench.lab.session.record import PHASES
from colobench.text_table import align

if TYPE_CHECKING:
    from colobench.lab.session.record import CheckpointRecord


#: Activities that checkpoints spend time on; ``verify`` is there if digests are compared.
ACTIVITIES = (*PHASES, "verify")
#: The guest still runs while the request is answered: the pause begins after it.
PAUSE_PHASES = tuple(phase for phase in ACTIVITIES if phase != "request")


def _median_and_p99(values: Iterable[float]) -> dict[str, float | None]:
    middle, high = percentiles(values, (50, 99), without=None)
    return {"p50": middle, "p99": high}


def _median(values: Iterable[float | None]) -> float | None:
    known = (value for value in values if value is not None)
    return percentiles(known, (50,), without=None)[0]


def checkpoint_rate(records: Sequence[CheckpointRecord]) -> float | None:
    """Give the checkpoints committed per second; None for fewer than two of them."""
    if len(records) < 2:
        return None
    return (len(records) - 1) / (records[-1].time - records[0].time)


def compute_statistics(records: Sequence[CheckpointRecord]) -> dict[str, Any]:
    """Compute the statistics that tables show.

    Parameters
    ----------
    records
        The committed checkpoints of a run, in order; there may be none.

    Returns
    -------
    dict
        ``checkpoints``, ``pages``, ``zero_pages``, ``encoded_pages``, ``flushed_pages`` (counts),
        ``bytes``, ``bytes_saved`` by encoding,
        ``checkpoints_per_s`` (None with fewer than two),
        ``disk_bytes`` written to disks, ``disk_waits`` of writes for a checkpoint,
        ``disk_write_ms_p50`` and ``disk_write_ms_p99`` (medians of those of the checkpoints, None
        without writes),
        ``pause_ms_p50`` and ``pause_ms_p99`` (milliseconds, None without records), and
        ``phases_ms``: for each of `ACTIVITIES` its ``{"p50", "p99"}`` in milliseconds, without
        ``verify`` if nothing was verified.
    """
    pause = _median_and_p99(record.pause_ms for record in records)
    return {
        "checkpoints": len(records),
        "checkpoints_per_s": checkpoint_rate(records),
        "pages": sum(record.pages for record in records),
        "zero_pages": sum(record.zero_pages for record in records),
        "encoded_pages": sum(record.encoded_pages for record in records),
        "flushed_pages": sum(record.flushed_pages for record in records),
        "bytes": sum(record.bytes for record in records),
        "bytes_saved": sum(record.bytes_saved for record in records),
        "disk_bytes": sum(record.disk_bytes for record in records),
        "disk_waits": sum(record.disk_waits for record in records),
        "disk_write_ms_p50": _median(record.disk_write_p50_ms for record in records),
        "disk_write_ms_p99": _median(record.disk_write_p99_ms for record in records),
        "pause_ms_p50": pause["p50"],
        "pause_ms_p99": pause["p99"],
        "phases_ms": {
            phase: _median_and_p99(getattr(record, f"{phase}_ms") for record in records)
            for phase in ACTIVITIES
            if phase != "verify" or any(record.verify_ms for record in records)
        },
    }


def milliseconds(value: float | None) -> str:
    """Write a duration of that many milliseconds with three digits, or a dash for None."""
    if value is None:
        return "–"
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{decimals}f} ms"


def megabytes(count: int) -> str:
    """Write a number of bytes in megabytes of 10⁶ bytes."""
    return f"{count / 1e6:,.1f} MB"


def _rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give a row of the table for each statistic that the summary has."""
    if "verified" in summary:
        words = {True: "yes", False: "NO", None: "not compared"}
        yield "verified", words[summary["verified"]], ""
    for name in ("checkpoints", "pages"):
        if name in summary:
            yield name, f"{summary[name]:,}", ""
    if summary.get("checkpoints_per_s") is not None:
        yield "checkpoints a second", f"{summary['checkpoints_per_s']:,.1f}", ""
    if "bytes" in summary:
        yield "sent", megabytes(summary["bytes"]), ""
    if "link" in summary:
        yield from _link_rows(summary["link"])
    if summary.get("encoded_pages"):
        yield "  pages encoded", f"{summary['encoded_pages']:,}", ""
        yield "  saved by that", megabytes(summary["bytes_saved"]), ""
    if summary.get("disk_bytes"):
        yield "written to disks", megabytes(summary["disk_bytes"]), ""
        yield "  writes that waited", f"{summary['disk_waits']:,}", ""
    if "pause_ms_p50" in summary:
        yield "", "p50", "p99"
        middle, high = summary["pause_ms_p50"], summary.get("pause_ms_p99")
        yield "pause", milliseconds(middle), milliseconds(high)
        for phase, value in summary.get("phases_ms", {}).items():
            # The request is answered while the guest still runs.
            name = f"  {phase}" if phase != "request" else "request (before the pause)"
            yield name, milliseconds(value["p50"]), milliseconds(value["p99"])
        if summary.get("disk_write_ms_p50") is not None:
            middle, high = summary["disk_write_ms_p50"], summary["disk_write_ms_p99"]
            yield "write to a disk", milliseconds(middle), milliseconds(high)
    if summary.get("takeover_ms") is not None:
        yield "takeover", milliseconds(summary["takeover_ms"]), ""
        yield "  from checkpoint", f"{summary['takeover_checkpoint']:,}", ""


def _link_rows(link: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give the rows of the link, the second of which says if its rate was not held."""
    yield "link", link["link"], ""
    if link["held_rate"] is not None:
        marked = "" if link["held"] else "NOT HELD within 3 %"
        yield "  rate held", f"{link['held_rate'] / 1e9:.3g} Gbit/s", marked


def format_summary(summary: Mapping[str, Any]) -> str:
    """Write a run's summary as a table of plain text.

    Parameters
    ----------
    summary
        The keys of `compute_statistics`, and ``verified`` (True, False, or None if nothing was
        compared), ``takeover_ms``, ``takeover_checkpoint``, ``link`` (see `LinkUse.as_json`). A key
        that is not there has no row.
    """
    return "\n".join(align(list(_rows(summary)), right=(1, 2)))
