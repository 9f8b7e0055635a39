"""A checkpoint in slow motion: what each side has at each point of it."""

from __future__ import annotations

import pytest

from colobench.errors import LocalError
from colobench.lab.session import Session
from colobench.lab.steps import POINTS, walk

pytestmark = pytest.mark.usefixtures("nothing_left")


def pair():
    return Session(ram="4M", delay=None, capture=True)


def test_ram_and_devices_change_only_after_the_commit():
    with pair() as session:
        sights = walk(session)
        numbers = range(1, len(POINTS) + 1)
        assert [(sight.role, sight.at) for sight in sights] == list(POINTS)
        assert [sight.checkpoint for sight in sights] == list(numbers)
        old_ram = [sight.at for sight in sights if sight.ram == sight.checkpoint - 1]
        assert old_ram == [at for _, at in POINTS[:6]]
        new_ram = [sight.at for sight in sights if sight.ram == sight.checkpoint]
        assert new_ram == ["flush", "load", "loaded"]
        new_devices = [sight.at for sight in sights if sight.devices == sight.checkpoint]
        assert new_devices == ["load", "loaded"]
        assert [sight.at for sight in sights if sight.primary_runs] == ["reply"]


def test_what_is_seen_prints_itself_as_a_table():
    with pair() as session:
        lines = repr(walk(session, POINTS[:2])).splitlines()
    assert lines[0].startswith("held     at     making")
    assert lines[1].split() == [
        *("primary", "reply", "checkpoint", "1", "4", "runs"),
        *("checkpoint", "0", "checkpoint", "0"),
    ]


@pytest.mark.parametrize("settings", [{"delay": 100}, {"delay": None, "variant": "upstream"}])
def test_a_pair_that_does_not_stand_still_is_refused(settings):
    with pytest.raises(LocalError, match="expected delay None and variant v12"):
        walk(Session(**settings))
