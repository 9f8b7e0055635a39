"""The loader takes what its stage allows, whole, and refuses everything else with a reason."""

import tracemalloc
from contextlib import closing, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.wire import savevm
from colobench.wire.errors import (
    BadFooter,
    CommandError,
    DeviceStateError,
    HeaderError,
    StreamEnded,
    StreamError,
    UnexpectedSection,
    UnknownSection,
    VMDescriptionError,
)
from colobench.wire.format import BE32, BE64, MigrationCommand, RAMFlag, SectionType
from colobench.wire.loadvm import (
    COLO_BUFFER,
    COLO_DEVICES,
    COLO_PASS,
    COLO_RAM,
    PRECOPY,
    VMDESCRIPTION_LIMIT,
    Incoming,
    vmdescription_section,
)
from colobench.wire.reading import parse_bytes
from colobench.wire.vmstate import VMStateError
from wire_streams import BLOCKS, MACHINE, RAM_SECTION, Primary, Queue, Register, Secondary, fill

EMPTY_RECORDS = BE64.pack(RAMFlag.EOS)


@pytest.fixture
def primary():
    with closing(Primary()) as primary:
        fill(primary.memory, range(8))
        yield primary


@pytest.fixture
def secondary(primary):
    """A secondary in COLO, migrated from the primary."""
    with closing(Secondary()) as secondary:
        parse_bytes(secondary.migration, primary.migration([0, 1], [2, 3]))
        yield secondary


@pytest.fixture
def newcomer():
    """A secondary that no stream has reached yet."""
    with closing(Secondary()) as secondary:
        yield secondary


def full(device, section_id=9, version_id=None, idstr=None):
    """A device's FULL section with a header of choice."""
    section = savevm.device_section(device, section_id)
    begin = 6 + len(device.idstr) + 4
    if version_id is not None:
        section = section[:begin] + BE32.pack(version_id) + section[begin + 4 :]
    if idstr is not None:
        section = section.replace(device.idstr.encode(), idstr.encode())
    return section


def refused(secondary, data, stage):
    """Load what must be refused, and give the error."""
    with pytest.raises(StreamError) as error:
        secondary.load(data, stage)
    return error.value


def test_migration_arrives_whole(primary, newcomer):
    loaded = parse_bytes(newcomer.migration, primary.migration([0, 1, 2], [3]))
    assert loaded.commands == [MigrationCommand.ENABLE_COLO]
    assert (loaded.pages, loaded.zero_pages) == (4, 1)
    assert np.array_equal(newcomer.memory.array[: 4 * 4096], primary.memory.array[: 4 * 4096])


def test_device_states_are_handed_back_and_not_applied(primary, secondary):
    primary.devices[0].value = 42
    primary.devices[1].data = bytes(range(200))
    loaded = secondary.load(primary.device_buffer(), COLO_DEVICES)
    assert [device.idstr for device, _ in loaded.device_states] == [
        "register",
        "0000:00:02.0/queue",
    ]
    assert (secondary.devices[0].value, secondary.devices[1].data) == (0, b"")
    for device, state in loaded.device_states:
        device.apply(state)
    assert (secondary.devices[0].value, secondary.devices[1].data) == (42, bytes(range(200)))


def test_ram_and_devices_may_share_one_buffer(primary, secondary):
    section = primary.ram_section(SectionType.END, [1, 5])
    loaded = secondary.load(section + primary.device_buffer(), COLO_BUFFER)
    assert (loaded.pages, len(loaded.device_states)) == (2, 2)


def test_empty_checkpoint_is_legal(primary, secondary):
    assert secondary.load(primary.ram_phase([]), COLO_RAM).pages == 0


def test_part_of_a_pass_ends_without_the_end_of_ram(primary, secondary):
    part = primary.ram_section(SectionType.PART, [1, 5]) + savevm.EOF
    assert secondary.load(part, COLO_PASS).pages == 2
    assert secondary.load(part, COLO_PASS).pages == 2


def test_devices_may_come_in_any_order(primary, secondary):
    primary.devices.reverse()
    assert len(secondary.load(primary.device_buffer(), COLO_DEVICES).device_states) == 2


