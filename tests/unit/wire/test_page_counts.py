"""Counting page records by runs, against counting them one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import multifd_packets
from colobench.memory.ram import PAGE_SIZE
from colobench.wire import format as wire_format
from colobench.wire.format import RAMFlag
from colobench.wire.page_counts import KINDS, RecordCounter, changed_runs, new_marks

BLOCK_PAGES = 12


def record(page: int, kind: int, body: bytes) -> bytes:
    word = (page * PAGE_SIZE | KINDS[kind] | RAMFlag.CONTINUE).to_bytes(8, "big")
    length = (b"", b"", b"\1" + len(body).to_bytes(2, "big"), len(body).to_bytes(4, "big"))[kind]
    return word + length + body


encodings = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"\0\1c", b"\5\2ab\3\1x", b"\xff\x1f\1c", b"\0\1c\0\1d", b"\x80", b"\1\0"]),
)
records = st.one_of(
    st.builds(record, st.integers(0, BLOCK_PAGES), st.just(0), st.just(bytes(PAGE_SIZE))),
    st.builds(record, st.integers(0, BLOCK_PAGES), st.just(1), st.sampled_from([b"\0", b"\7"])),
    st.builds(record, st.integers(0, BLOCK_PAGES), st.just(2), encodings),
    st.builds(record, st.integers(0, BLOCK_PAGES), st.just(3), st.binary(max_size=8)),
    st.binary(min_size=1, max_size=9),
)


def count(
    data: bytes, *, one_kind: bool = False, kept: range = range(0)
) -> tuple[str, int, RecordCounter, list[int]]:
    seen = new_marks(BLOCK_PAGES)
    place = memoryview(bytearray(len(kept) * PAGE_SIZE))
    counter = RecordCounter(seen, BLOCK_PAGES, one_kind, place, kept.start)
    end = counter.take(memoryview(data), 0, len(data))
    status = "BAD_PAGE" if counter.bad is not None else "MORE" if counter.more else "NEXT"
    return status, end, counter, list(seen[:BLOCK_PAGES])


@settings(deadline=None)
@given(
    st.lists(records, max_size=12).map(b"".join),
    st.sampled_from([range(0), range(3, 6), range(4, 5)]),
)
def test_records_are_counted_as_one_by_one(data: bytes, kept: range) -> None:
    status, end, counter, seen = count(data, kept=kept)
    expected_status, expected_end, taken = naive.count_records(data, BLOCK_PAGES, kept)
    assert (status, end) == (expected_status, expected_end)
    counts = counter.counts
    found = [counts.pages, counts.zero, counts.xbzrle, counts.compressed]
    assert found == [sum(kind == slot for _, kind in taken) for slot in range(4)]
    last = dict(taken)
    assert counts.duplicates == len(taken) - len(last)
    assert seen == [last[page] + 1 if page in last else 0 for page in range(BLOCK_PAGES)]
    if taken:
        assert (counter.first, counter.last) == (taken[0][0], taken[-1][0])


def test_records_of_one_kind_end_before_the_next_kind() -> None:
    zero, page = record(1, 1, b"\0"), record(2, 0, bytes(PAGE_SIZE))
    assert count(zero + zero + page, one_kind=True)[:2] == ("NEXT", 2 * len(zero))
    assert count(zero + zero + page)[:2] == ("MORE", 2 * len(zero) + len(page))


@pytest.mark.parametrize("zero_first", [False, True])
def test_kept_pages_are_as_their_last_records_left_them(zero_first: bool) -> None:
    zero, page = record(1, 1, b"\0"), record(1, 0, b"\x55" * PAGE_SIZE)
    place = memoryview(bytearray(3 * PAGE_SIZE))
    counter = RecordCounter(new_marks(3), 3, False, place, 0)
    data = zero + page if zero_first else page + zero
    assert counter.take(memoryview(data), 0, len(data)) == len(data)
    assert place[PAGE_SIZE : 2 * PAGE_SIZE] == (b"\x55" if zero_first else b"\0") * PAGE_SIZE
    assert not any(place[:PAGE_SIZE])


@given(encodings)
def test_encoding_is_split_if_it_is_one(body: bytes) -> None:
    runs = changed_runs(body)
    assert (runs is not None) == naive.is_xbzrle(body)
    assert all(place + length <= PAGE_SIZE for place, _, length in runs or ())


def test_constants_of_the_stream_are_those_of_the_kernels() -> None:
    assert wire_format.TARGET_PAGE_SIZE == PAGE_SIZE
    for name in ("MAGIC", "VERSION", "NAME_BYTES", "SYNC"):
        assert getattr(wire_format, f"MULTIFD_{name}") == getattr(multifd_packets, name)
