"""Pairs whose pages travel compressed: checkpoints that verify, and kills at every point."""

from __future__ import annotations

from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.lab.session.session import Session
from colobench.node.breakpoints import PRIMARY_POINTS, SECONDARY_POINTS
from colobench.settings.settings import Settings
from pairs import run_and_write, run_in_a_row
from share import amount, each_with_some, some

pytestmark = pytest.mark.usefixtures("nothing_left")

WAYS: dict[str, dict[str, Any]] = {
    "zstd": {"encoding": "zstd", "variant": "upstream"},
    "lz4+tcp": {"encoding": "lz4", "transport": "tcp"},
    "multifd-zstd": {"encoding": "zstd", "transport": "multifd", "multifd_channels": 2},
    "multifd+tcp-lz4": {"encoding": "lz4", "transport": "multifd+tcp", "variant": "upstream"},
    "buffered-zstd": {"encoding": "zstd", "layout": "buffered", "zstd_level": 3},
    "multifd-zstd-over-a-link": {"encoding": "zstd", "transport": "multifd", "link": "1GbE"},
}
SEPARATED = tuple(way for way in WAYS if "buffered" not in way)
CHECKPOINTS = amount(30, 1000)


def session(way: str, **settings: Any) -> Session:
    return Session(**({"ram": "8M", "writes_per_tick": 40} | WAYS[way] | settings))


@pytest.mark.parametrize("way", WAYS)
def test_compressed_checkpoints_verify_and_send_less(way: str) -> None:
    with session(way, delay=0) as pair:
        records = run_in_a_row(pair, CHECKPOINTS)
        assert all(record.verified for record in records)
        assert sum(record.encoded_pages for record in records) > CHECKPOINTS
        assert sum(record.bytes_saved for record in records) > 0


@pytest.mark.parametrize(("at", "way"), each_with_some(some(PRIMARY_POINTS, 4), SEPARATED))
def test_secondary_takes_over_when_the_primary_is_killed(at: str, way: str) -> None:
    with session(way, delay=None) as pair:
        run_and_write(pair, 2)
        pair.kill("primary", at=at)
        takeover = pair.failover()
        assert takeover.role == "secondary"
        assert takeover.equal in (True, None)
        assert pair.verify()


@pytest.mark.parametrize(("at", "way"), each_with_some(some(SECONDARY_POINTS, 4), SEPARATED))
def test_primary_goes_on_when_the_secondary_is_killed_and_gets_another(at: str, way: str) -> None:
    with session(way, delay=None) as pair:
        run_and_write(pair, 2)
        pair.kill("secondary", at=at)
        assert pair.failover().role == "primary"
        assert pair.verify()
        # A new pair begins without what was compressed before.
        pair.rejoin()
        assert all(record.verified for record in pair.run(2))


@pytest.mark.parametrize("encoding", ["zstd", "lz4"])
def test_memfd_has_nothing_to_compress(encoding: str) -> None:
    with pytest.raises(LocalError, match=f"encoding {encoding}: expected transport stream or mul"):
        Settings().override(encoding=encoding, transport="memfd")