def sections(primary):
    """One section of each type, in a form that some stage takes."""
    return {
        SectionType.START: savevm.ram_section_start(RAM_SECTION, BLOCKS),
        SectionType.PART: primary.ram_section(SectionType.PART, []),
        SectionType.END: primary.ram_section(SectionType.END, []),
        SectionType.FULL: full(Register()),
        SectionType.SUBSECTION: b"\5",
        SectionType.VMDESCRIPTION: savevm.vmdescription_section([]),
        SectionType.CONFIGURATION: b"\7",
        SectionType.COMMAND: savevm.command(MigrationCommand.ENABLE_COLO),
        SectionType.FOOTER: b"\x7e",
    }


@pytest.mark.parametrize(
    "stage", [PRECOPY, COLO_RAM, COLO_DEVICES, COLO_BUFFER, COLO_PASS], ids=str
)
@pytest.mark.parametrize("kind", [kind for kind in SectionType if kind is not SectionType.EOF])
def test_stage_refuses_exactly_what_it_does_not_allow(primary, secondary, stage, kind):
    with pytest.raises(StreamError) as error:
        secondary.load(sections(primary)[kind], stage)
    if kind in stage.allowed and kind is not SectionType.START:
        assert isinstance(error.value, StreamEnded)
        return
    assert isinstance(error.value, UnexpectedSection)
    if kind is not SectionType.START or stage is not PRECOPY:
        assert error.value.subject == f"stage {stage.name}"
        assert error.value.found == f"{kind.name} ({kind.value:02x})"
        assert error.value.offset == 0


def test_byte_that_is_no_section_type_is_shown(secondary):
    error = refused(secondary, b"\x5c", COLO_RAM)
    assert str(error) == "stage COLO_RAM: expected PART (02) or END (03), found 5c at offset 0"


@pytest.mark.parametrize("stage", [PRECOPY, COLO_BUFFER], ids=str)
def test_stage_wants_ram_and_every_device_before_its_end(primary, secondary, stage):
    only = primary.devices.pop()
    end = primary.ram_section(SectionType.END, [])
    error = refused(secondary, end + primary.device_buffer(), stage)
    assert isinstance(error, UnexpectedSection)
    assert error.expected == f"device '{only.idstr}' instance 0"
    assert error.found == "EOF (00)"
    error = refused(secondary, b"\0", stage)
    assert error.expected.startswith("END (03) of RAM and device 'register' instance 1 and device")


def test_ram_phase_without_end_section_is_refused(primary, secondary):
    part = primary.ram_section(SectionType.PART, [1])
    error = refused(secondary, part + savevm.EOF, COLO_RAM)
    assert (error.expected, error.offset) == ("END (03) of RAM", len(part))


def test_device_that_comes_twice_is_refused(primary, secondary):
    error = refused(secondary, full(Register(1)) + full(Register(2)), COLO_DEVICES)
    assert isinstance(error, UnexpectedSection)
    assert "device 'register' instance 1 again" in str(error)


def test_each_stage_may_bring_each_device_again(primary, secondary):
    for _ in range(3):
        secondary.load(primary.device_buffer(), COLO_DEVICES)


@pytest.mark.parametrize("idstr", ["registex", "Register"])
def test_unknown_device_is_refused_by_name(secondary, idstr):
    error = refused(secondary, full(Register(), idstr=idstr), COLO_DEVICES)
    assert isinstance(error, UnknownSection)
    assert "('register', 1)" in error.expected
    assert error.found == f"'{idstr}' instance 1"
    assert error.offset == 5


def test_ram_is_known_by_its_name_not_by_its_section_type(secondary):
    error = refused(secondary, full(Register(), idstr="ram"), COLO_DEVICES)
    assert isinstance(error, UnknownSection)
    ram = savevm.ram_section_start(77, BLOCKS).replace(b"\1", b"\4", 1)
    error = refused(secondary, ram, COLO_DEVICES)
    assert isinstance(error, UnexpectedSection)
    assert error.expected == "START (01) or PART (02) or END (03)"


def test_device_cannot_be_started(newcomer):
    section = b"\1" + full(Register())[1:]
    error = refused(newcomer, section, PRECOPY)
    assert (error.subject, error.expected) == ("section 'register' instance 1", "FULL (04)")


