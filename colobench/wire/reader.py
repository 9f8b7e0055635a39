"""Reader of any stream, which puts every byte into an item, names what is unknown and reads on.

It reads more than `colobench.wire.loadvm` accepts: streams of other machines and devices, of a real
QEMU or of colobench, whole or torn, from files and from pipes. It loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from colobench.wire import agreement, vmdescription
from colobench.wire.buffer import StreamBuffer
from colobench.wire.errors import (
    BadFooter,
    DeviceStateError,
    InvalidMessage,
    StreamEnded,
    StreamError,
    TrailingBytes,
    UnexpectedSection,
    UnknownSection,
    VMDescriptionError,
)
from colobench.wire.footers import (
    PASSES,
    PayloadEnds,
    SectionHeader,
    find_payload_ends,
    section_header,
)
from colobench.wire.format import (
    BE32,
    BE64,
    COMMAND_HEADER,
    RAM_IDSTR,
    SECTION,
    VERSION,
    MigrationCommand,
    SectionType,
    section_footer,
    section_type_name,
)
from colobench.wire.grammar import (
    IGNORE_SHARED,
    SectionIdentity,
    StreamGrammar,
    configuration_subsection,
    never_started,
    vmdescription_section,
)
from colobench.wire.lookahead import LOOK_AHEAD_LIMIT, Skip, SkipRest, within
from colobench.wire.messages import (
    HASHED_PAGE_BYTES,
    NUMBERS,
    PAGE_HASHES_HEAD,
    Message,
    encode_message,
)
from colobench.wire.ram_reader import PageKeeper, RAMReader
from colobench.wire.recorded import Log, Sink
from colobench.wire.steps import Ahead, LookAhead, Steps

if TYPE_CHECKING:
    from colobench.wire.vmstate import Device, State

#: Kind of the item that holds the bytes that could not be read.
UNEXPLAINED: Final = "unexplained"
#: Limit of a vmdescription, bytes; QEMU's has some hundred kilobytes.
VMDESCRIPTION_LIMIT: Final = 16 * 1024 * 1024

#: The primary's first messages after a migration, and after each checkpoint.
_FIRST_MESSAGES = (
    encode_message(Message.CHECKPOINT_REQUEST) + encode_message(Message.VMSTATE_SEND),
    encode_message(Message.CHECKPOINT_REQUEST) + encode_message(Message.PAGE_HASHES),
    encode_message(Message.MIGRATE_RAM_BACKGROUND),
)
#: Lengths of commands' data, where it is always the same.
_COMMAND_LENGTHS: Final = {
    MigrationCommand.OPEN_RETURN_PATH: 0,
    MigrationCommand.PING: 4,
    MigrationCommand.POSTCOPY_LISTEN: 0,
    MigrationCommand.POSTCOPY_RUN: 0,
    MigrationCommand.PACKAGED: 4,
    MigrationCommand.ENABLE_COLO: 0,
    MigrationCommand.POSTCOPY_RESUME: 0,
    MigrationCommand.SWITCHOVER_START: 0,
}
_FIRST_LOOK = 64 * 1024
#: Passes over its bytes that a search in vain counts more: about 25 of them are made over the same
#: bytes.
_VAIN = 8
_WINDOW = 256 * 1024


class Enclosure(Enum):
    """What sections are part of, which decides what may follow them."""

    MIGRATION = "migration"
    CONVERSATION = "conversation"
    BUFFER = "sized buffer"
    PACKAGE = "package"


class StreamReader(StreamGrammar[Enclosure]):
    """Reader of one stream, which keeps its state from one part to the next.

    Parameters
    ----------
    at
        The buffer that is read.
    sink
        Receiver of the items.
    devices
        Devices whose states are decoded. Of any other device only the size is found: from the
        vmdescription after the sections, or else by its footer.
    one_kind
        True if page records of different kinds are different items.
    keeper
        Keeper of some pages, or None.

    Attributes
    ----------
    ram
        Reader of RAM's sections, which knows the blocks.
    machine
        The machine type; None if the stream has none.
    description
        The vmdescription, once it was read or seen ahead.
    colo
        True once the stream has told that COLO follows.
    """

    def __init__(
        self,
        at: StreamBuffer,
        sink: Sink,
        devices: Iterable[Device] = (),
        *,
        one_kind: bool = False,
        keeper: PageKeeper | None = None,
    ) -> None:
        self._at, self._sink = at, sink
        self._log = Log(at, sink)
        self.ram = RAMReader(at, self._log, one_kind=one_kind, keeper=keeper)
        self._devices = {(device.idstr, device.instance_id): device for device in devices}
        self._started: dict[int, SectionIdentity] = {}
        # Ends of payloads that were found by looking ahead, by their beginnings.
        self._payload_ends: dict[int, int] = {}
        # Offset up to which was looked ahead, and the bytes that all searches went over.
        self._looked = self._effort = 0
        self._has_configuration = False
        self._are_footers_known = False
        self.machine: str | None = None
        self.description: dict[str, Any] | None = None
        self.colo = False

    # Whole streams.

    def migration(self) -> Steps[None]:
        """Read a whole migration, behind which nothing may follow."""
        yield from self._guarded(self._migration())

    def conversation(self) -> Steps[None]:
        """Read a migration and the checkpoints after it."""
        self.colo = True
        yield from self._guarded(self._session())

    def session(self) -> Steps[None]:
        """Read a migration, and the checkpoints after it if it says that COLO follows."""
        yield from self._guarded(self._session())

    def checkpoints(self) -> Steps[None]:
        """Read messages and the sections between them."""
        self.colo = self._are_footers_known = True
        yield from self._guarded(self._checkpoints())

    def _guarded(self, parser: Steps[None]) -> Steps[None]:
        """Put all that an error leaves unread into one item."""
        try:
            yield from parser
        except StreamError as error:
            yield SkipRest()
            self._log.add(UNEXPLAINED, str(error))

    def _migration(self) -> Steps[None]:
        yield from self.stream_header(self._at)
        yield from self.sections(self._at, Enclosure.MIGRATION)
        if not (yield from self._at_end()):
            yield from self._vmdescription()
        yield from self._expect_end("stream")

    def _session(self) -> Steps[None]:
        yield from self.stream_header(self._at)
        yield from self.sections(self._at, Enclosure.MIGRATION)
        if (yield from self._next_is(SectionType.VMDESCRIPTION)):
            yield from self._vmdescription()
        if self.colo:
            yield from self._checkpoints()
        yield from self._expect_end("stream")

    def _checkpoints(self) -> Steps[None]:
        while not (yield from self._at_end()):
            # A message begins with a zero byte. EOF, the only section type 0, is read elsewhere.
            if (yield from self._next_is(0)):
                yield from self._message()
            else:
                yield from self.sections(self._at, Enclosure.CONVERSATION)

    def _at_end(self) -> Steps[bool]:
        ahead: Ahead = yield LookAhead(1)
        return not ahead.data

    def _next_is(self, byte: int) -> Steps[bool]:
        ahead: Ahead = yield LookAhead(1)
        return ahead.data[:1] == bytes([byte])

    def _expect_end(self, subject: str) -> Steps[None]:
        ahead: Ahead = yield LookAhead(1)
        if not ahead.data:
            return
        offset = self._at.offset
        found = yield SkipRest()
        raise TrailingBytes(subject, expected="its end", found=f"{found} more bytes", offset=offset)

    # Header.

    def configuration(self, at: StreamBuffer) -> Steps[None]:
        """Read CONFIGURATION, which machine types before 2.4 do not send."""
        self._log.add("header", "QEVM", f"version {VERSION}")
        self._has_configuration = yield from self._next_is(SectionType.CONFIGURATION)
        if not self._has_configuration:
            return
        self._are_footers_known = True
        self.machine = yield from self.machine_type(at)
        self._log.add(SectionType.CONFIGURATION.name, self.machine)
        while (yield from self._next_is(SectionType.SUBSECTION)):
            found = yield from configuration_subsection(at, self._agreement)
            self._log.add(SectionType.SUBSECTION.name, found.name, ", ".join(found.values))
            self.ram.addresses |= IGNORE_SHARED in found.values

    @staticmethod
    def _agreement(name: str) -> Steps[tuple[str, ...]]:
        """Skip what only our own streams have."""
        if name != agreement.NAME:
            return ()
        (size,) = BE32.unpack((yield BE32.size))
        yield Skip(size)
        return ("what both nodes must have",)

    # Sections.

    def allow(self, kind: int, context: Enclosure, offset: int) -> None:
        """Refuse what is no section type."""
        if kind == SectionType.EOF:
            self._log.add(SectionType.EOF.name, "")
        elif kind not in (
            SectionType.COMMAND,
            SectionType.START,
            SectionType.PART,
            SectionType.END,
            SectionType.FULL,
        ):
            raise UnexpectedSection(
                "stream", expected="a section type", found=section_type_name(kind), offset=offset
            )

    def ended(self, context: Enclosure) -> Steps[bool]:
        """Say whether a package has ended, which may have no EOF."""
        return context is Enclosure.PACKAGE and (yield from self._at_end())

    def command(
        self, at: StreamBuffer, number: int, length: int, context: Enclosure
    ) -> Steps[None]:
        """Read a command of any number, and a package behind PACKAGED."""
        data: bytes = yield length
        try:
            title = MigrationCommand(number).name
        except ValueError:
            title = str(number)
        self._log.add(SectionType.COMMAND.name, title, data.hex(" "))
        if number == MigrationCommand.ENABLE_COLO:
            self.colo = True
        elif number == MigrationCommand.POSTCOPY_ADVISE:
            self.ram.page_sizes = True
        elif number == MigrationCommand.PACKAGED and length == BE32.size:
            yield from self._part(BE32.unpack(data)[0], Enclosure.PACKAGE)

    def _part(self, size: int, enclosure: Enclosure) -> Steps[None]:
        """Read sections in a part of known size; an error in it affects only the part."""
        at, end = self._at, self._at.offset + size
        self._sink.enter(enclosure.value, f"{size} bytes")
        try:
            yield from within(self._whole_part(enclosure), at, end)
        except StreamError as error:
            left = end - at.offset
            ended: StreamEnded | None = None
            try:
                yield Skip(left)
            except StreamEnded as stop:
                ended = stop
            if isinstance(error, StreamEnded) and ended is not None:
                error = StreamEnded(
                    "stream", expected=f"{size} bytes", found=ended.found, offset=end - size
                )
            self._log.add(UNEXPLAINED, str(error))
            self.ram.forget_block()
        self._sink.leave()

    def _whole_part(self, enclosure: Enclosure) -> Steps[None]:
        yield from self.sections(self._at, enclosure)
        yield from self._expect_end(enclosure.value)

    def section(self, at: StreamBuffer, kind: int, context: Enclosure) -> Steps[None]:
        """Read a section; behind an error in it, go on at its footer if that can be found."""
        self._sink.enter("section", SectionType(kind).name)
        ahead: Ahead = yield LookAhead(BE32.size)
        section_id = int.from_bytes(ahead.data[: BE32.size], "big")
        try:
            yield from super().section(at, kind, context)
        except StreamEnded:
            raise
        except StreamError as error:
            if not self.footers or not (yield from self._to_footer(section_id, kind, context)):
                raise
            self._log.add(UNEXPLAINED, str(error))
            self.ram.forget_block()
            yield from self.footer(at, section_id)
        finally:
            self._sink.leave()

    def described(
        self,
        at: StreamBuffer,
        kind: int,
        section_id: int,
        identity: bytes,
        offset: int,
        context: Enclosure,
    ) -> Steps[None]:
        """Read the payload of a START or FULL section."""
        found = SectionIdentity.parse(section_id, identity)
        if not found.idstr or not found.idstr.isascii() or not found.idstr.isprintable():
            raise UnknownSection(
                "section header",
                expected="section id, idstr, instance id, version id",
                found=identity[:32].hex(" "),
                offset=offset,
            )
        self._log.add(
            SectionType(kind).name,
            found.idstr,
            f"section {section_id}, instance {found.instance_id}, version {found.version_id}",
        )
        if kind == SectionType.START:
            self._started[section_id] = found
        if found.idstr == RAM_IDSTR:
            yield from self._ram(section_id)
        else:
            yield from self._payload(found, kind, context)

    def continued(
        self, at: StreamBuffer, kind: int, section_id: int, offset: int, context: Enclosure
    ) -> Steps[None]:
        """Read the payload of a PART or END section."""
        found = self._started.get(section_id)
        # A recorded checkpoint does not name the section's owner; here it is always RAM.
        idstr = RAM_IDSTR if found is None else found.idstr
        self._log.add(SectionType(kind).name, idstr, f"section {section_id}")
        if found is None and self._started:
            raise never_started(kind, section_id, list(self._started), offset)
        if found is None or idstr == RAM_IDSTR:
            yield from self._ram(section_id)
        else:
            yield from self._payload(found, kind, context)

    def _ram(self, section_id: int) -> Steps[None]:
        yield from self.ram.records()
        if not self._are_footers_known:
            # A machine type that sends no CONFIGURATION sends no footers either.
            self._are_footers_known = True
            footer = section_footer(section_id)
            ahead: Ahead = yield LookAhead(len(footer))
            self.footers = ahead.data[: len(footer)] == footer

    def footer(self, at: StreamBuffer, section_id: int) -> Steps[None]:
        """Read a section's footer."""
        yield from super().footer(at, section_id)
        self._log.add(SectionType.FOOTER.name, "", f"section {section_id}")

    # Devices.

    def _payload(self, identity: SectionIdentity, kind: int, context: Enclosure) -> Steps[None]:
        device = self._devices.get((identity.idstr, identity.instance_id))
        if device is not None and kind == SectionType.FULL:
            detail = yield from self._decode(device, identity)
            self._log.add("payload", identity.idstr, detail)
            return
        begin = self._at.offset
        if kind == SectionType.FULL:
            end = yield from self._payload_end(identity, context)
        elif (yield from self._to_footer(identity.section_id, kind, context)):
            self._log.add("payload", identity.idstr, f"{self._at.offset - begin} bytes")
            return
        else:
            raise self._no_footer(identity, begin)
        # Of a part of a known size, and of what was looked at, all is there.
        data = yield end - begin
        self._log.add_payload(identity, data, f"{len(data)} bytes")

    def _decode(self, device: Device, identity: SectionIdentity) -> Steps[str]:
        # Who decodes no device needs none of what states are made of.
        from colobench.wire.vmstate import VMStateError

        begin = self._at.offset
        try:
            return _format_state((yield from device.parse(identity.version_id)))
        except VMStateError as error:
            raise DeviceStateError(
                f"state of {identity.idstr!r}",
                expected=f"one of version {identity.version_id}",
                found=f"({error})",
                offset=begin,
            ) from error

    def _payload_end(self, identity: SectionIdentity, context: Enclosure) -> Steps[int]:
        begin = self._at.offset
        if begin not in self._payload_ends:
            self._payload_ends.clear()
            # Where one search was in vain, those for each of the sections behind it may be, too.
            self._looked = max(self._looked, begin)
            if self._left() > 0:
                yield from self._look_for_ends(identity, context)
        end = self._payload_ends.pop(begin, None)
        if end is not None:
            return end
        raise self._no_footer(identity, begin)

    def _left(self) -> int:
        """Say how many bytes searches may go over: their time is proportional to the stream."""
        return PASSES * self._looked - self._effort

    def _look_for_ends(self, identity: SectionIdentity, context: Enclosure) -> Steps[None]:
        """Look ahead until the payloads of this section and of those behind it are told apart."""
        begin, count = self._at.offset, _FIRST_LOOK
        header = SectionHeader(*identity, payload=0)
        while True:
            ahead: Ahead = yield LookAhead(count)
            is_last = ahead.final or count >= LOOK_AHEAD_LIMIT
            self._looked = max(self._looked, begin + len(ahead.data))
            self._effort += len(ahead.data)
            if context in (Enclosure.MIGRATION, Enclosure.PACKAGE):
                self._see_description(ahead)
            found: dict[int, int] = {}
            if self.description is not None and context is Enclosure.MIGRATION:
                found = self._ends_by_sizes(ahead.data, header)
            if not found and self.footers:
                split = self._split(ahead, header, context)
                found = split.ends if is_last or not split.cut else {}
                waits = context is Enclosure.MIGRATION and not self.colo
                if found and waits and not is_last and self._describes(ahead.data, found):
                    found = {}
            if found or is_last:
                break
            count *= 2
        if not found:
            self._effort += _VAIN * len(ahead.data)
        self._payload_ends = {begin + start: begin + end for start, end in found.items()}

    def _describes(self, data: bytes, ends: dict[int, int]) -> bool:
        """Say whether a vmdescription follows the sections, of which the end is not there yet."""
        behind = max(ends.values()) + SECTION.size + 1
        return data[behind : behind + 1] == bytes([SectionType.VMDESCRIPTION])

    def _split(self, ahead: Ahead, header: SectionHeader, context: Enclosure) -> PayloadEnds:
        data, final = ahead
        split = find_payload_ends(
            data,
            header,
            len(data),
            lambda at: self._may_end(data, final, at, context),
            self._left(),
        )
        self._effort += split.effort
        if split.ends or not final:
            return split
        # Torn or damaged: as far as each footer has a section, or an end, behind it.
        ends, place = {}, header
        while (end := self._next_footer(data, final, place, context)) is not None:
            ends[place.payload] = end
            following = section_header(data, end + SECTION.size, len(data))
            if following is None or data[end + SECTION.size] != SectionType.FULL:
                break
            place = following
        return PayloadEnds(ends, cut=False)

    def _next_footer(
        self, data: bytes, final: bool, header: SectionHeader, context: Enclosure
    ) -> int | None:
        """Find the first footer that a FULL section, or an end, follows."""
        footer = section_footer(header.section_id)
        end = data.find(footer, header.payload)
        while end >= 0:
            behind = end + len(footer)
            is_end = self._may_end(data, final, behind, context)
            if not is_end and data[behind : behind + 1] == bytes([SectionType.FULL]):
                following = section_header(data, behind, len(data))
                is_end = following is not None and following.section_id > header.section_id
            if is_end:
                self._effort += end - header.payload
                return end
            end = data.find(footer, end + 1)
        self._effort += len(data) - header.payload
        return None

    def _may_end(self, data: bytes, final: bool, at: int, context: Enclosure) -> bool:
        """Say whether FULL sections may end at `at`, behind a footer."""
        if at == len(data):
            return final and context is Enclosure.PACKAGE
        if data[at] == SectionType.COMMAND and context is Enclosure.PACKAGE:
            return _is_command(data, at)
        if data[at] != SectionType.EOF:
            return False
        behind = at + 1
        if behind == len(data):
            return final
        if context in (Enclosure.BUFFER, Enclosure.PACKAGE):
            return False
        if self.colo:
            return _may_follow_in_a_conversation(data, behind)
        return _may_follow_a_migration(data, behind)

    def _ends_by_sizes(self, data: bytes, header: SectionHeader) -> dict[int, int]:
        """Find the payloads by the sizes in the vmdescription, as long as the footers agree."""
        assert self.description is not None
        try:
            sizes = vmdescription.payload_sizes(self.description)
        except VMDescriptionError:
            return {}
        ends: dict[int, int] = {}
        while (size := sizes.get((header.idstr, header.instance_id))) is not None:
            end = header.payload + size
            behind = end
            if self.footers:
                footer = section_footer(header.section_id)
                behind += len(footer)
                if data[end:behind] != footer:
                    return {}
            ends[header.payload] = end
            if data[behind : behind + 1] != bytes([SectionType.FULL]):
                # Sizes that lead nowhere are wrong, where no footers confirm them.
                return ends if data[behind : behind + 1] == bytes([SectionType.EOF]) else {}
            following = section_header(data, behind, len(data))
            if following is None:
                return {}
            header = following
        return {}

    def _see_description(self, ahead: Ahead) -> None:
        """Look for the vmdescription, which follows the EOF after the devices."""
        if self.description is not None:
            return
        data = ahead.data
        mark = bytes([SectionType.EOF, SectionType.VMDESCRIPTION])
        at = data.find(mark)
        while at >= 0:
            begin = at + len(mark) + BE32.size
            length = int.from_bytes(data[at + len(mark) : begin], "big")
            fits = length <= VMDESCRIPTION_LIMIT and begin + length <= len(data)
            if fits and data.startswith(b"{", begin) and self._left() > 0:
                self._effort += length
                with suppress(VMDescriptionError):
                    self.description = vmdescription.decode(data[begin : begin + length])
                    return
            at = data.find(mark, at + 1)

    def _to_footer(self, section_id: int, kind: int, context: Enclosure) -> Steps[bool]:
        """Skip to a footer of this section behind which the stream goes on; say if there is one."""
        footer = section_footer(section_id)
        while True:
            ahead: Ahead = yield LookAhead(_WINDOW)
            data, final = ahead
            end = data.find(footer)
            while end >= 0:
                behind = end + len(footer)
                if not final and behind + 1024 > len(data):
                    break
                if self._may_go_on(data, final, behind, context):
                    yield Skip(end)
                    return True
                end = data.find(footer, end + 1)
            if final:
                return False
            yield Skip(end if end > 0 else len(data) - len(footer) + 1)

    def _may_go_on(self, data: bytes, final: bool, at: int, context: Enclosure) -> bool:
        """Say whether what is at `at`, behind a footer, looks like the next part of the stream."""
        if self._may_end(data, final, at, context):
            return True
        kind = data[at : at + 1]
        if kind in (b"\1", b"\4"):
            return section_header(data, at, len(data)) is not None
        if kind in (b"\2", b"\3"):
            section_id = int.from_bytes(data[at + 1 : at + SECTION.size], "big")
            return len(data) >= at + SECTION.size and (
                section_id in self._started or not self._started
            )
        return _is_command(data, at)

    @staticmethod
    def _no_footer(identity: SectionIdentity, offset: int) -> BadFooter:
        return BadFooter(
            f"payload of {identity.idstr!r}",
            expected=f"a footer of section {identity.section_id}, and sections up to EOF",
            found="none",
            offset=offset,
        )

    def _vmdescription(self) -> Steps[None]:
        description = yield from vmdescription_section(self._at, VMDESCRIPTION_LIMIT)
        self.description = description
        count = len(description["devices"])
        self._log.add(SectionType.VMDESCRIPTION.name, "JSON", f"{count} devices")

    # Messages.

    def _message(self) -> Steps[None]:
        offset = self._at.offset
        (number,) = BE32.unpack((yield BE32.size))
        try:
            message = Message(number)
        except ValueError:
            raise InvalidMessage(
                "COLO message", expected=NUMBERS, found=number, offset=offset
            ) from None
        if message is Message.VMSTATE_SIZE:
            (size,) = BE64.unpack((yield BE64.size))
            self._log.add("message", message.name, f"{size} bytes follow")
            yield from self._part(size, Enclosure.BUFFER)
        elif message is Message.PAGE_HASHES:
            count, _ = PAGE_HASHES_HEAD.unpack((yield PAGE_HASHES_HEAD.size))
            yield Skip(count * HASHED_PAGE_BYTES)
            self._log.add("message", message.name, f"{count} pages")
        elif message is Message.DIVERGENT_PAGES:
            (count,) = BE32.unpack((yield BE32.size))
            yield Skip(-(-count // 8))
            self._log.add("message", message.name, f"a bit for each of {count} pages")
        else:
            self._log.add("message", message.name)


def _is_command(data: bytes, at: int) -> bool:
    """Say whether a command whose length is known begins at `at`."""
    if data[at : at + 1] != bytes([SectionType.COMMAND]) or at + 5 > len(data):
        return False
    number, length = COMMAND_HEADER.unpack_from(data, at + 1)
    try:
        expected = _COMMAND_LENGTHS.get(MigrationCommand(number), length)
    except ValueError:
        return False
    return bool(length == expected) and length < 1024


def _may_follow_a_migration(data: bytes, at: int) -> bool:
    """Say whether a vmdescription begins at `at`: a JSON object that ends with the stream."""
    begin = at + SECTION.size
    if data[at] != SectionType.VMDESCRIPTION or not b"{".startswith(data[begin : begin + 1]):
        return False
    length = int.from_bytes(data[at + 1 : begin], "big")
    # A torn stream may end inside it.
    return begin > len(data) or begin + length >= len(data)


def _may_follow_in_a_conversation(data: bytes, at: int) -> bool:
    """Say whether a vmdescription, a message or a RAM section begins at `at`."""
    if data[at] == SectionType.VMDESCRIPTION:
        return b"{".startswith(data[at + SECTION.size : at + SECTION.size + 1])
    if data[at] == SectionType.START:
        # A checkpoint of series v12 begins with RAM's START.
        header = section_header(data, at, len(data))
        return header is not None and header.idstr == RAM_IDSTR
    # A torn stream may end inside the messages.
    rest = data[at : at + BE64.size]
    return any(first.startswith(rest[: len(first)]) for first in _FIRST_MESSAGES)


def _format_state(state: State) -> str:
    return ", ".join(
        f"{name}={values[0]}" if len(values) == 1 else f"{name}[{len(values)}]"
        for name, values in state.items()
    )
