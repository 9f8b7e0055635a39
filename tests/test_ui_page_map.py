"""The page map shows each page that a checkpoint sent, however many fall into one frame."""

from __future__ import annotations

import numpy as np
import pytest
from records import make_record

from colobench.lab.session import Session
from colobench.ui.page_map import FADE, PageMap
from colobench.ui.pump import frames


@pytest.fixture
def session():
    return Session(ram="4M", report_pages=True)


@pytest.fixture
def page_map(monkeypatch, session):
    monkeypatch.setattr(frames, "add", lambda view: None)
    return PageMap(session)


def pages(bitmap):
    return np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, "u1"), bitorder="little")).tolist()


def test_it_knows_the_guests_blocks(page_map):
    blocks = {block["name"]: (block["first_page"], block["pages"]) for block in page_map._blocks}
    assert blocks == {"pc.ram": (0, 1024), "vga.vram": (1024, 64)}


def test_the_last_checkpoints_pages_are_told_from_those_before(page_map, session):
    for number, sent in enumerate(([1, 2], [2, 1030], [64]), 1):
        session.records.append(make_record(number, pages=sent))
    page_map.refresh()
    frame = page_map._frame
    assert (frame["number"], frame["pages"]) == (3, 1)
    assert pages(frame["last"]) == [64]
    assert pages(frame["before"]) == [1, 2, 1030]
    assert frame["fade"] == pytest.approx(FADE**3)


def test_a_frame_has_only_what_is_new(page_map, session):
    session.records.append(make_record(1, pages=[1]))
    page_map.refresh()
    session.records.append(make_record(2, pages=[3]))
    page_map.refresh()
    assert pages(page_map._frame["last"]) == [3]
    assert pages(page_map._frame["before"]) == []


def test_nothing_new_changes_nothing(page_map, session):
    session.records.append(make_record(1, pages=[1]))
    page_map.refresh()
    frame = page_map._frame
    page_map.refresh()
    assert page_map._frame is frame


def test_another_session_begins_anew(page_map, session):
    session.records.append(make_record(1, pages=[1]))
    page_map.refresh()
    page_map.watch(Session(ram="8M", report_pages=True))
    assert page_map._frame["number"] == 0
    assert page_map._blocks[0]["pages"] == 2048
    page_map.refresh()
    assert page_map._frame["number"] == 0
