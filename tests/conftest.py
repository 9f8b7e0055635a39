"""What all tests share: quick hypothesis, and the demand that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from share import SEED, SHARE, amount

UNIT = Path(__file__).parent / "unit"

# The first call of a kernel compiles it; a deadline would measure that.
settings.register_profile("colobench", deadline=None, max_examples=amount(50, 100))
settings.load_profile("colobench")

# Containers often forbid bytecode files. Each of a thousand nodes would compile all modules anew,
# which is a third of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test outside of tests/unit as one of the system, and do these first.

    pytest-xdist gives whole files to its workers in this order. Many short tests at the end keep
    all of them busy, however long the last file of the system takes.
    """
    for item in items:
        if UNIT not in item.path.parents:
            item.add_marker("system")
    items.sort(key=lambda item: UNIT in item.path.parents)


def pytest_report_header() -> str:
    """Say which share of the long runs is done, so that a run can be repeated."""
    return (
        f"long runs: a share of {SHARE:g} (COLOBENCH_LONG), picked by the seed {SEED} "
        "(COLOBENCH_SEED)"
    )


def nodes() -> set[int]:
    """Find the nodes that this process, or a child of it, has started."""
    return {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "colobench.node" in child.cmdline()
    }


@pytest.fixture
def nothing_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail a test that leaves a node or a temporary file behind."""
    # pytest makes its own directory on first use; it shall not do that in this one, which is not
    # inside of it because paths of UNIX sockets must be short.
    tmp_path_factory.getbasetemp()
    directory = tempfile.mkdtemp(prefix="cb-")
    monkeypatch.setattr(tempfile, "tempdir", directory)
    monkeypatch.setenv("TMPDIR", directory)
    yield
    left = os.listdir(directory)
    shutil.rmtree(directory)
    assert nodes() == set()
    assert left == []
