"""Loader of any machine's stream, whose machine type, RAM blocks and devices are learnt from it.

It has the stages of `colobench.wire.loadvm`. Devices are opaque: their sections are kept byte for
byte. The end of such a section is where its footer stands and from where everything up to EOF
splits into sections as well, see `colobench.wire.footers`. EOF is the last byte of a sized buffer;
in the migration a vmdescription follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from colobench.memory.ram import PageMemory
from colobench.wire.errors import (
    BadFooter,
    DeviceStateError,
    HeaderError,
    UnexpectedSection,
    UnknownSection,
)
from colobench.wire.footers import SectionHeader, find_payload_ends
from colobench.wire.format import (
    BE32,
    RAM_IDSTR,
    RAM_INSTANCE_ID,
    SECTION,
    SectionType,
    counted_identity,
    section_footer,
    section_type_name,
)
from colobench.wire.grammar import IGNORE_SHARED, SectionIdentity, configuration_subsection
from colobench.wire.loadvm import (
    COLO_RAM,
    PRECOPY,
    Loaded,
    Loading,
    OpaqueSection,
    RAMSections,
    SectionHandler,
    SectionLoader,
    Stage,
)
from colobench.wire.ram import RAMLoader, learn_block_list
from colobench.wire.reading import Ahead, Arrived, LookAhead, Parser, Steps, StreamBuffer

#: RAM of a checkpoint of a real QEMU: since 10.0, a command may precede it.
PEER_RAM: Final = Stage(COLO_RAM.name, COLO_RAM.allowed | {SectionType.COMMAND})
#: Limits of the devices of a migration, bytes, and of the devices that are learnt.
DEVICES_LIMIT: Final = 15 * 1024 * 1024
MOST_DEVICES: Final = 4096
#: Places that look like the end of the devices, up to which they are tried to be told apart.
MOST_ENDS: Final = 16

#: A footer, EOF, and the begin of a vmdescription.
_END: Final = re.compile(rb"(?=\x7e[\x00-\xff]{4}\x00\x06[\x00-\xff]{4}\{)")
_END_BYTES: Final = 2 * SECTION.size + 2
_ANY_VERSION: Final = 0xFFFFFFFF


class _LearntRAM(RAMSections):
    """Handler of RAM's sections, which makes the memory once the blocks are known."""

    def __init__(self, make_memory: Callable[[Mapping[str, int]], PageMemory], limit: int) -> None:
        super().__init__(None)
        self._make_memory, self._limit = make_memory, limit

    def block_list(self, at: StreamBuffer) -> Parser[None]:
        """Learn the blocks, and make a memory for them."""
        sizes = yield from learn_block_list(at, self._limit)
        self._loader = RAMLoader(self._make_memory(sizes), xbzrle=True)


class _OpaqueDevice:
    """Handler of a device's section, which is kept byte for byte."""

    kinds = frozenset({SectionType.FULL})
    minimum_version_id, version_id = 0, _ANY_VERSION

    def __init__(self, parts: SectionIdentity, identity: bytes, loader: LearningLoader) -> None:
        self._parts, self._identity, self._loader = parts, identity, loader

    def load(
        self, at: StreamBuffer, kind: int, section_id: int, version_id: int, context: Loading
    ) -> Parser[None]:
        """Keep the section."""
        offset, loaded = at.offset, context.loaded
        key = (self._parts.idstr, self._parts.instance_id)
        if key in loaded.opaque_keys:
            raise UnexpectedSection(
                section_type_name(kind),
                expected="each device once",
                found=f"device {self._parts} again",
                offset=offset,
            )
        payload = yield from self._loader.payload(at, section_id, self._parts, context.stage)
        # Its version may be another one in each checkpoint.
        identity = self._identity[: -BE32.size] + BE32.pack(version_id)
        data = SECTION.pack(kind, section_id) + counted_identity(identity) + payload
        loaded.opaque_keys.add(key)
        loaded.opaque_states.append(
            OpaqueSection(section_id, *key, data + section_footer(section_id))
        )


