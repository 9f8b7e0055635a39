"""A checkpoint in slow motion: what each side has at each point of it."""

from __future__ import annotations

import pytest

from colobench.errors import ColobenchError, LocalError
from colobench.lab.session.session import Session
from colobench.lab.studies.walkthrough import POINTS, walkthrough
from colobench.settings.checkpoint import Capture

pytestmark = pytest.mark.usefixtures("nothing_left")


def pair():
    return Session(ram="4M", delay=None, keep_stream=True)


def test_ram_and_devices_change_only_after_the_commit():
    with pair() as session:
        observations = walkthrough(session)
        numbers = range(1, len(POINTS) + 1)
        assert [(each.role, each.at) for each in observations] == list(POINTS)
        assert [each.checkpoint for each in observations] == list(numbers)
        old_ram = [each.at for each in observations if each.ram == each.checkpoint - 1]
        assert old_ram == [at for _, at in POINTS[:6]]
        new_ram = [each.at for each in observations if each.ram == each.checkpoint]
        assert new_ram == ["flush", "load", "loaded"]
        new_devices = [each.at for each in observations if each.devices == each.checkpoint]
        assert new_devices == ["load", "loaded"]
        assert [each.at for each in observations if each.primary_runs] == ["reply"]


def test_what_is_seen_prints_itself_as_a_table():
    with pair() as session:
        lines = repr(walkthrough(session, POINTS[:2])).splitlines()
    assert lines[0].startswith("held     at     checkpoint  bytes sent")
    assert lines[1].split() == [
        *("primary", "reply", "1", "4", "runs"),
        *("0", "0"),
    ]


def test_a_buffered_pair_is_walked_through_the_points_that_it_passes():
    with Session(ram="4M", delay=None, layout="buffered") as session:
        observations = walkthrough(session)
    assert [(each.role, each.at) for each in observations] == [
        point for point in POINTS if point != ("secondary", "ram-received")
    ]
    assert observations[-1].ram == observations[-1].checkpoint


@pytest.mark.parametrize("capture", [each for each in Capture if each is not Capture.STOP_AND_SEND])
def test_with_every_capture_a_checkpoint_is_applied_whole_after_its_commit(capture):
    with Session(ram="4M", delay=None, capture=capture.value) as session:
        observations = walkthrough(session)
        assert [(each.role, each.at) for each in observations] == [
            (role, at) for role, at in POINTS if at in session.points(role)
        ]
    before = [each for each in observations if each.at in ("ram", "ram-received")]
    assert all(each.ram == each.devices == each.checkpoint - 1 for each in before)
    after = [each for each in observations if each.at in ("load", "loaded")]
    assert all(each.ram == each.devices == each.checkpoint for each in after)
    # A guest that was copied runs while its checkpoint travels.
    assert {each.primary_runs for each in before} == {capture.copies}


NEVER_PASSED = [("secondary", "ram-received"), ("primary", "ram-sent"), ("primary", "flush")]


@pytest.mark.parametrize(("role", "at"), NEVER_PASSED)
def test_a_point_that_is_never_passed_is_refused_at_once_with_those_that_are(role, at):
    def refused():
        return pytest.raises(
            LocalError, match=f"point of the {role}, layout buffered, .*: expected one of .*{at!r}"
        )

    with Session(ram="4M", delay=None, layout="buffered") as session:
        with refused():
            walkthrough(session, [POINTS[0], (role, at)])
        with refused():
            session.hold(role, at)
        with refused():
            session.kill("primary", at=at, held=role)
        with pytest.raises(ColobenchError, match=f"layout buffered, .*: .*{at!r}"):
            session.nodes[role].execute("x-colo-break", at=at)
        assert len(session.records) == 0
        # Nothing waits for what never comes.
        assert session.checkpoint().number == 1


def test_a_role_that_is_none_is_refused():
    with pytest.raises(LocalError, match="role: expected primary or secondary, found 'arbiter'"):
        walkthrough(Session(delay=None), [("arbiter", "reply")])


def test_a_pair_that_was_not_started_is_refused():
    with pytest.raises(LocalError, match="expected a pair in COLO, found none started"):
        walkthrough(Session(delay=None))


def test_who_gives_up_waiting_for_a_held_node_holds_nobody():
    with Session(ram="4M", delay=None) as session:
        # The secondary does not get there before the primary goes on.
        session.hold("primary", "reply")
        with pytest.raises(ColobenchError, match="held at 'received'"):
            session.hold("secondary", "received", timeout=0.1)
        session.go_on("primary")
        assert session.checkpoint().number >= 1


@pytest.mark.parametrize("settings", [{"delay": 100}, {"delay": None, "variant": "upstream"}])
def test_a_pair_that_does_not_stand_still_is_refused(settings):
    with pytest.raises(LocalError, match="expected delay None and variant v12"):
        walkthrough(Session(**settings))
