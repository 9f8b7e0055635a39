"""Maps of disks ask their nodes together, and no longer than the session lasts."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from colobench.block.generation import ImageState
from colobench.errors import LocalError
from colobench.lab.session.disk_layers import NodeDisk
from colobench.lab.session.session import Session
from colobench.ui.base.feed import feeds
from colobench.ui.views import disk_map as module
from colobench.ui.views.disk_map import DiskMap
from feeds import data_of, frame_of


class Watches:
    """A pump whose refreshes are the test's matter."""

    def __init__(self):
        self.views = []

    def add(self, view):
        if view not in self.views:
            self.views.append(view)

    def remove(self, view):
        if view in self.views:
            self.views.remove(view)

    def refresh(self):
        for view in list(self.views):
            view.refresh()


@pytest.fixture
def watches(monkeypatch):
    watches = Watches()
    monkeypatch.setattr(module, "watches", watches)
    return watches


@pytest.fixture
def asked(monkeypatch):
    """Collect the questions to nodes."""
    asked = []
    monkeypatch.setattr(module, "query_disk", lambda *question: asked.append(question))
    return asked


@pytest.fixture
def session(tmp_path):
    """Make a session with a disk, and with a primary that only seems to live."""
    session = Session(ram="4M", disks=[f"{tmp_path}/disk,size=1M"])
    living = SimpleNamespace(alive=lambda: True)
    session.nodes["primary"] = living
    yield session
    session.nodes.clear()


def test_maps_of_one_disk_ask_once_until_the_last_is_closed(watches, session, asked):
    maps = [DiskMap(session) for _ in range(3)]
    asked.clear()
    watches.refresh()
    assert [role for _, role, _ in asked] == ["primary", "secondary"]
    for each in maps[:2]:
        each.close()
    assert len(watches.views) == 1
    maps[2].close()
    assert watches.views == []


def test_maps_ask_no_more_when_the_session_has_ended(watches, session, asked):
    disk_map = DiskMap(session)
    watches.refresh()
    # As a session that starts.
    assert session.state is None
    assert watches.views
    session.nodes["primary"].alive = lambda: False
    watches.refresh()
    assert watches.views == []
    disk_map.close()


def test_the_last_state_is_kept_when_both_nodes_have_ended(watches, session, monkeypatch):
    found = {"primary": NodeDisk(1 << 20, ImageState.IN_USE, ((0, 512),), (), ())}
    monkeypatch.setattr(module, "query_disk", lambda _, role, __: found.get(role))
    disk_map = DiskMap(session)
    before = frame_of(disk_map)
    assert any(data_of(disk_map))
    # A node that answers late has not ended.
    found.clear()
    watches.refresh()
    assert frame_of(disk_map) == before
    session.nodes["primary"].alive = lambda: False
    watches.refresh()
    after = frame_of(disk_map)
    assert after["data"] == before["data"]
    assert after["title"] == f"{before['title']}; both nodes have ended"
    disk_map.close()


@pytest.mark.parametrize(("disks", "number"), [(0, 0), (1, 1), (1, -1)])
def test_a_disk_that_the_guest_lacks_is_refused_in_one_sentence(
    watches, tmp_path, recwarn, disks, number
):
    session = Session(ram="4M", disks=[f"{tmp_path}/disk,size=1M"] * disks)
    open_before = len(feeds.all())
    with pytest.raises(LocalError, match=f"of the guest's {disks}, found number {number}"):
        DiskMap(session, number)
    # What its finalizer raises would be a warning.
    gc.collect()
    assert not list(recwarn)
    assert len(feeds.all()) == open_before
