"""Triggers as functions: when each asks for a checkpoint, in simulated time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.strategy.hybrid import Hybrid, HybridMemory
from colobench.strategy.trigger import NEVER_MS, Situation, Trigger
from colobench.strategy.triggers import (
    EXCESS,
    STEP_MS,
    Degradation,
    DirtyVolume,
    FixedDelay,
    OnMiscompare,
    OnOutput,
    PriceOfWaiting,
)
from colobench.strategy.written import TRIGGERS, parse_trigger, write_trigger
from share import amount
from simulated_trigger import SimulatedPair, observations, triggers

WITH_MAXIMUM = (OnOutput, Degradation, DirtyVolume, PriceOfWaiting, Hybrid)


# -- As texts ------------------------------------------------------------------------------------


@given(triggers())
def test_a_trigger_to_its_text_and_back_is_the_same(trigger: Any) -> None:
    assert parse_trigger(write_trigger(trigger)) == trigger
    assert parse_trigger(trigger.kind) == type(trigger)()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("soon", "trigger: expected one of fixed, miscompare, .*, found 'soon'"),
        ("", "trigger: expected one of fixed, "),
        (5, "trigger: expected a text such as fixed:ms=100, found 5"),
        ("fixed:100", "trigger fixed: expected ms= each at most once, found '100'"),
        ("fixed:ms=1,ms=2", "trigger fixed: expected ms= each at most once, found 'ms=2'"),
        ("fixed:ms=-1", "trigger fixed: ms: expected 0 to 4294967295 ms or None, found -1"),
        ("fixed:ms=1.5", "trigger fixed: ms: expected a whole number, found '1.5'"),
        ("output:maximum=none", "trigger output: maximum: expected a whole number"),
        ("degradation:target=1", "trigger degradation: target: expected 0.001 to 0.9, found 1"),
        ("degradation:target=x", "trigger degradation: target: expected a number, found 'x'"),
        ("price:minimum=9,maximum=8", "minimum: expected at most the maximum, 8 ms, found 9"),
        ("hybrid:maximum=50", "minimum: expected at most the maximum, 50 ms, found 100"),
    ],
)
def test_wrong_text_of_a_trigger_is_one_clear_error(text: Any, words: str) -> None:
    with pytest.raises(LocalError, match=words):
        parse_trigger(text)


def test_every_trigger_says_where_it_comes_from() -> None:
    for kind in TRIGGERS.values():
        assert kind.source
        assert kind.__doc__


# -- All of them ---------------------------------------------------------------------------------


@given(triggers(), st.lists(observations(), max_size=5), observations())
def test_no_checkpoint_is_later_than_the_longest_time(
    trigger: Any, history: list[Situation], seen: Situation
) -> None:
    memory = None
    for each in history:
        memory = trigger.learn(each, memory)
    answer = trigger.ask(seen, memory)
    assert trigger.ask(seen, memory) == answer
    longest = trigger.longest_ms
    if isinstance(trigger, WITH_MAXIMUM) and isinstance(answer, float | int):
        assert seen.ran_ms + answer <= longest + 1e-6 * longest
    if isinstance(answer, str):
        assert answer
    elif longest is not None and not history:
        # From the beginning, or from the last start.
        assert min(seen.ran_ms, seen.now_ms) + answer <= longest * (1 + 1e-9)


@given(triggers(WITH_MAXIMUM), st.integers(1, 20), st.floats(0, 100))
def test_a_guest_never_runs_longer_than_the_maximum(trigger: Any, count: int, pause: float) -> None:
    assume(trigger.maximum <= 1000)
    pair = SimulatedPair(trigger, pause=lambda run: pause)
    for _ in range(count):
        taken = pair.checkpoint()
        assert taken is not None
        assert taken.last_run_ms <= trigger.maximum * (1 + 1e-9) + 1e-5


# -- By time -------------------------------------------------------------------------------------


@given(
    st.integers(0, 100),
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300), st.booleans()), max_size=20),
)
def test_a_fixed_delay_counts_from_when_the_last_checkpoint_was_due(
    delay: int, events: list[tuple[float, float, bool]]
) -> None:
    """Late checkpoints follow at once but do not pile up, and a requested one begins anew."""
    trigger, memory, seen = FixedDelay(delay), None, Situation(0.0, 0.0)
    now = due_from = 0.0
    for late, pause, requested in events:
        left = due_from + delay - now
        answer = trigger.ask(replace(seen, now_ms=now), memory)
        assert answer == "timer" if left <= 0 else answer == pytest.approx(left, abs=1e-6)
        now += late if requested else max(left, 0.0) + late
        if requested:
            due_from, cause = now, "requested"
        else:
            due_from, cause = max(due_from + delay, now - delay), "timer"
        seen = Situation(now + pause, 0.0, cause=cause, began_ms=now)
        memory = trigger.learn(seen, memory)
        now += pause


def test_without_a_delay_checkpoints_come_on_request_alone() -> None:
    assert SimulatedPair(FixedDelay(None)).checkpoint(most=1e9) is None


@given(st.none() | st.integers(0, NEVER_MS), observations())
def test_a_miscompare_is_answered_at_once_and_otherwise_the_delay_counts(
    maximum: int | None, seen: Situation
) -> None:
    answer = OnMiscompare(maximum).ask(seen, 3.0)
    assert answer == (seen.miscompare or FixedDelay(maximum).ask(seen, 3.0))


# -- By output -----------------------------------------------------------------------------------


@given(st.integers(2, 1000), st.floats(0, 2000))
def test_output_asks_at_once_and_an_idle_guest_is_left_alone(maximum: int, first: float) -> None:
    pair = SimulatedPair(OnOutput(maximum))
    assert pair.trigger.ask(pair.observe(min(first, maximum - 1)), None) == maximum - min(
        first, maximum - 1
    )
    waits = replace(pair.observe(min(first, maximum - 1)), output_frames=1)
    assert pair.trigger.ask(waits, None) == "output"
    taken = pair.checkpoint()
    assert taken is not None
    assert (taken.cause, taken.last_run_ms) == ("timer", maximum)


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1e3), st.floats(1e-3, 10))
def test_no_other_interval_costs_less_than_the_price_of_waiting_finds(
    pause: float, rate: float, price: float
) -> None:
    trigger = PriceOfWaiting(waiting=price, minimum=1, maximum=NEVER_MS)

    def cost(run: float) -> float:
        return pause / run + price * rate * run / 2

    best = trigger.optimum_ms(pause, rate)
    others = (best * factor for factor in (0.5, 0.9, 1.1, 2.0))
    assert all(cost(best) <= cost(run) * (1 + 1e-9) for run in others if run >= 1)


@given(st.floats(0.5, 20), st.floats(0.05, 10), st.floats(0.001, 0.1))
def test_the_price_of_waiting_settles_at_its_optimum(
    pause: float, rate: float, price: float
) -> None:
    trigger = PriceOfWaiting(waiting=price, maximum=100_000)
    pair = SimulatedPair(trigger, pause=lambda run: pause, output=lambda run: round(rate * run))
    best = trigger.optimum_ms(pause, rate)
    assume(rate * best > 50)
    runs = [taken.last_run_ms for _ in range(12) if (taken := pair.checkpoint())]
    # Every other run is longer.
    assert math.sqrt(runs[-1] * runs[-2]) == pytest.approx(best, rel=0.15, abs=2 * STEP_MS)


@settings(deadline=None, max_examples=amount(30, 300))
@given(st.floats(0.3, 5), st.floats(0, 0.3), st.floats(0.05, 2), st.integers(0, 99))
def test_the_price_of_waiting_costs_hardly_more_than_the_best_interval(
    fixed: float, growing: float, rate: float, seed: int
) -> None:
    """Also where the pause grows with the run, and is disturbed by up to a fifth."""
    chance = np.random.default_rng(seed)
    trigger = PriceOfWaiting(waiting=0.01)
    pair = SimulatedPair(
        trigger,
        pause=lambda run: (fixed + growing * run) * chance.uniform(0.8, 1.2),
        output=lambda run: round(rate * run),
    )
    taken = [each for _ in range(120) if (each := pair.checkpoint())][40:]
    run = np.array([each.last_run_ms for each in taken])

    def cost(run: Any) -> float:
        pause = fixed + growing * run
        return float(np.sum(pause + 0.01 * rate * run**2 / 2) / np.sum(run + pause))

    best = min(cost(np.array([each])) for each in np.geomspace(1, 1000, 200))
    assert cost(run) <= 1.15 * best


def test_without_output_the_price_of_waiting_lets_the_guest_run_to_the_maximum() -> None:
    pair = SimulatedPair(PriceOfWaiting(maximum=500), pause=lambda run: 5.0)
    taken = [pair.checkpoint() for _ in range(3)]
    assert [each.last_run_ms for each in taken if each] == [500, 500, 500]


# -- By degradation ------------------------------------------------------------------------------


@given(st.floats(0.01, 0.5), st.floats(0.1, 50), st.integers(0, 50))
def test_degradation_meets_its_target_at_a_constant_pause(
    target: float, pause: float, minimum: int
) -> None:
    trigger = Degradation(target=target, minimum=minimum, maximum=10_000)
    pair = SimulatedPair(trigger, pause=lambda run: pause)
    for _ in range(3):
        taken = pair.checkpoint()
    assert taken is not None
    found = pause / (pause + taken.last_run_ms)
    bound = pause / (pause + minimum) if minimum else 1.0
    assert found == pytest.approx(min(target, bound), rel=1e-6)


@given(st.floats(0.05, 0.5), st.floats(0.1, 10), st.floats(0, 0.5))
def test_degradation_finds_the_fixed_point_of_a_pause_that_grows_with_the_interval(
    target: float, least: float, slope: float
) -> None:
    """Pause = least + slope T, so that the target is met at T = k least / (1 - k slope)."""
    k = (1 - target) / target
    assume(k * slope < 0.8)
    trigger = Degradation(target=target, minimum=0, maximum=100_000)
    pair = SimulatedPair(trigger, pause=lambda run: least + slope * run)
    for _ in range(200):
        taken = pair.checkpoint()
    assert taken is not None
    assert taken.last_run_ms == pytest.approx(k * least / (1 - k * slope), rel=0.01)


# -- By dirty pages ------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    st.integers(100, 20_000),
    st.floats(1, 20_000),
    st.floats(1, 500),
    st.floats(0, 50),
)
def test_a_dirty_volume_is_met_within_a_step_and_a_few_looks(
    pages: int, hot: float, rate: float, cold: float
) -> None:
    """The guest writes a hot set ever more often, and cold pages beside it (anchors: D(T))."""

    def dirty(run: float) -> int:
        return int(hot * -math.expm1(-rate * run / hot) + cold * run)

    pair = SimulatedPair(DirtyVolume(pages, maximum=2000), dirty=dirty)
    taken = pair.checkpoint()
    assert taken is not None
    if taken.cause == "dirty":
        assert pages <= taken.pages <= pages * (1 + EXCESS) + 2 + (rate + cold) * STEP_MS
    else:
        assert taken.cause == "timer"
        assert taken.last_run_ms == 2000
        assert taken.pages <= pages * (1 + EXCESS) + 2 + (rate + cold) * STEP_MS
    if dirty(STEP_MS):
        # A look each 5 % of the time at worst, and each millisecond in the first 20.
        assert pair.asked <= 20 + math.log(2000 / 20) / math.log(1 + EXCESS) + 2


# -- The hybrid ----------------------------------------------------------------------------------


@given(
    st.integers(1, 400),
    st.integers(1, 8),
    st.lists(st.floats(0, 500), max_size=60),
)
def test_the_hybrid_changes_its_mode_as_the_series_says(
    limit: int, count: int, lengths: list[float]
) -> None:
    hybrid = Hybrid(passive_limit=limit, passive_count=count)
    memory: HybridMemory | None = None
    mean, cycles, passive = 0.0, 0, 0
    for length in lengths:
        memory = hybrid.learn(Situation(0.0, 0.0, last_due_ms=length), memory)
        mean = 0.7 * mean + 0.3 * length
        if passive:
            passive -= 1
            over = passive == 0
        else:
            cycles += 1
            enters = cycles >= 5 and mean < limit
            # The checkpoint that enters the mode is one of its checkpoints.
            passive = count - 1 if enters else 0
            over = enters and passive == 0
        if over:
            mean, cycles = 0.0, 0
        assert memory == HybridMemory(pytest.approx(mean), cycles, passive)


def test_the_hybrid_ignores_miscompares_while_it_is_passive() -> None:
    hybrid = Hybrid(minimum=100, maximum=5000, passive_time=250, passive_count=9)
    different = Situation(0.0, 120.0, miscompare="miscompare")
    assert hybrid.ask(different, None) == "miscompare"
    assert hybrid.lead_ms(different, None) == 0
    passive = HybridMemory(50.0, 5, 8)
    assert hybrid.ask(different, passive) == 130.0
    assert hybrid.ask(replace(different, ran_ms=250.0), passive) == "passive"
    assert hybrid.ask(replace(different, miscompare=None), None) == 4880.0
    assert hybrid.ask(Situation(0.0, 5000.0), None) == "timer"


def test_after_a_hasty_miscompare_the_guest_runs_on_until_the_minimum() -> None:
    hybrid = Hybrid(minimum=100, maximum=5000)
    hasty = Situation(0.0, 30.0, miscompare="miscompare")
    assert hybrid.ask(hasty, None) == "miscompare"
    assert hybrid.lead_ms(hasty, None) == 70.0
    assert hybrid.lead_ms(replace(hasty, miscompare=None), None) == 0


@given(triggers([Hybrid]), st.lists(st.floats(0, 500), max_size=60))
def test_the_secondarys_guest_stands_still_exactly_in_the_passive_mode(
    hybrid: Trigger, lengths: list[float]
) -> None:
    memory: HybridMemory | None = None
    for length in lengths:
        stands = hybrid.secondary_stands(Situation(0.0, length), memory)
        memory = hybrid.learn(Situation(0.0, 0.0, last_due_ms=length), memory)
        assert stands == (memory.passive_left > 0)


def test_the_hybrid_flips_after_five_short_intervals_and_returns() -> None:
    pair = SimulatedPair(Hybrid(minimum=50, passive_limit=200, passive_count=4, passive_time=300))
    causes = []
    for _ in range(14):
        taken = pair.checkpoint(miscompare="miscompare")
        assert taken is not None
        causes.append(taken.cause)
    compared, passive = ["miscompare"] * 5, ["passive"] * 3
    assert causes == [*compared, *passive, *compared, "passive"]
