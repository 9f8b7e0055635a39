"""Pairs that send only pages that differ: checkpoints that verify, kills at each point, torture."""

from __future__ import annotations

from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.lab.session.session import Session
from colobench.lab.torture.kill_plan import plan, points_of_capture
from colobench.lab.torture.kill_results import summarize
from colobench.lab.torture.run import torture
from colobench.lab.torture.settings import TortureSettings
from colobench.node.breakpoints import COMPARISON_POINTS, points_of
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.settings import Settings
from colobench.settings.strategy import preset
from colobench.settings.transport import Encoding
from pairs import run_and_write, run_in_a_row
from share import LONG, SEED, amount, each_with_some

pytestmark = pytest.mark.usefixtures("nothing_left")

DIVERGENT = {"encoding": "divergent", "variant": "upstream"}
WAYS: dict[str, dict[str, Any]] = {
    "stream": DIVERGENT,
    "stream+tcp": DIVERGENT | {"transport": "tcp", "tracker": "userfault"},
    "multifd": DIVERGENT | {"transport": "multifd", "multifd_channels": 2, "tracker": "shadow"},
    "buffered": DIVERGENT | {"layout": "buffered"},
}
SEPARATED = tuple(way for way in WAYS if way != "buffered")
CHECKPOINTS = amount(25, 1000)
TORTURE_KILLS = amount(0, 50)


def points(role: Role) -> tuple[str, ...]:
    """Give the points that only this encoding has, or in a long run all of them."""
    form = (Layout.SEPARATED, Capture.STOP_AND_SEND, Encoding.DIVERGENT)
    return points_of(role, *form) if LONG else COMPARISON_POINTS[role][1]


def at_each(role: Role) -> pytest.MarkDecorator:
    """Parametrize a test by each point of a role and some of the ways."""
    return pytest.mark.parametrize(("at", "way"), each_with_some(points(role), SEPARATED))


def session(way: str, **settings: Any) -> Session:
    """Make a session with a small guest that writes a lot."""
    return Session(**({"ram": "8M", "writes_per_tick": 40} | WAYS[way] | settings))


@pytest.mark.parametrize("way", WAYS)
def test_checkpoints_verify_and_what_the_secondary_has_is_not_sent(way: str) -> None:
    with session(way, delay=5) as pair:
        records = run_in_a_row(pair, CHECKPOINTS)
        # The secondary's guest may not have run in so many intervals of a busy machine.
        while not any(record.equal_pages for record in records):
            records = run_in_a_row(pair, CHECKPOINTS)
        assert all(record.verified for record in records)
        for record in records:
            assert record.pages == record.compared_pages - record.equal_pages
            assert record.skew_ms is not None
            assert record.skew_ms > 0
        assert sum(record.hash_ms for record in records) > 0


@at_each(Role.PRIMARY)
def test_primary_killed_at_any_point_of_a_checkpoint(at: str, way: str) -> None:
    with session(way, delay=None) as pair:
        run_and_write(pair, 2)
        pair.kill("primary", at=at)
        takeover = pair.failover()
        assert takeover.role == "secondary"
        assert takeover.work_after > takeover.work_at_takeover
        assert pair.verify("secondary")
        pair.rejoin()
        assert all(record.verified for record in pair.run(2))


@at_each(Role.SECONDARY)
def test_primary_killed_at_any_point_of_the_secondarys_checkpoint(at: str, way: str) -> None:
    with session(way, delay=None) as pair:
        run_and_write(pair, 2)
        pair.kill("primary", at=at, held="secondary")
        takeover = pair.failover()
        assert takeover.checkpoint == 2 + (at in ("received", "flush", "load"))
        assert takeover.work_after > takeover.work_at_takeover
        assert pair.verify("secondary")


@at_each(Role.SECONDARY)
def test_secondary_killed_at_any_point_of_a_checkpoint(at: str, way: str) -> None:
    with session(way, delay=None) as pair:
        run_and_write(pair, 2)
        pair.kill("secondary", at=at)
        assert pair.failover().role == "primary"
        assert pair.verify("primary")
        pair.rejoin()
        assert all(record.verified for record in pair.run(2))


@at_each(Role.PRIMARY)
def test_secondary_killed_at_any_point_of_the_primarys_checkpoint(at: str, way: str) -> None:
    with session(way, delay=None) as pair:
        run_and_write(pair, 2)
        pair.kill("secondary", at=at, held="primary")
        assert pair.failover().role == "primary"
        assert pair.verify("primary")


@pytest.mark.skipif(not TORTURE_KILLS, reason="a long run: COLOBENCH_LONG=1")
def test_kills_lose_no_answered_write_and_no_connection() -> None:
    found = points_of_capture(Capture.STOP_AND_SEND, Encoding.DIVERGENT)
    transports, outputs = ("stream", "multifd"), ("compare",)
    kills = plan(SEED, TORTURE_KILLS, transports=transports, outputs=outputs, points=found)
    changes = preset("plover").changes() | {"trigger": None}
    settings = TortureSettings(clients=6).override(**changes)
    summary = summarize(list(torture(kills, settings)))
    assert summary.violations == ()
    assert summary.clean


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variant": "v12"}, "encoding divergent: expected variant upstream, whose secondary's"),
        ({"transport": "memfd"}, "encoding divergent: expected transport stream or multifd, whose"),
        ({"capture": "copy-then-send"}, "encoding divergent: expected capture stop-and-send, bec"),
    ],
)
def test_what_does_not_go_together_is_refused_with_both_names_and_the_reason(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(LocalError, match=words):
        Settings().override(**(DIVERGENT | settings))
