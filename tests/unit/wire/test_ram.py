"""Page records: what is sent arrives, CONTINUE outlasts sections, nothing lands outside a block."""

import struct
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.kernels import page_records
from colobench.memory.ram import PAGE_SIZE
from colobench.wire import savevm
from colobench.wire.errors import RAMError, StreamEnded
from colobench.wire.format import BE64, RAMFlag, SectionType, counted_string
from colobench.wire.loadvm import COLO_RAM, PRECOPY, Incoming
from colobench.wire.ram import RAMRecordState, encode_block_list
from colobench.wire.reading import PageRun, Parsing, StreamBuffer, page_run_error
from wire_streams import BLOCKS, MACHINE, RAM_SECTION, Primary, Secondary, fill, marked

pc_ram, vga_vram, pc_rom = BLOCKS
ALL_PAGES = [block.first_page + i for block in BLOCKS for i in range(block.pages)]
page_sets = st.lists(st.sampled_from(ALL_PAGES), unique=True)

PAGE_NAMED = RAMFlag.PAGE
PAGE_CONTINUE = RAMFlag.PAGE | RAMFlag.CONTINUE
ZERO_CONTINUE = RAMFlag.ZERO | RAMFlag.CONTINUE


@pytest.fixture
def secondary():
    """A secondary in COLO: RAM is started, no page was named yet."""
    with closing(Secondary()) as secondary:
        start = savevm.ram_section_start(RAM_SECTION, BLOCKS)
        device_buffer = savevm.device_sections(secondary.devices, RAM_SECTION + 1)
        secondary.load(start + end_section(BE64.pack(RAMFlag.EOS)) + device_buffer, PRECOPY)
        yield secondary


def end_section(payload):
    begin = savevm.ram_section_begin(SectionType.END, RAM_SECTION)
    return begin + payload + savevm.ram_section_finish(RAM_SECTION)[8:]


def ram_phase(*records):
    """A checkpoint's RAM phase of these records, EOS included."""
    return end_section(b"".join([*records, BE64.pack(RAMFlag.EOS)])) + savevm.EOF


def record(flags, offset, body=b"", name=None):
    named = b"" if name is None else counted_string(name)
    return BE64.pack(offset | flags) + named + body


@settings(deadline=None, max_examples=30)
@given(page_sets, st.lists(page_sets, max_size=4))
def test_every_page_arrives_and_only_those(migrated, checkpoints):
    with closing(Primary()) as primary, closing(Secondary()) as secondary:
        fill(primary.memory, migrated)
        start = savevm.ram_section_start(RAM_SECTION, BLOCKS)
        stream = start + primary.ram_section(SectionType.END, migrated) + primary.device_buffer()
        assert secondary.load(stream, PRECOPY).pages == len(migrated)
        for seed, pages in enumerate(checkpoints):
            fill(primary.memory, pages, seed)
            secondary.memory.bitmap[:] = 0
            loaded = secondary.load(primary.ram_phase(pages), COLO_RAM)
            assert loaded.pages == len(pages)
            assert loaded.zero_pages == sum(page % 4 == 0 for page in pages)
            assert marked(secondary.memory) == sorted(pages)
            assert np.array_equal(primary.memory.array, secondary.memory.array)


def test_continue_lasts_across_sections_and_checkpoints():
    state = RAMRecordState(BLOCKS)
    first = state.slices(np.array([0, 5, 69]))
    assert [(each.block, each.begin, each.end, each.named) for each in first] == [(pc_ram, 0, 3, 1)]
    assert first[0].name.tobytes() == b"\x06pc.ram"
    (again,) = state.slices(np.array([7]))
    assert (again.named, len(again.name)) == (0, 0)
    assert state.slices(np.array([], dtype=np.int64)) == []
    both = state.slices(np.array([1, vga_vram.first_page, pc_rom.first_page]))
    assert [(each.block, each.begin, each.end, each.named) for each in both] == [
        (pc_ram, 0, 1, 0),
        (vga_vram, 1, 2, 1),
        (pc_rom, 2, 3, 1),
    ]
    assert [each.named for each in state.slices(np.array([1]))] == [1]


def test_page_that_comes_twice_keeps_its_last_content(secondary):
    pages = [bytes([fill]) * PAGE_SIZE for fill in (1, 2, 3)]
    phase = ram_phase(
        record(PAGE_NAMED, 0, pages[0], "vga.vram"),
        record(PAGE_CONTINUE, 0, pages[1]),
        record(PAGE_NAMED, 0, pages[2], "vga.vram"),
    )
    assert secondary.load(phase, COLO_RAM).pages == 3
    assert secondary.memory.block_bytes(vga_vram)[:PAGE_SIZE].tobytes() == pages[2]
    assert marked(secondary.memory) == [vga_vram.first_page]


