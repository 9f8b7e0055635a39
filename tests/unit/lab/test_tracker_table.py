"""The table of trackers says of each how exact it was and what it costs, or why it is not here."""

from __future__ import annotations

from colobench.lab.studies.tracker_table import tabulate_trackers
from colobench.lab.studies.trackers import Epoch, UnavailableTracker


def epoch(tracker, number, pages, write_ns, collect_ms, exact=True):
    return Epoch(tracker, number, pages, write_ns, collect_ms, exact, b"")


FOUND = [
    UnavailableTracker("second", "the kernel has no such thing at all, by no means whatsoever"),
    epoch("first", 1, 10, 100.0, 0.001),
    epoch("first", 2, 30, 140.0, 0.003, exact=False),
    epoch("first", 3, 20, 9000.0, 0.002),
]


def test_statistics_are_medians_and_exactness_is_counted():
    second, first = tabulate_trackers(FOUND)
    assert (first.epochs, first.exact) == (3, 2)
    assert (first.pages, first.write_ns, first.collect_ms) == (20, 140, 0.002)
    assert first.reason is None
    assert (second.pages, second.reason) == (None, FOUND[0].reason)


def test_only_those_that_ran_are_available():
    assert tabulate_trackers(FOUND).available == ("first",)
    assert tabulate_trackers([]).available == ()


def test_it_prints_itself_in_columns_however_long_a_reason_is():
    head, second, first = repr(tabulate_trackers(FOUND)).splitlines()
    assert first.split() == [
        "first",
        "in",
        "2",
        "of",
        "3",
        "epochs",
        "20",
        "140",
        "ns",
        "2.0",
        "µs",
    ]
    assert len(head) == len(first) < len(second.rstrip())
    assert second.startswith("second   not here: the kernel")
    assert repr(tabulate_trackers([])) == repr(tabulate_trackers([])).strip()
