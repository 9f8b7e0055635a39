"""Growth of figures while they are measured: of one round, and of rounds behind each other."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from colobench.lab.compare.cells import make_cells
from colobench.lab.compare.growth import grow
from colobench.lab.compare.load import Asked
from colobench.lab.compare.settings import USUAL_PAIR
from colobench.lab.compare.underway import MeasurementStage, MeasurementStopped, Underway
from colobench.lab.session.record import Records
from records import make_record

#: Monotonic time at which the measured time begins, and work of the guest then.
BEGIN, WORK = 1000.0, 500
[CELL] = make_cells(["colo_v12"], ["hotcold"], [], USUAL_PAIR)


def make_session(count, first=0.1):
    """Make a session whose guest stopped every 0.1 s, and did 90 steps in between."""
    stops = [BEGIN + first + number / 10 for number in range(count)]
    records = Records(
        make_record(
            number,
            pages=range(10),
            guest_work=WORK + round(900 * (stop - BEGIN)),
            primary_marks=(("stop", round(stop * 1e9)),),
        )
        for number, stop in enumerate(stops, 1)
    )
    return SimpleNamespace(records=records, closed=0)


def make_round(session, *, ended=None):
    """Make a measurement of a guest that does 1000 steps a second unprotected."""
    underway = Underway(CELL, 1, session)
    underway.work_per_s = 1000.0
    underway.begin(BEGIN, WORK, [Asked(BEGIN - 1, 9.0), Asked(BEGIN + 0.2, 3.0)])
    if ended is not None:
        underway.end(BEGIN + ended)
        underway.enter(MeasurementStage.DONE)
    return underway


def test_each_checkpoint_of_the_measured_time_is_a_point():
    found = grow([make_round(make_session(5, first=-0.1))])
    # The one that was before the begin is left out; the next is the begin itself.
    assert found.seconds == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert found.pause_ms.tolist() == [8.0] * 4
    assert found.bytes == pytest.approx(41040 * np.arange(1, 5))
    assert found.degradation[1:] == pytest.approx([0.1] * 3)
    assert found.latencies_ms.tolist() == [3.0]


def test_guest_that_serves_loses_the_answers_that_do_not_come():
    [cell] = make_cells(["colo_v12"], ["kv"], [], USUAL_PAIR)
    underway = Underway(cell, 1, make_session(5))
    underway.work_per_s = 200.0
    # A request each 5 ms, of which every other one is answered; some were asked before.
    times = np.arange(BEGIN - 0.5, BEGIN + 0.6, 0.01)
    underway.begin(BEGIN, WORK, [Asked(at, 1.0) for at in times])
    assert grow([underway]).degradation == pytest.approx([0.5] * 5, abs=0.05)


def test_rounds_follow_each_other():
    one = make_round(make_session(3), ended=0.35)
    other = make_round(make_session(2))
    found = grow([one, other])
    assert found.seconds == pytest.approx([0.1, 0.2, 0.3, 0.45, 0.55])
    assert found.bytes == pytest.approx(41040 * np.arange(1, 6))
    assert len(found.latencies_ms) == 2


def test_it_grows_with_the_records_and_ends_with_the_measured_time():
    session = make_session(3)
    underway = make_round(session)
    assert underway.seconds == pytest.approx(0.3)
    for record in make_session(5).records[3:]:
        session.records.append(record)
    assert len(grow([underway]).seconds) == 5
    underway.end(BEGIN + 0.45)
    assert len(grow([underway]).seconds) == 4
    assert underway.seconds == pytest.approx(0.45)


def test_before_the_begin_there_is_nothing():
    underway = Underway(CELL, 1, make_session(3))
    assert all(len(column) == 0 for column in grow([underway]))
    assert all(len(column) == 0 for column in grow([]))
    assert underway.seconds == 0


def test_a_stop_closes_the_session_and_begins_no_other_stage():
    session = make_session(0)
    session.close = lambda: setattr(session, "closed", session.closed + 1)
    underway = Underway(CELL, 2, session)
    underway.stop()
    assert session.closed == 1
    assert underway.stopped
    with pytest.raises(MeasurementStopped, match="colo_v12 on hotcold, round 2"):
        underway.enter(MeasurementStage.PROTECTED)
    assert underway.stage is MeasurementStage.STARTING
