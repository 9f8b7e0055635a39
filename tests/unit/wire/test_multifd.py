"""The handshake of a page channel, as QEMU's, and what of it is refused."""

from __future__ import annotations

import pytest

from colobench.memory.ram import lay_out
from colobench.wire.errors import HeaderError
from colobench.wire.multifd import (
    HANDSHAKE_BYTES,
    Blocks,
    handshake,
    packet_at,
    parse_handshake,
    sync_packet,
)


def test_handshake_has_qemus_layout():
    expected = bytes.fromhex("11223344 00000001") + bytes(16) + b"\x07\x08" + bytes(38)
    assert handshake(7, 8) == expected
    assert len(expected) == HANDSHAKE_BYTES == 64
    assert parse_handshake(expected, 8) == 7


@pytest.mark.parametrize(
    ("at", "byte", "subject"), [(0, 9, "magic"), (7, 2, "version"), (23, 1, "uuid")]
)
def test_wrong_handshake_is_refused_by_name(at, byte, subject):
    data = bytearray(handshake(0, 1))
    data[at] = byte
    with pytest.raises(HeaderError, match=f"multifd {subject}: expected"):
        parse_handshake(bytes(data), 1)


def test_channel_that_was_not_agreed_upon_is_refused():
    with pytest.raises(HeaderError, match="expected less than 2, found 2 at offset 24"):
        parse_handshake(handshake(2, 2), 2)
    with pytest.raises(HeaderError, match="multifd channels: expected 2, found 3 at offset 25"):
        parse_handshake(handshake(0, 3), 2)


def test_sync_packet_has_the_flag_and_no_pages():
    expected = bytes.fromhex("11223344 00000001 00000001 00000080") + bytes(8)
    expected += (3).to_bytes(8, "big") + bytes(1344 - 32)
    assert sync_packet(3) == expected


def test_every_block_has_its_name():
    blocks = lay_out({"pc.ram": 4096 * 65, "vga.vram": 4096})
    tables = Blocks.of(blocks)
    names = tables.by_first_page()
    assert [bytes(names[block.first_page]).rstrip(b"\0") for block in blocks] == [
        b"pc.ram",
        b"vga.vram",
    ]
    assert tables.first_pages.tolist() == [0, 128]


def test_a_packet_is_measured_with_its_pages_once_its_head_is_whole():
    head = bytes.fromhex("11223344 00000001 00000000 00000080 00000002 00002000")
    packet = head.ljust(1344, b"\0") + bytes(8192)
    data = packet + sync_packet(4)
    assert packet_at(data[:1343]) is None
    assert packet_at(data[:1344]) == (len(packet), False)
    assert packet_at(data, len(packet)) == (1344, True)
    assert packet_at(data, len(data)) is None