def test_zero_page_clears_what_was_there(secondary):
    secondary.memory.array[:] = 255
    phase = ram_phase(
        record(RAMFlag.ZERO, PAGE_SIZE, b"\0", "pc.ram"), record(ZERO_CONTINUE, 0, b"\0")
    )
    assert secondary.load(phase, COLO_RAM).zero_pages == 2
    assert not secondary.memory.array[: 2 * PAGE_SIZE].any()
    assert secondary.memory.array[2 * PAGE_SIZE :].all()


END = pc_ram.used_length
NAMED = record(PAGE_NAMED, 0, bytes(PAGE_SIZE), "pc.ram")
AT = 5  # offset of the payload in a phase
BEHIND_NAMED = AT + len(NAMED)


@pytest.mark.parametrize(
    ("records", "expected", "found", "offset"),
    [
        (
            [record(PAGE_NAMED, END, name="pc.ram")],
            "below 0x46000 in block 'pc.ram'",
            "0x46000",
            AT,
        ),
        ([record(PAGE_NAMED, 1 << 63, name="pc.rom")], "below 0x1000", f"{1 << 63:#x}", AT),
        ([NAMED, record(PAGE_CONTINUE, END)], "below 0x46000", "0x46000", BEHIND_NAMED),
        ([NAMED, record(PAGE_CONTINUE, 1 << 63)], "below 0x46000", f"{1 << 63:#x}", BEHIND_NAMED),
        ([NAMED, record(ZERO_CONTINUE, END)], "below 0x46000", "0x46000", BEHIND_NAMED),
        ([NAMED, record(ZERO_CONTINUE, 0, b"\7")], "fill byte 0", "7", BEHIND_NAMED),
        ([record(RAMFlag.ZERO, 0, b"\7", "pc.ram")], "0x0", "0x7", AT + 15),
        ([record(PAGE_CONTINUE, 0)], "PAGE or ZERO with a block", "PAGE|CONTINUE (0x28)", AT),
        ([record(PAGE_NAMED, 0, name="pc.rim")], "one of ['pc.ram', ", "'pc.rim'", AT + 8),
        ([record(PAGE_NAMED, 0, name="")], "one of ['pc.ram', ", "''", AT + 8),
        ([record(0, 0)], "PAGE or ZERO", "0x0 (0x0)", AT),
        ([record(RAMFlag.XBZRLE, 4096)], "PAGE or ZERO", "XBZRLE (0x1040)", AT),
        ([record(RAMFlag.COMPRESS_PAGE, 0)], "PAGE or ZERO", "COMPRESS_PAGE (0x100)", AT),
        ([record(RAMFlag.HOOK, 0)], "PAGE or ZERO", "HOOK (0x80)", AT),
        ([record(RAMFlag.MULTIFD_FLUSH, 0)], "PAGE or ZERO", "MULTIFD_FLUSH (0x200)", AT),
        ([record(RAMFlag.MEM_SIZE, 0)], "PAGE or ZERO", "MEM_SIZE (0x4)", AT),
        ([record(RAMFlag.PAGE | RAMFlag.ZERO, 0)], "PAGE or ZERO", "ZERO|PAGE (0xa)", AT),
        ([record(RAMFlag.EOS, 4096)], "or EOS", "EOS (0x1010)", AT),
        ([record(0xC00, 0)], "PAGE or ZERO", "0xc00 (0xc00)", AT),
        (
            [NAMED, record(RAMFlag.XBZRLE | RAMFlag.CONTINUE, 0)],
            "PAGE",
            "CONTINUE|XBZ",
            BEHIND_NAMED,
        ),
    ],
)
def test_bad_record_is_refused_and_touches_no_memory(secondary, records, expected, found, offset):
    secondary.memory.array[:] = 0
    with pytest.raises(RAMError) as error:
        secondary.load(ram_phase(*records), COLO_RAM)
    assert expected in error.value.expected
    assert found in error.value.found
    assert error.value.offset == offset
    assert marked(secondary.memory) in ([], [0])
    assert not secondary.memory.array.any()


def xbzrle_body(encoding, kind=1):
    return struct.pack(">BH", kind, len(encoding)) + encoding


@pytest.fixture
def ready(secondary):
    """Let the secondary expect XBZRLE, and have random bytes in its memory."""
    secondary.incoming = Incoming(MACHINE, secondary.memory, secondary.devices, xbzrle=True)
    start = savevm.ram_section_start(RAM_SECTION, BLOCKS)
    device_buffer = savevm.device_sections(secondary.devices, RAM_SECTION + 1)
    secondary.load(start + end_section(BE64.pack(RAMFlag.EOS)) + device_buffer, PRECOPY)
    secondary.memory.array[:] = np.random.default_rng(8).integers(
        0, 256, len(secondary.memory.array), dtype=np.uint8
    )
    return secondary


