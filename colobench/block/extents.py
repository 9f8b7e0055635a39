"""Extents: the ranges of a disk that a layer has, and the place of each range's bytes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

#: Places of ranges whose bytes are nowhere: they are zeros, or the layer does not have them.
ZEROES: Final = -1
ABSENT: Final = -2


class Extent(NamedTuple):
    """A range of a disk.

    Attributes
    ----------
    begin, end
        First byte, and the one behind the last.
    place
        Where its bytes begin in the layer's buffer, or ZEROES, or ABSENT.
    """

    begin: int
    end: int
    place: int

    @property
    def length(self) -> int:
        """Its length in bytes."""
        return self.end - self.begin


class ExtentMap:
    """Disjoint extents, in order. Finding one takes a binary search.

    Extents that continue each other, on the disk and in the buffer, become one.
    """

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._places: list[int] = []

    def __len__(self) -> int:
        """Number of extents."""
        return len(self._begins)

    @property
    def byte_count(self) -> int:
        """Bytes of all extents."""
        return sum(self._ends) - sum(self._begins)

    def __iter__(self) -> Iterator[Extent]:
        """Give the extents in order."""
        return map(Extent, self._begins, self._ends, self._places)

    def pieces(self, begin: int, end: int) -> list[Extent]:
        """Cut a range into pieces, in order; those that no extent covers are ABSENT."""
        pieces = []
        for number in range(bisect_right(self._ends, begin), bisect_left(self._begins, end)):
            first = self._begins[number]
            if begin < first:
                pieces.append(Extent(begin, first, ABSENT))
                begin = first
            last = min(self._ends[number], end)
            pieces.append(Extent(begin, last, _moved(self._places[number], begin - first)))
            begin = last
        if begin < end:
            pieces.append(Extent(begin, end, ABSENT))
        return pieces

    def put(self, begin: int, end: int, place: int) -> None:
        """Let a range have its bytes at a place, or be ZEROES, whatever it was before."""
        first, last = bisect_right(self._ends, begin), bisect_left(self._begins, end)
        new = [Extent(begin, end, place)]
        if first < last:
            old = Extent(self._begins[first], self._ends[first], self._places[first])
            if old.begin < begin:
                new.insert(0, Extent(old.begin, begin, old.place))
            old = Extent(self._begins[last - 1], self._ends[last - 1], self._places[last - 1])
            if end < old.end:
                new.append(Extent(end, old.end, _moved(old.place, end - old.begin)))
        if first and self._ends[first - 1] == new[0].begin:
            first -= 1
            new.insert(0, Extent(self._begins[first], self._ends[first], self._places[first]))
        joined = new[:1]
        for extent in new[1:]:
            before = joined[-1]
            if _moved(before.place, before.length) == extent.place and before.end == extent.begin:
                joined[-1] = Extent(before.begin, extent.end, before.place)
            else:
                joined.append(extent)
        self._begins[first:last] = [extent.begin for extent in joined]
        self._ends[first:last] = [extent.end for extent in joined]
        self._places[first:last] = [extent.place for extent in joined]


def _moved(place: int, distance: int) -> int:
    """Give the place of the bytes so far behind a place's."""
    return place + distance if place >= 0 else place
