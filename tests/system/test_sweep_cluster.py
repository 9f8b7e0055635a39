"""Sweeps on a local cluster: workers and the sweep itself may be killed; nothing runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from colobench.errors import LocalError
from colobench.lab.sweep import worker
from colobench.lab.sweep.cluster import remote_client
from colobench.lab.sweep.results import SweepDirectory
from colobench.lab.sweep.run import run_cells
from colobench.lab.sweep.specification import read_plan
from measurements import make_measurement

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.usefixtures("nothing_left")

SPECIFICATION = """
strategies = ["colo_v12,delay=10", "memfd,delay=10"]
repetitions = {}
[measurement]
seconds = 0.3
unprotected_seconds = 0.2
[settings]
ram = "8M"
"""
_SECONDS = 120


def said(err: str) -> list[str]:
    """Give the lines of standard error; kernels are compiled in the first run after a change."""
    return [line for line in err.splitlines() if not line.startswith("compiling: ")]


class Sweep:
    """A sweep in a directory, with two workers."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "grid.toml"
        self.results = directory / "grid.results"

    def repeat(self, repetitions: int) -> None:
        self._path.write_text(SPECIFICATION.format(repetitions))

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "colobench", "sweep", str(self._path), "--workers", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TQDM_DISABLE": "1"},
        )

    def finish(self, started: subprocess.Popen[str]) -> None:
        out, err = started.communicate(timeout=_SECONDS)
        assert started.returncode == 0, err
        assert said(err) == []
        assert "pause, p50" in out

    def lines(self) -> list[bytes]:
        path = self.results / "cells.jsonl"
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def wait_a_moment(started: subprocess.Popen[str]) -> None:
    """Wait for something that the sweep will do, and see it end if it fails."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(0.1)
        raise AssertionError(started.communicate())


def worker_in_a_cell(started: subprocess.Popen[str]) -> psutil.Process:
    """Stop a worker whose cell has a node, so that the cell does not end."""
    while True:
        for child in psutil.Process(started.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "colobench.node" in child.cmdline():
                    worker = child.parent()
                    assert worker is not None
                    worker.suspend()
                    # The cell may have ended meanwhile.
                    if child.status() != psutil.STATUS_ZOMBIE:
                        return worker
                    worker.resume()
        wait_a_moment(started)


def kill(process: psutil.Process) -> None:
    """Kill a process, and see all end that it had started."""
    children = process.children(recursive=True)
    assert children
    process.kill()
    _, alive = psutil.wait_procs(children, timeout=_SECONDS)
    assert alive == []


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_killed_workers_cell_runs_elsewhere_and_a_killed_sweep_runs_nothing_twice(sweep):
    sweep.repeat(1)
    with sweep.start() as started:
        worker = worker_in_a_cell(started)
        kill(worker)
        sweep.finish(started)
    first = sweep.lines()
    assert len(first) == 2
    assert not [line for line in first if json.loads(line)["worker"].endswith(f":{worker.pid}")]

    # More cells than workers, so that it is not over with the first of them.
    sweep.repeat(3)
    with sweep.start() as started:
        while len(sweep.lines()) == 2:
            wait_a_moment(started)
        kill(psutil.Process(started.pid))
    before = sweep.lines()
    assert before[:2] == first
    with sweep.start() as started:
        sweep.finish(started)
    after = sweep.lines()
    assert after[: len(before)] == before
    assert len({json.loads(line)["cell"] for line in after}) == len(after) == 6
    rows = parquet.read_table(sweep.results / "cells.parquet").to_pylist()
    assert sorted((row["strategy"], row["round"]) for row in rows) == sorted(
        (strategy, number)
        for strategy in ("colo_v12,delay=10", "memfd,delay=10")
        for number in (1, 2, 3)
    )
    of_another = sweep.results / "workers" / "mine"
    of_another.mkdir(parents=True)
    with sweep.start() as started:
        sweep.finish(started)
    assert sweep.lines() == after
    names = {each.name for each in sweep.results.iterdir()}
    assert names == {"cells.jsonl", "cells.parquet", "checkpoints.parquet", "workers"}
    assert of_another.exists()


def test_interrupted_sweep_says_how_to_go_on_and_leaves_no_process(sweep):
    sweep.repeat(1)
    with sweep.start() as started:
        worker = worker_in_a_cell(started)
        children = psutil.Process(started.pid).children(recursive=True)
        # A terminal's Ctrl-C reaches the workers, too.
        for each in children:
            # A node of the other worker may have ended.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "colobench.node" not in each.cmdline():
                    each.send_signal(signal.SIGINT)
        started.send_signal(signal.SIGINT)
        worker.resume()
        _, err = started.communicate(timeout=_SECONDS)
    assert started.returncode == 130
    [sentence] = said(err)
    assert sentence.startswith("colobench sweep: interrupted: ")
    assert "of 2 cells have run and are in" in sentence
    _, alive = psutil.wait_procs(children, timeout=_SECONDS)
    assert alive == []


@pytest.fixture
def scheduler(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the address of a scheduler with a worker in this process, of so many threads."""
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=request.param,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.mark.parametrize("scheduler", [1], indirect=True)
def test_workers_of_a_scheduler_that_runs_measure_each_cell(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(
        worker, "measure_cell", lambda cell, *rest, watch: make_measurement(cell, *rest)
    )
    path = tmp_path / "grid.toml"
    path.write_text(SPECIFICATION.format(2))
    cells, done = read_plan(path).cells, []
    with SweepDirectory(tmp_path / "results") as directory, remote_client(scheduler) as client:
        run_cells(client, cells, directory, done.append)
        found = directory.load(cells)
    assert found.keys() == {cell.identity for cell in cells}
    assert sorted(done, key=lambda each: each.cell) == [found[each] for each in sorted(found)]
    assert not [each.error for each in done if each.error]


@pytest.mark.parametrize("scheduler", [2], indirect=True)
def test_worker_that_would_measure_two_cells_at_a_time_is_refused(scheduler):
    with (
        pytest.raises(LocalError, match=r"one thread .*found 2 threads"),
        remote_client(scheduler),
    ):
        pass
