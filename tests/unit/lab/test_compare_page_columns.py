"""Columns of a calibration that need to know its pages, and the contents that follow from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.guest.settings import PAGE_SIZE, GuestSettings
from colobench.lab.compare.calibrate import columns_of
from colobench.lab.compare.cells import make_cells
from colobench.lab.compare.fitted import packets_of
from colobench.lab.compare.models import USUAL_TIME, MeasuredTime, contents_of, measured_time
from colobench.lab.compare.page_columns import needs_pages, page_columns
from colobench.lab.compare.values import OF_PAGES
from colobench.settings.settings import Settings
from colobench.strategy.model.inputs import NO_CONTENTS
from measurements import make_calibration, make_comparison
from records import make_record
from share import amount

MARKS = ("begin", "request", "stop", "ram", "received", "flush", "load", "resume")
GUEST = GuestSettings().override(ram="1M")
RAM, SCREEN = (size // PAGE_SIZE for size in GUEST.block_sizes().values())


def record_of(number, pages):
    bits = np.zeros(-(-(RAM + SCREEN) // 64) * 64, dtype=bool)
    bits[list(pages)] = True
    bitmap = np.packbits(bits, bitorder="little").tobytes()
    return make_record(number, time=number / 10, guest_work=1000 * number, dirty_bitmap=bitmap)


@settings(deadline=None, max_examples=amount(25, 200))
@given(st.lists(st.sets(st.integers(0, RAM + SCREEN - 1)), min_size=2, max_size=6))
def test_page_is_sent_for_the_first_time_once(checkpoints):
    found = page_columns(
        [record_of(*each) for each in enumerate(checkpoints, 1)], GUEST, len(checkpoints) - 1
    )
    known = checkpoints[0]
    for at, each in enumerate(checkpoints[1:]):
        assert found["first_pages"][at] == len(each - known)
        known = known | each
        assert found["known_pages"][at] == len(known)
        of_screen = sum(page >= RAM for page in each)
        packets = [-(-count // 128) for count in (len(each) - of_screen, of_screen)]
        assert (found["packets"][at], found["apart_packets"][at]) == (sum(packets), packets[1])


def test_work_counts_from_when_the_pair_entered_colo():
    found = page_columns([record_of(number, {number}) for number in (3, 4, 6)], GUEST, 2)
    assert found["age"] == [4000, 6000]
    # 1,000 steps in 0.1 s, so the first of 3,000 was done when the pair entered COLO.
    assert found["colo_work"] == pytest.approx([4000, 6000])


def calibration_of(strategy, **columns):
    [cell] = make_cells([strategy], ["hotcold"], (), Settings())
    usual = make_calibration(cell)["columns"]
    others = {name: [each[0]] * len(columns["colo_work"]) for name, each in usual.items()}
    return make_calibration(cell, **others | columns)


def test_pages_sent_first_are_those_of_the_measured_time():
    steps = [500.0 * each for each in range(1, 30)]
    # Every other step writes to a new page; the guest did 1,000 steps alone, at 3 a millisecond.
    found = calibration_of(
        "xbzrle",
        colo_work=steps,
        work=[500.0] * 29,
        first_pages=[250.0] * 29,
        known_pages=[each / 2 for each in steps],
        age=[each + 1000 for each in steps],
    )
    measured = MeasuredTime(alone=400.0, begin=300.0, lasts=2000.0)
    contents = contents_of(4.0, [found], measured)
    assert contents.first_per_step == pytest.approx(0.5, rel=1e-3)
    # 1,333 steps alone at 4 a millisecond, then 0.3 s, and 1 s to the middle of the measured time.
    assert contents.age == pytest.approx(1000 * 4 / 3 + 4 * 1300)
    few = calibration_of(
        "xbzrle", colo_work=steps, known_pages=[7] * 29, first_pages=[0] * 29, age=steps
    )
    assert contents_of(4.0, [few], measured).first_per_step == pytest.approx(0, abs=1e-9)


def test_pages_that_differ_are_those_of_the_time_between_two_stops():
    found = calibration_of("plover", colo_work=[1.0] * 3, sent_pages=[0.0, 3.0, 6.0])
    # On average 3 pages at 3 steps a millisecond: a millisecond, in which the cell writes 4.
    contents = contents_of(4.0, [found], USUAL_TIME)
    assert contents.whole(100) == contents.whole(0) == pytest.approx(4)


def test_hashes_of_all_pages_and_those_that_differ_have_columns_of_their_own():
    [cell] = make_cells(["plover"], ["hotcold"], (), Settings())
    marks = tuple((name, at * 10**6) for at, name in enumerate(MARKS))
    records = [
        make_record(
            number,
            pages=range(number),
            compared_pages=10 * number,
            primary_marks=marks,
            secondary_marks=marks,
            settings=cell.settings,
        )
        for number in (1, 2, 3)
    ]
    found = columns_of(records)
    assert (found["pages"], found["sent_pages"]) == ([20, 30], [2, 3])
    plain = make_cells(["colo_v12"], ["hotcold"], (), Settings())[0].settings
    found = columns_of([dataclasses.replace(each, settings=plain) for each in records])
    assert found["pages"] == [2, 3]
    assert "sent_pages" not in found


def test_calibration_without_pages_knows_no_contents():
    [cell] = make_cells(["xbzrle"], ["hotcold"], (), Settings())
    usual = make_calibration(cell)
    empty = usual | {"columns": {name: [] for name in (*OF_PAGES, *usual["columns"])}}
    idle = usual | {"unprotected": usual["unprotected"] | {"work_per_ms": 0.0}}
    for found in ([], [usual], [empty], [idle]):
        assert contents_of(4.0, found, USUAL_TIME) == NO_CONTENTS


def test_time_that_was_measured_is_that_of_its_checkpoints():
    columns = {"time": [0.5, 0.6, 2.1], "stopped_s": [0.1, 0.2, 1.7]}
    columns |= {"pause_ms": [1.0] * 3, "committed_s": [0.1] * 3, "number": [1, 2, 3]}
    comparison = make_comparison(lambda cell, number: {}, rounds=1)
    cell = comparison.cells[0]
    assert measured_time(comparison, cell) == USUAL_TIME
    for times, expected in ((columns["time"], (400, 1700)), ([None] * 3, USUAL_TIME[1:])):
        comparison.measurements[0] = dataclasses.replace(
            comparison.measurements[0], checkpoints=columns | {"time": times}
        )
        assert measured_time(comparison, cell)[1:] == pytest.approx(expected)


def test_packet_of_the_screen_comes_after_its_steps_of_work():
    work = [5.0, 25.0, 25.0, 25.0, 25.0, 100.0, 400.0]
    found = calibration_of(
        "multifd",
        colo_work=work,
        work=work,
        pages=work,
        apart_packets=[0, 0, 1, 0, 1, 1, 1],
    )
    packets = packets_of([found])
    assert packets.most_pages == 128
    assert packets.apart_steps == pytest.approx(50, rel=0.1)
    assert packets_of([calibration_of("xbzrle", colo_work=work)]).most_pages == 0


def test_pages_are_asked_for_only_where_bytes_depend_on_them():
    strategies = ("colo_v12", "remus", "plover", "xbzrle", "multifd", "multifd_zstd", "memfd")
    cells = make_cells(strategies, ["hotcold"], (), Settings())
    found = [needs_pages(each.settings.checkpoint) for each in cells]
    assert found == [False, False, False, True, True, True, True]
