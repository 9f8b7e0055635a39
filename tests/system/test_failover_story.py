"""A failover's story: who is the guest when, told in order, and what the clients can prove."""

from __future__ import annotations

import pytest

from colobench.errors import LocalError
from colobench.lab.torture.bug_hunt import BugHunt, hunt_bug, museum
from colobench.lab.torture.kill_plan import plan
from colobench.lab.torture.kill_results import KillResult
from colobench.lab.torture.museum import MUSEUM, exhibit
from colobench.lab.torture.story import ALONE, PROTECTED, SILENT, FailoverStory, serving_pair
from colobench.settings.bug import Bug
from colobench.settings.heartbeat import HeartbeatSettings

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize("output", ["buffer", "compare"])
def test_two_failovers_of_a_pair_lose_nothing_and_are_told_in_order(output):
    # What else the machine does is no death.
    heartbeat = HeartbeatSettings(limit_ms=2000)
    with serving_pair(output, ram="8M", heartbeat=heartbeat) as session:
        with pytest.raises(LocalError, match="expected primary or secondary"):
            FailoverStory(session, "arbiter")
        first = FailoverStory(session, "primary", "ram")
        assert "before the kill" in repr(first)
        for story in (first, FailoverStory(session, "secondary")):
            story.run()
            assert story.violations == []
            assert [state for _, state in story.spans] == [PROTECTED, SILENT, ALONE, PROTECTED]
            times = [seconds for seconds, _ in story.spans]
            assert times == sorted(times)
            whens = [moment.seconds for moment in story.moments]
            assert whens == sorted(whens)
            words = "\n".join(moment.what for moment in story.moments)
            for what in ("SIGKILL", "lost the heartbeat", "grants", "takes over", "first answer"):
                assert what in words
            assert story.takeover.role != story.killed.role
            assert story.first_ms > 0
            assert "linearizable" in repr(story)
        assert "held at 'ram'" in repr(first)


def test_a_planted_bug_is_caught_and_the_counterexample_comes_first():
    said, watched = [], []
    found = hunt_bug(Bug.MISSED_DIRTY_BIT.value, 10, into=watched.append, say=said.append)
    assert watched == [found]
    assert found.caught
    assert said
    assert "missed-dirty-bit: caught by kill" in repr(found)
    kinds = [sentence.startswith("not linearizable") for sentence in found.violations]
    assert kinds == sorted(kinds, reverse=True)


def test_kills_end_when_told():
    found = hunt_bug(Bug.FLUSH_PRIMARY_ONLY.value, 10, go_on=lambda: False)
    assert len(found.results) == 1


def test_what_no_kill_shows_is_not_caught():
    kill = plan(0, 1)[0]
    found = BugHunt(exhibit("early-flush"), [KillResult(kill, 1.0, 2.0, 10, True)])
    assert not found.caught
    assert repr(found) == "early-flush: not caught by 1 kills"


def test_the_museum_shows_every_bug():
    lines = museum().splitlines()
    assert [line.split()[0] for line in lines] == [bug.value for bug in MUSEUM]
