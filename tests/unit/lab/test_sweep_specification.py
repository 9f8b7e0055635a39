"""A sweep's specification is checked whole, and its cells are those of the grid, each once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from colobench.errors import LocalError, RemoteError
from colobench.lab.compare.measure import CellFailed
from colobench.lab.sweep import worker
from colobench.lab.sweep.cells import SweepCell
from colobench.lab.sweep.results import SweepDirectory, SweepResult
from colobench.lab.sweep.run import missing_cells, result_of
from colobench.lab.sweep.specification import read_plan
from colobench.lab.sweep.text import listing, render
from colobench.settings.checkpoint import Capture
from colobench.strategy.triggers import FixedDelay, OnOutput
from measurements import make_measurement

DOCUMENT = Path(__file__).parents[3] / "docs" / "sweep.md"


@pytest.fixture
def plan(tmp_path):
    """Read the plan of a specification that is given as text."""

    def read(text):
        path = tmp_path / "grid.toml"
        path.write_text(text)
        return read_plan(path)

    return read


def test_cells_are_all_combinations_in_interleaved_repetitions(plan):
    found = plan("""
        strategies = ["colo_v12", "multifd"]
        guests = ["hotcold", "sequential"]
        seeds = [1, 2]
        repetitions = 2
        [grid]
        writes_per_tick = [4, 40]
    """)
    assert len(found.cells) == 2 * 2 * 2 * 2 * 2
    assert not found.refused
    assert len({cell.identity for cell in found.cells}) == len(found.cells)
    first = [cell.point for cell in found.cells if cell.repetition == 1]
    assert [cell.point for cell in found.cells if cell.repetition == 2] == first[::-1]
    for cell in found.cells:
        guest = cell.cell.settings.guest
        assert cell.varied == {"writes_per_tick": guest.writes_per_tick, "seed": guest.seed}


def test_a_grid_of_triggers_or_delays_replaces_those_of_the_strategy(plan):
    strategies = "strategies = ['colo_v12,delay=7', 'kemari', 'remus,trigger=dirty']"
    found = plan(f"{strategies}\n[grid]\ntrigger = ['fixed:ms=20', 'output:maximum=50']")
    assert not found.refused
    triggers = [cell.cell.settings.checkpoint.trigger for cell in found.cells]
    assert triggers == [*[FixedDelay(20)] * 3, *[OnOutput(50)] * 3]
    found = plan(f"{strategies}\n[grid]\ndelay = [20, 'none']")
    assert not found.refused
    triggers = [cell.cell.settings.checkpoint.trigger for cell in found.cells]
    assert triggers == [*[FixedDelay(20)] * 3, *[FixedDelay(None)] * 3]
    assert {cell.cell.settings.checkpoint.capture for cell in found.cells} == {
        Capture.STOP_AND_SEND,
        Capture.COPY_THEN_SEND,
    }


def test_grid_goes_before_strategy_and_guest(plan):
    found = plan("""
        strategies = ["colo_v12,delay=7"]
        guests = ["hotcold,ram=8M"]
        [grid]
        delay = [20, 40]
        ram = ["16M"]
    """)
    settings = [cell.cell.settings for cell in found.cells]
    assert [each.checkpoint.delay for each in settings] == [20, 40]
    assert {each.guest.ram_bytes for each in settings} == {16 << 20}


def test_refused_combinations_are_listed_with_the_reason_and_others_run(plan):
    found = plan("""
        strategies = ["colo_v12", "memfd"]
        links = ["local", "1GbE"]
    """)
    assert [str(cell.cell) for cell in found.cells] == [
        "colo_v12 on hotcold over local",
        "memfd on hotcold over local",
        "colo_v12 on hotcold over 1GbE",
    ]
    [(place, reason)] = found.refused
    assert place == "memfd on hotcold over 1GbE"
    assert "expected transport stream or multifd" in reason
    assert f"refused: {place}: {reason}" in listing(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strategies = [}", r"expected the specification of a sweep, found: .*line 1"),
        ("guests = ['kv']", r"strategies: expected at least one, found none"),
        ("strategies = []", r"line 1: strategies: expected at least one"),
        ("strategies = ['colo_v12']\nstrategy = 1", r"line 2: strategy: expected one of strat"),
        ("strategies = ['fast']", r"line 1: strategy: expected one of .*found 'fast'"),
        ("strategies = ['colo_v12', 3]", r"strategies: expected a list of texts"),
        ("strategies = ['colo_v12']\nguests = ['vax']", r"line 2: guest: expected one of"),
        ("strategies = ['colo_v12']\nlinks = ['fast']", r"line 2: link"),
        ("strategies = ['colo_v12']\nseeds = [-1]", r"line 2: seed: expected 0 to 2\*\*64"),
        ("strategies = ['colo_v12']\nrepetitions = 0", r"line 2: repetitions: expected 1 to"),
        ("strategies = ['colo_v12']\ngrid = 3", r"line 2: grid: expected a table, found 3"),
        (
            "strategies = ['colo_v12']\n[grid]\ndelay = [10, 'soon']",
            r"line 3: \[grid\] delay: expected a whole number",
        ),
        ("strategies = ['colo_v12']\n[grid]\ndelay = 10", r"line 3: \[grid\] delay: expected a li"),
        (
            "strategies = ['colo_v12']\n[grid]\nlink = ['1GbE']",
            r"line 3: \[grid\] link: expected it in links",
        ),
        (
            "strategies = ['colo_v12']\n[measurement]\nrounds = 3",
            r"line 3: \[measurement\] rounds: expected one of seconds",
        ),
        (
            "strategies = ['colo_v12']\n[settings]\nram = '4M'\n[measurement]\nseconds = nan",
            r"line 5: \[measurement\] seconds: expected 0\.1 to 100000 s, found nan",
        ),
        ("strategies = ['colo_v12']\n[settings]\nram = '3K'", r"\[settings\] ram: expected"),
        (
            "strategies = ['colo_v12']\n[settings]\nram = '4M'\ndelay = 20",
            r"line 4: \[settings\] delay: expected it in each strategy, such as colo_v12,delay=…",
        ),
        ("strategies = ['memfd']\nlinks = ['1GbE']", r"found all of them refused: link 1GbE"),
        ("strategies = ['colo_v12', 'colo_v12']", r"each cell once, found colo_v12 on"),
        (
            "strategies = ['colo_v12']\nrepetitions = 10000\nseeds = [" + "1," * 11 + "]",
            r"number of cells: expected 1 to 100000, found 110000",
        ),
    ],
)
def test_mistake_is_one_error_with_its_place(plan, text, message):
    with pytest.raises(LocalError, match=message) as caught:
        plan(text)
    assert "grid.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_document_shows_a_specification_that_is_right(plan):
    [text] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert plan(text).cells


def test_cell_reaches_a_worker_as_it_is(plan):
    for cell in plan("strategies = ['colo,delay=20']\nlinks = ['1GbE']\nseeds = [3]").cells:
        again = SweepCell.from_json(cell.to_json())
        assert again.cell == cell.cell
        assert again.identity == cell.identity
        assert again.measurement.of_measurement() == cell.measurement.of_measurement()


@pytest.fixture
def cells(plan):
    """Two cells, one of them with a setting that is None."""
    return plan("strategies = ['colo_v12']\n[grid]\ndelay = ['none', 20]").cells


def result(cell, **figures):
    made = make_measurement(cell.cell, cell.repetition, cell.measurement, **figures)
    return SweepResult.of(cell, made, None, "here:1")


def test_error_of_a_cell_is_its_result_and_is_tried_again_only_if_asked_for(cells, monkeypatch):
    def fail(*arguments, **options):
        raise CellFailed("the cable is cut")

    monkeypatch.setattr(worker, "measure_cell", fail)
    failed = SweepResult.from_json(worker.run_cell("a sweep", cells[0].to_json()))
    assert failed.error == "CellFailed: the cable is cut"
    assert failed.settings == cells[0].cell.settings.as_json()
    results = {failed.cell: failed}
    assert missing_cells(cells, results, retry_failed=False) == [cells[1]]
    assert missing_cells(cells, results, retry_failed=True) == list(cells)


@pytest.mark.parametrize("status", ["error", "cancelled", "lost"])
def test_cell_that_lost_its_workers_has_failed_and_a_lost_scheduler_ends_the_sweep(cells, status):
    future = SimpleNamespace(status=status, exception=lambda: OSError("four workers died"))
    if status == "error":
        found = result_of(future, cells[0])
        assert found.error == "OSError: four workers died"
        assert found.cell == cells[0].identity
    else:
        with pytest.raises(RemoteError, match="the scheduler is gone; the same command goes on"):
            result_of(future, cells[0])


@pytest.mark.parametrize(
    "wrong", [{"cell": ["x"]}, {"varied": 3}, {"error": {}}, {"measurement": []}], ids=str
)
def test_a_damaged_line_is_named(cells, tmp_path, wrong):
    line = json.loads(result(cells[0]).to_json()) | wrong
    with SweepDirectory(tmp_path / "results") as directory:
        directory.append(result(cells[1]))
        with open(directory.path / "cells.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"cell": line.pop("cell"), **line}) + "\n")
        with pytest.raises(LocalError, match=r"cells.jsonl, line 2: expected a result of a sweep"):
            directory.load(cells)


def test_directory_keeps_the_last_result_of_each_cell_and_writes_tables(cells, tmp_path, plan):
    parquet = pytest.importorskip("pyarrow.parquet")
    failed = SweepResult.of(cells[0], None, "no luck", "here:1")
    with SweepDirectory(tmp_path / "results") as directory:
        for each in (failed, result(cells[1]), result(cells[0])):
            directory.append(each)
        found = directory.load(cells)
        assert found == {cell.identity: result(cell) for cell in cells}
        directory.write_tables([failed, found[cells[1].identity]])
        with (
            pytest.raises(LocalError, match="expected no other sweep"),
            SweepDirectory(tmp_path / "results"),
        ):
            pass
        with pytest.raises(LocalError, match="found one of another cell: colo_v12 on hotcold, del"):
            directory.load(plan("strategies = ['multifd']").cells)
    rows = parquet.read_table(tmp_path / "results" / "cells.parquet").to_pylist()
    assert [(row["grid_delay"], row["error"]) for row in rows] == [(None, "no luck"), (20, None)]
    assert [json.loads(row["settings"]) for row in rows] == [
        cell.cell.settings.as_json() for cell in cells
    ]
    checkpoints = parquet.read_table(tmp_path / "results" / "checkpoints.parquet").to_pylist()
    assert {row["cell"] for row in checkpoints} == {cells[1].identity}


def test_table_has_medians_and_what_failed(plan):
    found = plan("strategies = ['colo_v12', 'multifd']\nrepetitions = 3")
    results = {
        cell.identity: result(cell, pause_p50_ms=float(cell.repetition), held=0.9)
        for cell in found.cells
        if cell.cell.strategy == "multifd"
    }
    bad = SweepResult.of(found.cells[0], None, "no luck", "")
    text = render(found, results | {bad.cell: bad})
    assert re.search(r"multifd on hotcold +3 of 3 +2\.00 ms", text)
    assert re.search(r"colo_v12 on hotcold +0 of 3 +– ", text)
    assert "0.900 Gbit/s †" in text
    assert "failed: colo_v12 on hotcold, repetition 1: no luck" in text


def test_help_and_a_check_need_no_dask(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text("strategies = ['colo_v12']")
    program = f"""
import sys, contextlib
from colobench.cli.main import main
assert main(["sweep", {str(path)!r}, "--check"]) == 0
with contextlib.suppress(SystemExit):
    main(["sweep", "--help"])
assert not {{"dask", "distributed", "pyarrow"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