@pytest.mark.parametrize("section_id", [RAM_SECTION, RAM_SECTION + 1])
def test_ram_cannot_be_started_twice(secondary, section_id):
    error = refused(secondary, savevm.ram_section_start(section_id, BLOCKS), PRECOPY)
    assert isinstance(error, UnexpectedSection)
    assert error.found == f"'ram' instance 0 as section {section_id}"


def test_device_cannot_take_the_section_id_of_ram(secondary):
    error = refused(secondary, full(Register(), section_id=RAM_SECTION), COLO_DEVICES)
    assert error.found == f"'register' instance 1 as section {RAM_SECTION}"


def test_part_of_a_section_that_nothing_started_is_refused(primary, newcomer):
    error = refused(newcomer, primary.ram_section(SectionType.PART, []), PRECOPY)
    assert isinstance(error, UnknownSection)
    assert (error.expected, error.found, error.offset) == (
        "one that was started, of []",
        str(RAM_SECTION),
        1,
    )


@pytest.mark.parametrize("version_id", [1, 4])
def test_version_outside_ours_is_refused(secondary, version_id):
    error = refused(secondary, full(Register(), version_id=version_id), COLO_DEVICES)
    assert isinstance(error, DeviceStateError)
    assert (error.expected, error.found, error.offset) == ("2 to 3", str(version_id), 18)


def test_older_version_that_we_support_loads(primary, secondary):
    older = full(Register(8), version_id=2) + full(Queue(), section_id=10) + savevm.EOF
    assert len(secondary.load(older, COLO_DEVICES).device_states) == 2


def test_device_refusing_its_state_is_the_cause(secondary):
    section = full(Queue(b"")).replace(bytes(4) + b"\x7e", BE32.pack(1001) + b"\x7e")
    error = refused(secondary, section, COLO_DEVICES)
    assert isinstance(error, DeviceStateError)
    assert isinstance(error.__cause__, VMStateError)
    assert "expected at most 1000, found 1001" in str(error)
    assert error.offset == len(section) - 9


@pytest.mark.parametrize("at", range(1, 6))
def test_bad_footer_shows_both(secondary, at):
    section = bytearray(full(Register()))
    section[-at] ^= 1
    error = refused(secondary, bytes(section), COLO_DEVICES)
    assert isinstance(error, BadFooter)
    assert error.expected == "7e 00 00 00 09"
    assert error.found == section[-5:].hex(" ")
    assert error.offset == len(section) - 5


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (savevm.command(MigrationCommand.ENABLE_COLO, b"x"), "8 with 1 bytes"),
        (savevm.command(MigrationCommand.OPEN_RETURN_PATH), "1 with 0 bytes"),
        (savevm.command(MigrationCommand.PACKAGED, bytes(4)), "7 with 4 bytes"),
        (b"\x08\xff\xff\xff\xff", "65535 with 65535 bytes"),
    ],
)
def test_command_that_was_not_negotiated_is_refused(newcomer, command, found):
    error = refused(newcomer, command, PRECOPY)
    assert isinstance(error, CommandError)
    assert (error.found, error.offset) == (found, 1)


@pytest.mark.parametrize(
    "command", [MigrationCommand.ENABLE_COLO, MigrationCommand.SWITCHOVER_START]
)
def test_command_that_comes_again_is_refused(newcomer, command):
    section = savevm.command(command)
    error = refused(newcomer, 2 * section, PRECOPY)
    assert isinstance(error, CommandError)
    assert error.found == f"{command.name} again"
    assert error.offset == len(section) + 1


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"QEVN", "magic: expected 51 45 56 4d, found 51 45 56 4e at offset 0"),
        (b"QEVM\0\0\0\2", "stream version: expected 00 00 00 03, found 00 00 00 02 at offset 4"),
        (b"QEVM\0\0\0\3\1\0\0\0\2", "found START (01) and 2 at offset 8"),
        (b"QEVM\0\0\0\3\7\0\1\0\0", "at most 255 bytes, found CONFIGURATION (07) and 65536"),
        (
            savevm.stream_header("pc-q35-7.2"),
            f"expected '{MACHINE}', found 'pc-q35-7.2' at offset 13",
        ),
    ],
)
def test_stream_of_something_else_is_refused(newcomer, header, text):
    with pytest.raises(HeaderError) as error:
        parse_bytes(newcomer.incoming.stream_header, header)
    assert text in str(error.value)


