"""The traces in datasets: their sums, and data sheets that follow from the data."""

from __future__ import annotations

import hashlib

import pytest

from colobench.errors import LocalError
from colobench.lab.traces.recorder import interval_times, record, sheet_figures
from colobench.memory.trace import Trace
from places import CLONE

DIRECTORY = CLONE / "datasets" / "traces"
FILES = sorted(DIRECTORY.glob("*.npz"))


def test_there_are_eight_small_files() -> None:
    assert len(FILES) >= 8
    assert max(path.stat().st_size for path in FILES) < 600_000


def test_sums_are_those_of_the_files() -> None:
    found = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in FILES]
    assert (DIRECTORY / "SHA256SUMS").read_text().splitlines() == found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_data_sheet_follows_from_the_data(path) -> None:
    trace = Trace.load(path)
    assert {name: trace.sheet[name] for name in sheet_figures(trace)} == sheet_figures(trace)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_readme_has_command_and_figures_of_each_trace(path) -> None:
    text, sheet = (DIRECTORY / "README.md").read_text(), Trace.load(path).sheet
    assert sheet["command"] in text
    dirty = " | ".join(f"{pages:,.0f}" for pages in sheet["dirty_pages"].values())
    assert f"| `{path.stem}` |" in text
    assert dirty in next(line for line in text.splitlines() if f"| `{path.stem}` |" in line)


def test_an_interval_that_no_trace_has_is_refused_before_the_program_runs(tmp_path) -> None:
    with pytest.raises(LocalError, match="interval_ms: expected 1 to 10000 ms, found 10001"):
        record(["touch", f"{tmp_path}/ran"], interval_ms=10_001)
    assert not (tmp_path / "ran").exists()


def test_a_program_that_waits_for_hours_in_one_interval_has_a_trace() -> None:
    assert interval_times([5, 3 * 3600 * 10**6]).tolist() == [5, 2**32 - 1]
