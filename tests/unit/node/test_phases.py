"""The stopwatch of a checkpoint's phases, and what must not happen meanwhile."""

from __future__ import annotations

import gc

import pytest

from colobench.node.phases import Phases, durations, no_garbage_collection


def test_phases_last_from_mark_to_mark_and_add_up():
    marks = [("begin", 5_000_000), ("send", 6_000_000), ("save", 9_000_000), ("send", 9_500_000)]
    assert durations(marks) == {"send": 1.5, "save": 3.0}


def test_marks_are_in_the_order_in_which_phases_ended():
    phases = Phases()
    for name in ("stop", "send", "send"):
        phases.end(name)
    assert [name for name, _ in phases.marks] == ["begin", "stop", "send", "send"]
    assert phases.marks == sorted(phases.marks, key=lambda mark: mark[1])


def test_garbage_is_collected_again_when_a_checkpoint_is_over_or_has_failed():
    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(OSError), no_garbage_collection():  # noqa: PT011
        raise OSError
    assert gc.isenabled()
