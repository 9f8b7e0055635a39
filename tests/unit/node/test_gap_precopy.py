"""Passes between checkpoints: each dirty page is in a pass or in the checkpoint, at least once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.kernels import bitmap
from colobench.memory.ram import PAGE_SIZE, RAM, lay_out
from colobench.memory.tracker import Tracker, tracker_class
from colobench.node.migration.dirty_pages import DirtyPages
from colobench.node.migration.gap_precopy import PART_PAGES, GapPrecopy, Passes

PAGES = 3 * PART_PAGES
HOUR = 3600.0


class Connection:
    """A sender and its channel, which keep the parts."""

    def __init__(self) -> None:
        self.parts: list[list[int]] = []
        self.all_sent = 0

    def send_pass(self, pages: Sequence[int]) -> None:
        self.parts.append(list(pages))
        self.all_sent += PAGE_SIZE * len(pages)


@pytest.fixture(scope="module")
def tracker() -> Iterator[Tracker]:
    ram = RAM("ram", lay_out({"pc.ram": PAGES * PAGE_SIZE}))
    tracker = tracker_class("marked")(ram)
    yield tracker
    tracker.close()
    ram.close()


@pytest.fixture
def dirty(tracker: Tracker) -> DirtyPages:
    dirty = DirtyPages(tracker)
    dirty.arm()
    return dirty


def write(tracker: Tracker, pages: Sequence[int]) -> None:
    for page in pages:
        bitmap.mark(tracker.marks, page)


def passes_of(dirty: DirtyPages, period: float = 1e-9) -> tuple[GapPrecopy, Connection]:
    connection = Connection()
    passes = GapPrecopy(connection, connection, dirty, period)  # type: ignore[arg-type]
    passes.begin()
    return passes, connection


pages_written = st.sets(st.integers(0, PAGES - 1), max_size=20)


@settings(max_examples=40, deadline=None)
@given(st.lists(pages_written, min_size=1, max_size=3), st.integers(0, PAGES - 1))
def test_next_collection_has_what_was_put_back_and_what_is_new(
    written: list[set[int]], page: int
) -> None:
    ram = RAM("ram", lay_out({"pc.ram": PAGES * PAGE_SIZE}))
    tracker = tracker_class("marked")(ram)
    try:
        dirty = DirtyPages(tracker)
        dirty.arm()
        expected: set[int] = set()
        for pages in written:
            write(tracker, sorted(pages))
            assert dirty.collect().tolist() == sorted(expected | pages)
            dirty.put_back(page)
            expected = {each for each in expected | pages if each >= page}
            assert dirty.count() == len(expected)
        assert dirty.collect().tolist() == sorted(expected)
    finally:
        tracker.close()
        ram.close()


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
def test_checkpoint_takes_what_a_pass_has_not_sent(
    tracker: Tracker, dirty: DirtyPages, parts: int
) -> None:
    passes, connection = passes_of(dirty)
    written = list(range(PAGES))
    write(tracker, written)
    for _ in range(parts):
        passes.send()
    said = passes.end()
    sent = [page for part in connection.parts for page in part]
    assert sent + dirty.collect().tolist() == written
    assert said["passes"] == (parts == 3)
    assert said["pass-pages"] == len(sent)
    assert said["pass-bytes"] == PAGE_SIZE * len(sent)


def test_page_that_is_written_during_a_pass_is_sent_again(
    tracker: Tracker, dirty: DirtyPages
) -> None:
    passes, connection = passes_of(dirty)
    write(tracker, range(2 * PART_PAGES))
    passes.send()
    write(tracker, [0, 2 * PART_PAGES - 1])
    passes.send()
    passes.end()
    assert [len(part) for part in connection.parts] == [PART_PAGES, PART_PAGES]
    assert dirty.collect().tolist() == [0, 2 * PART_PAGES - 1]


def test_pass_without_a_page_sends_nothing_and_counts_for_nothing(dirty: DirtyPages) -> None:
    passes, connection = passes_of(dirty)
    passes.send()
    assert connection.parts == []
    assert passes.end()["passes"] == 0


def test_part_is_due_at_once_until_the_pass_is_sent(tracker: Tracker, dirty: DirtyPages) -> None:
    passes, _ = passes_of(dirty, period=HOUR)
    write(tracker, range(PART_PAGES + 1))
    passes.send()
    assert passes.due(HOUR) == 0
    passes.send()
    assert passes.due(3 * HOUR) > HOUR / 2


@pytest.mark.parametrize("period", [1e-9, 1.0, HOUR])
@pytest.mark.parametrize("checkpoint", [1e-6, 1.0, 5.0, HOUR])
def test_no_pass_is_waited_for_longer_than_for_a_checkpoint(
    dirty: DirtyPages, period: float, checkpoint: float
) -> None:
    passes, _ = passes_of(dirty, period)
    assert 0 <= passes.due(checkpoint) <= checkpoint


def test_last_pass_before_a_checkpoint_is_put_off_until_just_before_it(dirty: DirtyPages) -> None:
    passes, _ = passes_of(dirty, period=HOUR)
    assert passes.due(1.5 * HOUR) == pytest.approx(1.25 * HOUR)
    assert passes.due(0.5 * HOUR) == 0.5 * HOUR


def test_without_the_capture_there_is_no_pass() -> None:
    passes = Passes()
    assert passes.due(HOUR) == HOUR
    assert not any(passes.end().values())


def test_list_of_pages_stays_as_it_is_while_pages_are_counted(
    tracker: Tracker, dirty: DirtyPages
) -> None:
    passes, connection = passes_of(dirty)
    write(tracker, range(2 * PART_PAGES))
    passes.send()
    write(tracker, [7])
    assert dirty.count() == 1
    passes.send()
    assert np.array_equal(np.concatenate(connection.parts), np.arange(2 * PART_PAGES))
