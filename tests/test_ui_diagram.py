"""The sequence diagram shows who said what, and every byte of it when opened."""

from __future__ import annotations

import re

import pytest

from colobench.lab.relay import Chunk
from colobench.ui.diagram import TORN, SequenceDiagram
from colobench.wire.format import BE64, SECTION, RAMFlag, SectionType
from colobench.wire.messages import Message, encode_message

PAGE = BE64.pack(RAMFlag.PAGE | RAMFlag.CONTINUE) + bytes(4096)
RAM = SECTION.pack(SectionType.END, 2) + PAGE + BE64.pack(RAMFlag.EOS)
RAM += SECTION.pack(SectionType.FOOTER, 2) + bytes([SectionType.EOF])
SIZED = encode_message(Message.VMSTATE_SIZE, 1) + bytes([SectionType.EOF])


def say(*said):
    """Make chunks of (direction, bytes), a millisecond apart."""
    offsets = {"P→S": 0, "S→P": 0}
    chunks = []
    for number, (direction, data) in enumerate(said):
        chunks.append(Chunk(direction, offsets[direction], number / 1000, data))
        offsets[direction] += len(data)
    return chunks


@pytest.fixture
def diagram():
    return SequenceDiagram(
        say(
            ("P→S", encode_message(Message.CHECKPOINT_REQUEST)),
            ("S→P", encode_message(Message.CHECKPOINT_REPLY)),
            ("P→S", encode_message(Message.VMSTATE_SEND) + RAM),
            ("P→S", SIZED),
            ("S→P", encode_message(Message.VMSTATE_RECEIVED)),
            ("S→P", encode_message(Message.VMSTATE_LOADED)),
        )
    )


def test_as_text_each_line_is_an_arrow_with_its_direction(diagram):
    lines = repr(diagram).splitlines()[1:]
    forward = [True, False, True, True, True, True, False, False]
    assert ["▶" in line for line in lines] == forward
    assert "0.00" in lines[0]
    assert "RAM section, 4,123 bytes" in lines[3]


def test_as_html_each_arrow_opens_into_its_bytes(diagram):
    html = diagram._repr_html_()
    assert html.count("<details>") == 8
    assert "00 00 00 01" in html
    assert re.search(r"4,104</td>.*00 00 00 00 00 00 00 28 .* …</td>.*PAGE", html)
    assert html.count("▶") == 5
    assert html.count("◀") == 3


def test_a_torn_end_is_marked_as_one():
    torn = SequenceDiagram(say(("P→S", encode_message(Message.VMSTATE_SEND) + RAM[:100])))
    assert TORN in repr(torn)
    assert TORN in torn._repr_html_()
    assert "unexplained" in torn._repr_html_()


def test_what_the_peer_sent_is_text_and_not_markup():
    # A block's name is the peer's: it must not become part of the page.
    name = b"<script>alert(1)</script>"
    record = BE64.pack(RAMFlag.ZERO) + bytes([len(name)]) + name + b"\0"
    ram = SECTION.pack(SectionType.END, 2) + record + RAM[-14:]
    html = SequenceDiagram(say(("P→S", encode_message(Message.VMSTATE_SEND) + ram)))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
