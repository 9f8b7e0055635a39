"""Traces: what is written is read again, nothing in a file is trusted, and D(T)."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from colobench.errors import LocalError
from colobench.memory import trace as trace_module
from colobench.memory.dirty_curve import dirty_at, dirty_curve, distinct_pages, window_lengths
from colobench.memory.trace import Trace
from traces import Writes, drawn_writes, trace_of

ARRAYS = ("runs_per_interval", "cpu_us", "wall_us", "first_pages", "lengths")


def archive(sheet: Any, **arrays: Any) -> bytes:
    """Make a file as anybody could, of arrays of any kind."""
    written = io.BytesIO()
    np.savez(written, sheet=np.frombuffer(json.dumps(sheet).encode(), np.uint8), **arrays)
    return written.getvalue()


def parts(trace: Trace) -> tuple[dict[str, Any], dict[str, Any]]:
    sheet = dict(trace.sheet) | {"format": trace_module.FORMAT, "digest": trace.digest()}
    return sheet, {name: getattr(trace, name) for name in ARRAYS}


@given(drawn_writes(), st.integers(1, 100))
def test_trace_that_is_written_is_read_again(writes: Writes, interval_ms: int) -> None:
    trace = trace_of(writes, interval_ms)
    found = Trace.from_bytes(trace.to_bytes())
    assert found.digest() == trace.digest()
    assert found.interval_ms == interval_ms
    pages, intervals = found.page_writes()
    assert list(zip(pages.tolist(), intervals.tolist(), strict=True)) == [
        (page, number) for number, each in enumerate(writes) for page in each
    ]


@given(drawn_writes())
def test_file_is_read_by_numpy_alone(writes: Writes) -> None:
    trace = trace_of(writes)
    with np.load(io.BytesIO(trace.to_bytes()), allow_pickle=False) as found:
        assert all((found[name] == getattr(trace, name)).all() for name in ARRAYS)
        assert json.loads(bytes(found["sheet"]))["mappings"] == trace.sheet["mappings"]


@given(st.binary(max_size=300))
def test_garbage_is_one_typed_error(data: bytes) -> None:
    with pytest.raises(LocalError, match="expected"):
        Trace.from_bytes(data)


@given(st.data())
def test_damaged_file_is_a_trace_or_one_typed_error(data: st.DataObject) -> None:
    encoded = bytearray(trace_of([[1, 2], [], [7]]).to_bytes())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        found = Trace.from_bytes(bytes(encoded))
    except LocalError:
        return
    assert found.digest() == trace_of([[1, 2], [], [7]]).digest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"first_pages": [2**32 - 1, 7]}, "below page 8"),
        ({"lengths": [0, 1]}, "at least one page"),
        ({"lengths": [1, 1, 1]}, "expected 2 first pages"),
        ({"runs_per_interval": [1, 0, 9]}, "expected 10 first pages"),
        ({"cpu_us": [1]}, "cpu_us: expected 3 intervals"),
        ({"runs_per_interval": [], "cpu_us": [], "wall_us": []}, "at least one interval"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    changes: dict[str, list[int]], words: str
) -> None:
    sheet, arrays = parts(trace_of([[1, 2], [], [7]]))
    arrays |= {name: np.array(value, dtype=np.uint32) for name, value in changes.items()}
    with pytest.raises(LocalError, match=words):
        Trace.from_bytes(archive(sheet, **arrays))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "another"}, "expected the format"),
        ({"interval_ms": 0}, "interval_ms: expected 1 to"),
        ({"interval_ms": True}, "interval_ms: expected 1 to"),
        ({"mappings": 3}, "mappings: expected a list"),
        ({"mappings": [{"pages": -1}]}, "mappings: expected a number of pages"),
        ({"mappings": [{"pages": 2**31}, {"pages": 2**31}]}, "expected at most"),
        ({"digest": "0" * 64}, "digest: expected 0000"),
    ],
)
def test_data_sheet_that_cannot_be_right_is_refused(changes: dict[str, Any], words: str) -> None:
    sheet, arrays = parts(trace_of([[1, 2], [], [7]]))
    with pytest.raises(LocalError, match=words):
        Trace.from_bytes(archive(sheet | changes, **arrays))


def test_array_of_another_type_is_refused() -> None:
    sheet, arrays = parts(trace_of([[1]]))
    for other in (np.array([1], dtype=np.float64), np.ones((1, 1), np.uint32), np.array("x")):
        with pytest.raises(LocalError, match="lengths: expected"):
            Trace.from_bytes(archive(sheet, **arrays | {"lengths": other}))


def test_file_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    sheet, arrays = parts(trace_of([[1]]))
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        sheet=np.frombuffer(json.dumps(sheet).encode(), np.uint8),
        **arrays | {"lengths": np.zeros(trace_module.RUN_LIMIT + 1000, np.uint32)},
    )
    assert len(packed.getvalue()) < 1 << 20
    with pytest.raises(LocalError, match="lengths: expected at most"):
        Trace.from_bytes(packed.getvalue())


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be read: No such file"):
        Trace.load(tmp_path / "none.npz")


@given(drawn_writes(), st.data())
def test_distinct_pages_are_those_of_the_naive_twin(writes: Writes, data: st.DataObject) -> None:
    trace = trace_of(writes)
    window = data.draw(st.integers(1, trace.intervals))
    pages, intervals = trace.page_writes()
    found = distinct_pages(pages, intervals, trace.intervals, np.array([window]))
    pairs = zip(pages.tolist(), intervals.tolist(), strict=True)
    assert found[0] == pytest.approx(naive.distinct_pages(pairs, trace.intervals, window))


@given(drawn_writes())
def test_curve_ends_at_all_pages_and_never_falls(writes: Writes) -> None:
    curve = dirty_curve(trace_of(writes, 10))
    assert curve[-1] == (10 * len(writes), len({page for each in writes for page in each}))
    assert all(a[1] <= b[1] + 1e-9 for a, b in itertools.pairwise(curve))
    assert curve[0][1] == pytest.approx(sum(map(len, writes)) / len(writes))


def test_curve_has_eight_to_ten_points_in_a_decade() -> None:
    windows = window_lengths(5000)
    for low in (10, 100):
        assert 8 <= np.count_nonzero((windows >= low) & (windows < 10 * low)) <= 10


def test_window_longer_than_the_trace_has_no_value() -> None:
    assert dirty_at(trace_of([[1], [2]], 10), 20) == 2
    assert dirty_at(trace_of([[1], [2]], 10), 30) is None
    assert dirty_at(trace_of([[1], [2]], 10), 9) is None
