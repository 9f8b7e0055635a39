"""A conversation's bytes are divided into its messages, however they arrive."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from colobench.lab.session.message_gate import MessageGate
from colobench.lab.session.message_splitter import (
    BUFFER,
    RAM_SECTION,
    UNKNOWN,
    MessageSplitter,
)
from colobench.settings.checkpoint import Layout
from colobench.wire.format import BE64, SECTION, RAMFlag, SectionType
from colobench.wire.messages import HASHED_PAGE_BYTES, PAGE_HASHES_HEAD, Message, encode_message

END = SECTION.pack(SectionType.FOOTER, 2) + bytes([SectionType.EOF])
#: A page that holds what looks like the end of its section.
PAGE = BE64.pack(RAMFlag.PAGE | RAMFlag.CONTINUE) + END + bytes(4096 - len(END))
RAM = SECTION.pack(SectionType.END, 2) + 2 * PAGE + BE64.pack(RAMFlag.EOS) + END
DEVICES = bytes([SectionType.EOF])
HASHES = (
    encode_message(Message.PAGE_HASHES) + PAGE_HASHES_HEAD.pack(3, 0) + bytes(3 * HASHED_PAGE_BYTES)
)
REQUEST, SEND = map(encode_message, (Message.CHECKPOINT_REQUEST, Message.VMSTATE_SEND))


def parts(layout):
    ram = [(RAM_SECTION, RAM)] if layout is Layout.SEPARATED else []
    devices = DEVICES if layout is Layout.SEPARATED else RAM[:-1] + DEVICES
    return [
        ("MIGRATE_RAM_BACKGROUND", encode_message(Message.MIGRATE_RAM_BACKGROUND)),
        (RAM_SECTION, RAM),
        ("CHECKPOINT_REQUEST", REQUEST),
        ("PAGE_HASHES", HASHES),
        ("VMSTATE_SEND", SEND),
        *ram,
        ("VMSTATE_SIZE", encode_message(Message.VMSTATE_SIZE, len(devices))),
        (BUFFER, devices),
    ]


@given(
    strategies.sampled_from(Layout),
    strategies.lists(strategies.integers(1, 9000), min_size=1, max_size=40),
)
def test_messages_are_the_same_in_whatever_pieces_they_arrive(layout, sizes):
    expected = 2 * parts(layout)
    data = b"".join(each for _, each in expected)
    splitter, found, at = MessageSplitter(layout), [], 0
    while at < len(data):
        size = sizes[len(found) % len(sizes)]
        found += splitter.feed(data[at : at + size])
        at += size
    assert [(part.name, part.data) for part in found] == expected
    assert splitter.rest == b""
    for part in found:
        assert part.items[0].offset == 0
        assert sum(item.length for item in part.items) == len(part.data)


def test_what_has_not_arrived_whole_is_named():
    splitter = MessageSplitter(Layout.SEPARATED)
    assert [part.name for part in splitter.feed(SEND + RAM[:5000])] == ["VMSTATE_SEND"]
    assert (splitter.expected, len(splitter.rest)) == (RAM_SECTION, 5000)


def test_a_number_that_is_no_message_is_passed_on_as_it_is():
    (part,) = MessageSplitter(Layout.SEPARATED).feed(b"\x00\x00\x77\x77rest")
    assert (part.name, part.data) == (UNKNOWN, b"\x00\x00\x77\x77rest")


@pytest.fixture
def gate():
    return MessageGate(Layout.SEPARATED)


def test_the_migration_passes_a_gate_and_the_first_message_after_it_does_not(gate):
    assert gate.pass_by("P→S", b"migration") == b"migration"
    assert gate.pass_by("S→P", encode_message(Message.CHECKPOINT_READY)) == b""
    assert gate.pass_by("P→S", REQUEST) == b""
    assert [each.part.name for each in gate.waiting()] == ["CHECKPOINT_READY", "CHECKPOINT_REQUEST"]


def test_messages_of_one_direction_are_taken_in_their_order(gate):
    gate.pass_by("S→P", encode_message(Message.CHECKPOINT_READY))
    gate.pass_by("P→S", REQUEST + SEND + RAM[:100])
    assert gate.take("P→S").name == "CHECKPOINT_REQUEST"
    assert gate.take("P→S").name == "VMSTATE_SEND"
    assert gate.take("P→S") is None
    assert gate.arriving("P→S") == (RAM_SECTION, 100)
    assert gate.holds_back("S→P")


def test_what_waits_dies_with_its_host(gate):
    gate.pass_by("S→P", encode_message(Message.CHECKPOINT_READY))
    gate.pass_by("P→S", REQUEST + SEND + RAM[:100])
    gate.drop()
    assert gate.waiting() == ()
    assert gate.arriving("P→S") == ("", 0)
