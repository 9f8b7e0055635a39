"""However the stream is cut, parsers get the same; a buffer never holds more than it may."""

from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.wire.errors import StreamEnded, TrailingBytes
from colobench.wire.format import SectionType
from colobench.wire.loadvm import COLO_RAM
from colobench.wire.reading import (
    PageRun,
    Parsing,
    StreamBuffer,
    parse_bytes,
    sized_bytes,
)
from wire_streams import Primary, Secondary, fill, marked

PAGES = [0, 1, 2, 3, 63, 69, 128, 129, 192]


@pytest.fixture
def primary():
    with closing(Primary()) as primary:
        fill(primary.memory, PAGES)
        yield primary


@pytest.fixture
def secondary():
    with closing(Secondary()) as secondary:
        yield secondary


def two(at):
    """Parse two fields, and say where the second began."""
    first = yield 2
    offset = at.offset
    return first, (yield 3), offset


def test_parse_bytes_gives_value_and_offsets():
    assert parse_bytes(two, b"abcde", offset=10) == (b"ab", b"cde", 12)


@pytest.mark.parametrize("length", range(5))
def test_missing_bytes_are_named(length):
    with pytest.raises(StreamEnded) as error:
        parse_bytes(two, b"abcde"[:length], offset=10)
    wanted, found, offset = (2, length, 10) if length < 2 else (3, length - 2, 12)
    assert (error.value.expected, error.value.found) == (f"{wanted} bytes", f"{found} bytes")
    assert error.value.offset == offset


def test_bytes_that_nothing_reads_are_named():
    with pytest.raises(TrailingBytes, match="expected its end, found 2 more bytes at offset 5"):
        parse_bytes(two, b"abcdefg")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_parse_bytes_takes_any_bytes(kind):
    assert parse_bytes(lambda at: sized_bytes(5), kind(b"abcde")) == b"abcde"
    assert parse_bytes(lambda at: sized_bytes(0), kind(b"")) == b""


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 26_000)))
def test_any_cut_of_the_stream_loads_the_same(cuts):
    with closing(Primary()) as primary, closing(Secondary()) as secondary:
        fill(primary.memory, PAGES)
        stream = primary.migration(PAGES[:4], PAGES[4:])
        buffer = StreamBuffer(capacity=100)
        parsing = Parsing(secondary.migration(buffer), buffer)
        for begin, end in pairwise([0, *sorted(cuts), max([*cuts, len(stream)])]):
            assert parsing.step() == (begin >= len(stream))
            buffer.feed(stream[begin:end])
        assert parsing.step()
        assert buffer.offset == len(stream)
        assert (parsing.value.pages, parsing.value.zero_pages) == (9, 3)
        assert marked(secondary.memory) == PAGES
        assert np.array_equal(primary.memory.array, secondary.memory.array)


def test_answer_adds_to_what_the_buffer_held(primary, secondary):
    primary.ram_section(SectionType.PART, [0])
    section = primary.ram_phase([1, 2])
    named = Primary()
    with closing(named):
        stream = named.migration([0], [])
    parse_bytes(secondary.migration, stream)
    buffer = StreamBuffer()
    parsing = Parsing(secondary.incoming.load_sections(buffer, COLO_RAM), buffer)
    record = 8 + 4096
    buffer.feed(section[: 5 + record + 4])
    assert not parsing.step()
    assert parsing.request == PageRun(secondary.memory.blocks[0], secondary.memory)
    # The socket kernel takes over in the middle of a record, and reads on to the EOS.
    buffer.kernel_took(buffer.end, buffer.end, read=record - 4)
    parsing.answer((1, 0))
    buffer.feed(section[5 + 2 * record :])
    assert parsing.step()
    assert parsing.value.pages == 2
    assert buffer.offset == len(section)


def test_error_of_a_parsing_names_the_record_that_is_missing(primary, secondary):
    parse_bytes(secondary.migration, primary.migration([0], []))
    torn = primary.ram_phase([1])[:-14]
    with pytest.raises(StreamEnded, match="expected a RAM record, found 0 bytes at offset 4109"):
        secondary.load(torn, COLO_RAM)


def test_buffer_keeps_its_bytes_when_it_compacts_and_grows():
    buffer = StreamBuffer(capacity=8, limit=64)
    buffer.feed(b"abcdefgh")
    assert buffer.take(5) == b"abcde"
    buffer.feed(b"ijk")
    assert len(buffer.array) == 8
    buffer.feed(bytes(20))
    assert buffer.take(6) == b"fghijk"
    assert (buffer.offset, len(buffer)) == (11, 20)


def test_buffer_does_not_grow_beyond_its_limit():
    buffer = StreamBuffer(capacity=8, limit=64)
    buffer.feed(bytes(60))
    with pytest.raises(LocalError, match="expected at most 64 bytes, found 65"):
        buffer.feed(bytes(5))


def test_space_is_behind_what_waits():
    buffer = StreamBuffer(capacity=8)
    space = buffer.space()
    space[:3] = b"abc"
    buffer.received(3)
    assert buffer.take(3) == b"abc"
    assert len(buffer.space()) == 8


def test_sized_bytes_takes_memory_only_as_bytes_arrive():
    buffer = StreamBuffer()
    parsing = Parsing(sized_bytes(1 << 62), buffer)
    buffer.feed(bytes(200_000))
    assert not parsing.step()
    assert len(buffer.array) <= 256 * 1024
