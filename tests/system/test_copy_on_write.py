"""Copy-on-write: the guest runs on from the cut, and copies a page before it writes to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.lab.session.session import Session
from colobench.lab.torture.kill_plan import plan, points_of_capture
from colobench.memory.ram import PAGE_SIZE
from colobench.node.breakpoints import COPY_POINTS, points_of
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from pairs import assert_kills_lose_nothing, assert_survived, copies, run_in_a_row
from share import LONG, SEED, amount, each_with_some, some

pytestmark = pytest.mark.usefixtures("nothing_left")

CHECKPOINTS = amount(25, 1000)
TORTURE_KILLS = amount(3, 50)
CAPTURE = Capture.COPY_ON_WRITE
#: Everything that the capture has to work with.
WAYS: dict[str, dict[str, Any]] = {
    "stream": {},
    "multifd": {"transport": "multifd", "multifd_channels": 2},
    "memfd": {"transport": "memfd", "multifd_channels": 2},
    "xbzrle": {"encoding": "xbzrle", "variant": "upstream"},
    "zstd": {"transport": "multifd+tcp", "encoding": "zstd"},
    "buffered": {"layout": "buffered", "transport": "tcp"},
}
SEPARATED = tuple(way for way in WAYS if "layout" not in WAYS[way])
#: Without the points that it shares with a checkpoint that is copied before the guest runs.
PRIMARY_POINTS = points_of(Role.PRIMARY, Layout.SEPARATED, CAPTURE)
OWN_POINTS = PRIMARY_POINTS if LONG else COPY_POINTS[CAPTURE]
SECONDARY_POINTS = some(points_of(Role.SECONDARY, Layout.SEPARATED, CAPTURE), 2)


def session(way: str, **settings: Any) -> Session:
    """Make a session with a guest that writes the same pages again and again."""
    usual = {"ram": "8M", "guest": "hotcold", "writes_per_tick": 200}
    return Session(**(usual | {"strategy": "cow"} | WAYS[way] | settings))


@pytest.fixture
def pair(way: str) -> Iterator[Session]:
    with session(way, delay=None) as pair:
        yield pair


def at_each(points: Any) -> pytest.MarkDecorator:
    """Parametrize a test by points and some of the ways."""
    return pytest.mark.parametrize(("at", "way"), each_with_some(points, SEPARATED))


@pytest.mark.parametrize("way", some(tuple(WAYS), 3))
def test_checkpoints_in_a_row_verify_equal_and_the_guest_waits_for_no_copy(way: str) -> None:
    with session(way, delay=0) as pair:
        records = run_in_a_row(pair, CHECKPOINTS)
        assert all(record.verified for record in records)
        assert sum(record.pages for record in records) > CHECKPOINTS
        for record in records:
            assert record.ram_ms == record.received_ms == record.flush_ms == record.load_ms == 0
            assert record.pause_ms < record.commit_ms < record.loaded_ms


@pytest.mark.parametrize("way", ["stream"])
def test_page_that_is_written_while_the_checkpoint_is_held_is_sent_as_it_was(pair: Session) -> None:
    pair.checkpoint()
    primary = pair.nodes["primary"]

    def wait_for_writes(count: int) -> None:
        work = primary.execute("x-query-guest")["work"]
        pair.wait_for(
            lambda: primary.execute("x-query-guest")["work"] > work + count, "writes", 30.0
        )

    def held_while_the_guest_writes() -> int:
        """Hold a checkpoint before a page of it is copied until the guest has written all again."""
        # Else a guest that has not run since the last checkpoint would leave no page to copy.
        wait_for_writes(2_000)
        number = pair.hold("primary", "resumed")
        wait_for_writes(20_000)
        return number

    number = held_while_the_guest_writes()
    pair.go_on("primary")
    pair.wait_for(lambda: len(pair.records) == number, "the checkpoint", 30.0)
    assert pair.records[-1].verified
    # The second one knows that the guest has copied pages for the first.
    second = pair.checkpoint()
    assert second.verified
    memory = sum(pair.settings.guest.block_sizes().values())
    assert second.primary_buffer_bytes - second.device_bytes - memory >= 100 * PAGE_SIZE
    # With the secondary gone, the guest goes on through frozen pages, and nothing stays behind.
    held_while_the_guest_writes()
    pair.kill("secondary")
    assert_survived(pair, pair.failover(), "primary")
    assert copies(primary.pid) == 0
    pair.rejoin()
    assert all(pair.checkpoint().verified for _ in range(3))
    assert copies(primary.pid) > 0


@at_each(OWN_POINTS)
def test_primary_killed_at_any_point_of_a_checkpoint(pair: Session, at: str, way: str) -> None:
    pair.run(3)
    assert pair.kill("primary", at=at).status == -signal.SIGKILL
    takeover = pair.failover()
    if at != "sent":
        # With all sent, the secondary may or may not have committed.
        assert takeover.checkpoint == 3 + (at in ("received", "loaded"))
    assert_survived(pair, takeover, "secondary")


@at_each(OWN_POINTS)
def test_secondary_killed_at_any_point_of_the_primarys_checkpoint(
    pair: Session, at: str, way: str
) -> None:
    pair.run(3)
    pair.kill("secondary", at=at, held="primary")
    takeover = pair.failover()
    assert takeover.checkpoint - 3 in (0, at in ("sent", "received", "loaded"))
    assert_survived(pair, takeover, "primary")


@at_each(SECONDARY_POINTS)
@pytest.mark.parametrize("victim", ["primary", "secondary"])
def test_either_killed_at_any_point_of_the_secondarys_checkpoint(
    pair: Session, at: str, victim: str, way: str
) -> None:
    pair.run(3)
    pair.kill(victim, at=at, held="secondary")
    takeover = pair.failover()
    committed = victim == "primary" and at in ("received", "flush", "load")
    assert takeover.checkpoint == 3 + committed
    assert_survived(pair, takeover, "secondary" if victim == "primary" else "primary")


def test_kills_lose_no_answered_write_and_no_connection() -> None:
    points = points_of_capture(CAPTURE)
    kills = plan(SEED, TORTURE_KILLS, outputs=("buffer",), points=points)
    assert_kills_lose_nothing(kills, capture="copy-on-write")


@pytest.mark.parametrize("tracker", ["userfault", "shadow", "mprotect"])
def test_tracker_that_protects_pages_by_the_kernel_is_refused_with_the_reason(tracker: str) -> None:
    with pytest.raises(
        LocalError, match=f"capture copy-on-write: expected tracker marked, .*, found {tracker}"
    ):
        Session(strategy="cow", tracker=tracker)


def test_output_that_is_compared_is_refused_with_both_names_and_the_reason() -> None:
    with pytest.raises(LocalError, match="capture copy-on-write: expected output buffer, because"):
        Session(strategy="cow", output="compare")
