"""The page map shows each page that a checkpoint sent, however many fall into one frame."""

from __future__ import annotations

import numpy as np
import pytest

from colobench.lab.session.session import Session
from colobench.ui.base.pump import frames
from colobench.ui.views.page_map import FADE, PageMap
from feeds import data_of
from records import make_record


@pytest.fixture
def session():
    return Session(ram="4M", report_pages=True)


@pytest.fixture
def page_map(monkeypatch, session):
    monkeypatch.setattr(frames, "add", lambda view: None)
    return PageMap(session)


def heat(page_map):
    """Give what the map shows: page → heat, of those that have any."""
    page_map.feed._sent = float("-inf")
    page_map.feed.tend()
    bytes_of = np.frombuffer(data_of(page_map), "u1")
    return {int(page): int(bytes_of[page]) for page in np.flatnonzero(bytes_of)}


def faded(times):
    return int(255 * np.float32(FADE) ** times)


def test_it_knows_the_guests_blocks(page_map):
    blocks = page_map.feed.frame["blocks"]
    assert {block["name"]: (block["first_page"], block["pages"]) for block in blocks} == {
        "pc.ram": (0, 1024),
        "vga.vram": (1024, 64),
    }


def test_it_has_the_blocks_of_the_guests_disks(page_map, tmp_path):
    page_map.watch(Session(ram="4M", report_pages=True, disks=[f"{tmp_path}/disk,size=1M"]))
    heat(page_map)
    blocks = page_map.feed.frame["blocks"]
    assert [block["name"] for block in blocks] == ["pc.ram", "vga.vram", "disk0"]
    assert blocks[2]["first_page"] == 1088


def test_the_last_checkpoints_pages_are_told_from_those_before(page_map, session):
    for number, sent in enumerate(([1, 2], [2, 1030], [64]), 1):
        session.records.append(make_record(number, pages=sent))
    page_map.refresh()
    shown = heat(page_map)
    frame = page_map.feed.frame
    assert (frame["checkpoint"], frame["pages"]) == (3, 1)
    assert shown == {64: 255} | dict.fromkeys((1, 2, 1030), pytest.approx(faded(1), abs=1))


def test_a_page_that_is_not_sent_again_fades_and_is_forgotten(page_map, session):
    session.records.append(make_record(1, pages=[7]))
    page_map.refresh()
    assert heat(page_map) == {7: 255}
    for number in range(2, 50):
        session.records.append(make_record(number, pages=[]))
        page_map.refresh()
        assert heat(page_map).get(7, 0) == pytest.approx(faded(number - 1), abs=1)
    assert heat(page_map) == {}


def test_each_frame_has_all_that_is_to_be_seen(page_map, session):
    session.records.append(make_record(1, pages=[1]))
    page_map.refresh()
    session.records.append(make_record(2, pages=[3]))
    page_map.refresh()
    assert set(heat(page_map)) == {1, 3}


def test_nothing_new_changes_nothing(page_map, session):
    session.records.append(make_record(1, pages=[1]))
    page_map.refresh()
    heat(page_map)
    number = page_map.feed.frame["number"]
    page_map.refresh()
    heat(page_map)
    assert page_map.feed.frame["number"] == number


def test_another_session_begins_anew(page_map, session):
    session.records.append(make_record(1, pages=[1]))
    page_map.refresh()
    page_map.watch(Session(ram="8M", report_pages=True))
    assert heat(page_map) == {}
    frame = page_map.feed.frame
    assert frame["checkpoint"] == 0
    assert frame["blocks"][0]["pages"] == 2048
    page_map.refresh()
    assert heat(page_map) == {}


def test_it_goes_on_when_old_records_are_dropped(monkeypatch):
    monkeypatch.setattr(frames, "add", lambda view: None)
    session = Session(ram="4M", report_pages=True, keep_records=10)
    page_map = PageMap(session)
    for number in range(1, 61):
        session.records.append(make_record(number, pages=[number]))
        # In some refreshes nothing is new, in some much is.
        if number % 4 or number > 56:
            page_map.refresh()
            assert heat(page_map)[number] == 255
            assert page_map.feed.frame["checkpoint"] == number
    assert heat(page_map)[50] == pytest.approx(faded(10), abs=1)
