"""The page of a run: the verdict, plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from bokeh.models import Range1d

from colobench.lab.report.page import PlotCard, write_page
from colobench.lab.report.palette import PHASE_COLOURS, PHASE_HATCHES
from colobench.lab.report.run_plots import (
    Columns,
    group,
    plot_distribution,
    plot_memory,
    plot_pages,
    plot_pause,
    plot_takeover,
)
from colobench.lab.report.run_summary import (
    ACTIVITIES,
    PAUSE_PHASES,
    compute_statistics,
    megabytes,
    milliseconds,
)
from colobench.settings.file import KEY

if TYPE_CHECKING:
    from colobench.lab.session.record import CheckpointRecord

#: Attributes of a record that plots show.
FIELDS = (
    "number",
    "time",
    "pages",
    "zero_pages",
    "flushed_pages",
    "primary_buffer_bytes",
    "secondary_buffer_bytes",
    "pause_ms",
    *(f"{phase}_ms" for phase in ACTIVITIES),
)


def write_report(
    path: str | Path, records: Sequence[CheckpointRecord], summary: Mapping[str, Any]
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    path
        The file to write; an old one is replaced.
    records
        The committed checkpoints, in order; there may be none. Everything that is said of
        checkpoints is computed from them.
    summary
        Facts that the records do not have; every key may be missing:

        * ``verified``: True, False, or None if nothing was compared
        * ``takeover_ms``, ``takeover_checkpoint``, ``digest_equal``, ``work_at_takeover``,
          ``work_after``: of the takeover
        * ``proofs``: what had to hold, with words joined by ``_`` → whether it held
        * ``timeline``: seconds since COLO began at which the primary was ``killed``, the secondary
          was ``told`` of the lost heartbeat and ``took_over``, and the guest's work was
          ``observed`` to move
        * ``settings`` and ``machine``: names and values that are listed

    Returns
    -------
    Path
        The file written.
    """
    columns = {
        name: np.array([getattr(record, name) for record in records], dtype=np.float64)
        for name in FIELDS
    }
    state, verdict, reasons = judge(records, summary)
    values = {
        "state": state,
        "verdict": verdict,
        "reasons": reasons,
        "statistics": list(_statistics_rows(records, summary)),
        "written": {KEY: summary.get("settings")},
        "facts": {**summary.get("settings", {}), **summary.get("machine", {})},
    }
    return write_page(path, "report/templates/run.html", _draw_cards(columns, summary), values)


def _draw_cards(columns: Columns, summary: Mapping[str, Any]) -> list[PlotCard]:
    """Draw a card for each plot; without checkpoints, or without a kill, it has none."""
    pause = distribution = pages = memory = takeover = None
    left_out = ""
    if len(columns["number"]):
        verification = columns["verify_ms"]
        if verification.any():
            left_out = (
                f" Verification, {milliseconds(float(np.median(verification)))} at the median, is "
                "no work of COLO's and is left out."
            )
            columns = columns | {"pause_ms": columns["pause_ms"] - verification}
        grouped = group(columns)
        first, last = columns["number"][[0, -1]]
        numbers = Range1d(start=first - 0.5, end=last + 0.5, bounds=(first - 0.5, last + 0.5))
        pause = plot_pause(grouped, numbers)
        distribution = plot_distribution(columns["pause_ms"])
        pages = plot_pages(grouped, numbers)
        memory = plot_memory(grouped, numbers)
    if {"killed", "took_over"} <= summary.get("timeline", {}).keys():
        takeover = plot_takeover(columns["time"], summary["timeline"])
    no_checkpoint = "No checkpoint was committed."
    return [
        PlotCard(
            "Pause of each checkpoint",
            f"Time for which the guest stood still, by phase.{left_out}",
            pause,
            no_checkpoint,
            wide=True,
        ),
        PlotCard(
            "Distribution of the pause",
            f"Share of checkpoints whose pause was no longer than this.{left_out}",
            distribution,
            no_checkpoint,
        ),
        PlotCard(
            "Pages of each checkpoint",
            "Of 4 KiB: sent by the primary, flushed into RAM by the secondary.",
            pages,
            no_checkpoint,
        ),
        PlotCard(
            "Extra memory",
            "Held for each checkpoint beside RAM and RAM cache.",
            memory,
            no_checkpoint,
        ),
        PlotCard(
            "Takeover",
            "Lines are the last checkpoints, × is the death of the primary.",
            takeover,
            "The primary was not killed in this run.",
        ),
    ]