def test_vmdescription_describes_the_devices():
    section = savevm.vmdescription_section([Register(), Queue(b"abc")])
    description = parse_bytes(vmdescription_section, section)
    assert description["page_size"] == 4096
    assert [device["name"] for device in description["devices"]] == [
        "register",
        "0000:00:02.0/queue",
    ]


@pytest.mark.parametrize(
    ("section", "error", "text"),
    [
        (
            b"\0\0\0\0\0",
            UnexpectedSection,
            "expected VMDESCRIPTION (06), found EOF (00) at offset 0",
        ),
        (b"\6\xff\0\0\0", VMDescriptionError, "bytes, found 4278190080 at offset 1"),
        (b"\6\0\0\0\1{", VMDescriptionError, "expected JSON, found"),
        (b"\6\0\0\0\1\xff", VMDescriptionError, "expected JSON, found"),
        (b"\6\0\0\0\2[]", VMDescriptionError, "expected an object with a list of devices"),
        (b"\6\0\1\0\0" + b"[" * 65536, VMDescriptionError, "expected JSON, found"),
    ],
)
def test_vmdescription_that_is_none_is_refused(section, error, text):
    with pytest.raises(error, match=r".*") as caught:
        parse_bytes(vmdescription_section, section)
    assert text in str(caught.value)


@pytest.mark.parametrize("element", [b"[],", b"{},", b'"",', b'{"":{}},', b"[[[[]]]],"])
def test_vmdescription_needs_little_memory_whatever_is_in_it(element):
    text = b'{"devices":[' + element * ((VMDESCRIPTION_LIMIT - 20) // len(element)) + b"0]}"
    section = b"\6" + len(text).to_bytes(4, "big") + text
    tracemalloc.start()
    parse_bytes(vmdescription_section, section)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.fixture(scope="module")
def conversation():
    """A migration and a checkpoint of each layout as bytes, and which of them are no page's.

    Two of the pages, 1 and 129, are not zero.
    """
    with closing(Primary()) as primary, closing(Secondary()) as secondary:
        fill(primary.memory, [1, 129])
        stream = b"".join(
            [
                primary.migration([0, 1, 69], [4]),
                primary.ram_phase([2, 3, 128]) + primary.device_buffer(),
                primary.ram_section(SectionType.END, [129, 192]) + primary.device_buffer(),
            ]
        )
        structure = set(range(len(stream)))
        for page in (1, 129):
            begin = stream.index(primary.memory.array[page * 4096 : (page + 1) * 4096].tobytes())
            structure -= set(range(begin + 1, begin + 4095))
        yield stream, sorted(structure), secondary


def load_conversation(stream, secondary):
    """Load it with an `Incoming` of its own."""
    secondary.incoming = Incoming(MACHINE, secondary.memory, secondary.devices)

    def parser(at):
        yield from secondary.migration(at)
        for stage in (COLO_RAM, COLO_DEVICES, COLO_BUFFER):
            yield from secondary.incoming.load_sections(at, stage)

    parse_bytes(parser, stream)


def outside_of_blocks(memory):
    """The bytes of memory that belong to no block, and their pages' bits."""
    inside = np.zeros(memory.pages, dtype=bool)
    for block in memory.blocks:
        inside[block.first_page : block.first_page + block.pages] = True
    bits = np.unpackbits(memory.bitmap.astype("<u8").view(np.uint8), bitorder="little")
    return memory.array.reshape(-1, 4096)[~inside], bits[~inside]


def test_truncation_at_every_byte_is_stream_ended(conversation):
    stream, structure, secondary = conversation
    load_conversation(stream, secondary)
    for length in structure:
        with pytest.raises(StreamEnded) as error:
            load_conversation(stream[:length], secondary)
        assert error.value.offset <= length


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_stream_loads_or_is_refused(conversation, data):
    stream, structure, secondary = conversation
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(structure))
        replacement = data.draw(st.binary(max_size=8))
        damaged[place : place + data.draw(st.integers(0, 8))] = replacement
    with suppress(StreamError):
        load_conversation(bytes(damaged), secondary)
    for untouched in outside_of_blocks(secondary.memory):
        assert not untouched.any()
