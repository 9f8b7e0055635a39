"""Counting page records, against counting them one by one in Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import page_counts, page_records
from colobench.kernels.page_counts import COUNT_SLOTS, DUPLICATES, FIRST, LAST
from colobench.kernels.pages import PAGE_SIZE

BLOCK_PAGES = 12
STATUS = {
    page_records.NEXT: "NEXT",
    page_records.MORE: "MORE",
    page_records.BAD_PAGE: "BAD_PAGE",
    page_counts.CHANGE: "CHANGE",
}


def record(page: int, kind: int, body: bytes) -> bytes:
    flags = (page_records.PAGE, page_records.ZERO, page_counts.XBZRLE, page_counts.COMPRESS_PAGE)
    word = (page * PAGE_SIZE | flags[kind] | page_records.CONTINUE).to_bytes(8, "big")
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
) -> tuple[str, int, np.ndarray, np.ndarray]:
    cursor = np.zeros(page_records.CURSOR_SLOTS, dtype=np.int64)
    cursor[page_records.STOP] = len(data)
    counts = np.full(COUNT_SLOTS, 9, dtype=np.int64)
    seen = np.zeros(BLOCK_PAGES, dtype=np.uint8)
    pages = np.zeros(len(kept) * PAGE_SIZE, dtype=np.uint8)
    buffer = np.frombuffer(bytearray(data + bytes(16)), dtype=np.uint8)
    status = page_counts.count_page_records(
        buffer, cursor, counts, seen, BLOCK_PAGES, int(one_kind), pages, kept.start
    )
    return STATUS[status], int(cursor[page_records.START]), counts, seen


@settings(deadline=None)
@given(
    st.lists(records, max_size=12).map(b"".join),
    st.sampled_from([range(0), range(3, 6), range(4, 5)]),
)
def test_records_are_counted_as_one_by_one(data: bytes, kept: range) -> None:
    status, end, counts, seen = count(data, kept=kept)
    expected_status, expected_end, taken = naive.count_records(data, BLOCK_PAGES, kept)
    assert (status, end) == (expected_status, expected_end)
    assert counts[:4].tolist() == [sum(kind == slot for _, kind in taken) for slot in range(4)]
    last = dict(taken)
    assert counts[DUPLICATES] == len(taken) - len(last)
    assert seen.tolist() == [last[page] + 1 if page in last else 0 for page in range(BLOCK_PAGES)]
    if taken:
        assert (counts[FIRST], counts[LAST]) == (taken[0][0], taken[-1][0])


def test_records_of_one_kind_end_before_the_next_kind() -> None:
    zero, page = record(1, 1, b"\0"), record(2, 0, bytes(PAGE_SIZE))
    assert count(zero + zero + page, one_kind=True)[:2] == ("CHANGE", 2 * len(zero))
    assert count(zero + zero + page)[:2] == ("MORE", 2 * len(zero) + len(page))
