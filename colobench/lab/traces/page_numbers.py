"""Page numbers of a trace: addresses of several programs and mappings become one sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.lab.traces.written_pages import AddressRange, Runs

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
    keys, intervals, area = keys[is_known], intervals[is_known], area[is_known]
    used = np.unique(area)
    mappings: list[dict[str, Any]] = []
    shift = np.zeros(len(starts), dtype=np.int64)
    total = 0
    for each in used:
        inside = keys[area == each]
        first, last = int(inside.min()), int(inside.max())
        shift[each] = total - first
        program = first >> _PROGRAM_SHIFT
        mappings.append({"name": names[each], "program": program, "pages": last - first + 1})
        total += last - first + 1
    return NumberedRuns(mappings, *_join(intervals, keys + shift[area]))


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
