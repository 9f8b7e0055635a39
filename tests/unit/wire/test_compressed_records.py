"""Compressed page records in a stream: a hostile peer's are refused, and touch no page."""

from __future__ import annotations

import struct
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.memory.ram import PAGE_SIZE
from colobench.node.migration.compressed_stream import CompressedRecords
from colobench.node.migration.page_path import SectionStatistics
from colobench.wire import savevm
from colobench.wire.compressed_records import COMPRESSED_RECORDS, HEADER, RECORDS_LIMIT
from colobench.wire.compression import METHODS, compressor
from colobench.wire.errors import RAMError, StreamEnded, StreamError
from colobench.wire.format import SectionType
from colobench.wire.loadvm import COLO_RAM, PRECOPY, Incoming
from wire_streams import BLOCKS, MACHINE, Primary, Secondary, encode_records, fill, marked

ALL_PAGES = [block.first_page + i for block in BLOCKS for i in range(block.pages)]
each_method = pytest.mark.parametrize("method", METHODS)
BEGIN = savevm.ram_section_begin(SectionType.END, savevm.RAM_SECTION_ID)
END = savevm.ram_section_finish(savevm.RAM_SECTION_ID) + savevm.EOF
EOS = struct.pack(">Q", 0x10)
with closing(Primary()) as _primary:
    DEVICES = _primary.device_buffer()


def loaded(method: str, payload: bytes) -> list[int]:
    """Load a section of a checkpoint; which pages came."""
    with closing(Secondary()) as secondary:
        secondary.incoming = Incoming(
            MACHINE, secondary.memory, secondary.devices, compression=method
        )
        start = savevm.ram_section_start(savevm.RAM_SECTION_ID, BLOCKS)
        secondary.load(start + BEGIN + END[:-1] + DEVICES, PRECOPY)
        try:
            secondary.load(BEGIN + payload + END, COLO_RAM)
        except StreamError:
            assert marked(secondary.memory) == []
            raise
        return marked(secondary.memory)


def records_of(pages: list[int]) -> bytes:
    with closing(Primary()) as primary:
        fill(primary.memory, ALL_PAGES)
        return encode_records(primary.records, primary.memory, pages)


def block(method: str, records: bytes, size: int | None = None, length: int | None = None) -> bytes:
    compressed = compressor(method, 1).compress(memoryview(records))
    size = len(records) if size is None else size
    length = len(compressed) if length is None else length
    return HEADER.pack(COMPRESSED_RECORDS, size, length) + compressed


@each_method
@given(pages=st.sets(st.sampled_from(ALL_PAGES), min_size=1).map(sorted))
def test_blocks_bring_their_pages(method: str, pages: list[int]) -> None:
    with closing(Primary()) as primary:
        fill(primary.memory, ALL_PAGES)
        writer = CompressedRecords(primary.memory, compressor(method, 1))
        out = np.zeros(writer.room(len(pages)), dtype=np.uint8)
        payload, section = b"", SectionStatistics()
        for part in primary.records.slices(np.array(pages, dtype=np.int32)):
            length, rest = writer.put(np.array(pages, dtype=np.int32), part, out, section)
            assert rest.begin == rest.end
            payload += out[:length].tobytes()
    assert loaded(method, payload) == pages
    assert section.encoded_pages == len(pages)


@each_method
@pytest.mark.parametrize("off", [-1, 1, 4096])
def test_blocks_of_another_size_are_refused(method: str, off: int) -> None:
    records = records_of([1, 2]) + EOS
    with pytest.raises(RAMError, match="compressed RAM records"):
        loaded(method, block(method, records, size=len(records) + off))


@each_method
@pytest.mark.parametrize("size", [0, RECORDS_LIMIT + 1, 2**32 - 1])
def test_sizes_beyond_a_block_are_refused_before_anything_is_received(
    method: str, size: int
) -> None:
    with pytest.raises(RAMError, match="size of compressed RAM records"):
        loaded(method, HEADER.pack(COMPRESSED_RECORDS, size, 10))
    with pytest.raises(RAMError, match="length of compressed RAM records"):
        loaded(method, HEADER.pack(COMPRESSED_RECORDS, 100, size))


@each_method
def test_a_block_of_many_zeros_brings_no_more_than_it_announces(method: str) -> None:
    bomb = bytes(64 << 20)
    compressed = compressor(method, 1).compress(memoryview(bomb))[:2000]
    with pytest.raises(RAMError, match="compressed RAM records"):
        loaded(method, HEADER.pack(COMPRESSED_RECORDS, 4096, len(compressed)) + compressed)


@each_method
def test_records_of_another_kind_are_refused(method: str) -> None:
    inner = records_of([3]) + EOS
    for payload in (records_of([1]), block(method, block(method, inner) + EOS)):
        with pytest.raises(RAMError, match="RAM record"):
            loaded(method, payload)


@each_method
@pytest.mark.parametrize("records", [b"", EOS[:4], EOS + b"more"])
def test_blocks_without_an_end_or_with_more_behind_it_are_refused(
    method: str, records: bytes
) -> None:
    with pytest.raises(StreamError):
        loaded(method, block(method, records or b"\0"))


@each_method
def test_pages_outside_of_their_block_are_refused(method: str) -> None:
    name = BLOCKS[0].name.encode()
    outside = struct.pack(">Q", BLOCKS[0].used_length | 0x08) + bytes([len(name)]) + name
    with pytest.raises(RAMError, match="RAM page"):
        loaded(method, block(method, outside + bytes(PAGE_SIZE) + EOS))


@each_method
@given(cut=st.integers(0, 60))
def test_a_block_that_is_cut_off_is_no_end(method: str, cut: int) -> None:
    payload = block(method, records_of([1]) + EOS)
    with closing(Secondary()) as secondary:
        secondary.incoming = Incoming(
            MACHINE, secondary.memory, secondary.devices, compression=method
        )
        start = savevm.ram_section_start(savevm.RAM_SECTION_ID, BLOCKS)
        secondary.load(start + BEGIN + END[:-1] + DEVICES, PRECOPY)
        with pytest.raises(StreamEnded):
            secondary.load(BEGIN + payload[: min(cut, len(payload) - 1)], COLO_RAM)
        assert marked(secondary.memory) == []
