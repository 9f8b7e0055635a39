"""Dissector of a recorded stream: it puts every byte into exactly one item of a table.

It reads more than `colobench.wire.loadvm` accepts: streams of other machines and devices, recorded
from a real QEMU or from colobench, whole or torn. It loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from colobench.memory.ram import PAGE_SIZE
from colobench.wire import agreement, vmdescription
from colobench.wire.errors import (
    BadFooter,
    DeviceStateError,
    HeaderError,
    InvalidMessage,
    RAMError,
    StreamError,
    UnexpectedSection,
    UnknownSection,
    VMDescriptionError,
)
from colobench.wire.footers import SectionHeader, find_payload_ends, section_header
from colobench.wire.format import (
    BE16,
    BE32,
    BE64,
    COMMAND_HEADER,
    MAGIC,
    PAGE_FLAGS_MASK,
    RAM_IDSTR,
    SECTION,
    VERSION,
    MigrationCommand,
    RAMFlag,
    SectionType,
    ram_flag_names,
    section_type_name,
)
from colobench.wire.messages import Message, encode_message
from colobench.wire.recorded import Item, Recorded, format_items
from colobench.wire.vmstate import Device, State, VMStateError

__all__ = ["UNEXPLAINED", "Item", "dissect", "dissect_checkpoint", "format_items"]

#: Kind of the item that holds the bytes that could not be read.
UNEXPLAINED = "unexplained"

#: Block name of page records with CONTINUE whose previous record was not read.
_UNKNOWN_BLOCK = "the block before"
#: The primary's first messages after a migration, and after each checkpoint.
_FIRST_MESSAGES = encode_message(Message.CHECKPOINT_REQUEST) + encode_message(Message.VMSTATE_SEND)

_PAGE_KINDS = (RAMFlag.PAGE, RAMFlag.ZERO, RAMFlag.XBZRLE, RAMFlag.COMPRESS_PAGE)


def dissect(
    data: bytes, *, devices: Iterable[Device] = (), conversation: bool = False
) -> list[Item]:
    """Dissect a migration stream.

    Parameters
    ----------
    data
        The stream, beginning with its magic.
    devices
        Devices whose states are decoded. Of any other device only the size is found: from the
        vmdescription after the sections, or else by its footer.
    conversation
        True if COLO's checkpoints follow the migration, as from primary to secondary.

    Returns
    -------
    list of Item
        Ascending and contiguous, from the first byte to the last. If the stream is torn or wrong,
        the last item is of kind `UNEXPLAINED` and has the error as its title. After an error inside
        a sized buffer, such an item holds the rest of the buffer, and reading goes on after the
        buffer.

    Notes
    -----
    Without a vmdescription (QEMU's ``suppress-vmdesc=on``, a checkpoint, a torn stream), the
    payload of a device that is not in `devices` is found by its footer;
    `colobench.wire.footers.find_payload_ends` says which bytes are ambiguous.
    """
    dissection = _Dissection(data, devices)
    return dissection.run(dissection.conversation if conversation else dissection.migration)


def dissect_checkpoint(
    data: bytes, *, devices: Iterable[Device] = (), offset: int = 0
) -> list[Item]:
    """Dissect bytes of COLO's conversation in either direction, beginning with a message.

    Parameters
    ----------
    data
        Messages, RAM sections and device buffers.
    devices
        As for `dissect`.
    offset
        Offset of the first byte in the stream, added to the items' offsets.

    Returns
    -------
    list of Item
        As from `dissect`.
    """
    dissection = _Dissection(data, devices)
    items = dissection.run(dissection.checkpoints)
    return [item._replace(offset=item.offset + offset) for item in items]


class _Dissection:
    """State of reading one stream, kept from one part to the next."""

    def __init__(self, data: bytes, devices: Iterable[Device]) -> None:
        self._stream = Recorded(data)
        self._devices = {(device.idstr, device.instance_id): device for device in devices}
        self._block = _UNKNOWN_BLOCK
        # Payload sizes from the vmdescription; looked for when the first device needs one.
        self._sizes: dict[tuple[str, int], int] | None = None
        self._payload_ends: dict[int, int] = {}
        self._may_follow_eof = self._may_follow_a_migration

    def run(self, part: Callable[[], None]) -> list[Item]:
        """Read one part, and return the items."""
        try:
            part()
        except StreamError as error:
            self._stream.at = len(self._stream.data)
            self._stream.add(UNEXPLAINED, str(error))
        return self._stream.items()

    def migration(self) -> None:
        """Read a whole migration."""
        self._header()
        self._sections()
        if len(self._stream):
            self._vmdescription()
        self._stream.expect_end("stream")

    def conversation(self) -> None:
        """Read a migration and the checkpoints after it."""
        self._may_follow_eof = self._may_follow_in_a_conversation
        self._header()
        self._sections()
        if self._stream.next_is(SectionType.VMDESCRIPTION):
            self._vmdescription()
        self.checkpoints()

    def checkpoints(self) -> None:
        """Read messages and the sections between them."""
        self._may_follow_eof = self._may_follow_in_a_conversation
        self._sizes = {}
        while len(self._stream):
            # A message begins with a zero byte. EOF, the only section type 0, is read elsewhere.
            if self._stream.next_is(0):
                self._message()
            else:
                self._sections()

    def _header(self) -> None:
        stream = self._stream
        expected = BE32.pack(MAGIC) + BE32.pack(VERSION)
        found = stream.take(len(expected))
        if found != expected:
            raise HeaderError(
                "magic and version", expected=expected.hex(" "), found=found.hex(" "), offset=0
            )
        stream.add("header", "QEVM", f"version {VERSION}")
        if stream.next_is(SectionType.CONFIGURATION):
            _, length = SECTION.unpack(stream.take(SECTION.size))
            machine = stream.take(length).decode(errors="backslashreplace")
            stream.add(SectionType.CONFIGURATION.name, machine)
            if stream.next_is(SectionType.SUBSECTION):
                self._agreement()

    def _agreement(self) -> None:
        stream = self._stream
        offset = stream.at
        stream.take(1)
        name = stream.take_name()
        if name != agreement.NAME:
            raise UnexpectedSection(
                "configuration", expected=agreement.NAME, found=name, offset=offset
            )
        stream.take(BE32.size)
        (length,) = BE32.unpack(stream.take(BE32.size))
        stream.take(length)
        stream.add(SectionType.SUBSECTION.name, name, "what both nodes must have")

    def _sections(self) -> None:
        stream = self._stream
        while True:
            offset = stream.at
            kind = stream.take(1)[0]
            if kind == SectionType.EOF:
                stream.add(SectionType.EOF.name, "")
                return
            if kind == SectionType.COMMAND:
                self._command()
            elif kind in (SectionType.START, SectionType.FULL):
                self._described_section(SectionType(kind), offset)
            elif kind in (SectionType.PART, SectionType.END):
                (section_id,) = BE32.unpack(stream.take(BE32.size))
                # A recorded checkpoint does not name the section's owner; here it is always RAM.
                stream.add(SectionType(kind).name, RAM_IDSTR, f"section {section_id}")
                self._records()
                self._footer(section_id)
            else:
                raise UnexpectedSection(
                    "stream",
                    expected="a section type",
                    found=section_type_name(kind),
                    offset=offset,
                )

    def _command(self) -> None:
        stream = self._stream
        number, length = COMMAND_HEADER.unpack(stream.take(COMMAND_HEADER.size))
        data = stream.take(length)
        try:
            title = MigrationCommand(number).name
        except ValueError:
            title = str(number)
        stream.add(SectionType.COMMAND.name, title, data.hex(" "))

    def _described_section(self, kind: SectionType, offset: int) -> None:
        stream = self._stream
        header = section_header(stream.data, offset, stream.stop)
        if header is None:
            raise UnknownSection(
                "section header",
                expected="section id, idstr, instance id, version id",
                found=stream.data[offset : min(offset + 32, stream.stop)].hex(" "),
                offset=offset,
            )
        stream.at = header.payload
        stream.add(
            kind.name,
            header.idstr,
            f"section {header.section_id}, instance {header.instance_id}, "
            f"version {header.version_id}",
        )
        if header.idstr == RAM_IDSTR:
            self._records()
        else:
            self._payload(header)
        self._footer(header.section_id)

    def _footer(self, section_id: int) -> None:
        stream = self._stream
        offset = stream.at
        expected = SECTION.pack(SectionType.FOOTER, section_id)
        found = stream.take(len(expected))
        if found != expected:
            raise BadFooter(
                "section footer", expected=expected.hex(" "), found=found.hex(" "), offset=offset
            )
        stream.add(SectionType.FOOTER.name, "", f"section {section_id}")

    def _payload(self, header: SectionHeader) -> None:
        stream = self._stream
        device = self._devices.get((header.idstr, header.instance_id))
        if device is not None:
            detail = self._decode(device, header)
        else:
            stream.at = self._payload_end(header)
            detail = f"{stream.at - header.payload} bytes"
        stream.add("payload", header.idstr, detail)

    def _decode(self, device: Device, header: SectionHeader) -> str:
        parser = device.parse(header.version_id)
        try:
            request = next(parser)
            while True:
                request = parser.send(self._stream.take(request))
        except StopIteration as stop:
            return _format_state(stop.value)
        except VMStateError as error:
            raise DeviceStateError(
                f"state of {header.idstr!r}",
                expected=f"one of version {header.version_id}",
                found=f"({error})",
                offset=header.payload,
            ) from error

    def _payload_end(self, header: SectionHeader) -> int:
        stream = self._stream
        if self._sizes is None:
            self._sizes = self._find_sizes()
        size = self._sizes.get((header.idstr, header.instance_id))
        if size is not None:
            stream.take(size)
            return stream.at
        if header.payload not in self._payload_ends:
            self._payload_ends |= find_payload_ends(
                stream.data, header, stream.stop, self._may_follow_eof
            )
        end = self._payload_ends.get(header.payload)
        if end is None:
            raise BadFooter(
                f"payload of {header.idstr!r}",
                expected=f"a footer of section {header.section_id}, and sections up to EOF",
                found="none",
                offset=header.payload,
            )
        return end

    def _may_follow_a_migration(self, at: int) -> bool:
        """Say whether a vmdescription begins at `at`: a JSON object that ends with the stream."""
        data, begin = self._stream.data, at + SECTION.size
        if data[at] != SectionType.VMDESCRIPTION or not b"{".startswith(data[begin : begin + 1]):
            return False
        length = int.from_bytes(data[at + 1 : begin], "big")
        # A torn stream may end inside it.
        return begin > len(data) or begin + length >= len(data)

    def _may_follow_in_a_conversation(self, at: int) -> bool:
        """Say whether a vmdescription, a message or a RAM section begins at `at`."""
        data = self._stream.data
        if data[at] == SectionType.VMDESCRIPTION:
            return b"{".startswith(data[at + SECTION.size : at + SECTION.size + 1])
        if data[at] == SectionType.START:
            # A checkpoint of series v12 begins with RAM's START.
            header = section_header(data, at, len(data))
            return header is not None and header.idstr == RAM_IDSTR
        # A torn stream may end inside the messages.
        return _FIRST_MESSAGES.startswith(data[at : at + len(_FIRST_MESSAGES)])

    def _find_sizes(self) -> dict[tuple[str, int], int]:
        """Look ahead for the vmdescription, which follows the EOF after the devices."""
        stream = self._stream
        mark = bytes([SectionType.EOF, SectionType.VMDESCRIPTION])
        at = stream.data.find(mark, stream.at)
        while at >= 0:
            begin = at + len(mark) + BE32.size
            length = int.from_bytes(stream.data[at + len(mark) : begin], "big")
            if stream.data.startswith(b"{", begin) and begin + length <= len(stream.data):
                with suppress(VMDescriptionError):
                    text = stream.data[begin : begin + length]
                    return vmdescription.payload_sizes(vmdescription.decode(text))
            at = stream.data.find(mark, at + 1)
        return {}

    def _vmdescription(self) -> None:
        stream = self._stream
        offset = stream.at
        kind, length = SECTION.unpack(stream.take(SECTION.size))
        if kind != SectionType.VMDESCRIPTION:
            raise UnexpectedSection(
                "after EOF",
                expected=section_type_name(SectionType.VMDESCRIPTION),
                found=section_type_name(kind),
                offset=offset,
            )
        description = vmdescription.decode(stream.take(length), offset=offset + SECTION.size)
        stream.add(SectionType.VMDESCRIPTION.name, "JSON", f"{len(description['devices'])} devices")

    def _records(self) -> None:
        stream = self._stream
        while True:
            offset = stream.at
            (word,) = BE64.unpack(stream.take(BE64.size))
            flags = word & PAGE_FLAGS_MASK
            if flags in (RAMFlag.EOS, RAMFlag.MULTIFD_FLUSH):
                stream.add(RAMFlag(flags).name, "")
                if flags == RAMFlag.EOS:
                    return
            elif flags == RAMFlag.MEM_SIZE:
                self._block_list(word - flags)
            else:
                self._page_record(word, offset)

    def _page_record(self, word: int, offset: int) -> None:
        stream = self._stream
        flags = word & PAGE_FLAGS_MASK
        kind = flags & ~RAMFlag.CONTINUE
        if kind not in _PAGE_KINDS:
            raise RAMError(
                "RAM record",
                expected=" or ".join(each.name for each in _PAGE_KINDS),
                found=ram_flag_names(flags),
                offset=offset,
            )
        if not flags & RAMFlag.CONTINUE:
            self._block = stream.take_name()
        if kind == RAMFlag.PAGE:
            stream.take(PAGE_SIZE)
        elif kind == RAMFlag.ZERO:
            stream.take(1)
        elif kind == RAMFlag.XBZRLE:
            stream.take(1)
            stream.take(BE16.unpack(stream.take(BE16.size))[0])
        else:
            stream.take(BE32.unpack(stream.take(BE32.size))[0])
        stream.add_page(RAMFlag(kind).name, self._block, word // PAGE_SIZE)

    def _block_list(self, total: int) -> None:
        stream = self._stream
        blocks = []
        listed = 0
        while listed < total:
            name = stream.take_name()
            (length,) = BE64.unpack(stream.take(BE64.size))
            blocks.append(f"{name} {length}")
            listed += length
        stream.add(RAMFlag.MEM_SIZE.name, f"{len(blocks)} blocks, {total} bytes", ", ".join(blocks))

    def _message(self) -> None:
        stream = self._stream
        offset = stream.at
        (number,) = BE32.unpack(stream.take(BE32.size))
        try:
            message = Message(number)
        except ValueError:
            raise InvalidMessage(
                "COLO message", expected=f"0 to {max(Message)}", found=number, offset=offset
            ) from None
        if message is Message.VMSTATE_SIZE:
            (size,) = BE64.unpack(stream.take(BE64.size))
            stream.add("message", message.name, f"{size} bytes follow")
            self._sized_buffer(size)
        else:
            stream.add("message", message.name)

    def _sized_buffer(self, size: int) -> None:
        stream = self._stream
        begin = stream.at
        stream.take(size)
        stream.at, outer, stream.stop = begin, stream.stop, begin + size
        usual, self._may_follow_eof = self._may_follow_eof, lambda at: False
        try:
            self._sections()
            stream.expect_end("sized buffer")
        except StreamError as error:
            stream.at = stream.stop
            stream.add(UNEXPLAINED, str(error))
            self._block = _UNKNOWN_BLOCK
        stream.stop, self._may_follow_eof = outer, usual


def _format_state(state: State) -> str:
    return ", ".join(
        f"{name}={values[0]}" if len(values) == 1 else f"{name}[{len(values)}]"
        for name, values in state.items()
    )
