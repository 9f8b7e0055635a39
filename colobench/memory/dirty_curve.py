"""D(T): the mean number of distinct pages that a trace writes in a window of T milliseconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from colobench.memory.trace import Trace

#: Points of a curve in a decade of T.
POINTS_PER_DECADE = 10


def window_lengths(intervals: int) -> npt.NDArray[np.int64]:
    """Choose window lengths, in intervals: ascending, POINTS_PER_DECADE in a decade where possible.

    The longest is the whole trace.
    """
    decades = np.log10(intervals)
    count = int(decades * POINTS_PER_DECADE) + 1
    steps = 10.0 ** (np.arange(count) / POINTS_PER_DECADE)
    return np.unique(np.append(np.rint(steps).astype(np.int64), intervals))


def distinct_pages(
    pages: npt.NDArray[np.int64],
    intervals: npt.NDArray[np.int64],
    total: int,
    windows: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Compute the mean number of distinct pages in all windows of some lengths.

    Parameters
    ----------
    pages, intervals
        int64[writes] each: a page, and the interval in which it was written, from 0 up to
        ``total - 1``; in any order, each pair once or more.
    total
        Number of intervals of the trace.
    windows
        int64[points]: lengths of windows in intervals, each from 1 to `total`.

    Returns
    -------
    ndarray
        float64[points]: for each length w, the mean over the ``total - w + 1`` windows.

    Notes
    -----
    A page is absent from a window if the window lies in one of its gaps: before its first write,
    between two writes, or after the last. A gap of g intervals has ``max(0, g - w + 1)`` windows of
    length w. Those of all pages and gaps are subtracted from the windows times the pages. Source:
    X. Xiang, C. Ding, H. Luo, B. Bao, "HOTL: a higher order theory of locality", ASPLOS 2013,
    section 2 (the footprint).
    """
    if len(pages) == 0:
        return np.zeros(len(windows))
    order = np.lexsort((intervals, pages))
    page, at = pages[order], intervals[order]
    is_first = np.append(True, page[1:] != page[:-1])
    is_last = np.append(is_first[1:], True)
    before = at[is_first]
    between = (np.diff(at) - 1)[~is_first[1:]]
    after = total - 1 - at[is_last]
    gaps = np.concatenate((before, between, after))
    counts = np.bincount(gaps[gaps > 0], minlength=total + 1).astype(np.float64)
    # Of the gaps of at least w intervals: their number, and the sum of their lengths.
    number = np.cumsum(counts[::-1])[::-1]
    length = np.cumsum((counts * np.arange(len(counts)))[::-1])[::-1]
    absent = length[windows] - (windows - 1) * number[windows]
    return np.asarray(np.count_nonzero(is_first) - absent / (total - windows + 1))


def dirty_curve(trace: Trace) -> list[tuple[int, float]]:
    """Compute D(T) of a trace: pairs of T in milliseconds and the mean number of distinct pages."""
    windows = window_lengths(trace.intervals)
    found = distinct_pages(*trace.page_writes(), trace.intervals, windows)
    return [
        (int(window) * trace.interval_ms, float(number))
        for window, number in zip(windows, found, strict=True)
    ]


def dirty_at(trace: Trace, milliseconds: int) -> float | None:
    """Compute D(T) at one T, rounded down to whole intervals; None if no window is so long."""
    window = milliseconds // trace.interval_ms
    if not 1 <= window <= trace.intervals:
        return None
    windows = np.array([window], dtype=np.int64)
    return float(distinct_pages(*trace.page_writes(), trace.intervals, windows)[0])
