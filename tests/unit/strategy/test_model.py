"""Models of strategies: limits, monotony, and what they say of made-up workloads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.settings.link import Link
from colobench.strategy.model.checkpoint import CAPTURES, checkpoint
from colobench.strategy.model.costs import (
    ByteCosts,
    CheckpointCosts,
    KnownOfCosts,
    LinearCost,
    PagePackets,
    fit_costs,
    fit_line,
)
from colobench.strategy.model.curve import DirtyCurve, measured_curve
from colobench.strategy.model.inputs import Axes, Calibration, Workload
from colobench.strategy.model.interval import run_time
from colobench.strategy.model.passes import passes
from colobench.strategy.model.predict import predict
from colobench.strategy.model.slack import GuestPace
from colobench.strategy.model.spread import measured_spread
from colobench.strategy.own import OwnTrigger
from colobench.strategy.triggers import (
    Degradation,
    DirtyVolume,
    FixedDelay,
    OnMiscompare,
    OnOutput,
    PriceOfWaiting,
)
from colobench.strategy.written import TRIGGERS
from share import amount

LOCAL = Link()
#: 0.1 ms and 1 µs a page for the pause, half of it for sending; 4104 bytes a page.
COSTS = CheckpointCosts(
    request=LinearCost(0.2, 0.0),
    pause=LinearCost(0.1, 1e-3),
    send=LinearCost(0.05, 5e-4),
    commit=LinearCost(0.08, 8e-4),
    release=LinearCost(0.09, 8e-4),
    loaded=LinearCost(0.1, 1e-3),
    sent=ByteCosts(1000.0, 4104.0, 0.0),
)
CALIBRATION = Calibration(COSTS, 2.0**20, 2.0**28, 1000)
#: A page for each step of work, up to 4096 pages.
ONE_BY_ONE = Workload(DirtyCurve((1.0, 4096.0), (1.0, 4096.0), 4096), work_per_ms=10.0)

pages = st.floats(0, 1e6)
costs = st.builds(LinearCost, st.floats(0, 10), st.floats(0, 0.1))
links = st.builds(
    Link, st.just(0) | st.integers(10**7, 10**9), st.integers(0, 10**4), st.integers(0, 10**3)
)


@settings(deadline=None, max_examples=amount(50, 300))
@given(
    lines=st.tuples(*[costs] * 6),
    capture=st.sampled_from(sorted(CAPTURES)),
    link=links,
    two=st.tuples(pages, pages),
    work=st.floats(0, 1e6),
)
def test_more_pages_and_a_slower_link_cost_no_less(lines, capture, link, two, work):
    request, pause, send, *later = lines
    # Nothing is committed, released or loaded before it was sent, and a pause may have the sending.
    pause, *ends = (
        LinearCost(send.base + each.base, send.per_page + each.per_page) for each in (pause, *later)
    )
    found = CheckpointCosts(request, pause, send, *ends, ByteCosts(100.0, 4104.0, 2.0))
    few, many = sorted(two)

    def times(link, pages):
        each = checkpoint(found, CAPTURES[capture], link, pages, work)
        return np.array([each.pause, each.commit, each.release, each.pause + each.busy, each.sent])

    slack = 1e-9 * (1 + times(link, many))
    assert (times(link, few) <= times(link, many) + slack).all()
    assert (times(LOCAL, many) <= times(link, many) + slack).all()
    if link.rate:
        slower = Link(max(10**7, link.rate // 2), link.delay_us, link.jitter_us)
        assert (times(link, many) <= times(slower, many) + slack).all()


def test_link_of_unlimited_rate_adds_its_delay_alone():
    capture = CAPTURES["stop-and-send"]
    here = checkpoint(COSTS, capture, LOCAL, 500, 0)
    there = checkpoint(COSTS, capture, Link(0, 10_000), 500, 0)
    assert there.pause == pytest.approx(here.pause + 20)
    assert there.commit == pytest.approx(here.commit + 10)


def test_slow_link_takes_the_time_of_the_bytes():
    link = Link(10**8)
    found = checkpoint(COSTS, CAPTURES["stop-and-send"], link, 10_000, 0)
    assert found.pause == pytest.approx(8000 * found.sent / link.rate, rel=0.01)
    remus = checkpoint(COSTS, CAPTURES["copy-then-send"], link, 10_000, 0)
    assert remus.pause == COSTS.pause.at(10_000)
    assert remus.busy > 3000


def cow(epochs: int, link: Link, delay: int = 0):
    capture = {1: "copy-on-write", 2: "copy-on-write-2"}[epochs]
    axes = Axes(FixedDelay(delay), capture=capture)
    return predict(axes, ONE_BY_ONE, link, CALIBRATION)


def test_second_open_epoch_more_than_doubles_the_commits_over_a_long_way_and_they_are_newer():
    one, two = cow(1, Link(0, 20_000)), cow(2, Link(0, 20_000))
    rates = [each.figures["checkpoints_per_s"] for each in (one, two)]
    assert rates[1] > 2 * rates[0]
    assert two.figures["commit_age_mean_ms"] < one.figures["commit_age_mean_ms"]


def test_second_open_epoch_waits_where_the_link_is_full_and_is_older_for_it():
    one, two = cow(1, Link(10**8)), cow(2, Link(10**8))
    rates = [each.figures["checkpoints_per_s"] for each in (one, two)]
    assert rates[1] == pytest.approx(rates[0], rel=0.1)
    assert two.figures["commit_age_mean_ms"] > one.figures["commit_age_mean_ms"]
    # With time between two cuts, nothing waits.
    one, two = cow(1, Link(10**8), delay=3000), cow(2, Link(10**8), delay=3000)
    assert two.figures == pytest.approx(one.figures)


@pytest.mark.parametrize("delay", [10, 100, 1000])
def test_fixed_delay_is_the_period_unless_a_checkpoint_takes_longer(delay):
    found = predict(Axes(FixedDelay(delay)), ONE_BY_ONE, LOCAL, CALIBRATION)
    assert found.period_ms == pytest.approx(delay, rel=1e-6)
    assert found.figures["checkpoints_per_s"] == pytest.approx(1000 / delay)
    slow = predict(Axes(FixedDelay(delay)), ONE_BY_ONE, Link(10**7, 600_000), CALIBRATION)
    assert slow.period_ms > 1200


def test_back_to_back_checkpoints_have_the_period_of_one():
    found = predict(Axes(FixedDelay(0)), ONE_BY_ONE, LOCAL, CALIBRATION)
    assert found.run_ms == pytest.approx(COSTS.request.base, rel=1e-3)


@settings(deadline=None, max_examples=amount(25, 200))
@given(target=st.floats(0.02, 0.8))
def test_degradation_trigger_meets_its_target(target):
    trigger = Degradation(target=target, minimum=0, maximum=10_000)
    found = predict(Axes(trigger), ONE_BY_ONE, LOCAL, CALIBRATION)
    # The guest runs for the request of a checkpoint, too.
    ran = found.run_ms - COSTS.request.base
    assert found.checkpoint.pause / (ran + found.checkpoint.pause) == pytest.approx(target, 1e-3)


@settings(deadline=None, max_examples=amount(25, 200))
@given(wanted=st.integers(10, 3000))
def test_dirty_volume_has_no_fewer_pages_and_few_more(wanted):
    found = predict(Axes(DirtyVolume(wanted, 1000)), ONE_BY_ONE, LOCAL, CALIBRATION)
    # 10 pages a millisecond: the last step, the request, and what is made up for of the pause.
    most = wanted * 1.05 + 10 + 2.1 + 10 * found.checkpoint.pause
    assert wanted <= found.checkpoint.pages <= most


def test_price_of_waiting_is_its_own_optimum():
    trigger = PriceOfWaiting(waiting=0.1)
    load = Workload(ONE_BY_ONE.curve, 10.0, frames_per_ms=0.2)
    found = predict(Axes(trigger), load, LOCAL, CALIBRATION)
    # The pause is 0.1 ms, and what grows with the pages. Runs of two lengths follow in turn.
    # Frames are whole, and some runs have one, others none.
    best = trigger.optimum_ms(COSTS.pause.base, 0.2) * (1.25 + 0.8) / 2
    assert found.run_ms == pytest.approx(best + COSTS.request.base, rel=0.15)


@pytest.mark.parametrize("clients", [False, True])
def test_output_trigger_takes_one_checkpoint_a_frame(clients):
    load = Workload(ONE_BY_ONE.curve, 10.0, 0.1, clients, latency_ms=1.0, latency_p99_ms=2.0)
    found = predict(Axes(OnOutput()), load, LOCAL, CALIBRATION)
    # A guest makes up for a part of its pauses, so its own frames come a little earlier.
    assert (found.period_ms if clients else found.run_ms) == pytest.approx(10, rel=0.03)
    assert found.figures["latency_p50_ms"] < 2


def test_miscompares_shorten_the_interval_to_their_mean_time():
    ran = {
        rate: run_time(
            OnMiscompare(1000),
            Workload(ONE_BY_ONE.curve, 10.0, miscompares_per_ms=rate),
            lambda ran: checkpoint(COSTS, CAPTURES["stop-and-send"], LOCAL, 0, 0),
            ONE_BY_ONE.curve.at,
        )
        for rate in (0.0, 1e-9, 0.1)
    }
    assert ran[0.0] == pytest.approx(1000, rel=1e-3)
    assert ran[1e-9] == pytest.approx(1000, rel=1e-3)
    assert ran[0.1] == pytest.approx(10, rel=0.03)


def test_buffered_answers_wait_for_half_a_period_and_compared_ones_do_not():
    load = Workload(ONE_BY_ONE.curve, 10.0, 0.2, True, 1.0, 2.0, matched_ms=1.5, matched_p99_ms=4)
    buffered = predict(Axes(FixedDelay(100)), load, LOCAL, CALIBRATION)
    compared = predict(Axes(OnMiscompare(100), output="compare"), load, LOCAL, CALIBRATION)
    assert 51 < buffered.figures["latency_p50_ms"] < 53
    assert 100 < buffered.figures["latency_p99_ms"] < 102
    assert compared.figures["latency_p50_ms"] == 1.5


def test_buffered_layout_needs_memory_for_its_pages():
    few = predict(Axes(FixedDelay(10), layout="buffered"), ONE_BY_ONE, LOCAL, CALIBRATION)
    many = predict(Axes(FixedDelay(100), layout="buffered"), ONE_BY_ONE, LOCAL, CALIBRATION)
    more = many.figures["primary_memory_bytes"] - few.figures["primary_memory_bytes"]
    assert more == pytest.approx(4096 * (many.checkpoint.pages - few.checkpoint.pages))


@settings(deadline=None, max_examples=amount(50, 300))
@given(ran=st.floats(0, 1e4), period=st.floats(1, 100), per_page=st.floats(0, 1e-2))
def test_passes_send_each_page_that_they_leave_or_not_and_more_of_them_leave_less(
    ran, period, per_page
):
    # New pages alone, 10 a millisecond: so no page is sent twice.
    found = passes(ran, period, FixedDelay(100), lambda ms: 10 * ms, lambda n: per_page * n)
    assert found.pages + 10 * found.left_ms == pytest.approx(10 * ran, abs=1e-6)
    assert found.left_ms <= max(period, 2 * per_page * 10 * period, ran / 2) or per_page >= 0.05


def test_hot_pages_are_sent_once_a_pass_and_the_pause_has_few():
    hot = Workload(DirtyCurve((1.0, 10.0, 1e6), (1.0, 10.0, 10.0), 4096), work_per_ms=10.0)
    found = predict(Axes(FixedDelay(100), "gap-precopy"), hot, LOCAL, CALIBRATION)
    usual = predict(Axes(FixedDelay(100)), hot, LOCAL, CALIBRATION)
    assert found.figures["pause_p50_ms"] <= usual.figures["pause_p50_ms"]
    assert found.figures["bytes_per_s"] > 3 * usual.figures["bytes_per_s"]
    cold = predict(Axes(FixedDelay(100), "gap-precopy"), ONE_BY_ONE, LOCAL, CALIBRATION)
    plain = predict(Axes(FixedDelay(100)), ONE_BY_ONE, LOCAL, CALIBRATION)
    assert cold.figures["pause_p50_ms"] < 0.5 * plain.figures["pause_p50_ms"]
    assert cold.figures["bytes_per_s"] == pytest.approx(plain.figures["bytes_per_s"], rel=0.1)


def test_there_is_no_model_of_a_user_s_trigger_or_of_an_unknown_part():
    own = OwnTrigger(name="Mine", code="class Mine: ...")
    for axes in (
        Axes(own),
        Axes(FixedDelay(None)),
        Axes(FixedDelay(10), capture="by-magic"),
        Axes(FixedDelay(10), encoding="morse"),
    ):
        assert predict(axes, ONE_BY_ONE, LOCAL, CALIBRATION) is None


@pytest.mark.parametrize("name", sorted(TRIGGERS))
def test_each_trigger_has_a_model(name):
    load = Workload(ONE_BY_ONE.curve, 10.0, 0.1, miscompares_per_ms=0.01)
    assert predict(Axes(TRIGGERS[name]()), load, LOCAL, CALIBRATION) is not None


# -- Fits ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=amount(25, 200))
@given(base=st.floats(0, 10), slope=st.floats(0, 0.1), seed=st.integers(0, 99))
def test_line_is_found_although_a_tenth_of_the_points_is_disturbed(base, slope, seed):
    chance = np.random.default_rng(seed)
    x = 10 ** chance.uniform(1, 4, 50)
    y = base + slope * x
    y[chance.choice(50, 5, replace=False)] += 1000
    found = fit_line(x, y)
    for at in (10, 10_000):
        assert found.at(at) == pytest.approx(base + slope * at, rel=0.1, abs=1)


@settings(deadline=None, max_examples=amount(25, 200))
@given(
    st.lists(st.tuples(st.integers(0, 10**5), st.floats(0, 1e3)), min_size=1, max_size=30),
)
def test_fitted_costs_are_never_negative(points):
    x, y = np.array(points).T
    found = fit_line(x, y)
    assert found.base >= 0
    assert found.per_page >= 0


NAMES_OF_TIMES = ("request", "pause", "send", "commit", "release", "loaded", "copy", "flush")


def fitted_bytes(known=None, **columns):
    zero = np.zeros(len(columns["pages"]))
    return fit_costs(
        {f"{name}_ms": zero for name in NAMES_OF_TIMES} | columns, known or KnownOfCosts()
    ).sent


def test_bytes_that_follow_pages_and_work_are_found_exactly():
    chance = np.random.default_rng(1)
    found, work = chance.uniform(1, 1000, 30), chance.uniform(1, 1e5, 30)
    for sent in (800 + 4104 * found, 800 + 40 * found + 9 * work):
        fitted = fitted_bytes(pages=found, work=work, bytes=sent)
        for each in (0, 7, 29):
            assert fitted.at(found[each], work[each]) == pytest.approx(sent[each], rel=1e-6)


@pytest.mark.parametrize("per_first", [4104, 45])
def test_bytes_of_pages_that_fill_and_of_those_sent_first_are_found_exactly(per_first):
    chance = np.random.default_rng(2)
    found, work = chance.uniform(100, 1000, 40), chance.uniform(1, 1e3, 40)
    first, age = found * chance.uniform(0, 1, 40), chance.uniform(1e3, 1e5, 40)
    sent = 800 + per_first * first + (60 + 2e-3 * age) * (found - first) + 9 * work
    columns = {"pages": found, "work": work, "first_pages": first, "age": age, "bytes": sent}
    fitted = fitted_bytes(**columns)
    of_each = map(fitted.at, found, work, first, age)
    assert list(of_each) == pytest.approx(list(sent), rel=1e-6)
    # All pages may be sent first, but no more.
    assert fitted.at(10, 5, 99, 1e3) == pytest.approx(800 + 10 * per_first + 45, rel=1e-3)
    whole = KnownOfCosts(by_contents=False)
    assert fitted_bytes(whole, **columns | {"bytes": 800 + 4104 * found}).per_first is None


def test_bytes_of_lists_in_packets_are_found_exactly():
    found = np.array([3, 90, 129, 130, 250, 300, 512, 1000, 4001])
    of_screen = np.array([0, 0, 1, 1, 0, 1, 1, 1, 1])
    packets = np.ceil((found - of_screen) / 128) + of_screen
    known = KnownOfCosts(by_contents=False, packets=PagePackets(128, apart_steps=50, most_apart=1))
    columns = {"pages": found, "work": 0 * found, "packets": packets}
    fitted = fitted_bytes(known, **columns, bytes=4845 + 1344 * packets)
    # Of 100 steps, one packet is that of the screen, with one of the pages.
    assert fitted.at(129, 100) == pytest.approx(4845 + 2 * 1344)
    assert fitted.at(130, 100) == pytest.approx(4845 + 3 * 1344)
    # Of 25 steps, every other checkpoint has one.
    assert fitted.at(100, 25) == pytest.approx(4845 + 1.5 * 1344)


def test_page_more_or_less_may_be_a_packet_more():
    spread = measured_spread([128.0] * 4, [127.0, 128.0, 129.0, 130.0])
    assert PagePackets(128).at(128, 1) == 1
    assert PagePackets(128, spread=spread).at(128, 1) == 1.5


def test_flush_of_many_pages_is_shared_by_threads_and_fewer_are_not_taken_for_more():
    found = np.arange(500.0, 8000.0, 250.0)
    flush = np.where(found >= 4096, 5e-4 * found + 0.1, 1e-3 * found)
    rest = 0.3 + 5e-4 * found
    names = ("request", "send", "commit", "release")
    columns = {"pages": found, "work": found, "bytes": found, "copy_ms": 0 * found}
    columns |= {f"{name}_ms": rest for name in names} | {"flush_ms": flush}
    columns |= {f"{name}_ms": rest + flush for name in ("pause", "loaded")}
    fitted = fit_costs(columns, KnownOfCosts(threads_from=4096))
    capture = CAPTURES["stop-and-send"]
    for few in (1000, 4000, 4250, 7750):
        true = 0.3 + 5e-4 * few + (5e-4 * few + 0.1 if few >= 4096 else 1e-3 * few)
        assert checkpoint(fitted, capture, LOCAL, few, 0).pause == pytest.approx(true)
    remus = fit_costs(columns, KnownOfCosts(flushes_in_pause=False, threads_from=4096))
    assert remus.pause.at(1000) == pytest.approx(1.8, rel=0.3)


@settings(deadline=None, max_examples=amount(50, 300))
@given(
    delay=st.integers(2, 1000),
    two=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    page_ms=st.floats(0, 1e-2),
    capture=st.sampled_from(sorted(CAPTURES)),
)
def test_degradation_grows_with_what_the_guest_has_to_do_and_is_within_bounds(
    delay, two, page_ms, capture
):
    def degradation(busy, page_ms, lost_beside=0.0):
        load = replace(ONE_BY_ONE, pace=GuestPace(busy=busy))
        costs = replace(CALIBRATION, page_ms=page_ms, lost_beside=lost_beside)
        return predict(Axes(FixedDelay(delay), capture), load, LOCAL, costs).figures["degradation"]

    idle, busy = sorted(two)
    assert -1e-6 <= degradation(idle, 0.0) <= degradation(busy, 0.0) + 1e-3
    assert degradation(busy, 0.0) <= degradation(busy, page_ms) + 1e-3 <= 1 + 1e-3
    assert degradation(busy, 0.0) <= degradation(busy, 0.0, 0.5) + 1e-3


def test_guest_without_rests_loses_the_share_of_the_pause_and_its_first_writes():
    load = replace(ONE_BY_ONE, pace=GuestPace(busy=1.0))
    found = predict(Axes(FixedDelay(100)), load, LOCAL, CALIBRATION)
    pause = found.checkpoint.pause
    assert found.figures["degradation"] == pytest.approx(pause / 100, rel=1e-6)
    slower = predict(Axes(FixedDelay(100)), load, LOCAL, replace(CALIBRATION, page_ms=1e-3))
    expected = (slower.checkpoint.pause + 1e-3 * slower.checkpoint.pages) / 100
    assert slower.figures["degradation"] == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=amount(25, 200))
@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**4)), max_size=40),
    st.floats(0, 1e7),
    st.floats(0, 1e7),
)
def test_curve_never_descends_and_never_exceeds_its_limit(points, one, other):
    curve = measured_curve([work for work, _ in points], [found for _, found in points], 5000)
    low, high = sorted((one, other))
    assert 0 <= curve.at(low) <= curve.at(high) * (1 + 1e-9) <= 5000 * (1 + 1e-9)


def test_curve_gives_what_was_measured_and_inverts():
    work = np.unique(np.rint(10 ** np.arange(0, 4, 0.1)))
    curve = measured_curve(work, 3 * work**0.7, 1e6)
    for each in (1.0, 77.0, 5000.0):
        assert curve.at(each) == pytest.approx(3 * each**0.7, rel=0.02)
    assert curve.at(curve.work_for(500, 1e5)) == pytest.approx(500, rel=1e-3)
    assert curve.at(10**5) == pytest.approx(3 * 10**3.5, rel=0.05)
