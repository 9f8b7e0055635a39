"""Factory of the filter that the settings choose for a primary's output."""

from __future__ import annotations

from colobench.net.buffer import FilterBuffer
from colobench.net.output import OutputFilter
from colobench.net.planted_bugs import compare_class, connection_class
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Output
from colobench.settings.compare import CompareSettings


def make_output_filter(
    output: Output, compare: CompareSettings, bug: Bug | None = None
) -> OutputFilter:
    """Make the filter for `output`; `compare` has the settings of colo-compare."""
    if output is Output.BUFFER:
        return FilterBuffer()
    return compare_class(bug)(
        compare.compare_timeout / 1000,
        compare.expired_scan_cycle / 1000,
        compare.max_queue_size,
        compare.quirks,
        tcp=connection_class(bug),
    )
