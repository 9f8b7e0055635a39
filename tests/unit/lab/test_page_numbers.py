"""Page numbers of a recording: mappings of several programs become one sequence of pages."""

from __future__ import annotations

import dataclasses

import numpy as np

from colobench.lab.traces.page_numbers import Scan, number_pages
from colobench.lab.traces.written_pages import AddressRange, recorded_ranges
from colobench.memory import trace as trace_module
from traces import trace_of

MAPS = """\
00400000-00401000 r-xp 00000000 fe:01 1234   /usr/bin/program
00600000-00601000 rw-p 00000000 fe:01 1234   /usr/bin/program
01000000-01021000 rw-p 00000000 00:00 0      [heap]
7f0000000000-7f0000100000 rw-s 00000000 00:01 77   /memfd:shared (deleted)
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
7f0000300000-7f0000301000 r--p 00000000 00:00 0    [vvar]
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0    [stack]
"""
RANGES = recorded_ranges(MAPS)


def scan(program: int, interval: int, *runs: tuple[int, int]) -> Scan:
    """Make the result of a scan from runs of addresses."""
    return Scan(program, interval, np.array(runs, dtype=np.uint64).reshape(-1, 2))


def test_private_writable_mappings_are_recorded() -> None:
    assert [each.name for each in RANGES] == ["program", "[heap]", "anonymous", "[stack]"]
    assert RANGES[1] == AddressRange(0x1000000, 0x1021000, "[heap]")


def test_pages_are_numbered_through_the_mappings_that_were_written() -> None:
    scans = [
        scan(0, 0, (0x600000, 0x601000), (0x1002000, 0x1004000)),
        scan(0, 2, (0x1008000, 0x1009000), (0x7F0000200000, 0x7F0000201000)),
    ]
    found = number_pages(scans, [RANGES])
    assert [(each["name"], each["pages"]) for each in found.mappings] == [
        *(("program", 1), ("[heap]", 7), ("anonymous", 1))
    ]
    # Heap pages 2, 3 and 8 are 1, 2 and 7: pages before the first written one are left out.
    assert found.intervals.tolist() == [0, 2]
    assert found.first_pages.tolist() == [0, 7]
    assert found.lengths.tolist() == [3, 2]


def test_page_that_two_scans_found_in_an_interval_counts_once() -> None:
    scans = [scan(0, 5, (0x1000000, 0x1002000)), scan(0, 5, (0x1001000, 0x1003000))]
    found = number_pages(scans, [RANGES])
    assert (found.first_pages.tolist(), found.lengths.tolist()) == ([0], [3])


def test_mapping_that_grows_is_one_mapping() -> None:
    for start in (0x1000000, 0x1021000):
        grown = [*RANGES, AddressRange(start, 0x1042000, "[heap]")]
        runs = (0x1000000, 0x1001000), (0x1041000, 0x1042000)
        found = number_pages([scan(0, 0, *runs)], [grown])
        assert [each["pages"] for each in found.mappings] == [0x42]


def test_same_addresses_of_two_programs_are_different_pages() -> None:
    scans = [scan(0, 0, (0x1000000, 0x1001000)), scan(1, 1, (0x1000000, 0x1001000))]
    found = number_pages(scans, [RANGES, RANGES])
    assert [each["program"] for each in found.mappings] == [0, 1]
    assert found.first_pages.tolist() == [0, 1]


def test_pages_of_no_mapping_are_left_out() -> None:
    found = number_pages([scan(0, 0, (0x1000, 0x2000))], [RANGES])
    assert found.mappings == []
    assert len(found.lengths) == 0


def test_pages_of_a_mapping_of_terabytes_are_numbered_without_gaps() -> None:
    end = 0x1000000 + (trace_module.PAGE_LIMIT + 10) * 4096
    ranges = [AddressRange(0x600000, 0x602000, "program"), AddressRange(0x1000000, end, "big")]
    runs = (0x601000, 0x602000), (0x1000000, 0x1001000), (end - 0x2000, end)
    found = number_pages([scan(0, 0, *runs), scan(0, 1, (end - 0x1000, end))], [ranges])
    assert [(each["name"], each["pages"]) for each in found.mappings] == [
        ("program", 1),
        ("big", 3),
    ]
    assert found.first_pages.tolist() == [0, 3]
    assert found.lengths.tolist() == [4, 1]


def test_trace_with_very_many_mappings_is_read_again() -> None:
    count = 70_000
    starts = range(0x1000000, 0x1000000 + count * 0x2000, 0x2000)
    ranges = [AddressRange(start, start + 0x1000, "a thread's stack") for start in starts]
    found = number_pages([scan(0, 0, *((each.start, each.end) for each in ranges))], [ranges])
    made = trace_of([list(range(count))])
    sheet = dict(made.sheet) | {"mappings": found.mappings}
    again = trace_module.Trace.from_bytes(dataclasses.replace(made, sheet=sheet).to_bytes())
    assert again.pages == count
    assert again.sheet["mappings"][-1]["name"].endswith(" more mappings")
