"""The flush copies what was received and what the secondary's own guest wrote, page by page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import REPRODUCIBLE
from colobench.guest.settings import GuestSettings
from colobench.lab.session.session import Session
from colobench.lab.studies.flush_prediction import (
    cached_pages,
    foretell_flush,
    hold_before_flush,
    pages_written,
)
from colobench.memory.ram import PAGE_SIZE

pytestmark = pytest.mark.usefixtures("nothing_left")

WORDS = st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3)


def pair(**settings):
    return Session(**{"ram": "4M", "delay": None, "report_pages": True} | settings)


@given(received=WORDS, written=WORDS)
def test_what_is_foretold_is_the_union_and_changes_neither(received, written):
    one, other = np.array(received, np.uint64), np.array(written, np.uint64)
    expected = [a | b for a, b in zip(received, written, strict=True)]
    assert foretell_flush(one, other).tolist() == expected
    assert (one.tolist(), other.tolist()) == (received, written)


@pytest.mark.parametrize("program", REPRODUCIBLE)
def test_pages_written_are_those_that_differ(program):
    guest = GuestSettings(2 << 20, program, seed=7, working_set=100)
    machine = Machine(guest)
    machine.run_until(300)
    before = machine.ram.array.copy().reshape(-1, PAGE_SIZE)
    machine.run_until(777)
    changed = (before != machine.ram.array.reshape(-1, PAGE_SIZE)).any(axis=1)
    machine.close()
    written = pages_written(guest, 300, 777).view(np.uint8)
    assert np.unpackbits(written, bitorder="little").tolist() == changed.tolist()


@pytest.mark.parametrize("layout", ["separated", "buffered"])
@pytest.mark.parametrize("variant", ["v12", "upstream"])
def test_the_flush_copies_what_was_foretold_page_by_page(variant, layout):
    with pair(variant=variant, layout=layout, writes_per_tick=20) as session:
        for longer in (None, "primary", "secondary"):
            pending = hold_before_flush(session, longer=longer, ticks=30)
            record = pending.go_on()
            assert record.number == pending.checkpoint
            assert record.verified
            assert record.flushed_pages == pending.foretold_pages
            foretold = foretell_flush(pending.received, pending.written)
            assert record.flushed_bitmap == foretold.astype("<u8").tobytes()
            assert record.dirty_bitmap == pending.received.astype("<u8").tobytes()


def test_who_runs_longer_has_written_more():
    with pair(variant="upstream") as session:
        pending = hold_before_flush(session, longer="secondary", ticks=100)
        assert pending.written_pages > pending.received_pages
        pending.go_on()
        pending = hold_before_flush(session, longer="primary", ticks=100)
        assert pending.written_pages < pending.received_pages


def test_a_secondary_that_stands_still_writes_nothing():
    with pair(variant="v12") as session:
        work = session.checkpoint().guest_work
        # It would have written by now, as the primary's guest has.
        session.wait_for_ticks(20)
        assert session.nodes["secondary"].execute("x-query-guest")["work"] == work
        assert hold_before_flush(session, longer="secondary").written_pages == 0


def test_nothing_waits_in_the_cache_after_a_checkpoint():
    with pair() as session:
        session.checkpoint()
        assert not cached_pages(session).any()


@pytest.mark.parametrize(
    ("settings", "longer", "words"),
    [({"delay": 100}, None, "expected delay None"), ({}, "both", "longer: expected")],
)
def test_what_cannot_be_held_is_refused(settings, longer, words):
    with pytest.raises(LocalError, match=words):
        hold_before_flush(pair(**settings), longer=longer)
