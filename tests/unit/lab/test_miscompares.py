"""Rates of miscompares: their intervals hold, and the table says what was counted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.miscompares import run as runs
from colobench.lab.miscompares.counts import Miscompares, Run
from colobench.lab.miscompares.dials import DIALS, Dial, dial_of
from colobench.lab.miscompares.rates import PER, exact_interval, rate_of
from colobench.lab.miscompares.run import count_miscompares
from colobench.lab.miscompares.settings import MiscompareSettings
from colobench.settings.settings import Settings

DATASET = Path(__file__).parents[3] / "datasets" / "miscompares"


@pytest.mark.parametrize(
    ("events", "trials", "low", "high"),
    [  # C. Clopper and E. Pearson's interval, from its tables
        (0, 10, 0, 0.3085),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (10, 10, 0.6915, 1),
        (3, 1000, 0.000619, 0.008742),
    ],
)
def test_exact_interval_is_that_of_the_tables(events, trials, low, high):
    assert exact_interval(events, trials) == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=30)
@given(st.integers(1, 2000), st.data())
def test_ends_of_the_interval_leave_a_fortieth_on_each_side(trials, data):
    events = data.draw(st.integers(1, trials))
    low, high = exact_interval(events, trials)

    def probability(p, numbers):
        return math.fsum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in numbers)

    assert low <= events / trials <= high
    if trials <= 200:
        assert probability(low, range(events, trials + 1)) == pytest.approx(0.025, rel=1e-6)
        if events < trials:
            assert probability(high, range(events + 1)) == pytest.approx(0.025, rel=1e-6)


def test_none_seen_still_has_an_upper_end():
    rate = rate_of([0, 0, 0], [1000, 1000, 1000])
    assert rate is not None
    assert rate[:2] == (0, 0)
    assert rate.high == pytest.approx(PER * (1 - 0.025 ** (1 / 3000)))
    assert rate_of([0], [0]) is None


def test_events_that_come_in_one_run_widen_the_interval():
    together, apart = rate_of([90, 0, 0], [1000] * 3), rate_of([30, 30, 30], [1000] * 3)
    assert together is not None
    assert apart is not None
    assert together.rate == apart.rate == pytest.approx(300)
    assert together.low == 0 < apart.low
    assert apart.high < together.high


@pytest.fixture
def counts():
    """Counts of two rounds without a run."""
    return Miscompares(DIALS[:2], MiscompareSettings().override(rounds=2))


def test_table_has_a_row_for_each_dial_that_ran(counts):
    counts.runs += [Run("pure", 1, 1000, 0, 0), Run("pure", 2, 1000, 2, 1)]
    [_, row, *_] = repr(counts).splitlines()
    assert row.split()[:5] == ["pure", "2", "2,000", "2", "10.0"]
    assert row.split()[-1] == "5.00"
    assert DIALS[1].name not in repr(counts)
    assert "2 of 4 runs were done." in repr(counts)


def test_interrupted_count_keeps_its_runs_and_goes_on(counts, monkeypatch):
    asked = []

    def run(dial, number, settings):
        asked.append((number, dial.name))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return Run(dial.name, number, 10, 0, 0)

    monkeypatch.setattr(runs, "_run", run)
    with pytest.raises(KeyboardInterrupt, match="`into` keeps what was counted"):
        runs.count_miscompares(into=counts, progress=lambda done, total: None)
    assert len(counts.runs) == 2
    runs.count_miscompares(into=counts, progress=lambda done, total: None)
    names = [dial.name for dial in DIALS[:2]]
    assert asked == [(1, names[0]), (1, names[1]), (2, names[1]), (2, names[1]), (2, names[0])]


def test_dataset_has_the_rates_of_its_runs_and_its_document_shows_them():
    [path] = DATASET.glob("*.json")
    found = json.loads(path.read_text())
    counts = Miscompares.from_json(found)
    for row in found["dials"]:
        # Settings that came later have their defaults.
        row["settings"] = Settings.from_json(row["settings"]).as_json()
    assert {**found, **counts.as_json()} == found
    assert len(counts.runs) == counts.total
    assert repr(counts) in (DATASET / "README.md").read_text()


def test_each_dial_is_written_with_the_settings_of_its_pair(counts):
    written = json.loads(json.dumps(counts.as_json()))
    for dial, row in zip(counts.dials, written["dials"], strict=True):
        found = Settings.from_json(row["settings"])
        assert found.guest.nondeterminism == dial.nondeterminism
        assert found.checkpoint.output.value == "compare"
        assert found.checkpoint.variant == "upstream"


def test_dials_are_named_or_of_ones_own():
    own = Dial("mine", asks_time=True)
    assert dial_of(own) is own
    assert dial_of("jitter_us 100 µs") in DIALS
    for wrong in ("nothing", None, 5):
        with pytest.raises(LocalError, match="dial: expected one of pure, clock_us 0"):
            count_miscompares([wrong])
