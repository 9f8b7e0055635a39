"""Bad input of every kind is covered by items, and read in bounded memory, without any other error.

What is changed are recordings of a real QEMU, without the long runs of zero pages in them.
"""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.peers.dataset import read_manifest, read_recording
from colobench.wire import savevm
from colobench.wire.decoded import FIRST_KEPT, LAST_KEPT, DecodedStream, TreeSink
from colobench.wire.dissect import UNEXPLAINED, dissect, dissect_checkpoint
from colobench.wire.errors import VMDescriptionError
from colobench.wire.footers import PayloadEnds, find_payload_ends
from colobench.wire.format import (
    BE16,
    BE32,
    BE64,
    MULTIFD_MAGIC,
    MigrationCommand,
    RAMFlag,
    counted_string,
)
from colobench.wire.lookahead import Driver
from colobench.wire.messages import Message, encode_message
from colobench.wire.multifd import handshake, sync_packet
from colobench.wire.multifd_reader import MultifdReader
from colobench.wire.reader import StreamReader
from colobench.wire.reading import StreamBuffer
from fuzz_streams import changed, check, recordings
from places import CLONE
from share import SEED, amount

DIRECTORY = CLONE / "datasets/qemu"
ENTRIES = {entry.name: entry for entry in read_manifest(DIRECTORY)}
#: Recordings with something of their own.
NAMES = ("pc-2.3", "configuration", "compress", "postcopy", "colo-q35-xbzrle", "xbzrle")
SECTION_ID = 2
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)


@cache
def shortened(name: str) -> bytes:
    """Read a recording, and leave out most of its page records."""
    entry = ENTRIES[name]
    file = entry.files[0]
    data = read_recording(DIRECTORY / file["name"], file["sha256"])
    parts, items = [], dissect(data, conversation=entry.way == "colo")
    for item in items:
        part = data[item.offset : item.offset + item.length]
        if item.kind == "ZERO" and item.length > 40:
            # The first record of a run may name its block.
            named = len(part) % 9
            part = part[: 9 + named]
        elif item.kind == "PAGE" and item.length > 9000:
            named = len(part) % 4104
            part = part[: 4104 + named]
        parts.append(part)
    return b"".join(parts)


def assert_covered(data: bytes) -> int:
    """Read a stream in three ways, of which each explains each byte once; count what it cannot."""
    problems = 0
    for items in (dissect(data), dissect(data, conversation=True), dissect_checkpoint(data)):
        end = 0
        for item in items:
            assert item.offset == end
            end += item.length
        assert end == len(data)
        problems += any(item.kind == UNEXPLAINED for item in items)
    return problems


def tree_of(data: bytes) -> TreeSink:
    at, sink = StreamBuffer(4096, 1 << 27), TreeSink()
    reader = StreamReader(at, sink)
    Driver(at, io.BytesIO(data).readinto).run(reader.session())
    sink.end()
    leaves = sum(part.length for part in sink.root.walk() if not part.parts)
    assert leaves == len(data)
    return sink


def test_shortened_recordings_are_still_read_to_the_last_byte() -> None:
    for name in NAMES:
        assert len(shortened(name)) < 400_000
        assert tree_of(shortened(name)).problems == []


@pytest.mark.parametrize("name", NAMES)
def test_stream_that_is_cut_anywhere_is_explained_up_to_the_cut(name: str) -> None:
    data = shortened(name)
    step = max(1, len(data) // amount(40, 100_000))
    for length in range(0, len(data), step):
        sink = tree_of(data[:length])
        assert len(sink.problems) <= 2


@settings(deadline=None, max_examples=amount(60, 2000))
@given(st.data())
def test_changed_stream_is_covered(data: st.DataObject) -> None:
    changed = bytearray(shortened(data.draw(st.sampled_from(NAMES))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed)))
        size = data.draw(st.sampled_from([0, 1, 2, 4, 8]))
        value = data.draw(st.sampled_from(EXTREMES)) % 256 ** max(size, 1)
        inserted = data.draw(st.booleans())
        changed[place : place + (0 if inserted else size)] = value.to_bytes(max(size, 1), "big")
    tree_of(bytes(changed))


@settings(deadline=None, max_examples=amount(40, 1000))
@given(st.lists(st.binary(min_size=0, max_size=40), max_size=6).map(b"".join))
def test_arbitrary_bytes_are_covered(data: bytes) -> None:
    assert_covered(data)
    assert_covered(savevm.stream_header("pc") + data)


