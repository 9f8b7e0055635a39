"""Gap pre-copy: verified checkpoints with passes between them, and kills during passes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from colobench.errors import LocalError
from colobench.lab.session.session import Session
from colobench.lab.torture.kill_plan import plan, points_of_capture
from colobench.node.breakpoints import PASS_POINTS, points_of
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from pairs import assert_kills_lose_nothing, assert_survived, run_and_write, run_in_a_row
from share import SEED, amount, each_with_some, some

pytestmark = pytest.mark.usefixtures("nothing_left")

CHECKPOINTS = amount(15, 400)
GAP = {"capture": "gap-precopy", "pass_period": 2}
#: Everything that passes have to work with, each at least once.
WAYS: dict[str, dict[str, Any]] = {
    "gap-stream": GAP | {"tracker": "marked"},
    "gap-multifd": GAP | {"transport": "multifd", "multifd_channels": 2, "tracker": "userfault"},
    "gap-memfd": GAP | {"transport": "memfd", "multifd_channels": 2, "tracker": "shadow"},
    "gap-xbzrle": GAP | {"encoding": "xbzrle", "variant": "upstream"},
    "gap-multifd-zstd": GAP | {"transport": "multifd+tcp", "encoding": "zstd"},
    "gap-lz4": GAP | {"encoding": "lz4", "tracker": "mprotect"},
    "gap-compare": GAP | {"output": "compare", "transport": "tcp"},
}
PLAIN = ("gap-stream", "gap-multifd", "gap-memfd")


def session(way: str, **settings: Any) -> Session:
    """Make a session with a small guest that writes a lot."""
    return Session(**({"ram": "8M", "writes_per_tick": 40} | WAYS[way] | settings))


@pytest.fixture
def pair(way: str) -> Iterator[Session]:
    with session(way, delay=None) as pair:
        yield pair


def places() -> list[tuple[str, str]]:
    """Give each point of passes with its holder, and in long runs all points of checkpoints."""
    found = [(role, at) for role in Role for at in PASS_POINTS[role]]
    rest = [
        (role, at)
        for role in Role
        for at in points_of(role, Layout.SEPARATED, Capture.GAP_PRECOPY)
        if (role, at) not in found
    ]
    return [(role.value, at) for role, at in [*found, *some(rest, 0)]]


@pytest.mark.parametrize("way", [PLAIN[0], *some([way for way in WAYS if way != PLAIN[0]], 3)])
def test_checkpoints_verify_equal_with_passes_between_them(way: str) -> None:
    with session(way, delay=12, report_pages=True) as pair:
        records = run_in_a_row(pair, CHECKPOINTS)
        # A busy machine may have had no time for a pass, or nothing for it to send.
        while not any(record.passes for record in records):
            records = run_in_a_row(pair, CHECKPOINTS)
        assert all(record.verified for record in records)
        for record in records:
            assert record.capture == "gap-precopy"
            assert record.bytes > record.pass_bytes
            assert (record.pass_pages > 0) >= (record.passes > 0)
            sent = np.frombuffer(record.dirty_bitmap or b"", np.uint8)
            flushed = np.frombuffer(record.flushed_bitmap or b"", np.uint8)
            assert not np.any(sent & ~flushed)
            assert record.flushed_pages >= record.pages
            if pair.settings.checkpoint.variant == "v12":
                assert record.flushed_pages <= record.pages + record.pass_pages


@pytest.mark.parametrize("way", PLAIN[:1])
def test_pages_of_passes_wait_in_the_cache_for_the_next_checkpoint(way: str) -> None:
    with session(way, delay=None) as pair:
        pair.checkpoint()
        secondary = pair.nodes["secondary"]

        def waiting() -> int:
            return int(secondary.execute("x-query-ram-cache")["pages"])

        number = len(pair.records)
        work = secondary.execute("x-query-guest")["work"]
        pair.wait_for(lambda: waiting() > 0, "pages of a pass", 30.0)
        assert len(pair.records) == number
        assert secondary.execute("x-query-guest")["work"] == work
        record = pair.checkpoint()
        assert record.verified
        assert record.flushed_pages > record.pages


@pytest.mark.parametrize("victim", ["primary", "secondary"])
@pytest.mark.parametrize(
    ("holder", "at", "way"), [(*place, way) for place, way in each_with_some(places(), PLAIN)]
)
def test_node_killed_at_any_point_of_a_pass(
    pair: Session, holder: str, at: str, way: str, victim: str
) -> None:
    run_and_write(pair, 3)
    pair.kill(victim, at=at, held=holder)
    takeover = pair.failover()
    if at.startswith("pass"):
        assert takeover.checkpoint == 3
    assert_survived(pair, takeover, "secondary" if victim == "primary" else "primary")


@pytest.mark.parametrize("kill", range(amount(1, 25)))
@pytest.mark.parametrize("way", PLAIN[:1])
def test_survivor_of_a_random_kill_goes_on_and_gets_a_secondary_again(kill: int, way: str) -> None:
    dice = random.Random(f"{SEED} {kill} {way}")
    victim, survivor = dice.sample(("primary", "secondary"), 2)
    with session(way, delay=dice.choice([5, 20]), seed=kill) as pair:
        pair.run(dice.randrange(1, 10))
        killed = pair.kill(victim)
        takeover = pair.failover()
        assert takeover.checkpoint >= killed.committed
        assert_survived(pair, takeover, survivor)
        pair.rejoin()
        records = pair.run(5)
        assert all(record.verified for record in records)


def test_kills_lose_no_answered_write_and_no_connection() -> None:
    points = points_of_capture(Capture.GAP_PRECOPY)
    kills = plan(SEED, amount(2, 50), points=points)
    assert_kills_lose_nothing(kills, **GAP)


def test_buffered_layout_is_refused_with_both_names_and_the_reason() -> None:
    with pytest.raises(LocalError, match="capture gap-precopy: expected layout separated, whose"):
        Session(capture="gap-precopy", layout="buffered")
