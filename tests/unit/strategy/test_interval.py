"""The model's intervals: the node's own trigger, asked in the model's own time."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.strategy.hybrid import CYCLES, Hybrid
from colobench.strategy.model.checkpoint import Checkpoint
from colobench.strategy.model.curve import DirtyCurve
from colobench.strategy.model.inputs import Workload
from colobench.strategy.model.interval import COUNTED, intervals
from colobench.strategy.model.output import FrameOutput
from colobench.strategy.model.slack import AT_ONCE, GuestPace, Preparation
from colobench.strategy.model.spread import NO_SPREAD, Spread, measured_spread
from colobench.strategy.model.tabulated import Tabulated
from colobench.strategy.model.waits import uniform_percentiles
from colobench.strategy.triggers import Degradation, DirtyVolume, FixedDelay, OnOutput
from share import amount

CURVE = DirtyCurve((1.0, 1e6), (1.0, 1e6), 1e7)
IDLE = Workload(CURVE, 10.0)


def after(pause, busy=0.0):
    """Give a checkpoint whose pause does not depend on the run."""
    return lambda ran: Checkpoint(1, 1, 0.0, pause, pause, pause, busy, pause, alone=pause)


def made(trigger, load=IDLE, pause=2.0, busy=0.0, spread=NO_SPREAD, preparation=AT_ONCE):
    return intervals(trigger, load, after(pause, busy), lambda ms: 10 * ms, spread, preparation)


def test_trigger_that_learns_from_pauses_runs_for_longer_where_some_are_long():
    # A tenth of the pauses is ten times as long, so their mean is 1.9 times the median.
    tenth = Spread(tuple([2.0] * 10), tuple([1.0] * 9 + [10.0]))
    trigger = Degradation(target=0.1, minimum=1, maximum=10_000)
    calm, disturbed = made(trigger), made(trigger, spread=tenth)
    assert statistics.median(each.pause for each in disturbed) == pytest.approx(2.0)
    ran = [statistics.fmean(each.ran for each in one) for one in (calm, disturbed)]
    mean_pause = statistics.fmean(each.pause for each in disturbed)
    assert mean_pause > 2.8
    assert ran[1] / ran[0] == pytest.approx(mean_pause / 2, rel=0.05)


def test_fixed_delay_keeps_its_grid_whatever_single_pauses_are():
    tenth = Spread(tuple([2.0] * 10), tuple([1.0] * 9 + [3.0]))
    found = made(FixedDelay(20), spread=tenth)
    assert statistics.fmean(each.period for each in found) == pytest.approx(20, rel=1e-2)
    assert len(found) == COUNTED


def test_checkpoints_without_a_delay_wait_for_the_pair_and_for_a_guest_that_makes_up_for_a_pause():
    trigger = FixedDelay(0)
    prepared = Preparation(1.0, 3.0, Spread((2.0,) * 16, (1.5,) * 16))
    found = made(trigger, preparation=prepared)
    assert {(each.ran, each.pause) for each in found} == {(1.0, 3.0)}
    behind = Workload(CURVE, 10.0, pace=GuestPace(busy=0.2, kept=math.inf))
    # It works for 3 ms × 0.2 / 0.8 behind each pause, a quarter of the 3 ms.
    assert {each.ran for each in made(trigger, behind, preparation=prepared)} == {1.5}


def test_checkpoints_with_a_delay_need_no_time_for_the_pair():
    prepared = Preparation(1.0, 3.0, Spread((2.0,) * 16, (1.5,) * 16))
    found = made(FixedDelay(20), preparation=prepared)
    assert statistics.fmean(each.period for each in found) == pytest.approx(20, rel=1e-2)
    assert {each.pause for each in found} == {2.0}


def test_pages_are_looked_at_in_steps_so_a_little_more_are_written():
    found = made(DirtyVolume(pages=1000, maximum=1000))
    # 10 pages a millisecond, looks at least a millisecond or a twentieth apart.
    assert all(100 <= each.ran <= 106 for each in found)


@pytest.mark.parametrize(("every", "pause"), [(5.0, 2.0), (5.0, 12.0)])
def test_each_request_has_a_checkpoint_of_its_own_unless_pauses_are_longer(every, pause):
    load = Workload(CURVE, 10.0, 1 / every, clients=True, latency_ms=0.4)
    found = made(OnOutput(), load, pause)
    periods = [each.period for each in found]
    # Once several wait, the next checkpoint is due as soon as the guest has read one.
    assert statistics.fmean(periods) == pytest.approx(max(every, pause + 0.2), rel=0.02)
    asked = sum(len(each.asked) for each in found)
    assert asked == pytest.approx(sum(periods) / every, abs=2)
    assert all(wait >= 0 for each in found for wait in each.asked)


def test_hybrid_compares_for_five_checkpoints_and_is_passive_for_the_rest():
    load = Workload(CURVE, 10.0, miscompares_per_ms=0.1)
    trigger = Hybrid(minimum=10, maximum=1000, passive_count=15, passive_time=50)
    ran = [each.ran for each in made(trigger, load)]
    # The checkpoint that enters the passive mode is the first of its fifteen.
    passive = sum(each == pytest.approx(50) for each in ran)
    assert passive == pytest.approx(len(ran) * 14 / (14 + CYCLES), rel=0.1)


def test_guest_s_own_frames_wait_until_it_runs_and_clients_do_not():
    for clients in (False, True):
        output = FrameOutput(Workload(CURVE, 10.0, 0.1, clients))
        assert output.first_at() == pytest.approx(10)
        assert output.release(10.0, 30.0) == (1, (0.0,))
        assert output.first_at() == pytest.approx(30.0 if clients else 40.0)
        assert output.waiting(40.0) == (3 if clients else 1)


@settings(deadline=None, max_examples=amount(25, 100))
@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.5, 5)), min_size=1, max_size=60))
def test_ratios_are_those_that_were_measured(points):
    line = [each for each, _ in points]
    spread = measured_spread(line, [each * ratio for each, ratio in points])
    low, high = (func(ratio for _, ratio in points) for func in (min, max))
    for pause in (0.01, *line[:5], 1e4):
        ratios = [spread.ratio(pause, share) for share in (0.0, 0.3, 1.0)]
        assert ratios == sorted(ratios)
        assert low * (1 - 1e-9) <= ratios[0] <= ratios[-1] <= high * (1 + 1e-9)


@settings(deadline=None, max_examples=amount(25, 100))
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 10)), min_size=1, max_size=20))
def test_percentiles_of_uniform_times_are_those_of_many_samples(stretches):
    begins, lengths = np.array(stretches).T
    found = uniform_percentiles(begins, lengths)
    chance = np.random.default_rng(1)
    which = chance.choice(len(begins), 20_000, p=lengths / lengths.sum())
    samples = begins[which] + lengths[which] * chance.random(20_000)
    assert found.mean == pytest.approx(samples.mean(), abs=0.3)
    # At most a percent of all samples is between the two.
    for percent, value in ((0.5, found.p50), (0.99, found.p99)):
        assert (samples <= value).mean() == pytest.approx(percent, abs=0.04)


def test_table_of_checkpoints_is_close_to_what_it_stands_for():
    def exact(ran):
        return Checkpoint(ran**0.7, 2 * ran, 0.1, 0.1 * ran**0.7, 1, 1, 0, 1)

    table = Tabulated(exact)
    for ran in np.geomspace(0.01, 1000, 300):
        assert table.at(ran).pages == pytest.approx(ran**0.7, rel=1e-3)
        assert table.at(ran).sent == pytest.approx(2 * ran, rel=1e-3)
