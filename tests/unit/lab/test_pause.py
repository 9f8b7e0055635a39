"""The profile of a checkpoint's pause: the steps of two nodes on one line of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.lab.bench import pause
from records import make_record

#: The marks of either side in their order, by transport.
PRIMARY = {
    "stream": ("request", "stop", "devices", "collect", "ram", "devices", "received"),
    "multifd": ("request", "stop", "collect", "ram", "devices", "devices", "received"),
}
SECONDARY = ("reply", "send", "ram", "size", "buffer", "commit", "received", "flush", "load")


def marks(names, times):
    return tuple(zip(names, sorted(times), strict=True))


def times(count):
    return st.lists(st.integers(0, 10**7), min_size=count, max_size=count)


@given(st.data(), st.sampled_from(sorted(PRIMARY)))
def test_the_steps_of_a_checkpoint_add_up_to_its_pause(data, transport):
    """Times are arbitrary but for what the messages order: reply, RECEIVED, LOADED."""
    names = ("begin", *PRIMARY[transport][:-1])
    here = marks(names, data.draw(times(len(names))))
    there = marks(("begin", *SECONDARY), data.draw(times(len(SECONDARY) + 1)))
    answered = max(here[-1][1], there[-1][1])
    there += (("loaded", answered + 5),)
    here += (("received", answered), ("loaded", answered + 9), ("resume", answered + 11))
    found = pause.steps_of(make_record(1, primary_marks=here, secondary_marks=there))
    paused = sum(found[step[0]] for step in pause._STEPS if step[3])
    assert paused == pytest.approx((answered + 11 - dict(here)["request"]) / 1e3)
    assert all(found[step[0]] >= 0 for step in pause._STEPS if step[3])
    before = sum(found[step[0]] for step in pause._STEPS if not step[3])
    assert before == pytest.approx((dict(here)["request"] - here[0][1]) / 1e3)


def test_the_table_names_each_step_with_its_side_and_its_floor():
    steps = tuple(
        pause.PauseStep(name, side, kind, paused, 3.0, 2.0, 4.0, 1.5 if floor else None)
        for name, side, kind, paused, floor in pause._STEPS
    )
    whole = pause.PauseStep("pause", "both", "", True, 39.0, 26.0, 52.0, None)
    lines = pause.render([pause.Profile("memfd", 1000, 7, steps, whole, {})]).splitlines()
    assert lines[0] == "memfd, 1k pages, 7 checkpoints: microseconds"
    assert lines[2].split() == ["request", "both", "message", "2.0", "4.0", "3.0", "1.5"]
    assert len({line.index("both") for line in lines if " both " in line}) == 1
    assert "of that hand-over" in lines[-1]
