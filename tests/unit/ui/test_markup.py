"""Snippets of HTML show text as text, in as many columns as there are."""

from __future__ import annotations

import re

from colobench.ui.base.markup import status_line, table, verdict_text


def spans(row: str) -> list[int]:
    return [int(span or 1) for span in re.findall(r'<t[dh] style="[^"]*"(?: colspan="(\d)")?', row)]


def test_text_is_escaped_everywhere():
    for snippet in (
        table([["<b>", "1"]], ["<i>", "&"]),
        status_line("#123456", "<b> & </b>"),
        verdict_text("<b> | & </b>"),
    ):
        assert not re.search(r"<[bi]>|&(?!amp;|lt;|gt;)", snippet)


def test_a_cell_with_nothing_behind_it_spans_the_rest():
    assert spans(table([["a", "b", "c"]])) == [1, 1, 1]
    assert spans(table([["a", "a long reason", ""]])) == [1, 2]
    assert spans(table([["", "", ""]])) == [3]


def test_columns_are_at_the_side_that_was_asked_for():
    sides = re.findall(r"text-align: (\w+)", table([["a", "b"]], ["c", "d"], right=[1]))
    assert sides == ["left", "right", "left", "right"]


def test_a_table_without_heads_has_none():
    assert "<thead>" not in table([["a"]])
    assert "<thead>" in table([["a"]], ["b"])


def test_no_verdict_is_nothing():
    assert verdict_text("") == ""
