"""Traces for tests: drawn by hypothesis, and small ones as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from colobench.memory.trace import Trace

#: Pages that a program writes in each interval, ascending.
Writes = list[list[int]]


def trace_of(writes: Writes, interval_ms: int = 1, **content: Any) -> Trace:
    """Make a trace of the pages that are written in each interval."""
    runs_per_interval, firsts, lengths = [], [], []
    for pages in writes:
        runs: list[list[int]] = []
        for page in pages:
            if runs and sum(runs[-1]) == page:
                runs[-1][1] += 1
            else:
                runs.append([page, 1])
        runs_per_interval.append(len(runs))
        firsts += [first for first, _ in runs]
        lengths += [length for _, length in runs]
    pages = 1 + max((page for each in writes for page in each), default=0)
    sheet = {
        "interval_ms": interval_ms,
        "page_size": 4096,
        "mappings": [{"name": "[heap]", "program": 0, "pages": pages}],
        "content": content,
    }
    arrays = (runs_per_interval, [1] * len(writes), [2] * len(writes), firsts, lengths)
    return Trace(sheet, *(np.array(each, dtype=np.uint32) for each in arrays))


def trace_file(path: Path, writes: Writes, interval_ms: int = 1, **content: Any) -> Path:
    """Write a trace to a file."""
    path.write_bytes(trace_of(writes, interval_ms, **content).to_bytes())
    return path


@st.composite
def drawn_writes(draw: st.DrawFn, highest_page: int = 40, intervals: int = 12) -> Writes:
    """Draw the pages that are written in each interval."""
    pages = st.lists(st.integers(0, highest_page), max_size=8).map(lambda each: sorted(set(each)))
    return draw(st.lists(pages, min_size=1, max_size=intervals))
