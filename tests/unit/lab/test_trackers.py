"""Trackers side by side: every epoch of each is there, exact, and those that cannot run say why."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

import naive
from colobench.errors import LocalError
from colobench.lab.studies import trackers
from colobench.lab.studies.trackers import Epoch, UnavailableTracker, compare_trackers
from colobench.memory import mprotect
from colobench.memory.tracker_names import TRACKERS


@pytest.mark.parametrize("guest", ["uniform", "hotcold", "sequential"])
def test_all_trackers_name_the_same_pages_in_each_epoch(guest: str) -> None:
    seen: list[tuple[int, int]] = []
    found = compare_trackers(
        "1M", guest, epochs=5, writes=100, progress=lambda *each: seen.append(each)
    )
    epochs = [each for each in found if isinstance(each, Epoch)]
    running = list(dict.fromkeys(each.tracker for each in epochs))
    missing = [each.tracker for each in found if isinstance(each, UnavailableTracker)]
    assert sorted([*running, *missing]) == sorted(TRACKERS)
    assert [(each.epoch, each.tracker) for each in epochs] == [
        (number, name) for number in range(1, 6) for name in running
    ]
    assert all(each.exact for each in epochs)
    assert {len({each.bitmap for each in epochs if each.epoch == n}) for n in range(1, 6)} == {1}
    for each in epochs:
        assert each.pages == len(naive.pages_of(np.frombuffer(each.bitmap, dtype="<u8"))) > 0
        assert each.write_ns >= 0
        assert each.collect_ms > 0
    assert seen == [(done, len(epochs)) for done in range(1, len(epochs) + 1)]


def test_the_cost_of_a_step_is_not_that_of_whoever_else_has_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others, clock = random.Random(1), time.perf_counter_ns
    taken = 0

    def wall_clock() -> int:
        nonlocal taken
        taken += others.choice([0, 10_000_000])
        return clock() + taken

    monkeypatch.setattr(time, "perf_counter_ns", wall_clock)
    found = compare_trackers("1M", epochs=20, writes=2000, trackers=["marked", "shadow"])
    costs = [each.write_ns for each in found if isinstance(each, Epoch)]
    assert len(costs) == 40
    # A step with its share of the others' time would be some thousand ns, and without its own, 0.
    assert min(costs) > 0
    assert np.median(costs) < 2000


@pytest.mark.parametrize(
    ("call", "taken", "cost"), [(9000, 20_000, 1100), (50_000, 20_000, 1200), (8500, 8000, 0)]
)
def test_what_a_call_takes_is_no_part_of_a_step(
    monkeypatch: pytest.MonkeyPatch, call: int, taken: int, cost: int
) -> None:
    run_until = trackers.Machine.run_until

    def timed(machine: trackers.Machine, work: int) -> int:
        begun, nothing_to_do = machine.work > 1, machine.work == work
        run_until(machine, work)
        if not nothing_to_do:
            return taken
        # The first call with nothing to do is made before the first epoch.
        return call if begun or machine in known else known.append(machine) or 8000

    known: list[trackers.Machine] = []
    monkeypatch.setattr(trackers.Machine, "run_until", timed)
    [found] = compare_trackers("1M", epochs=1, writes=10, trackers=["marked"])
    assert isinstance(found, Epoch)
    assert found.write_ns == cost


def test_idle_guest_writes_no_page() -> None:
    epochs = compare_trackers("1M", "idle", epochs=2, writes=10, trackers=["marked", "shadow"])
    assert [(each.pages, each.exact) for each in epochs] == [(0, True)] * 4


def test_tracker_that_names_other_pages_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(tracker: object, into: np.ndarray) -> None:
        """Find nothing."""

    monkeypatch.setattr("colobench.memory.shadow.Shadow._collect", forgetful)
    # What it costs to find out, before a guest runs under it, is another test's.
    monkeypatch.setattr("colobench.memory.shadow.Shadow.try_effect", lambda: "")
    found = compare_trackers("1M", epochs=2, writes=50, trackers=["marked", "shadow"])
    assert [each.exact for each in found] == [True, False] * 2


def test_tracker_that_cannot_run_is_listed_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "max_map_count"
    limit.write_text("10")
    monkeypatch.setattr(mprotect, "MAX_MAP_COUNT", limit)
    seen: list[tuple[int, int]] = []
    missing, *epochs = compare_trackers(
        "1M",
        epochs=2,
        writes=10,
        trackers=["mprotect", "shadow"],
        progress=lambda *each: seen.append(each),
    )
    assert isinstance(missing, UnavailableTracker)
    assert missing.tracker == "mprotect"
    assert "vm.max_map_count is 10" in missing.reason
    assert [each.tracker for each in epochs] == ["shadow"] * 2
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"trackers": ["marked", "soft-dirty"]},
        {"epochs": 0},
        {"writes": 0},
        {"guest": "uneven"},
        {"ram": "1000"},
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(LocalError, match=r"expected .* found"):
        compare_trackers(**wrong)


def test_guests_are_closed_when_nobody_wants_more_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []
    close = trackers.Machine.close
    monkeypatch.setattr(
        trackers.Machine, "close", lambda machine: (closed.append(machine), close(machine))
    )
    epochs = trackers.measure_epochs("1M", "uniform", 3, 10, ["marked", "shadow"])
    next(epochs)
    epochs.close()
    assert len(closed) == 3
