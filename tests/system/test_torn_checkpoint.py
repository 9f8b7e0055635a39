"""A torn checkpoint never reaches RAM if there is a RAM cache, and always does if there is none."""

from __future__ import annotations

from itertools import pairwise

import pytest

from colobench.errors import LocalError
from colobench.kernels.bitmap import popcount
from colobench.lab.session.session import Session
from colobench.lab.studies.torn_checkpoint import cut_checkpoint
from pairs import run_and_write

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(scope="module")
def torn():
    with Session(ram="4M", delay=None, keep_stream=True, writes_per_tick=40) as session:
        run_and_write(session, 2)
        session.checkpoint()
        return cut_checkpoint(session), session.records[-1]


def test_with_a_cache_ram_is_of_the_checkpoint_before_until_all_is_there(torn):
    cuts = torn[0].cuts
    assert {cut.cached for cut in cuts[:-1]} == {2}
    assert cuts[-1].cached == 3
    assert [cut.committed for cut in cuts] == [False] * (len(cuts) - 1) + [True]


def test_without_a_cache_ram_is_of_no_checkpoint_from_the_first_page_on(torn):
    cuts, record = torn[0].cuts, torn[1]
    some = [cut for cut in cuts if 0 < cut.pages < record.pages]
    assert len(some) >= record.pages - 1
    assert {cut.direct for cut in some} == {None}
    assert cuts[0].direct == 2
    assert cuts[-1].direct == 3


def test_the_cuts_are_the_whole_checkpoint_page_after_page(torn):
    cuts, record = torn[0].cuts, torn[1]
    assert (cuts[0].bytes, cuts[-1].bytes) == (0, record.bytes)
    assert cuts[-1].pages == record.pages
    for before, after in pairwise(cuts):
        assert not (before.arrived & ~after.arrived).any()
        assert after.pages == popcount(after.arrived)


def test_any_step_cuts_as_well(torn):
    with Session(ram="4M", delay=None, keep_stream=True) as session:
        session.wait_for_ticks(1)
        session.checkpoint()
        cuts = cut_checkpoint(session, step=997).cuts
    assert {cut.cached for cut in cuts[:-1]} == {0}
    assert cuts[-1].cached == cuts[-1].direct == 1
    # All pages have come, and the devices have not: RAM is new, the machine is of neither.
    assert {cut.direct for cut in cuts if cut.pages == cuts[-1].pages} == {1}


def test_how_far_it_is_is_told_and_a_bar_shows_it(torn, monkeypatch, capsys):
    told = []
    with Session(ram="4M", delay=None, keep_stream=True) as session:
        session.wait_for_ticks(1)
        session.checkpoint()
        cuts = cut_checkpoint(session, progress=lambda done, total: told.append((done, total))).cuts
        monkeypatch.setattr("colobench.lab.progress._PATIENCE_SECONDS", 0)
        monkeypatch.setattr("colobench.lab.progress._CHANGE_SECONDS", 0)
        cut_checkpoint(session)
    assert told == [(done, len(cuts)) for done in range(1, len(cuts) + 1)]
    assert "cutting a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("step", [0, -1, 97.5, "97", None])
def test_a_step_that_is_none_is_refused(step):
    with pytest.raises(LocalError, match="step: expected a number of bytes from 1 up, found"):
        cut_checkpoint(Session(), step=step)


@pytest.mark.parametrize("transport", ["multifd", "memfd"])
def test_a_transport_whose_pages_go_other_ways_is_refused(transport):
    with pytest.raises(LocalError, match=f"transport stream and keep_stream, found .*{transport}"):
        cut_checkpoint(Session(delay=None, transport=transport))


@pytest.mark.parametrize(
    "settings",
    [
        {"delay": 10, "keep_stream": True},
        {"layout": "buffered", "keep_stream": True},
        {"verify": False, "keep_stream": True},
        {},
    ],
)
def test_a_session_without_a_whole_recording_is_refused(settings):
    with pytest.raises(LocalError, match="expected delay None, layout separated, verify, tr"):
        cut_checkpoint(Session(**{"delay": None} | settings))


@pytest.mark.parametrize("encoding", ["zstd", "divergent"])
def test_an_encoding_whose_pages_are_not_all_in_the_stream_as_records_is_refused(encoding):
    changes = {"encoding": encoding, "variant": "upstream", "keep_stream": True}
    with pytest.raises(LocalError, match=f"encoding none or xbzrle, .*found {encoding}"):
        cut_checkpoint(Session(delay=None, **changes))


def test_a_recording_that_lacks_its_begin_is_refused():
    with Session(ram="4M", delay=None, keep_stream=True) as session:
        with pytest.raises(LocalError, match="expected a checkpoint"):
            cut_checkpoint(session)
        session.relay.forget()
        session.checkpoint()
        with pytest.raises(LocalError, match="expected all"):
            cut_checkpoint(session)
