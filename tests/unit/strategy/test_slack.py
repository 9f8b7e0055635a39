"""Slack of a guest: the formula of what it makes up for, and a simulation step by step."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colobench.strategy.model.slack import GuestPace, Preparation, done_ms, lost_ticks
from share import amount

#: Steps of the simulation in a tick, and periods that it goes through before it counts.
STEPS, BEFORE = 20, 3


def simulate(run: int, pause: int, work: int, keeps_all: bool) -> float:
    """Simulate a guest step by step, at each moment of a tick at which a pause may begin.

    Times are whole steps of a twentieth of a tick. `work` is the work of a tick. Returns the work
    of a period in ticks, the mean over all moments.
    """
    done = 0
    for offset in range(STEPS):
        waiting, left = 0, 0
        periods = BEFORE + 1
        # After a whole number of ticks, each period begins at the same moment of a tick.
        for now in range(periods * (run + pause)):
            period, at = divmod(now, run + pause)
            if (now + offset) % STEPS == 0:
                waiting += 1
            if at >= run:
                continue
            if not left and waiting:
                left, waiting = work, waiting - 1 if keeps_all else 0
            if left:
                left -= 1
                done += period == BEFORE
    return done / STEPS / work


@settings(deadline=None, max_examples=amount(60, 1000))
@given(
    ticks=st.integers(4, 60),
    pause=st.integers(0, 8 * STEPS),
    work=st.integers(1, STEPS),
    keeps_all=st.booleans(),
)
def test_formula_agrees_with_a_simulation_step_by_step(ticks, pause, work, keeps_all):
    # The boundary itself is one or the other.
    assume(pause < STEPS or (pause + work) % STEPS)
    run = ticks * STEPS - pause % STEPS
    pace = GuestPace(1.0, work / STEPS, math.inf if keeps_all else 1.0)
    ran, stood = run / STEPS, pause / STEPS
    found = simulate(run, pause, work, keeps_all)
    # A guest that is still late at the next pause is in between, within a tick.
    late = work < STEPS and ran * (1 / pace.busy - 1) < 1.5
    assert done_ms(ran, stood, pace) == pytest.approx(found, abs=1.01 if late else 0.06)


times = st.floats(0, 1e4)
shares = st.floats(0, 1)


@settings(deadline=None, max_examples=amount(100, 1000))
@given(ran=times, two=st.tuples(times, times), busy=shares, kept=st.sampled_from([1.0, math.inf]))
def test_longer_pause_loses_no_less_and_never_more_than_itself(ran, two, busy, kept):
    pace = GuestPace(1.0, busy, kept)
    short, long = sorted(two)
    lost = [ran + each - done_ms(ran, each, pace) for each in (short, long)]
    assert lost[0] <= lost[1] + 1e-6
    # A guest that works less than all the time does at least what its timer asks for in the run.
    assert lost[1] <= long + 1e-6
    assert lost[0] >= -1e-6


@settings(deadline=None, max_examples=amount(100, 1000))
@given(ran=times, pause=times, two=st.tuples(shares, shares), slowed=st.floats(0, 100))
def test_busier_or_slower_guest_does_no_more(ran, pause, two, slowed):
    idle, busy = (GuestPace(1.0, each) for each in sorted(two))
    assert done_ms(ran, pause, busy) <= done_ms(ran, pause, idle) + 1e-6
    assert done_ms(ran, pause, busy, slowed) <= done_ms(ran, pause, busy) + 1e-6


@pytest.mark.parametrize(
    ("pause", "busy", "lost"),
    [(0.9, 0.1, 0.0), (2.4, 0.1, 1.4), (2.4, 0.7, 2.0), (0.5, 0.9, 0.0), (3.0, 0.5, 2.0)],
)
def test_pause_costs_a_tick_less_than_it_lasts_unless_work_pushes_it_over_the_next(
    pause, busy, lost
):
    assert lost_ticks(pause, busy) == pytest.approx(lost)


def test_guest_that_never_rests_loses_all_of_a_pause_and_first_writes_beside():
    assert done_ms(80, 20, GuestPace(busy=1.0)) == 80
    assert done_ms(80, 20, GuestPace(busy=1.0), slowed=5) == 75
    assert done_ms(80, 20, GuestPace(busy=0.5, kept=math.inf)) == 100


def test_guest_that_wakes_up_once_for_many_ticks_makes_up_for_more():
    pace = GuestPace(busy=0.5, kept=math.inf, busy_behind=0.1)
    assert done_ms(10, 60, pace) == 70
    assert done_ms(10, 120, pace) == 100
    assert done_ms(10, 60, GuestPace(busy=0.5, kept=math.inf)) == 20
    # It never needs more than with each tick by itself.
    assert GuestPace(busy=0.1, busy_behind=0.5).busy_at_most == 0.1


def test_guest_works_without_a_rest_until_it_has_done_what_was_due_meanwhile():
    assert GuestPace(busy=0.2, kept=math.inf).catching_up_ms(40) == pytest.approx(10)
    assert GuestPace(busy=1.0, kept=math.inf).catching_up_ms(40) == math.inf
    # One tick is all that is left of a pause where the others are lost.
    assert GuestPace(busy=0.2, kept=1.0).catching_up_ms(40) == 0


def test_preparation_takes_longer_in_the_part_of_it_in_which_the_guest_works():
    found = Preparation(alone=1.0, beside=3.0)
    assert [found.takes_ms(working) for working in (0.0, 1.5, 3.0, math.inf)] == [1, 2, 3, 3]
    assert Preparation(alone=1.0, beside=0.5).takes_ms(math.inf) == 1
    assert Preparation().takes_ms(math.inf) == 0