class LearningLoader(SectionLoader):
    """Loader of one stream of any machine, from the first stage to the last.

    Parameters
    ----------
    make_memory
        Function that makes the memory for RAM blocks of these names and sizes, once, when the
        stream has listed them.
    ram_limit
        Most bytes of RAM that are accepted.

    Attributes
    ----------
    machine
        The machine type; "" before the stream has named it.
    header
        All bytes of the stream's header, up to the end of CONFIGURATION.
    ram_section_id
        RAM's section id.
    """

    def __init__(
        self, make_memory: Callable[[Mapping[str, int]], PageMemory], ram_limit: int
    ) -> None:
        super().__init__({(RAM_IDSTR, RAM_INSTANCE_ID): _LearntRAM(make_memory, ram_limit)})
        self._ends: dict[int, int] = {}
        self.machine = ""
        self.header = b""

    @property
    def ram_section_id(self) -> int:
        """RAM's section id, once RAM's START has come."""
        return next(iter(self._started))

    def stream_header(self, at: StreamBuffer) -> Steps[None]:
        """Parse magic, version and CONFIGURATION, and keep their bytes."""
        header = bytearray()
        yield from _kept(super().stream_header(at), header)
        self.header = bytes(header)

    def configuration(self, at: StreamBuffer) -> Steps[None]:
        """Parse CONFIGURATION of any machine.

        Raises
        ------
        HeaderError
            If there is none, or shared RAM is left out of the stream.
        """
        self.machine = yield from self.machine_type(at)
        while True:
            ahead: Ahead = yield LookAhead(1)
            if ahead.data[0] != SectionType.SUBSECTION:
                return
            offset = at.offset
            found = yield from configuration_subsection(at)
            if IGNORE_SHARED in found.values:
                raise HeaderError(
                    "capability",
                    expected=f"{IGNORE_SHARED} to be off, so that all of RAM comes",
                    found="on",
                    offset=offset,
                )

    def missing(self, loaded: Loaded) -> list[str]:
        """Name what is missing: a machine has devices, but not always the same ones."""
        return [] if loaded.opaque_states else ["at least one device"]

    def unknown(self, parts: SectionIdentity, identity: bytes, offset: int) -> SectionHandler:
        """Learn a device."""
        if len(self.handlers) > MOST_DEVICES:
            raise UnknownSection(
                "section", expected=f"at most {MOST_DEVICES} devices", found="more", offset=offset
            )
        if not parts.idstr or not parts.idstr.isascii() or not parts.idstr.isprintable():
            raise UnknownSection(
                "section",
                expected="section id, idstr, instance id, version id",
                found=identity[:32].hex(" "),
                offset=offset,
            )
        device = _OpaqueDevice(parts, identity, self)
        self.handlers[parts.idstr, parts.instance_id] = device
        return device

    def payload(
        self, at: StreamBuffer, section_id: int, parts: SectionIdentity, stage: Stage
    ) -> Parser[bytes]:
        """Take the payload of a device's section.

        Raises
        ------
        BadFooter
            If the sections up to EOF cannot be told apart.
        DeviceStateError
            If the devices of the migration are too long.
        """
        begin = at.offset
        if begin not in self._ends:
            header = SectionHeader(section_id, *parts[1:], payload=0)
            ends = yield from (_ends_in_migration if stage is PRECOPY else _ends_in_buffer)(
                at, header
            )
            self._ends = {begin + start: begin + end for start, end in ends.items()}
        end = self._ends.pop(begin, None)
        if end is None:
            raise BadFooter(
                f"payload of {parts.idstr!r}",
                expected=f"a footer of section {section_id}, and sections up to EOF",
                found="none",
                offset=begin,
            )
        # All of it has arrived.
        payload: bytes = yield end - begin
        return payload


def _ends_in_buffer(at: StreamBuffer, header: SectionHeader) -> Parser[dict[int, int]]:
    """Tell apart the payloads of a sized buffer, of which all has arrived."""
    ahead: Ahead = yield Arrived(0)
    data = ahead.data
    last = len(data) - 1
    return find_payload_ends(
        data, header, len(data), lambda at: at == last and data[at] == SectionType.EOF
    ).ends


def _ends_in_migration(at: StreamBuffer, header: SectionHeader) -> Parser[dict[int, int]]:
    """Wait for the end of a migration's devices, and tell their payloads apart."""
    searched = size = tried = 0
    while True:
        ahead: Ahead = yield Arrived(size + 1, searched)
        size = searched + len(ahead.data)
        for end in [found.start() + searched + SECTION.size for found in _END.finditer(ahead.data)]:
            whole: Ahead = yield Arrived(end + 1)
            split = find_payload_ends(whole.data, header, end + 1, end.__eq__)
            if split.ends:
                return split.ends
            tried += 1
            if tried > MOST_ENDS:
                raise _too_long(f"{tried} that look so, with no such sections before", at)
        searched = max(0, size - _END_BYTES + 1)
        if size > DEVICES_LIMIT:
            raise _too_long(f"{size} bytes", at)


def _too_long(found: str, at: StreamBuffer) -> DeviceStateError:
    return DeviceStateError(
        "devices of the migration",
        expected=f"sections, EOF, and a vmdescription within {DEVICES_LIMIT} bytes",
        found=found,
        offset=at.offset,
    )


def _kept(parser: Steps[None], into: bytearray) -> Steps[None]:
    """Keep the bytes that a parser takes."""
    answer: Any = None
    while True:
        try:
            request = parser.send(answer)
        except StopIteration:
            return
        answer = yield request
        if isinstance(request, int):
            into += answer