def ram(payload: bytes) -> bytes:
    return savevm.ram_section_begin(3, SECTION_ID) + payload


BLOCKS = BE64.pack(8192 | RAMFlag.MEM_SIZE) + counted_string("pc.ram") + BE64.pack(8192)
PAGE = counted_string("pc.ram") + bytes(4096)
EOS = savevm.ram_section_finish(SECTION_ID) + savevm.EOF


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (BLOCKS + BE64.pack(8192 | RAMFlag.PAGE) + PAGE, "below 0x2000 in block 'pc.ram'"),
        (BLOCKS + BE64.pack(2**64 - 4096 | RAMFlag.PAGE) + PAGE, "below 0x2000"),
        (BLOCKS + BE64.pack(RAMFlag.PAGE) + counted_string("x") + bytes(4096), "found 'x'"),
        (
            BE64.pack(RAMFlag.XBZRLE) + counted_string("pc.ram") + b"\1\xff\xff",
            "of at most 4096 bytes, found encoding 1 of 65535",
        ),
        (
            BE64.pack(RAMFlag.XBZRLE) + counted_string("pc.ram") + b"\1\0\4\xff\x1f\2ab",
            "runs within the page",
        ),
        (BE64.pack(RAMFlag.XBZRLE) + counted_string("pc.ram") + b"\2\0\0", "encoding 2"),
        (
            BE64.pack(RAMFlag.COMPRESS_PAGE) + counted_string("pc.ram") + BE32.pack(2**32 - 1),
            "at most 8192 bytes, found 4294967295",
        ),
        (BE64.pack(2**52 | RAMFlag.MEM_SIZE) + b"\1a" + BE64.pack(2**63), "block list"),
        (BE64.pack(4096 | RAMFlag.MEM_SIZE) + 5000 * (b"\1a" + bytes(8)), "at most 4096 blocks"),
        (BE64.pack(RAMFlag.HOOK), "found HOOK"),
        (BE64.pack(0x400), "found 0x400"),
    ],
)
def test_bad_record_is_one_error_and_what_follows_its_section_is_read(
    payload: bytes, words: str
) -> None:
    more = encode_message(Message.CHECKPOINT_REQUEST) + encode_message(Message.VMSTATE_SEND)
    more += ram(BE64.pack(RAMFlag.ZERO) + counted_string("pc.ram") + b"\0") + EOS
    items = dissect_checkpoint(ram(payload) + EOS + more)
    [problem] = [item for item in items if item.kind == UNEXPLAINED]
    assert words in problem.title
    assert "at offset" in problem.title
    assert [item.kind for item in items[-5:]] == ["END", "ZERO", "EOS", "FOOTER", "EOF"]


def test_section_that_nothing_started_is_named_and_skipped() -> None:
    started = savevm.stream_header("pc") + savevm.command(MigrationCommand.PING, BE32.pack(1))
    start = b"\1" + BE32.pack(2) + counted_string("ram") + BE32.pack(0) + BE32.pack(4)
    start += BLOCKS + savevm.ram_section_finish(SECTION_ID)
    unknown = b"\2" + BE32.pack(77) + b"payload" + b"\x7e" + BE32.pack(77)
    items = dissect(started + start + unknown + ram(b"") + EOS)
    [problem] = [item for item in items if item.kind == UNEXPLAINED]
    assert "expected one that was started, of [2], found 77" in problem.title
    assert problem.length == len(b"payload")
    assert items[-1].kind == "EOF"


def test_package_with_an_error_costs_the_package_only() -> None:
    for length in (0, 3, 5, 2**32 - 1):
        package = savevm.command(MigrationCommand.PACKAGED, BE32.pack(length)) + b"\x5c" * 5
        data = savevm.stream_header("pc") + package + savevm.EOF
        items = dissect(data)
        assert sum(item.length for item in items) == len(data)
        assert (items[-1].kind == "EOF") == (length == 5)


