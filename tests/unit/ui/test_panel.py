"""A panel says what failed, and leaves nothing behind when it is closed."""

from __future__ import annotations

import pytest

from colobench.ui.base.pump import Pump, frames
from colobench.ui.panels import cockpit as cockpit_module
from colobench.ui.panels.cockpit import Cockpit


@pytest.fixture
def still(monkeypatch):
    """Let the test say when something is refreshed."""
    monkeypatch.setattr(Pump, "add", lambda pump, view: None)


def refresh(view):
    """Refresh a view as its pump does."""
    frames._refresh(view)


def test_a_panel_that_cannot_be_refreshed_says_so_and_is_refreshed_again(still, monkeypatch):
    cockpit = Cockpit(ram="8M")
    with monkeypatch.context() as broken:
        broken.setattr(cockpit, "_draw", lambda: 1 / 0)
        refresh(cockpit)
    assert "It failed: ZeroDivisionError" in cockpit.status.value
    refresh(cockpit)
    assert "It failed" not in cockpit.status.value
    cockpit.overlay.active = lambda: ["one"]
    stopped = []
    cockpit.overlay.stop = lambda: stopped.append(True)
    with monkeypatch.context() as unseen:
        unseen.setattr(cockpit_module, "is_unseen", lambda: True)
        unseen.setattr(cockpit, "_draw", lambda: None)
        unseen.setattr(cockpit, "update", lambda: None)
        refresh(cockpit)
    assert stopped
    del cockpit.overlay.active, cockpit.overlay.stop
    cockpit.close()
