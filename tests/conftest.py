"""What all tests share: quick hypothesis, and the demand that nothing is left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

# The first call of a kernel compiles it; a deadline would measure that.
settings.register_profile("colobench", deadline=None)
settings.load_profile("colobench")


def nodes() -> set[int]:
    """Find the nodes that this process, or a child of it, has started."""
    return {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "colobench.node" in child.cmdline()
    }


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a node or a session's directory behind."""
    before = set(Path(tempfile.gettempdir()).glob("colobench-session-*"))
    yield
    assert nodes() == set()
    assert set(Path(tempfile.gettempdir()).glob("colobench-session-*")) <= before