def test_lengths_of_anything_take_no_memory() -> None:
    """Lengths that a stream announces are no reason to allocate."""
    huge = [
        encode_message(Message.VMSTATE_SIZE, 2**63),
        encode_message(Message.PAGE_HASHES) + BE32.pack(2**32 - 1) + bytes(8),
        encode_message(Message.DIVERGENT_PAGES) + BE32.pack(2**32 - 1),
        ram(BE64.pack(2**60 | RAMFlag.MEM_SIZE) + b"\1a" + BE64.pack(2**60) + BE64.pack(0x22)),
        b"\x08" + BE16.pack(200) + BE16.pack(2**16 - 1),
    ]
    tracemalloc.start()
    for data in huge:
        assert_covered(data)
        assert_covered(data + bytes(100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Pages are told apart in an array that costs memory only where pages come.
    assert peak < 200 * 2**20


def test_endless_runs_of_nothing_are_read_in_constant_memory() -> None:
    for record in (BE64.pack(RAMFlag.MULTIFD_FLUSH), savevm.command(MigrationCommand.ENABLE_COLO)):
        begin = ram(b"") if len(record) == 8 else b""
        sink = TreeSink()
        at = StreamBuffer(4096, 1 << 20)
        data = begin + 3000 * record
        Driver(at, io.BytesIO(data).readinto).run(StreamReader(at, sink).checkpoints())
        sink.end()
        assert sum(1 for _ in sink.root.walk()) < 600
        assert sum(part.length for part in sink.root.walk() if not part.parts) == len(data)


def test_block_that_a_channel_names_late_is_in_its_tree() -> None:
    def pages(block: bytes) -> bytes:
        head = struct.pack(">6IQ32x256s", MULTIFD_MAGIC, 1, 0, 1, 1, 4096, 0, block)
        return head + BE64.pack(0) + bytes(4096)

    late = 300
    parts = [pages(b"pc.ram"), *map(sync_packet, range(late)), pages(b"vga.vram"), pages(b"pc.ram")]
    data = b"".join([handshake(0, 1), *parts, *map(sync_packet, range(late)), pages(b"vga.vram")])
    at, sink = StreamBuffer(4096, 1 << 24), TreeSink()
    Driver(at, io.BytesIO(data).readinto).run(MultifdReader(at, sink).stream())
    sink.end()
    assert sink.problems == []
    assert len(sink.root.parts) <= FIRST_KEPT + LAST_KEPT + 3
    assert sum(part.length for part in sink.root.parts) == len(data)
    records = [part for part in sink.root.parts if part.kind == "records"]
    assert [(part.title, part.detail) for part in records] == [
        ("pc.ram", "2 pages"),
        ("vga.vram", "2 pages"),
    ]


def test_sections_that_cannot_be_told_apart_cost_few_searches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed = 0

    def counted(data: bytes, *rest: Any) -> PayloadEnds:
        nonlocal passed
        found = find_payload_ends(data, *rest)
        passed += found.effort
        return found

    monkeypatch.setattr("colobench.wire.reader.find_payload_ends", counted)
    section = b"\4" + BE32.pack(5) + counted_string("d") + bytes(8) + b"\x7e" + BE32.pack(5)
    data = savevm.stream_header("pc") + 400 * section
    assert len(tree_of(data).problems) == 400
    assert passed < 40 * len(data)


def test_descriptions_that_are_none_are_decoded_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded = 0

    def counted(text: bytes, **_: int) -> dict[str, Any]:
        nonlocal decoded
        decoded += len(text)
        raise VMDescriptionError("vmdescription", expected="JSON", found="none", offset=0)

    monkeypatch.setattr("colobench.wire.vmdescription.decode", counted)
    begin = savevm.stream_header("pc") + b"\4" + BE32.pack(5) + counted_string("d") + bytes(8)
    piece = savevm.EOF + b"\6" + BE32.pack(10_000) + b"{"
    data = begin + 2000 * piece + bytes(10_000)
    tree_of(data)
    assert 0 < decoded < 300 * len(data)


@settings(deadline=None, max_examples=amount(50, 2000))
@given(st.data())
def test_changed_multifd_channel_is_covered(data: st.DataObject) -> None:
    file = ENTRIES["multifd"].files[-1]
    changed = bytearray(read_recording(DIRECTORY / file["name"]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, 1500))
        changed[place : place + 4] = BE32.pack(data.draw(st.sampled_from(EXTREMES)) % 2**32)
    del changed[data.draw(st.integers(0, len(changed))) :]
    at, sink = StreamBuffer(4096, 1 << 24), TreeSink()
    Driver(at, io.BytesIO(bytes(changed)).readinto).run(MultifdReader(at, sink).stream())
    sink.end()
    assert at.offset == len(changed)
    assert DecodedStream("", "", at.offset, None, sink.root).as_json()


def test_fuzzer_finds_nothing_in_a_short_run() -> None:
    chance, corpus = random.Random(SEED), recordings()
    for _ in range(amount(300, 100_000)):
        check(changed(chance, corpus))
