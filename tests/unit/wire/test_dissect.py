"""A recorded stream is explained to the last byte, and a torn or damaged one as far as it goes."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.wire import savevm
from colobench.wire.dissect import UNEXPLAINED, dissect, dissect_checkpoint, format_items
from colobench.wire.errors import VMDescriptionError
from colobench.wire.format import BE32, BE64, MigrationCommand, RAMFlag, SectionType, counted_string
from colobench.wire.messages import Message, encode_message
from colobench.wire.vmdescription import decode, payload_sizes
from wire_streams import MACHINE, RAM_SECTION, Primary, Queue, Register, fill


@pytest.fixture(scope="module")
def primary():
    with closing(Primary()) as primary:
        fill(primary.memory, [0, 1, 2, 5, 128, 129])
        yield primary


@pytest.fixture(scope="module")
def migration(primary):
    return primary.migration([0, 1, 2], [5, 128, 129])


@pytest.fixture(scope="module")
def checkpoint(primary):
    return primary.checkpoint([1, 2, 4, 129])


def assert_covers(items, data, begin=0):
    """Every byte is in exactly one item."""
    end = begin
    for item in items:
        assert item.offset == end
        end += item.length
    assert end == begin + len(data)


def payloads(items):
    return [(item.title, item.length) for item in items if item.kind == "payload"]


def test_migration_is_explained_part_by_part(migration):
    items = dissect(migration)
    assert_covers(items, migration)
    assert [(item.kind, item.title) for item in items] == [
        ("header", "QEVM"),
        ("CONFIGURATION", MACHINE),
        ("COMMAND", "ENABLE_COLO"),
        ("START", "ram"),
        ("MEM_SIZE", "3 blocks, 303104 bytes"),
        ("EOS", ""),
        ("FOOTER", ""),
        ("PART", "ram"),
        ("ZERO", "pc.ram"),
        ("PAGE", "pc.ram"),
        ("EOS", ""),
        ("FOOTER", ""),
        ("END", "ram"),
        ("PAGE", "pc.ram"),
        ("ZERO", "vga.vram"),
        ("PAGE", "vga.vram"),
        ("EOS", ""),
        ("FOOTER", ""),
        ("FULL", "register"),
        ("payload", "register"),
        ("FOOTER", ""),
        ("FULL", "0000:00:02.0/queue"),
        ("payload", "0000:00:02.0/queue"),
        ("FOOTER", ""),
        ("EOF", ""),
        ("VMDESCRIPTION", "JSON"),
    ]
    assert items[9].detail == "2 pages, 1 to 2"


def test_checkpoint_is_explained_message_by_message(checkpoint):
    items = dissect_checkpoint(checkpoint, offset=1000)
    assert_covers(items, checkpoint, begin=1000)
    assert [item.title for item in items if item.kind == "message"] == [
        "CHECKPOINT_REQUEST",
        "VMSTATE_SEND",
        "VMSTATE_SIZE",
    ]
    assert [item.detail for item in items if item.kind == "PAGE"] == ["2 pages, 1 to 2", "page 1"]


def test_checkpoints_follow_a_migration(migration, checkpoint):
    items = dissect(migration + checkpoint + checkpoint, conversation=True)
    assert_covers(items, migration + checkpoint + checkpoint)
    assert UNEXPLAINED not in {item.kind for item in items}
    assert len(payloads(items)) == 6


def test_passes_come_before_a_checkpoint(primary, migration, checkpoint):
    message = encode_message(Message.MIGRATE_RAM_BACKGROUND)
    passed = message + primary.ram_section(SectionType.PART, [3, 4]) + savevm.EOF
    description = savevm.vmdescription_section(primary.devices)
    for stream in (migration, migration[: -len(description)]):
        items = dissect(stream + passed + passed + checkpoint, conversation=True)
        assert_covers(items, stream + passed + passed + checkpoint)
        assert UNEXPLAINED not in {item.kind for item in items}
        assert [item.title for item in items].count("MIGRATE_RAM_BACKGROUND") == 2


def test_answers_of_a_secondary_are_messages():
    answers = [Message.CHECKPOINT_READY, Message.CHECKPOINT_REPLY, Message.VMSTATE_LOADED]
    items = dissect_checkpoint(b"".join(encode_message(answer) for answer in answers))
    assert [item.title for item in items] == [answer.name for answer in answers]


def test_sizes_come_out_the_same_from_devices_description_and_footers(primary, migration):
    description = savevm.vmdescription_section(primary.devices)
    bare = migration[: -len(description)]
    sizes = payloads(dissect(migration))
    assert sizes == [("register", 4), ("0000:00:02.0/queue", 10)]
    assert payloads(dissect(bare)) == sizes
    assert payloads(dissect(bare, devices=primary.devices)) == sizes
    assert_covers(dissect(bare), bare)


def test_devices_decode_their_state(checkpoint):
    items = dissect_checkpoint(checkpoint, devices=[Register(), Queue()])
    details = [item.detail for item in items if item.kind == "payload"]
    assert details == ["value=7", "length=6, data[6]"]


FOOTER_3 = b"\x7e\0\0\0\3"
FULL_2, FULL_9 = (b"\4\0\0\0" + bytes([n]) + counted_string("queue") + bytes(8) for n in (2, 9))


@pytest.mark.parametrize(
    "decoy",
    [
        FOOTER_3,
        FOOTER_3 + b"\0",
        FOOTER_3 + b"\4",
        FOOTER_3 + FULL_2,
        FOOTER_3 + FULL_9,
        FOOTER_3 + FULL_9 + b"\x7e\0\0\0\x09",
        FOOTER_3 + FULL_9 + FOOTER_3 + FULL_9,
        FOOTER_3 * 3,
        b"\x7e\0\0\0",
    ],
)
def test_footer_inside_a_payload_does_not_end_it(decoy):
    data = b"begin" + decoy + b"end"
    buffer = savevm.device_sections([Queue(data), Register(3), Queue(data)], 3)
    checkpoint = encode_message(Message.VMSTATE_SIZE, len(buffer)) + buffer
    items = dissect_checkpoint(checkpoint)
    assert_covers(items, checkpoint)
    queue = ("0000:00:02.0/queue", 4 + len(data))
    assert payloads(items) == [queue, ("register", 4), queue]


def test_torn_stream_is_explained_up_to_the_tear(migration, checkpoint):
    stream = migration + checkpoint
    whole = dissect(stream, conversation=True)
    ends = {item.offset + item.length for item in whole}
    for length in [*range(200), *range(8300, 8400), *range(len(stream) - 800, len(stream))]:
        items = dissect(stream[:length], conversation=True)
        assert_covers(items, stream[:length])
        explained = [item for item in items if item.kind != UNEXPLAINED]
        assert len(explained) >= sum(end <= length for end in ends) - 6


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_stream_is_still_covered(migration, checkpoint, data):
    damaged = bytearray(migration + checkpoint)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged)))
        damaged[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    for items in (dissect(bytes(damaged), conversation=True), dissect_checkpoint(bytes(damaged))):
        assert_covers(items, damaged)


def unexplained(items):
    return next(item.title for item in items if item.kind == UNEXPLAINED)


def replaced(data, old, new):
    assert data.count(old) == 1
    return data.replace(old, new)


def test_what_is_wrong_is_said(primary, migration, checkpoint):
    assert "magic: expected" in unexplained(dissect(b"not a stream at all"))
    assert "1 more bytes" in unexplained(dissect(migration + b"\0"))
    assert "expected a section type, found 5c" in unexplained(dissect(migration[:27] + b"\x5c"))
    assert "section header" in unexplained(
        dissect(migration[:27] + b"\1\0\0\0\1\3\xff\0\1" + bytes(8))
    )
    assert "found 99 at offset 0" in unexplained(dissect_checkpoint(b"\0\0\0\x63"))
    wrong = replaced(migration, b'"size": 4}]', b'"size": 5}]')
    assert payloads(dissect(wrong)) == payloads(dissect(migration))
    torn = replaced(migration, b"\x7e\0\0\0\3", b"\x7f\0\0\0\3")
    assert "section footer: expected 7e 00 00 00 03" in unexplained(
        dissect(torn, devices=primary.devices)
    )
    assert "a footer of section 4" in unexplained(
        dissect(replaced(migration[:-398], b"queued\x7e", b"queued\x7f"))
    )
    refused = replaced(checkpoint, b"\0\0\0\6queued", b"\xff\0\0\6queued")
    assert "expected at most 1000" in unexplained(
        dissect_checkpoint(refused, devices=primary.devices)
    )
    hook = b"\3" + BE32.pack(RAM_SECTION) + BE64.pack(RAMFlag.HOOK)
    assert "or COMPRESS_PAGE, found HOOK" in unexplained(dissect_checkpoint(hook))


def test_records_that_colobench_never_writes_are_skipped_by_their_size():
    records = [
        (RAMFlag.XBZRLE, b"\1\0\3\0\1c"),
        (RAMFlag.COMPRESS_PAGE, b"\0\0\0\2xy"),
        (RAMFlag.COMPRESS_PAGE | RAMFlag.CONTINUE, b"\0\0\0\1z"),
    ]
    payload = b"".join(
        BE64.pack(flags) + (b"" if flags & RAMFlag.CONTINUE else counted_string("pc.ram")) + body
        for flags, body in records
    )
    data = b"".join(
        [
            savevm.command(MigrationCommand.SWITCHOVER_START),
            savevm.command(MigrationCommand.PING, b"\0\0\0\1"),
            savevm.ram_section_begin(SectionType.END, RAM_SECTION),
            payload,
            BE64.pack(RAMFlag.MULTIFD_FLUSH),
            savevm.ram_section_finish(RAM_SECTION),
            b"\0",
        ]
    )
    items = dissect_checkpoint(data)
    assert_covers(items, data)
    assert [item.kind for item in items] == [
        "COMMAND",
        "COMMAND",
        "END",
        "XBZRLE",
        "COMPRESS_PAGE",
        "MULTIFD_FLUSH",
        "EOS",
        "FOOTER",
        "EOF",
    ]


def test_table_has_a_line_for_each_item(checkpoint):
    items = dissect_checkpoint(checkpoint)
    heading, *lines = format_items(items).splitlines()
    assert heading.split() == ["offset", "length", "kind", "what", "detail"]
    assert len(lines) == len(items)
    assert lines[0].split() == ["0", "4", "message", "CHECKPOINT_REQUEST"]


def test_payload_size_counts_arrays_and_subsections():
    description = {
        "devices": [
            {
                "name": "timer",
                "instance_id": 0,
                "fields": [
                    {"name": "ticks", "size": 8},
                    {"name": "queue", "size": 2, "array_len": 5},
                    {"name": "inner", "size": 7, "struct": {"fields": [{"size": 7}]}},
                ],
                "subsections": [{"vmsd_name": "timer/irq", "fields": [{"size": 1}]}],
            }
        ]
    }
    assert payload_sizes(description) == {("timer", 0): 8 + 10 + 7 + (1 + 1 + 9 + 4) + 1}


def nested(levels):
    """Describe a device with subsections within subsections."""
    section = {"vmsd_name": "a", "fields": []}
    for _ in range(levels):
        section = {"vmsd_name": "a", "fields": [], "subsections": [section]}
    return {"name": "a", "instance_id": 0} | section


@pytest.mark.parametrize(
    "device",
    [
        3,
        {},
        {"name": "a", "instance_id": 0},
        {"name": "a", "instance_id": "x", "fields": []},
        {"name": "a", "instance_id": 0, "fields": [{"size": "x"}]},
        {"name": "a", "instance_id": 0, "fields": [{"size": -1}]},
        {"name": "a", "instance_id": 0, "fields": [{"size": float("inf")}]},
        {"name": "a", "instance_id": 0, "fields": [7]},
        {"name": "a", "instance_id": 0, "fields": [], "subsections": [{"fields": []}]},
        # More than any limit that a library may have set meanwhile.
        nested(100_000),
    ],
)
def test_device_without_a_size_is_refused(device):
    with pytest.raises(VMDescriptionError, match="expected a device's name, instance_id and sizes"):
        payload_sizes({"devices": [device]})


def test_description_of_newer_qemu_is_read():
    text = b'{"configuration": {"vmsd_name": "configuration"}, "page_size": 4096, "devices": []}'
    assert payload_sizes(decode(text)) == {}
