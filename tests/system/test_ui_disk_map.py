"""The map of a disk shows the layers of both sides, and what a takeover undoes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from colobench.lab.session.disk_layers import query_disk
from colobench.lab.session.session import Session
from colobench.ui.views.disk_map import KEPT, LAYERS, OWN, UNDONE, WRITTEN, DiskMap
from feeds import data_of
from sector_pair import DISK_BYTES, pair

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0


def layers(disk_map: DiskMap) -> dict[str, np.ndarray]:
    """Give what the map shows of each layer."""
    disk_map.refresh()
    disk_map.feed._sent = float("-inf")
    disk_map.feed.tend()
    squares = np.frombuffer(data_of(disk_map), np.uint8).reshape(len(LAYERS), -1)
    return dict(zip(LAYERS, squares, strict=True))


def wait_for_writes(session: Session, role: str, layer: str) -> None:
    def written() -> bool:
        disk = query_disk(session, role)
        return disk is not None and len(getattr(disk, layer)) > 2

    session.wait_for(written, f"writes in {layer} of the {role}", WAIT)


def test_it_shows_the_layers_and_what_a_takeover_undoes(tmp_path: Path) -> None:
    with pair(tmp_path, delay=None) as session:
        disk_map = DiskMap(session)
        try:
            wait_for_writes(session, "secondary", "hidden")
            assert (layers(disk_map)["primary's disk"] == WRITTEN).any()
            # Nothing is written any more.
            session.hold("primary", "stop")
            shown = layers(disk_map)
            assert all(len(squares) == DISK_BYTES // 512 for squares in shown.values())
            # Writes that are under way may come later.
            newer = shown["secondary's disk"] == WRITTEN
            assert newer.any()
            assert np.array_equal(newer, shown["secondary: hidden layer"] == KEPT)
            assert not shown["secondary: active layer"].any()
            assert "would undo" in disk_map.feed.frame["title"]
            session.kill("primary")
            session.failover()
            shown = layers(disk_map)
            assert (shown["secondary's disk"][newer] == UNDONE).all()
            assert not shown["secondary: hidden layer"].any()
            assert "primary's image: none" in disk_map.feed.frame["title"]
        finally:
            disk_map.close()


def test_it_shows_what_the_secondarys_own_guest_writes(tmp_path: Path) -> None:
    with pair(tmp_path, delay=None, variant="upstream") as session:
        disk_map = DiskMap(session)
        try:
            session.run(1)
            wait_for_writes(session, "secondary", "active")
            assert (layers(disk_map)["secondary: active layer"] == OWN).any()
        finally:
            disk_map.close()


def test_a_checkpoint_empties_the_layers(tmp_path: Path) -> None:
    with pair(tmp_path, delay=None) as session:
        wait_for_writes(session, "secondary", "hidden")
        # The primary's guest stands still until the checkpoint is loaded.
        session.hold("secondary", "load")
        disk = query_disk(session, "secondary")
        assert disk is not None
        assert disk.follows
        assert (disk.hidden, disk.active) == ((), ())
        session.go_on("secondary")
