"""Page numbers of a trace: addresses of several programs and mappings become one sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.lab.traces.written_pages import AddressRange, Runs
from colobench.memory.trace import PAGE_LIMIT

#: Mappings of a data sheet, which a reader accepts up to `trace.SHEET_LIMIT` bytes.
_MAPPING_LIMIT = 5000
#: Pages of the addresses of one program: a program's number is above these bits of a key.
_PROGRAM_SHIFT = 45
_PAGE_SHIFT = 12

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scan:
    """Result of one scan: number of the program (of exec calls before), interval, and runs."""

    program: int
    interval: int
    runs: Runs


@dataclass(frozen=True, slots=True)
class NumberedRuns:
    """Runs of pages by page number.

    Attributes
    ----------
    mappings
        A dictionary for each mapping with written pages, see docs/traces.md.
    intervals, first_pages, lengths
        int64[runs] each, ascending by interval and page.
    """

    mappings: list[dict[str, Any]]
    intervals: Keys
    first_pages: Keys
    lengths: Keys


def number_pages(scans: Sequence[Scan], programs: Sequence[Iterable[AddressRange]]) -> NumberedRuns:
    """Number the pages of all mappings in which pages were written.

    Parameters
    ----------
    scans
        Results of the scans, in their order.
    programs
        The mappings of each program, in the order in which they were found.
    """
    keys, intervals = _expand(scans)
    starts, ends, names = _areas(programs)
    area = np.searchsorted(starts, keys, side="right") - 1
    is_known = area >= 0
    is_known[is_known] = keys[is_known] < ends[area[is_known]]
    intervals = intervals[is_known]
    written, place = np.unique(keys[is_known], return_inverse=True)
    # Areas ascend, and so do their pages.
    used, at = np.unique(np.searchsorted(starts, written, side="right") - 1, return_index=True)
    counts = np.diff(np.append(at, len(written)))
    firsts = written[at]
    sizes = written[at + counts - 1] - firsts + 1
    numbers = written + np.repeat(np.cumsum(sizes) - sizes - firsts, counts)
    if int(sizes.sum()) > PAGE_LIMIT:
        # Of a mapping of terabytes, pages that were never written get no number.
        sizes, numbers = counts, np.arange(len(written), dtype=np.int64)
    mappings = [
        {"name": names[each], "program": int(first >> _PROGRAM_SHIFT), "pages": int(size)}
        for each, first, size in zip(used, firsts, sizes, strict=True)
    ]
    return NumberedRuns(_shortened(mappings), *_join(intervals, numbers[place]))


def _shortened(mappings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give at most `_MAPPING_LIMIT` mappings: the last ones of very many are listed as one."""
    if len(mappings) <= _MAPPING_LIMIT:
        return mappings
    kept, more = mappings[: _MAPPING_LIMIT - 1], mappings[_MAPPING_LIMIT - 1 :]
    words = f"{len(more)} more mappings"
    pages = sum(each["pages"] for each in more)
    return [*kept, {"name": words, "program": more[0]["program"], "pages": pages}]


def _expand(scans: Sequence[Scan]) -> tuple[Keys, Keys]:
    """Expand runs of addresses to pages, as keys of program and page, and their intervals."""
    runs = np.concatenate([np.zeros((0, 2), np.uint64), *(scan.runs for scan in scans)])
    pages = (runs >> np.uint64(_PAGE_SHIFT)).astype(np.int64)
    counts = [len(scan.runs) for scan in scans]
    programs = np.array([scan.program for scan in scans], dtype=np.int64)
    firsts = pages[:, 0] + (np.repeat(programs, counts) << _PROGRAM_SHIFT)
    lengths = pages[:, 1] - pages[:, 0]
    before = np.cumsum(lengths) - lengths
    keys = np.repeat(firsts - before, lengths) + np.arange(lengths.sum(), dtype=np.int64)
    numbers = np.array([scan.interval for scan in scans], dtype=np.int64)
    return keys, np.repeat(np.repeat(numbers, counts), lengths)


def _areas(programs: Sequence[Iterable[AddressRange]]) -> tuple[Keys, Keys, list[str]]:
    """Join mappings that overlap, or adjoin with one name, as one that grows does.

    The name that was found first stays.
    """
    starts: list[int] = []
    ends: list[int] = []
    names: list[str] = []
    for program, ranges in enumerate(programs):
        base = program << _PROGRAM_SHIFT
        order = sorted(enumerate(ranges), key=lambda each: each[1].start)
        found_first = -1
        end = -1
        for found, each in order:
            if each.start < end or (each.start == end and each.name == names[-1]):
                end = max(end, each.end)
                ends[-1] = base + (end >> _PAGE_SHIFT)
                if found < found_first:
                    found_first, names[-1] = found, each.name
                continue
            starts.append(base + (each.start >> _PAGE_SHIFT))
            ends.append(base + (each.end >> _PAGE_SHIFT))
            names.append(each.name)
            found_first, end = found, each.end
    return np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), names


def _join(intervals: Keys, pages: Keys) -> tuple[Keys, Keys, Keys]:
    """Join written pages to runs, each page once for each interval."""
    if len(pages) == 0:
        return pages, pages, pages
    order = np.lexsort((pages, intervals))
    intervals, pages = intervals[order], pages[order]
    is_new = np.append(True, (np.diff(intervals) != 0) | (np.diff(pages) != 0))
    intervals, pages = intervals[is_new], pages[is_new]
    is_first = np.append(True, (np.diff(intervals) != 0) | (np.diff(pages) != 1))
    at = np.flatnonzero(is_first)
    return intervals[at], pages[at], np.diff(np.append(at, len(pages)))
