"""Captures other than stop and send: verified checkpoints, and kills at each point of their own."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.lab.session.record import PHASES
from colobench.lab.session.session import Session
from colobench.lab.torture.kill_plan import plan, points_of_capture
from colobench.node.breakpoints import COPY_POINTS, points_of
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from pairs import assert_kills_lose_nothing, assert_survived, copies, run_and_write, run_in_a_row
from share import SEED, amount, each_with_some, some

pytestmark = pytest.mark.usefixtures("nothing_left")

CHECKPOINTS = amount(25, 1000)
KILLS = amount(1, 25)
TORTURE_KILLS = amount(4, 50)
COPY = {"capture": "copy-then-send"}
#: Everything that a capture has to work with, each at least once.
WAYS: dict[str, dict[str, Any]] = {
    "copy-stream": COPY | {"tracker": "marked"},
    "copy-multifd": COPY | {"transport": "multifd", "multifd_channels": 2, "tracker": "userfault"},
    "copy-memfd": COPY | {"transport": "memfd", "multifd_channels": 2, "tracker": "shadow"},
    "copy-multifd+tcp": COPY | {"transport": "multifd+tcp", "tracker": "mprotect"},
    "copy-xbzrle": COPY | {"encoding": "xbzrle", "variant": "upstream"},
    "copy-buffered": COPY | {"layout": "buffered", "transport": "tcp"},
}
SEPARATED = tuple(way for way in WAYS if "layout" not in WAYS[way])
every_way = pytest.mark.parametrize("way", WAYS)


def at_points(role: Role) -> pytest.MarkDecorator:
    """Parametrize a test by the capture's own points, some of the others, and some of the ways."""
    points = points_of(role, Layout.SEPARATED, Capture.COPY_THEN_SEND)
    own = [at for at in points if at in COPY_POINTS[Capture.COPY_THEN_SEND]]
    others = some([at for at in points if at not in own], 4)
    return pytest.mark.parametrize(("at", "way"), each_with_some([*own, *others], SEPARATED))


def session(way: str, **settings: Any) -> Session:
    """Make a session with a small guest that writes a lot."""
    return Session(**({"ram": "8M", "writes_per_tick": 40} | WAYS[way] | settings))


@pytest.fixture
def pair(way: str) -> Iterator[Session]:
    with session(way, delay=None) as pair:
        yield pair


@pytest.mark.parametrize(("way", "variant"), each_with_some(tuple(WAYS), ("v12", "upstream")))
def test_checkpoints_in_a_row_verify_equal_and_tell_the_pause_from_the_time_until_the_commit(
    way: str, variant: str
) -> None:
    with session(way, delay=0, variant=variant) as pair:
        records = run_in_a_row(pair, CHECKPOINTS)
        assert all(record.verified for record in records)
        assert sum(record.pages for record in records) > CHECKPOINTS
        for record in records:
            phases = [getattr(record, f"{phase}_ms") for phase in (*PHASES[1:], "verify")]
            assert sum(phases) == pytest.approx(record.pause_ms, abs=1e-6)
            assert min(phases) >= 0
            assert record.ram_ms == record.received_ms == record.flush_ms == record.load_ms == 0
            assert record.pause_ms < record.commit_ms < record.loaded_ms


@every_way
def test_guest_runs_while_its_copy_is_on_the_way(way: str) -> None:
    with session(way, delay=None) as pair:
        pair.checkpoint()
        number = pair.hold("primary", "resumed")
        primary = pair.nodes["primary"]
        work = primary.execute("x-query-guest")["work"]
        pair.wait_for(
            lambda: primary.execute("x-query-guest")["work"] > work, "the guest to go on", 30.0
        )
        pair.go_on("primary")
        pair.wait_for(lambda: len(pair.records) == number, "the checkpoint", 30.0)
        assert pair.records[-1].verified
        assert pair.records[-1].guest_work <= work
        assert pair.checkpoint().verified


