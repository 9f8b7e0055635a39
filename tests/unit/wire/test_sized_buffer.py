"""A device buffer is split right whatever its bytes are, and a broken one costs nothing behind it.

`recordings/pc-devices.xz` holds the device sections, up to EOF, that QEMU 7.2 wrote of a machine
`pc` with TCG whose guest is the boot sector of `test_wire_reads_qemu.py`.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator

import pytest

from colobench.wire import savevm
from colobench.wire.dissect import UNEXPLAINED, Item, dissect, dissect_checkpoint
from colobench.wire.footers import section_header
from colobench.wire.format import SECTION, SectionType
from colobench.wire.messages import Message, encode_message
from places import SUPPORT
from wire_streams import Queue, Register

RECORDED = lzma.decompress((SUPPORT / "recordings/pc-devices.xz").read_bytes())
#: The last byte of the tick count that QEMU's first device begins with: behind it are zeros, which
#: are section id 0 and EOF.
LAST_TICK_BYTE = len(SectionType.FULL.to_bytes() + bytes(4) + b"\5timer" + bytes(8)) + 7
#: How a checkpoint begins.
NEXT = encode_message(Message.CHECKPOINT_REQUEST) + encode_message(Message.VMSTATE_SEND)


def in_a_buffer(buffer: bytes) -> bytes:
    """Put a device buffer between what comes before it and behind it in a session."""
    size = encode_message(Message.VMSTATE_SIZE, len(buffer))
    return NEXT + size + buffer + NEXT


def in_a_migration(sections: bytes) -> bytes:
    """Make a whole migration, with ``suppress-vmdesc=on``."""
    return savevm.stream_header("pc") + sections


def payloads(items: list[Item]) -> list[tuple[str, int]]:
    return [(item.title, item.length) for item in items if item.kind == "payload"]


TRUTH = payloads(dissect_checkpoint(in_a_buffer(RECORDED)))


def payload_spans() -> Iterator[tuple[int, int, int]]:
    """Give the section id, the begin and the end of each payload in the recording."""
    at = 0
    for _, size in TRUTH:
        header = section_header(RECORDED, at, len(RECORDED))
        assert header is not None
        yield header.section_id, header.payload, header.payload + size
        at = header.payload + size + SECTION.size
    assert RECORDED[at:] == savevm.EOF


def almost_footers() -> list[tuple[int, int]]:
    """Find where one other byte makes a payload contain its own footer: which, and what byte."""
    found = []
    for section_id, begin, end in payload_spans():
        footer = SECTION.pack(SectionType.FOOTER, section_id)
        for at in range(begin, end - len(footer) + 1):
            window = RECORDED[at : at + len(footer)]
            different = [i for i in range(len(footer)) if window[i] != footer[i]]
            if len(different) == 1:
                found.append((at + different[0], footer[different[0]]))
    return found


def with_byte(place: int, value: int) -> bytes:
    return RECORDED[:place] + bytes([value]) + RECORDED[place + 1 :]


def assert_split_right(sections: bytes) -> None:
    checkpoint, migration = in_a_buffer(sections), in_a_migration(sections)
    for data, items in (
        (checkpoint, dissect_checkpoint(checkpoint)),
        (migration, dissect(migration)),
        (migration + checkpoint, dissect(migration + checkpoint, conversation=True)),
    ):
        whole = payloads(items)
        assert whole == TRUTH * (len(whole) // len(TRUTH) or 1)
        assert UNEXPLAINED not in {item.kind for item in items}
        assert sum(item.length for item in items) == len(data)


def test_recording_is_what_it_is_said_to_be() -> None:
    assert len(TRUTH) >= 20
    assert TRUTH[0] == ("timer", 24)
    assert RECORDED[LAST_TICK_BYTE + 1 :].startswith(bytes(8))
    assert (LAST_TICK_BYTE, SectionType.FOOTER) in almost_footers()


def test_every_value_of_the_byte_before_what_looks_like_a_footer_and_eof() -> None:
    for value in range(256):
        assert_split_right(with_byte(LAST_TICK_BYTE, value))


def test_no_value_of_a_byte_that_may_complete_a_footer_changes_how_a_buffer_is_split() -> None:
    places = almost_footers()
    assert len(places) > 10
    for place, completing in places:
        assert_split_right(with_byte(place, completing))
        for value in range(256):
            items = dissect_checkpoint(in_a_buffer(with_byte(place, value)))
            assert payloads(items) == TRUTH, (place, value)


@pytest.mark.parametrize("behind", [b"\0", b"\6", b"\6\0\0\0\2{}", bytes(4), b"\0\0\0\1\0\0\0\3"])
def test_nothing_follows_eof_inside_of_a_sized_buffer(behind: bytes) -> None:
    decoy = b"begin" + SECTION.pack(SectionType.FOOTER, 3) + savevm.EOF + behind + b"end"
    buffer = savevm.device_sections([Queue(decoy), Register(3)], 3)
    data = in_a_buffer(buffer)
    assert payloads(dissect_checkpoint(data)) == [
        ("0000:00:02.0/queue", 4 + len(decoy)),
        ("register", 4),
    ]


def test_only_a_description_that_ends_with_the_stream_follows_a_migration() -> None:
    for behind in (b"\0", b"\6\0\0\0\2[]", b"\6\0\0\0\2{}", b"\0\0\0\1\0\0\0\3"):
        decoy = SECTION.pack(SectionType.FOOTER, 3) + savevm.EOF + behind + b"end"
        sections = savevm.device_sections([Queue(decoy), Register(3)], 3)
        for migration in (in_a_migration(sections), in_a_migration(sections) + b"\6\0"):
            found = payloads(dissect(migration))
            assert found == [("0000:00:02.0/queue", 4 + len(decoy)), ("register", 4)]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"", "expected 1 bytes, found 0 bytes"),
        (b"\x5c" * 30, "expected a section type, found 5c"),
        (savevm.EOF + b"more", "expected its end, found 4 more bytes"),
        (savevm.device_sections([Register(3)], 3)[:-1], "footer of section 3"),
        (savevm.device_sections([Register(3)], 3).replace(b"\x7e", b"\x7f"), "footer of section 3"),
    ],
)
def test_error_in_a_sized_buffer_costs_that_buffer_only(broken: bytes, words: str) -> None:
    good = savevm.device_sections([Queue(b"queued"), Register(3)], 3)
    data = in_a_buffer(broken) + in_a_buffer(good)
    items = dissect_checkpoint(data)
    assert sum(item.length for item in items) == len(data)
    [unexplained] = [item for item in items if item.kind == UNEXPLAINED]
    assert words in unexplained.title
    assert unexplained.offset + unexplained.length == len(in_a_buffer(broken)) - len(NEXT)
    assert payloads(items) == [("0000:00:02.0/queue", 10), ("register", 4)]


def test_buffer_that_the_stream_ends_in_is_the_last_item() -> None:
    data = in_a_buffer(RECORDED)
    items = dissect_checkpoint(data[:1000])
    assert items[-1].kind == UNEXPLAINED
    assert sum(item.length for item in items) == 1000
