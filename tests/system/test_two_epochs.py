"""Two open epochs: the guest is cut again while a checkpoint travels, and no two epochs mix."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.lab.session.session import Session
from colobench.lab.torture.kill_plan import plan, points_of_capture
from colobench.lab.torture.kill_results import summarize
from colobench.lab.torture.run import torture
from colobench.lab.torture.settings import TortureSettings
from colobench.node.breakpoints import TWO_OPEN_POINTS, points_of
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from pairs import run_in_a_row
from share import SEED, amount, each_with_some, some

pytestmark = pytest.mark.usefixtures("nothing_left")

CHECKPOINTS = amount(20, 1000)
TORTURE_KILLS = amount(2, 50)
CAPTURE = Capture.TWO_EPOCHS
#: Everything that the capture has to work with.
WAYS: dict[str, dict[str, Any]] = {
    "stream": {},
    "multifd": {"transport": "multifd", "multifd_channels": 2},
    "xbzrle": {"encoding": "xbzrle", "variant": "upstream"},
    "zstd": {"transport": "multifd+tcp", "encoding": "zstd"},
    "lz4": {"transport": "tcp", "encoding": "lz4"},
}
POINTS = {role: points_of(role, Layout.SEPARATED, CAPTURE) for role in Role}
#: Points at which no more than one epoch need be open, and those that are of two.
ONE_OPEN = tuple(each for each in POINTS[Role.PRIMARY] if each not in TWO_OPEN_POINTS)
HOLDERS = [
    *(("primary", at) for at in some(ONE_OPEN, 1)),
    *(("primary", at) for at in some(tuple(TWO_OPEN_POINTS), 1)),
    *(("secondary", at) for at in some(POINTS[Role.SECONDARY], 1)),
]


def session(way: str, **settings: Any) -> Session:
    """Make a session with a guest that writes the same pages again and again."""
    usual = {"ram": "8M", "guest": "hotcold", "writes_per_tick": 200}
    return Session(**(usual | {"strategy": "cow2", "delay": 0} | WAYS[way] | settings))


def assert_survived(pair: Session, role: str) -> None:
    """Let a node take over, and hold it to everything that can be known of it."""
    takeover = pair.failover()
    assert takeover.role == role
    assert takeover.work_after > takeover.work_at_takeover
    if role == "secondary" and pair.settings.checkpoint.variant == "v12":
        assert takeover.equal is True
    assert pair.verify(role)


@pytest.mark.parametrize("way", some(tuple(WAYS), 2))
def test_checkpoints_in_a_row_verify_equal_while_two_are_open(way: str) -> None:
    with session(way) as pair:
        records = run_in_a_row(pair, CHECKPOINTS)
        assert all(record.verified for record in records)
        assert sum(record.pages for record in records) > CHECKPOINTS
        for record in records:
            assert record.ram_ms == record.received_ms == record.flush_ms == record.load_ms == 0
            assert record.pause_ms < record.commit_ms < record.loaded_ms
        cuts = [dict(record.primary_marks)["stop"] for record in records]
        loads = [dict(record.primary_marks)["loaded"] for record in records]
        # The next one is cut before a checkpoint is loaded, and no third one.
        assert any(cut < load for cut, load in zip(cuts[1:], loads, strict=False))
        assert all(cut > load for cut, load in zip(cuts[2:], loads, strict=False))


@pytest.mark.parametrize(
    ("holder", "at", "way"),
    [(holder, at, way) for (holder, at), way in each_with_some(HOLDERS, tuple(WAYS))],
)
@pytest.mark.parametrize("victim", ["primary", "secondary"])
def test_either_killed_at_any_point_of_either_epoch(
    holder: str, at: str, way: str, victim: str
) -> None:
    with session(way) as pair:
        pair.run(2)
        assert pair.kill(victim, at=at, held=holder).status == -signal.SIGKILL
        assert_survived(pair, "secondary" if victim == "primary" else "primary")


def test_secondary_with_pages_of_the_next_epoch_has_the_last_one_exactly() -> None:
    with session("stream", delay=None) as pair:
        pair.run(1)
        # One is whole and not committed, the next is cut, and its first half is on its way.
        first = pair.hold("secondary", "buffer-received")
        assert pair.hold("primary", "two-open-ram") == first + 1
        pair.kill("primary")
        takeover = pair.failover()
        assert (takeover.checkpoint, takeover.equal) == (first - 1, True)
        assert pair.verify("secondary")


def test_survivor_writes_to_pages_of_both_epochs_and_can_be_protected_again() -> None:
    with session("multifd", delay=None) as pair:
        first = pair.hold("secondary", "ram-received")
        assert pair.hold("primary", "two-open-frozen") == first + 1
        pair.kill("secondary")
        assert_survived(pair, "primary")
        pair.rejoin()
        assert all(pair.checkpoint().verified for _ in range(3))


def test_kills_lose_no_answered_write_and_no_connection() -> None:
    points = points_of_capture(CAPTURE)
    transports = ("stream", "multifd")
    kills = plan(SEED, TORTURE_KILLS, transports=transports, outputs=("buffer",), points=points)
    settings = TortureSettings(clients=6).override(capture=CAPTURE)
    summary = summarize(list(torture(kills, settings)))
    assert summary.violations == ()
    assert summary.clean
    assert summary.operations > 0


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"tracker": "userfault"}, "tracker marked, whose guest looks .*, found userfault"),
        ({"output": "compare"}, "output buffer, because .*, found compare"),
        ({"transport": "memfd"}, "transport stream or multifd, whose pages travel; .* memfd"),
        ({"layout": "buffered"}, "layout separated, whose pages can be sent in parts"),
    ],
)
def test_value_that_does_not_go_with_two_epochs_is_refused_with_the_reason(
    other: dict[str, str], words: str
) -> None:
    with pytest.raises(LocalError, match=f"capture copy-on-write-2: expected {words}"):
        Session(strategy="cow2", **other)


def test_epochs_are_cut_at_the_interval_and_not_two_at_once() -> None:
    with session("stream", delay=300, verify=False) as pair:
        records = pair.run(5)
        cuts = [record.time for record in records]
        # The grid's points are 0.3 s apart, and a cut comes at its point or later.
        assert all(late - early > 0.2 for early, late in zip(cuts[:-2], cuts[2:], strict=True))
        assert all(record.cause == "timer" for record in records)
