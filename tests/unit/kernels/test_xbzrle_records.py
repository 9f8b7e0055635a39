"""XBZRLE records: the sender's are the naive twin's to the byte, and taking them gives RAM back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import xbzrle_records as kernels
from colobench.kernels.page_records import CURSOR_SLOTS, MORE, NEXT, PAGES, START, ZERO_PAGES
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.xbzrle_records import AT, ENCODED_PAGES, LIFETIME, RECORD_BYTES, RECORDS

#: A block in the middle of memory, and fewer slots of the cache than it has pages.
FIRST_PAGE, BLOCK_PAGES, ALL_PAGES, SLOTS = 64, 12, 128, 8
NAME = np.frombuffer(bytearray(b"\x06pc.ram"), dtype=np.uint8)
EOS = (0x10).to_bytes(8, "big")

#: What a guest does to a page: nothing, a byte, many bytes, all of them, or all zero.
writes = st.sampled_from(["none", "byte", "many", "all", "zero"])
collections = st.lists(
    st.dictionaries(st.integers(FIRST_PAGE, FIRST_PAGE + BLOCK_PAGES - 1), writes, max_size=8),
    max_size=8,
)


class Sender:
    """Memory, and the kernel with its cache."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(4)
        self.memory = np.zeros(ALL_PAGES * PAGE_SIZE, dtype=np.uint8)
        self.cache = np.full(SLOTS * PAGE_SIZE, 0xEE, dtype=np.uint8)
        self.cached = np.full(SLOTS, -1, dtype=np.int32)
        self.ages = np.zeros(SLOTS, dtype=np.int32)
        self.progress = np.full(kernels.PROGRESS_SLOTS, 9, dtype=np.int64)

    def write(self, page: int, kind: str) -> None:
        content = self.memory[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        if kind == "byte":
            content[self.random.integers(PAGE_SIZE)] ^= 7
        elif kind == "many":
            content[self.random.integers(PAGE_SIZE, size=40)] += np.uint8(1)
        elif kind == "all":
            content[:] = self.random.integers(1, 256, PAGE_SIZE, dtype=np.uint8)
        elif kind == "zero":
            content[:] = 0

    def records(self, pages: list[int], age: int, *, named: bool, room: int = 0) -> bytes:
        """Put the records of pages; with little room in several calls."""
        page_list = np.array(pages, dtype=np.int32)
        found, begin, put = b"", 0, 0
        while begin < len(pages):
            out = np.zeros(room or RECORD_BYTES * len(pages), dtype=np.uint8)
            length = kernels.put_xbzrle_records(
                out, self.memory, page_list, begin, len(pages), FIRST_PAGE,
                int(named and not put), NAME, self.cache, self.cached, self.ages, age,
                np.empty(PAGE_SIZE, dtype=np.uint8), self.progress,
            )  # fmt: skip
            found += out[:length].tobytes()
            begin = int(self.progress[AT])
            put += int(self.progress[RECORDS])
        return found


class Receiver:
    """Memory that records are taken into."""

    def __init__(self) -> None:
        self.memory = np.zeros(ALL_PAGES * PAGE_SIZE, dtype=np.uint8)
        self.bitmap = np.zeros(ALL_PAGES // 64, dtype=np.uint64)
        self.cursor = np.zeros(CURSOR_SLOTS, dtype=np.int64)

    def take(self, data: bytes) -> int:
        self.cursor[:2] = 0, len(data)
        buffer = np.frombuffer(bytearray(data), dtype=np.uint8)
        where: list[Any] = [buffer, self.cursor, self.memory, self.bitmap, FIRST_PAGE, BLOCK_PAGES]
        return int(kernels.take_xbzrle_records(*where, np.empty(PAGE_SIZE, dtype=np.uint8)))


@settings(deadline=None, max_examples=60)
@given(collections, st.booleans(), st.sampled_from([0, RECORD_BYTES, 2 * RECORD_BYTES]))
def test_records_are_the_twins_and_give_ram_back(
    history: list[dict[int, str]], named: bool, room: int
) -> None:
    sender, receiver = Sender(), Receiver()
    twin = naive.XBZRLESender(SLOTS, LIFETIME)
    for age, written in enumerate(history):
        for page, kind in written.items():
            sender.write(page, kind)
        pages = sorted(written)
        expected = twin.records(sender.memory.tobytes(), pages, FIRST_PAGE, None, age)
        found = sender.records(pages, age, named=False, room=room)
        assert found == expected
        receiver.bitmap[:] = 0
        assert receiver.take(found + EOS) == NEXT
        assert int(receiver.cursor[START]) == len(found)
        assert np.array_equal(receiver.memory, sender.memory)
        marked = naive.pages_of(receiver.bitmap)
        assert len(marked) == receiver.cursor[PAGES]
        assert set(marked) <= set(pages)
    if named and history:
        fresh = Sender()
        fresh.memory[:] = sender.memory
        pages = sorted(history[-1])
        assert fresh.records(pages, 0, named=True) == naive.page_records(
            fresh.memory.tobytes(), pages, FIRST_PAGE, b"pc.ram"
        )


def test_name_waits_for_the_first_record_that_is_put() -> None:
    sender = Sender()
    sender.write(FIRST_PAGE, "all")
    sender.write(FIRST_PAGE + 1, "all")
    sender.records([FIRST_PAGE, FIRST_PAGE + 1], 0, named=True)
    sender.write(FIRST_PAGE + 1, "byte")
    found = sender.records([FIRST_PAGE, FIRST_PAGE + 1], 1, named=True)
    assert found[:15] == (PAGE_SIZE | 0x40).to_bytes(8, "big") + NAME.tobytes()
    assert sender.progress[[RECORDS, ENCODED_PAGES]].tolist() == [1, 2]
    assert sender.records([FIRST_PAGE], 2, named=True) == b""
    assert sender.progress[RECORDS] == 0


def test_page_that_was_sent_lately_keeps_its_slot() -> None:
    sender = Sender()
    old, new = FIRST_PAGE, FIRST_PAGE + SLOTS
    for page in (old, new):
        sender.write(page, "all")
    sender.records([old], 0, named=False)
    for age in range(1, LIFETIME):
        sender.records([new], age, named=False)
        assert old in sender.cached
        assert new not in sender.cached
    sender.records([new], LIFETIME, named=False)
    assert old not in sender.cached
    assert new in sender.cached


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_records_that_come_in_pieces_wait_until_they_are_whole(data: st.DataObject) -> None:
    sender, receiver = Sender(), Receiver()
    pages = list(range(FIRST_PAGE, FIRST_PAGE + 6))
    for age in range(2):
        for page in pages:
            sender.write(page, data.draw(writes))
        records = sender.records(pages, age, named=False)
        cut = data.draw(st.integers(0, len(records)))
        assert receiver.take(records[:cut]) == MORE
        taken = int(receiver.cursor[START])
        assert taken <= cut
        before = receiver.cursor[[PAGES, ZERO_PAGES]].tolist()
        assert receiver.take(records[taken:] + EOS) == NEXT
        assert receiver.cursor[START] == len(records) - taken
        assert before <= [len(pages), len(pages)]
        assert np.array_equal(receiver.memory, sender.memory)


XBZRLE_CONTINUE = 0x60


@pytest.mark.parametrize(
    "record",
    [
        (BLOCK_PAGES * PAGE_SIZE | XBZRLE_CONTINUE).to_bytes(8, "big") + b"\1\0\3\0\1\7",
        (1 << 63 | XBZRLE_CONTINUE).to_bytes(8, "big") + b"\1\0\3\0\1\7",
        XBZRLE_CONTINUE.to_bytes(8, "big") + b"\2\0\3\0\1\7",
        XBZRLE_CONTINUE.to_bytes(8, "big") + b"\1\x10\1",
        XBZRLE_CONTINUE.to_bytes(8, "big") + b"\1\0\3\0\0\7",
        XBZRLE_CONTINUE.to_bytes(8, "big") + b"\1\0\6\0\1\7\0\1\7",
        (0x40).to_bytes(8, "big") + b"\1\0\3\0\1\7",
    ],
)
def test_record_that_is_not_right_is_left_to_the_parser(record: bytes) -> None:
    receiver = Receiver()
    receiver.memory[:] = 0xAA
    good = XBZRLE_CONTINUE.to_bytes(8, "big") + b"\1\0\3\0\1\7"
    assert receiver.take(good + record) == NEXT
    assert receiver.cursor[[START, PAGES]].tolist() == [len(good), 1]
    assert naive.pages_of(receiver.bitmap) == [FIRST_PAGE]
    expected = np.full(len(receiver.memory), 0xAA, dtype=np.uint8)
    expected[FIRST_PAGE * PAGE_SIZE] = 7
    assert np.array_equal(receiver.memory, expected)