def judge(
    records: Sequence[CheckpointRecord], summary: Mapping[str, Any]
) -> tuple[str, str, list[str]]:
    """Put into words whether the run was verified.

    Returns
    -------
    state, verdict, reasons
        ``good``, ``bad`` or ``open``; the verdict in a few words; sentences that explain it.
    """
    unequal = [f"{record.number}" for record in records if record.verified is False]
    compared = sum(record.verified is not None for record in records)
    reasons = []
    if unequal:
        reasons.append(f"RAM or devices differed after checkpoint {', '.join(unequal)}.")
    elif compared:
        count = f"each of {compared:,} checkpoints" if compared > 1 else "the one checkpoint"
        reasons.append(f"RAM and devices were equal on both sides after {count}.")
    elif records:
        reasons.append("The checkpoints were not compared one by one.")
    reasons += _takeover_sentences(summary)
    broken = [name for name, holds in summary.get("proofs", {}).items() if not holds]
    reasons += [f"Not so: {name.replace('_', ' ')}." for name in broken]
    if unequal or summary.get("verified") is False:
        return "bad", "Not verified", reasons or ["The run ended before anything was compared."]
    if summary.get("verified"):
        return "good", "Verified", reasons
    return "open", "Not verified: the run was not meant to be, or ended early", reasons


def _takeover_sentences(summary: Mapping[str, Any]) -> Iterator[str]:
    checkpoint = summary.get("takeover_checkpoint")
    if checkpoint is not None:
        duration = milliseconds(summary.get("takeover_ms"))
        yield f"The secondary took over from checkpoint {checkpoint:,} in {duration}."
    match summary.get("digest_equal"):
        case True:
            yield "Its guest was in that checkpoint's state."
        case False:
            yield "Its guest was not in that checkpoint's state."
    before, after = summary.get("work_at_takeover"), summary.get("work_after")
    if before is not None and after is not None:
        if after > before:
            yield f"The guest worked on, from {before:,} to {after:,}."
        else:
            yield f"The guest did not work on: its counter stood at {before:,}."


class StatisticsRow(NamedTuple):
    """A row of the table of statistics.

    Attributes
    ----------
    name, values
        Head and two cells.
    kind
        Class in the style sheet: ``part`` of the row above, ``heading``, ``total``, or empty.
    colour
        The colour of a phase; empty for other rows.
    """

    name: str
    values: tuple[str, str]
    kind: str = ""
    colour: str = ""


def _statistics_rows(
    records: Sequence[CheckpointRecord], summary: Mapping[str, Any]
) -> Iterator[StatisticsRow]:
    computed = compute_statistics(records)
    phases = computed["phases_ms"]
    pause = milliseconds(computed["pause_ms_p50"]), milliseconds(computed["pause_ms_p99"])
    yield StatisticsRow("checkpoints", ("", f"{computed['checkpoints']:,}"))
    yield StatisticsRow("pages", ("", f"{computed['pages']:,}"))
    yield StatisticsRow("of them zero", ("", f"{computed['zero_pages']:,}"), "part")
    yield StatisticsRow("pages flushed", ("", f"{computed['flushed_pages']:,}"))
    yield StatisticsRow("sent", ("", megabytes(computed["bytes"])))
    if computed["encoded_pages"]:
        yield StatisticsRow("pages encoded", ("", f"{computed['encoded_pages']:,}"), "part")
        yield StatisticsRow("saved by that", ("", megabytes(computed["bytes_saved"])), "part")
    yield StatisticsRow("", ("p50", "p99"), "heading")
    yield _phase_row("request", phases, " (the guest runs)")
    yield StatisticsRow("pause", pause, "total")
    for phase in PAUSE_PHASES:
        # Phases that only some strategies have are left out of the others' table.
        if phase in phases and (phase not in PHASE_HATCHES or phases[phase]["p99"]):
            yield _phase_row(phase, phases)
    yield StatisticsRow("takeover", ("", milliseconds(summary.get("takeover_ms"))), "total")


def _phase_row(
    phase: str, phases: Mapping[str, Mapping[str, float | None]], note: str = ""
) -> StatisticsRow:
    durations = milliseconds(phases[phase]["p50"]), milliseconds(phases[phase]["p99"])
    return StatisticsRow(f"{phase}{note}", durations, "part", PHASE_COLOURS[phase])
