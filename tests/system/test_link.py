"""Pairs over a link: checkpoints that verify, no faster than the link, and kills as without one."""

from __future__ import annotations

from typing import Any

import pytest

from colobench.lab.report.run_summary import format_summary
from colobench.lab.session.link_use import HELD_SHARE, DirectionUse, LinkUse
from colobench.lab.session.session import Session
from colobench.node.breakpoints import PRIMARY_POINTS, SECONDARY_POINTS
from colobench.settings.link import PRESETS
from pairs import run_and_write
from share import amount, each_with_some, some

pytestmark = pytest.mark.usefixtures("nothing_left")

WAYS: dict[str, dict[str, Any]] = {
    "stream": {"transport": "stream"},
    "stream+tcp": {"transport": "stream+tcp"},
    "multifd": {"transport": "multifd", "multifd_channels": 2},
    "multifd+tcp": {"transport": "multifd+tcp", "multifd_channels": 2},
    "buffered": {"layout": "buffered"},
    "xbzrle": {"encoding": "xbzrle"},
    "compare": {"output": "compare", "guest": "kv", "hostfwd": "tcp:127.0.0.1:0-:6379"},
}
LINKS = ("1GbE", "rate=300M,delay=2ms,jitter=1ms")
CHECKPOINTS = amount(20, 200)


def session(link: str, **settings: Any) -> Session:
    return Session(**({"ram": "8M", "writes_per_tick": 40, "link": link} | settings))


@pytest.mark.parametrize(("way", "link"), each_with_some(tuple(WAYS), LINKS))
def test_checkpoints_over_a_link_verify_and_wait_for_their_bytes(way: str, link: str) -> None:
    with session(link, delay=5, **WAYS[way]) as pair:
        records = pair.run(CHECKPOINTS)
        assert all(record.verified for record in records)
        properties = pair.settings.link.link
        for record in records:
            least = record.bytes * 8 / properties.rate * 1000 + 2 * properties.delay_us / 1000
            assert record.pause_ms >= least
        use = pair.link_use()
        assert use is not None
        assert use.directions[0].bytes >= sum(record.bytes for record in records)
        assert use.directions[1].bytes > 0
        assert use.held_rate is None or use.held_rate <= use.rate


def test_nodes_that_are_connected_directly_have_no_link() -> None:
    with session("local", delay=5) as pair:
        assert "link" not in pair.others
        assert pair.link_use() is None


def at_some(points: Any) -> pytest.MarkDecorator:
    ways = ("stream", "multifd+tcp", "multifd")
    return pytest.mark.parametrize(("at", "way"), each_with_some(some(points, 4), ways))


@at_some(PRIMARY_POINTS)
def test_secondary_takes_over_when_the_primary_is_killed_across_a_link(at: str, way: str) -> None:
    with session("rate=300M,delay=2ms", delay=None, **WAYS[way]) as pair:
        run_and_write(pair, 2)
        pair.kill("primary", at=at)
        takeover = pair.failover()
        assert takeover.role == "secondary"
        assert takeover.equal is True
        assert pair.verify()


@at_some(SECONDARY_POINTS)
def test_primary_goes_on_when_the_secondary_is_killed_across_a_link(at: str, way: str) -> None:
    with session("rate=300M,delay=2ms", delay=None, **WAYS[way]) as pair:
        run_and_write(pair, 2)
        pair.kill("secondary", at=at)
        assert pair.failover().role == "primary"
        assert pair.verify()


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_survivors_get_new_secondaries_over_the_same_link(role: str) -> None:
    with session("10GbE", delay=5, heartbeat_limit=3000, **WAYS["multifd"]) as pair:
        for _ in range(amount(2, 5)):
            before = pair.link_use()
            pair.run(2)
            pair.kill(role)
            pair.takeover()
            pair.rejoin()
            assert all(record.verified for record in pair.run(3))
            use = pair.link_use()
            assert use is not None
            assert before is not None
            # All of the guest crossed it again.
            assert use.since(before).directions[0].bytes > 0


def test_one_node_serves_when_the_link_dies_and_a_new_link_brings_a_secondary() -> None:
    with session("10GbE", delay=5, heartbeat_limit=3000) as pair:
        pair.run(2)
        dead = pair.others["link"]
        dead.kill()
        pair.journal.wait_for(
            lambda: any(pair.journal.entries("X_COLO_TAKEOVER")), "a takeover", 60.0, lambda _: None
        )
        killed = pair.found_dead()
        assert killed is not None
        assert killed.refused
        pair.takeover()
        pair.rejoin()
        assert pair.others["link"] is not dead
        assert all(record.verified for record in pair.run(3))


def of_seconds(sending: float, lost: float) -> LinkUse:
    uses = (DirectionUse("P→S", 10**9, sending, lost, 10, 1e-3), DirectionUse("S→P", 9, 0, 0, 1, 0))
    return LinkUse("10GbE", PRESETS["10GbE"].rate, uses)


def test_a_result_whose_link_was_not_held_is_marked() -> None:
    held, not_held = of_seconds(1.0, 0.02), of_seconds(1.0, 0.05)
    assert held.held
    assert "NOT HELD" not in format_summary({"link": held.as_json()})
    assert not_held.held is False
    assert not_held.held_rate == pytest.approx(1e10 / 1.05)
    assert not_held.held_rate < HELD_SHARE * 1e10
    assert "NOT HELD within 3 %" in format_summary({"link": not_held.as_json()})
    assert of_seconds(0.001, 0.0).held is None
