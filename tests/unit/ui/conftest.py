"""Fixtures of the views' tests."""

from __future__ import annotations

import pytest

from colobench.ui.base import feed
from colobench.ui.base.feed import Pace


@pytest.fixture(autouse=True)
def allowance_of_its_own(monkeypatch):
    """Give each test all bytes that may be sent in a second, whatever the tests before sent."""
    monkeypatch.setattr(feed, "pace", Pace())
