"""Factory of the filter that the settings choose for a primary's output."""

from __future__ import annotations

from colobench.net.buffer import FilterBuffer
from colobench.net.compare import ColoCompare
from colobench.net.output import OutputFilter
from colobench.settings.checkpoint import Output
from colobench.settings.compare import CompareSettings


def make_output_filter(output: Output, compare: CompareSettings) -> OutputFilter:
    """Make the filter for `output`; `compare` has the settings of colo-compare."""
    if output is Output.BUFFER:
        return FilterBuffer()
    return ColoCompare(
        compare.compare_timeout / 1000,
        compare.expired_scan_cycle / 1000,
        compare.max_queue_size,
        compare.quirks,
    )
