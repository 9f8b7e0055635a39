"""Miscompares of real pairs: none without a source of chance, and some with one."""

from __future__ import annotations

import pytest

import colobench as cb
from colobench.lab.miscompares.dials import DIALS


@pytest.mark.usefixtures("nothing_left")
def test_guests_without_chance_never_differ_and_a_fine_clock_makes_them_differ():
    pure, clock = DIALS[:2]
    found = cb.count_miscompares(
        (pure, clock),
        rounds=1,
        seconds=0.5,
        every_ms=5,
        time_every=5,
        progress=lambda done, total: None,
    )
    [same], [different] = found.of_dial(pure), found.of_dial(clock)
    assert same.answers == different.answers == 400
    assert same.miscompares == same.checkpoints == 0
    assert different.miscompares >= different.checkpoints > 0