XBZRLE_NAMED = RAMFlag.XBZRLE
XBZRLE_CONTINUE = RAMFlag.XBZRLE | RAMFlag.CONTINUE

changes = st.dictionaries(st.integers(0, PAGE_SIZE - 1), st.integers(1, 255), max_size=60)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(BLOCKS), st.integers(0), st.one_of(st.none(), changes)),
        max_size=12,
    )
)
def test_xbzrle_records_change_pages_among_others(records):
    with closing(Secondary()) as secondary:
        secondary.incoming = Incoming(MACHINE, secondary.memory, secondary.devices, xbzrle=True)
        fill(secondary.memory, ALL_PAGES)
        expected = secondary.memory.array.copy()
        written, last, pages = [], None, set()
        for block, number, changed in records:
            number %= block.pages
            pages.add(block.first_page + number)
            content = expected[(block.first_page + number) * PAGE_SIZE :][:PAGE_SIZE]
            old = content.tobytes()
            if changed is None:
                content[:] = number
                flags, body = PAGE_NAMED, content.tobytes()
            else:
                content[list(changed)] ^= np.array(list(changed.values()), dtype=np.uint8)
                encoding = naive.xbzrle_encode(old, content.tobytes(), PAGE_SIZE)
                flags, body = XBZRLE_NAMED, xbzrle_body(encoding)
            name = None if block is last else block.name
            flags |= RAMFlag.CONTINUE if name is None else 0
            written.append(record(flags, number * PAGE_SIZE, body, name))
            last = block
        stream = savevm.ram_section_start(RAM_SECTION, BLOCKS) + ram_phase(*written)
        device_buffer = savevm.device_sections(secondary.devices, RAM_SECTION + 1)
        loaded = secondary.load(stream.removesuffix(savevm.EOF) + device_buffer, PRECOPY)
        assert (loaded.pages, loaded.zero_pages) == (len(records), 0)
        assert np.array_equal(secondary.memory.array, expected)
        assert marked(secondary.memory) == sorted(pages)


def test_xbzrle_arrives_in_single_bytes(ready):
    """The parser never asks for more than there is, and its answers may come late."""
    page = ready.memory.block_bytes(pc_ram)[:PAGE_SIZE].copy()
    phase = ram_phase(
        record(XBZRLE_NAMED, 0, xbzrle_body(b"\0\1" + bytes([page[0] ^ 1])), "pc.ram"),
        record(XBZRLE_CONTINUE, 0, xbzrle_body(b"\3\1" + bytes([page[3] ^ 1]))),
    )
    buffer = StreamBuffer()
    parsing = Parsing(ready.incoming.load_sections(buffer, COLO_RAM), buffer)
    for byte in phase:
        assert not parsing.finished
        buffer.feed(bytes([byte]))
        parsing.step()
    assert parsing.value.pages == 2
    page[[0, 3]] ^= 1
    assert np.array_equal(ready.memory.block_bytes(pc_ram)[:PAGE_SIZE], page)


XBZRLE_AT = AT + 8 + 7  # offset of a first record's encoding byte


@pytest.mark.parametrize(
    ("records", "expected", "found", "offset"),
    [
        (
            [record(XBZRLE_CONTINUE, 0, xbzrle_body(b""))],
            "PAGE or ZERO or XBZRLE with a block, or EOS",
            "CONTINUE|XBZRLE (0x60)",
            AT,
        ),
        ([record(XBZRLE_NAMED, 0, name="pc.rim")], "['pc.ram', ", "'pc.rim'", AT + 8),
        ([record(XBZRLE_NAMED, END, name="pc.ram")], "below 0x46000", "0x46000", AT),
        ([record(XBZRLE_NAMED, 0, b"\0\0\0", "pc.ram")], "0x1", "0x0", XBZRLE_AT),
        ([record(XBZRLE_NAMED, 0, b"\2\0\0", "pc.ram")], "0x1", "0x2", XBZRLE_AT),
        (
            [record(XBZRLE_NAMED, 0, b"\1\x10\1", "pc.ram")],
            "at most 4096 bytes",
            "4097",
            XBZRLE_AT + 1,
        ),
        (
            [record(XBZRLE_NAMED, 0, xbzrle_body(b"\0\1\7\0\1\7"), "pc.ram")],
            "pairs of a zrun and an nzrun",
            "6 bytes, 00 01 07 00 01 07",
            XBZRLE_AT + 3,
        ),
        (
            [record(XBZRLE_NAMED, 0, xbzrle_body(b"\0\x14" + bytes(20) + b"\1\5\7"), "pc.ram")],
            "pairs of a zrun and an nzrun",
            "25 bytes, 00 14 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ...",
            XBZRLE_AT + 3,
        ),
        (
            [record(XBZRLE_NAMED, 0, xbzrle_body(b"\0\1\7\xff\x1f\1\7"), "pc.ram")],
            "4096 bytes of a page",
            "7 bytes, 00 01 07 ff 1f 01 07",
            XBZRLE_AT + 3,
        ),
        ([record(RAMFlag.XBZRLE | RAMFlag.PAGE, 0)], "XBZRLE", "PAGE|XBZRLE (0x48)", AT),
    ],
)
def test_bad_xbzrle_record_is_refused_and_leaves_the_page(ready, records, expected, found, offset):
    before = ready.memory.array.copy()
    with pytest.raises(RAMError) as error:
        ready.load(ram_phase(*records), COLO_RAM)
    assert expected in error.value.expected
    assert error.value.found == found
    assert error.value.offset == offset
    assert marked(ready.memory) == []
    assert np.array_equal(ready.memory.array, before)


