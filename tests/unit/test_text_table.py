"""Columns of text are aligned, whatever their cells hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colobench.text_table import GAP, align

words = st.text(alphabet="abcXYZ0.", min_size=1, max_size=9)
tables = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.tuples(*[words] * width), min_size=1, max_size=9)
)


@given(tables, st.sets(st.integers(0, 4)))
def test_each_cell_is_at_the_place_of_its_column(rows, right):
    lines = align(rows, right)
    assert [line.split() for line in lines] == [list(row) for row in rows]
    begin = 0
    for column in range(len(rows[0])):
        width = max(len(row[column]) for row in rows)
        for row, line in zip(rows, lines, strict=True):
            at = begin + (width - len(row[column]) if column in right else 0)
            assert line[at : at + len(row[column])] == row[column]
        begin += width + len(GAP)


def test_a_cell_with_nothing_behind_it_may_stick_out():
    assert align([("a", "b", "c"), ("d", "a long reason", "")]) == ["a  b  c", "d  a long reason"]


def test_nothing_is_no_lines():
    assert align([]) == []
