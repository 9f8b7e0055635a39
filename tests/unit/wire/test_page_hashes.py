"""Hashes of pages and their answer survive the way over the wire; what is wrong is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.wire.dissect import dissect_checkpoint
from colobench.wire.errors import RAMError, StreamEnded
from colobench.wire.messages import Message, message
from colobench.wire.page_hashes import (
    ListedPages,
    divergent_pages,
    encode_divergent_pages,
    encode_hashes,
    encode_listed_pages,
    listed_pages,
    message_bytes,
    page_hashes,
)
from colobench.wire.reading import Parser, StreamBuffer, parse_bytes
from share import amount

PAGES = 40_000
page_lists = st.one_of(
    st.sets(st.integers(0, PAGES - 1), max_size=40).map(sorted),
    st.sampled_from([list(range(PAGES)), list(range(0, PAGES, 3))]),
)
seeds = st.integers(0, 2**63 - 1)


def listed(pages: list[int], seed: int = 0) -> ListedPages:
    return ListedPages(np.array(pages, dtype=np.int32), seed)


def after(expected: Message, data: bytes) -> bytes:
    """Give what follows a message."""
    assert parse_bytes(message, data[:4]) == (expected, None)
    return data[4:]


def parse_pages(data: bytes) -> ListedPages:
    return parse_bytes(lambda at: listed_pages(at, PAGES), data)


@given(page_lists, seeds, st.integers(0, 2**32))
@settings(deadline=None, max_examples=amount(20, 200))
def test_pages_hashes_and_answer_survive(pages, seed, contents):
    random = np.random.default_rng(contents)
    hashes = random.integers(0, 2**64, 2 * len(pages), dtype=np.uint64)
    differs = random.integers(0, 2, len(pages)).astype(np.bool_)
    head, tail = encode_listed_pages(listed(pages, seed)), encode_hashes(hashes)
    assert len(head) + len(tail) == message_bytes(len(pages))

    def both(at: StreamBuffer) -> Parser[tuple[ListedPages, np.ndarray]]:
        found = yield from listed_pages(at, PAGES)
        return found, (yield from page_hashes(at, len(found.pages)))

    found, their_hashes = parse_bytes(both, after(Message.PAGE_HASHES, head + tail))
    assert (found.pages.tolist(), found.seed) == (pages, seed)
    assert their_hashes.tolist() == hashes.tolist()
    answer = after(Message.DIVERGENT_PAGES, encode_divergent_pages(differs))
    assert len(answer) == 4 + -(-len(pages) // 8)
    their_answer = parse_bytes(lambda at: divergent_pages(at, len(pages)), answer)
    assert their_answer.tolist() == differs.tolist()


@pytest.mark.parametrize(
    ("pages", "at", "expected"),
    [
        ([3, 3], 16, "expected a number above 3 and below 40000, found 3"),
        ([7, 5, 6], 16, "expected a number above 7 and below 40000, found 5"),
        ([0, PAGES], 16, "expected a number above 0 and below 40000, found 40000"),
        ([-1], 12, "expected a number above -1 and below 40000, found -1"),
    ],
)
def test_numbers_that_are_no_ascending_list_of_pages_are_refused(pages, at, expected):
    data = after(Message.PAGE_HASHES, encode_listed_pages(listed(pages)))
    with pytest.raises(RAMError, match=f"page with a hash: {expected}") as error:
        parse_pages(data)
    assert error.value.offset == at


def test_more_pages_than_ram_has_are_refused_before_any_is_read():
    data = after(Message.PAGE_HASHES, encode_listed_pages(listed([])))
    with pytest.raises(RAMError, match="number of pages with hashes: expected 0 to 40000"):
        parse_pages((PAGES + 1).to_bytes(4, "big") + data[4:])


def test_bits_behind_the_last_page_are_refused():
    with pytest.raises(RAMError, match="expected none behind the first 3, found 2 bits"):
        parse_bytes(lambda at: divergent_pages(at, 3), bytes([0, 0, 0, 3, 0b1001]))


def test_an_answer_to_another_number_of_pages_is_refused():
    with pytest.raises(RAMError, match="number of compared pages: expected 2, found 3"):
        parse_bytes(lambda at: divergent_pages(at, 2), bytes([0, 0, 0, 3, 1]))


def test_the_dissector_puts_both_messages_into_items():
    pages = listed([1, 4, 9], 5)
    data = encode_listed_pages(pages) + encode_hashes(np.arange(6, dtype=np.uint64))
    data += encode_divergent_pages(np.array([True, False, True]))
    items = dissect_checkpoint(data)
    assert [(item.title, item.length) for item in items] == [
        ("PAGE_HASHES", message_bytes(3)),
        ("DIVERGENT_PAGES", 9),
    ]


@pytest.mark.parametrize("length", [0, 11, 12, 15, 19])
def test_torn_list_is_stream_ended(length):
    data = after(Message.PAGE_HASHES, encode_listed_pages(listed([1, 2])))
    with pytest.raises(StreamEnded):
        parse_pages(data[:length])
