"""The table of a trace in guest RAM, from which the program ``replay`` takes the pages to write.

It lies at the end of pc.ram, in 64-bit words: the end of each interval, then the runs, then, on the
last page, a header. The program writes to the pages in front of it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from colobench.errors import LocalError
from colobench.kernels.jit import Words
from colobench.memory.ram import PAGE_SIZE
from colobench.memory.trace import INTERVAL_MS_LIMIT, Trace
from colobench.memory.trace_file import read_trace_file

WORDS_PER_PAGE = PAGE_SIZE // 8
#: First word of the header: "replay" and the version of the table.
MAGIC = int.from_bytes(b"replay\0\1", "big")
#: Words of the header: magic; first page of the table; pages that are written, from page 0; ticks
#: of an interval; number of intervals, of runs, and of page writes in all intervals; words that a
#: page write changes; how many of 1024 such words are random, while the others are small numbers.
(
    HEADER_MAGIC, TABLE_PAGE, TARGET_PAGES, INTERVAL_TICKS,
    INTERVALS, RUNS, WRITES, CHANGED_WORDS, RANDOM_WORDS,
) = range(9)  # fmt: skip
#: Words that a page write changes where a data sheet does not say it.
_ONE_WORD = 1
TICKS_LIMIT = INTERVAL_MS_LIMIT


def load_trace(path: str | Path, sha256: str | None) -> Trace:
    """Read a trace, whose file must have a SHA-256 unless that is None.

    Raises
    ------
    LocalError
        If the file cannot be read, is another one, or is not a trace.
    """
    data = read_trace_file(path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise LocalError(f"trace {path}: expected a file with SHA-256 {sha256}, found {found}")
    try:
        return Trace.from_bytes(data)
    except LocalError as error:
        raise LocalError(f"trace {path}: {error}") from error


def encode_table(trace: Trace, ram_pages: int, working_set: int) -> Words:
    """Encode a trace for the end of a pc.ram.

    Parameters
    ----------
    trace
        The trace. Of its pages those that are written are numbered anew, without gaps.
    ram_pages
        Pages of pc.ram.
    working_set
        Limit of the pages that are written, 0 for none. Pages beyond are mapped into them, by the
        remainder.

    Returns
    -------
    ndarray
        uint64[512 * pages]: the last pages of pc.ram.

    Raises
    ------
    LocalError
        If the trace has no page writes, or RAM is less than twice the table.
    """
    if trace.writes == 0:
        raise LocalError("trace: expected one with page writes, found none")
    ends = np.cumsum(trace.lengths.astype(np.uint64))
    words = np.concatenate((_interval_ends(trace), ends << np.uint64(32) | _without_gaps(trace)))
    table_pages = -(-len(words) // WORDS_PER_PAGE) + 1
    if ram_pages < 2 * table_pages:
        raise LocalError(
            f"ram: expected at least {2 * table_pages * PAGE_SIZE / 2**20:.1f} MiB for this trace, "
            f"found {ram_pages * PAGE_SIZE / 2**20:.1f} MiB"
        )
    target = ram_pages - table_pages
    table = np.zeros(table_pages * WORDS_PER_PAGE, dtype=np.uint64)
    table[: len(words)] = words
    header = table[-WORDS_PER_PAGE:]
    header[HEADER_MAGIC], header[TABLE_PAGE] = MAGIC, target
    header[TARGET_PAGES] = min(working_set or target, target)
    header[INTERVAL_TICKS] = trace.interval_ms
    header[INTERVALS], header[RUNS], header[WRITES] = trace.intervals, len(ends), trace.writes
    header[CHANGED_WORDS], header[RANDOM_WORDS] = _content(trace)
    return table


def _without_gaps(trace: Trace) -> Words:
    """Give the first page of each run, numbered without the pages that no run has: uint64[runs].

    A run ends before a gap, so it is one run of the new numbers, too. Its pages are not listed: a
    small file may have a run of very many.
    """
    order = np.argsort(trace.first_pages, kind="stable")
    firsts = trace.first_pages[order].astype(np.int64)
    # Page behind all runs before.
    behind = np.zeros(len(firsts), dtype=np.int64)
    np.maximum.accumulate(firsts[:-1] + trace.lengths[order[:-1]], out=behind[1:])
    gaps = np.cumsum(np.maximum(0, firsts - behind))
    found = np.empty(len(firsts), dtype=np.uint64)
    found[order] = firsts - gaps
    return found


def _interval_ends(trace: Trace) -> Words:
    """Give the page writes up to the end of each interval: uint64[intervals]."""
    by_interval = np.bincount(
        trace.interval_of_runs(), weights=trace.lengths, minlength=trace.intervals
    )
    return np.cumsum(by_interval).astype(np.uint64)


def _content(trace: Trace) -> tuple[int, int]:
    """Give changed and random words of a page write from what the data sheet says of samples."""
    content = trace.sheet.get("content")
    found = content if isinstance(content, dict) else {}
    changed = _limited(found.get("changed_words"), 1, WORDS_PER_PAGE, _ONE_WORD)
    return round(changed), round(1024 * _limited(found.get("zlib_ratio"), 0, 1, 1))


def _limited(value: object, low: float, high: float, default: float) -> float:
    """Limit a number that a data sheet has; what is no number is the default."""
    if not isinstance(value, int | float) or value != value:
        return default
    return min(max(value, low), high)
