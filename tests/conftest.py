"""What all tests share: quick hypothesis, and the demand that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from share import SEED, SHARE, amount

UNIT = Path(__file__).parent / "unit"

# The first call of a kernel compiles it; a deadline would measure that.
settings.register_profile("colobench", deadline=None, max_examples=amount(30, 100))
settings.load_profile("colobench")

# Containers often forbid bytecode files. Each of a thousand nodes would compile all modules anew,
# which is a third of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


#: Files whose tests take turns, and in how many days each of them has one. Together they take more
#: than half of the time that a run of all tests may take.
TURNS = {
    "test_append_only_file.py": 2,
    "test_bench.py": 2,
    "test_cli.py": 2,
    "test_compare.py": 2,
    "test_copy_on_write.py": 2,
    "test_disks.py": 2,
    "test_divergent.py": 2,
    "test_failover_story.py": 2,
    "test_kernels_jit.py": 2,
    "test_latency.py": 2,
    "test_link.py": 2,
    "test_notebooks_browser.py": 3,
    "test_serving.py": 3,
    "test_session.py": 2,
    "test_strategies.py": 2,
    "test_supervise.py": 3,
    "test_sweep_cluster.py": 2,
    "test_torture.py": 3,
    "test_ui_cockpit.py": 2,
    "test_ui_cockpit_pages.py": 2,
    "test_ui_comparison.py": 2,
    "test_ui_live_views.py": 3,
    "test_ui_stepper.py": 2,
}
#: Variable that tells the workers of pytest-xdist that tests take turns.
TAKE_TURNS = "COLOBENCH_TURNS"


def pytest_configure(config: pytest.Config) -> None:
    """Have tests take turns if all of them were asked for, and no long run: not one by name."""
    if hasattr(config, "workerinput"):
        return
    os.environ.pop(TAKE_TURNS, None)
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if everything and not config.option.keyword and not SHARE:
        os.environ[TAKE_TURNS] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test outside of tests/unit as one of the system, and do these first.

    pytest-xdist gives whole files to its workers in this order. Many short tests at the end keep
    all of them busy, however long the last file of the system takes.
    """
    for item in items:
        if UNIT not in item.path.parents:
            item.add_marker("system")
    items.sort(key=lambda item: UNIT in item.path.parents)
    if TAKE_TURNS in os.environ:
        places: Counter[str] = Counter()
        todays, others = [], []
        for item in items:
            name = item.path.name
            places[name] += 1
            (others if (places[name] + SEED) % TURNS.get(name, 1) else todays).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = todays


def pytest_report_header() -> str:
    """Say which share of the long runs is done, so that a run can be repeated."""
    return (
        f"long runs: a share of {SHARE:g} (COLOBENCH_LONG), picked by the seed {SEED} "
        "(COLOBENCH_SEED)"
    )


def nodes() -> set[int]:
    """Find the nodes that this process, or a child of it, has started."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        # Another child, such as one of a browser's, may end just now.
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "colobench.node" in child.cmdline():
                found.add(child.pid)
    return found


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