@at_points(Role.PRIMARY)
def test_primary_killed_at_any_point_of_a_checkpoint(pair: Session, at: str, way: str) -> None:
    run_and_write(pair, 3)
    assert pair.kill("primary", at=at).status == -signal.SIGKILL
    takeover = pair.failover()
    if at != "sent":
        # With all sent, the secondary may or may not have committed.
        assert takeover.checkpoint == 3 + (at in ("received", "loaded"))
    assert_survived(pair, takeover, "secondary")


@at_points(Role.SECONDARY)
def test_primary_killed_at_any_point_of_the_secondarys_checkpoint(
    pair: Session, at: str, way: str
) -> None:
    run_and_write(pair, 3)
    pair.kill("primary", at=at, held="secondary")
    takeover = pair.failover()
    assert takeover.checkpoint == 3 + (at in ("received", "flush", "load"))
    assert_survived(pair, takeover, "secondary")


@at_points(Role.SECONDARY)
def test_secondary_killed_at_any_point_of_a_checkpoint(pair: Session, at: str, way: str) -> None:
    run_and_write(pair, 3)
    pair.kill("secondary", at=at)
    takeover = pair.failover()
    assert takeover.checkpoint == 3
    assert_survived(pair, takeover, "primary")


@at_points(Role.PRIMARY)
def test_secondary_killed_at_any_point_of_the_primarys_checkpoint(
    pair: Session, at: str, way: str
) -> None:
    run_and_write(pair, 3)
    pair.kill("secondary", at=at, held="primary")
    takeover = pair.failover()
    # What the secondary had said before it died still counts.
    assert takeover.checkpoint - 3 in (0, at in ("sent", "received", "loaded"))
    assert_survived(pair, takeover, "primary")


@every_way
@pytest.mark.parametrize("kill", range(KILLS))
def test_killed_at_a_random_moment_the_survivor_goes_on(kill: int, way: str) -> None:
    dice = random.Random(f"{SEED} {kill} {way}")
    victim, survivor = dice.sample(("primary", "secondary"), 2)
    with session(way, delay=dice.choice([0, 1, 5]), seed=kill) as pair:
        pair.run(dice.randrange(1, 30))
        killed = pair.kill(victim)
        takeover = pair.failover()
        # The last report may have been on its way when the kill came.
        assert takeover.checkpoint >= killed.committed
        assert_survived(pair, takeover, survivor)


@pytest.mark.parametrize("way", ["copy-stream", "copy-memfd"])
def test_survivor_gets_a_secondary_again_and_leaves_no_copy_behind(way: str) -> None:
    with session(way, delay=None) as pair:
        pair.run(2)
        primary = pair.nodes["primary"].pid
        assert copies(primary) > 0
        pair.kill("secondary")
        pair.failover()
        assert copies(primary) == 0
        pair.rejoin()
        assert all(pair.checkpoint().verified for _ in range(3))
        assert copies(primary) > 0


@pytest.mark.parametrize("way", ["copy-memfd"])
def test_secondary_maps_the_copy_and_not_the_guests_ram(pair: Session) -> None:
    with open(f"/proc/{pair.nodes['secondary'].pid}/maps") as maps:
        borrowed = [line.split()[-2] for line in maps if " r--s " in line and "memfd:" in line]
    assert borrowed == ["/memfd:colobench-ram-copy"]


def test_kills_lose_no_answered_write_and_no_connection() -> None:
    points = points_of_capture(Capture.COPY_THEN_SEND)
    kills = plan(SEED, TORTURE_KILLS, outputs=("buffer",), points=points)
    assert_kills_lose_nothing(kills, **COPY)


def test_output_that_is_compared_is_refused_with_both_names_and_the_reason() -> None:
    with pytest.raises(LocalError, match="capture copy-then-send: expected output buffer, because"):
        Session(capture="copy-then-send", output="compare")
