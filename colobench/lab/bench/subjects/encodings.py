"""Encodings of pages that real programs write: their rate, and the link below which each wins."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from colobench.guest.numba.machine import Machine
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.lab.bench.case import Case, subject
from colobench.lab.bench.context import MIB, BenchContext
from colobench.lab.bench.measured import Measured, Unavailable
from colobench.lab.material import find_material
from colobench.memory.ram import PAGE_SIZE
from colobench.memory.trace import Trace
from colobench.node.migration.compressed_stream import CompressedRecords
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.page_path import Pages, SectionStatistics
from colobench.node.migration.records import PlainRecords, RecordWriter
from colobench.node.migration.xbzrle import XBZRLERecords
from colobench.wire.compression import compressor
from colobench.wire.ram import RAMRecordState

#: Traces whose pages are encoded, of `datasets/traces`.
TRACES = ("sqlite", "redis", "sort")
ENCODINGS = ("xbzrle", "zstd", "lz4")
#: Time of the program between two collections, and pages of each at most.
INTERVAL_MS = 100
PAGES = 8192
RAM_BYTES = 256 * MIB


def wins_below(encoded: float, plain: float, ratio: float) -> float:
    """Give the rate of a link below which encoded pages arrive sooner than whole ones.

    Pages are encoded and then sent by one thread, so each byte of a whole page takes 1 / E + r / B
    with an encoding of the rate E that sends the part r, and 1 / P + 1 / B without. They are equal
    for B = (1 - r) / (1 / E - 1 / P).

    Parameters
    ----------
    encoded, plain
        E and P: bytes of pages in a second.
    ratio
        r: bytes that are sent for each byte of pages.

    Returns
    -------
    float
        Bytes per second; 0 if the encoding never wins, infinity if it always does.
    """
    if ratio >= 1:
        return 0.0
    longer = 1 / encoded - 1 / plain
    return (1 - ratio) / longer if longer > 0 else float("inf")


class _Sender:
    """An encoding, with room for what it writes."""

    def __init__(self, machine: Machine, writer: RecordWriter) -> None:
        self._writer = writer
        self._records = RAMRecordState(machine.ram.blocks)
        self._out = np.zeros(writer.room(machine.ram.pages), dtype=np.uint8)

    def send(self, pages: Pages) -> tuple[float, int]:
        """Write all records; give the seconds that it took, and their bytes."""
        written, section = 0, SectionStatistics()
        began = time.perf_counter()
        self._writer.begin()
        for part in self._records.slices(pages):
            rest = part
            while rest.begin < rest.end:
                length, rest = self._writer.put(pages, rest, self._out[written:], section)
                written += length
        return time.perf_counter() - began, written


def _writer(machine: Machine, encoding: str) -> RecordWriter:
    if encoding == "xbzrle":
        return XBZRLERecords(machine.ram)
    return CompressedRecords(machine.ram, compressor(encoding, 1))


def _measure(context: BenchContext, trace: Path, encoding: str) -> Measured:
    context.reserve(4 * RAM_BYTES)
    found = Trace.load(trace)
    milliseconds = max(found.intervals * found.interval_ms, 1)
    steps = max(1, found.writes * context.size(INTERVAL_MS) // milliseconds)
    machine = Machine(GuestSettings(RAM_BYTES, Program.REPLAY, trace=str(trace)))
    try:
        dirty = DirtyPages(machine.tracker)
        dirty.arm()
        encoded = _Sender(machine, _writer(machine, encoding))
        plain = _Sender(machine, PlainRecords(machine.ram))
        ours, reference, ratios = [], [], []
        for number in range(context.rounds + 2):
            machine.run_until(machine.work + steps)
            pages = dirty.collect()[:PAGES]
            if not len(pages):
                continue
            (slow, sent), (quick, whole) = encoded.send(pages), plain.send(pages)
            # The first pages fill the cache of XBZRLE, and touch all memory.
            if number < 2:
                continue
            size = len(pages) * PAGE_SIZE
            ours.append(size / slow / 1e9)
            reference.append(size / quick / 1e9)
            ratios.append(sent / whole)
    finally:
        machine.close()
    if not ours:
        raise Unavailable("pages that the trace writes")
    ratio = statistics.median(ratios)
    rates = 1e9 * statistics.median(ours), 1e9 * statistics.median(reference)
    below = 8 * wins_below(*rates, ratio) / 1e9
    where = f"wins below {below:.1f} Gbit/s" if below else "never wins"
    return Measured(ours, reference, note=f"sends {ratio:.2f} of the bytes, {where}")


@subject("encodings", "pages of replayed traces, encoded: against writing them as they are")
def encodings(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    for trace in TRACES:
        path = find_material() / "datasets" / "traces" / f"{trace}.npz"
        for encoding in ENCODINGS:
            yield Case(f"{encoding}, {trace}", "GB/s", partial(_measure, context, path, encoding))
