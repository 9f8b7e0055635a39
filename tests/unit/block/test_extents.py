"""Extents: after any changes, each byte is at the place that it was put to last."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from colobench.block.extents import ABSENT, ZEROES, ExtentMap

END = 40
ranges = st.tuples(st.integers(0, END - 1), st.integers(1, END)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], END))
)
puts = st.lists(st.tuples(ranges, st.sampled_from((ZEROES, 0, 100, 105, 1000))), max_size=30)


def fill(changes) -> tuple[ExtentMap, list[int]]:
    """Give the map, and its naive twin: the place of each byte."""
    extents, twin = ExtentMap(), [ABSENT] * END
    for (begin, end), place in changes:
        extents.put(begin, end, place)
        for byte in range(begin, end):
            twin[byte] = place if place < 0 else place + byte - begin
    return extents, twin


@given(puts, ranges)
def test_pieces_cover_a_range_in_order_and_have_the_last_places(changes, window):
    extents, twin = fill(changes)
    begin, end = window
    found, at = [], begin
    for piece in extents.pieces(begin, end):
        assert piece.begin == at
        assert piece.length > 0
        found += [piece.place if piece.place < 0 else piece.place + i for i in range(piece.length)]
        at = piece.end
    assert (at, found) == (end, twin[begin:end])


@given(puts)
def test_extents_are_in_order_and_disjoint_and_what_follows_on_is_one(changes):
    extents, _ = fill(changes)
    found = list(extents)
    assert len(found) == len(extents)
    for one, other in pairwise(found):
        assert one.end <= other.begin


def test_a_sequential_writer_makes_one_extent():
    extents = ExtentMap()
    for byte in range(0, 100, 10):
        extents.put(byte, byte + 10, 500 + byte)
    extents.put(100, 110, ZEROES)
    extents.put(110, 120, ZEROES)
    assert [tuple(extent) for extent in extents] == [(0, 100, 500), (100, 120, ZEROES)]