def test_xbzrle_length_is_refused_before_its_bytes_come(ready):
    phase = ram_phase(record(XBZRLE_NAMED, 0, b"\1\xff\xff", "pc.ram"))
    with pytest.raises(RAMError, match="expected at most 4096 bytes, found 65535"):
        ready.load(phase[: XBZRLE_AT + 3], COLO_RAM)


def test_xbzrle_that_ends_early_is_a_torn_stream(ready):
    phase = ram_phase(record(XBZRLE_NAMED, 0, xbzrle_body(b"\0\1\7"), "pc.ram"))
    before = ready.memory.array.copy()
    with pytest.raises(StreamEnded, match="expected 3 bytes, found 2 bytes"):
        ready.load(phase[: XBZRLE_AT + 5], COLO_RAM)
    assert np.array_equal(ready.memory.array, before)


LIST = encode_block_list(BLOCKS)


def start_section(payload):
    whole = savevm.ram_section_start(RAM_SECTION, BLOCKS)
    begin = whole.index(LIST)
    return whole[:begin] + payload + whole[begin + len(LIST) :]


def replaced(old, new, count=1):
    assert old in LIST
    return LIST.replace(old, new, count)


LENGTH = BE64.pack(END)
ENTRY = counted_string("pc.ram") + LENGTH


@pytest.mark.parametrize(
    ("payload", "expected", "found", "offset"),
    [
        (replaced(LIST[:8], BE64.pack(RAMFlag.MEM_SIZE)), "0x4a004", "0x4", 0),
        (replaced(LIST[:8], BE64.pack(0x4A000 | RAMFlag.PAGE)), "0x4a004", "0x4a008", 0),
        (replaced(b"pc.ram", b"pc.rim"), "['pc.ram', 'vga.vram', 'pc.rom']", "'pc.rim'", 8),
        (replaced(LENGTH, BE64.pack(END + 4096)), "0x46000", "0x47000", 15),
        (LIST[:8] + ENTRY + ENTRY, "['vga.vram', 'pc.rom']", "'pc.ram'", 23),
        (LIST[:-8] + BE64.pack(RAMFlag.PAGE), "0x10", "0x8", len(LIST) - 8),
    ],
)
def test_blocks_that_are_not_ours_are_refused(payload, expected, found, offset):
    with closing(Secondary()) as secondary, pytest.raises(RAMError) as error:
        secondary.load(start_section(payload), PRECOPY)
    assert expected in error.value.expected
    assert error.value.found == found
    # Before the payload: type, section id, "ram" with its length, instance id, version id.
    assert error.value.offset == 17 + offset


def test_blocks_may_come_in_any_order():
    with closing(Primary()) as primary, closing(Secondary()) as secondary:
        payload = LIST[:8] + encode_block_list(BLOCKS[::-1])[8:]
        end = primary.ram_section(SectionType.END, [])
        secondary.load(start_section(payload) + end + primary.device_buffer(), PRECOPY)


def test_end_of_the_socket_is_stream_ended_with_its_place():
    cursor = np.zeros(page_records.CURSOR_SLOTS, dtype=np.int64)
    cursor[page_records.BAD] = 17
    with closing(Secondary()) as secondary:
        error = page_run_error(PageRun(pc_ram, secondary.memory), page_records.END, cursor, 99)
    assert isinstance(error, StreamEnded)
    assert str(error) == "stream: expected a RAM record, found 17 bytes at offset 99"
