"""Loader of the migration stream, whose stages say which sections are allowed.

`colobench.wire.format` describes the bytes. This table has one row for each stage; a stage ends
with EOF::

    stage         section types              must bring
    PRECOPY       COMMAND START PART END FULL   RAM's END, every device
    COLO_RAM      PART END                      RAM's END
    COLO_DEVICES  FULL                          every device
    COLO_BUFFER   PART END FULL                 RAM's END, every device

A checkpoint with RAM and device state separated has the stages COLO_RAM and COLO_DEVICES. A
checkpoint with both in one sized buffer has the stage COLO_BUFFER. QEMU's own loader has no such
table and takes any section at any time; the review of COLO's patch series asked for one.

RAM pages are stored (in a secondary's RAM cache) as they arrive. Device states are parsed, checked
and returned. The caller applies them once the whole checkpoint has arrived, or never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from colobench.errors import RemoteError
from colobench.memory.ram import PageMemory
from colobench.wire import vmdescription
from colobench.wire.agreement import parse_agreement
from colobench.wire.errors import (
    BadFooter,
    CommandError,
    DeviceStateError,
    HeaderError,
    UnexpectedSection,
    UnknownSection,
    VMDescriptionError,
)
from colobench.wire.format import (
    BE32,
    COMMAND_HEADER,
    MAGIC,
    RAM_IDSTR,
    RAM_INSTANCE_ID,
    RAM_VERSION_ID,
    SECTION,
    SECTION_IDENTITY,
    VERSION,
    MigrationCommand,
    SectionType,
    section_footer,
    section_type_name,
)
from colobench.wire.ram import RAMLoader
from colobench.wire.reading import Parser, StreamBuffer, sized_bytes
from colobench.wire.vmstate import Device, State

#: Limit of a machine type's name, bytes.
MACHINE_LIMIT: Final = 255
#: Limit of a vmdescription, bytes. Ours has two kilobytes; parsed into Python objects, one may need
#: thirty times its size.
VMDESCRIPTION_LIMIT: Final = 256 * 1024

#: Commands that we accept; they need no answer and carry no data.
_COMMANDS: Final = (MigrationCommand.ENABLE_COLO, MigrationCommand.SWITCHOVER_START)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the conversation, with the section types that it allows."""

    name: str
    allowed: frozenset[SectionType]


PRECOPY = Stage(
    "PRECOPY",
    frozenset(
        {
            SectionType.COMMAND,
            SectionType.START,
            SectionType.PART,
            SectionType.END,
            SectionType.FULL,
        }
    ),
)
COLO_RAM = Stage("COLO_RAM", frozenset({SectionType.PART, SectionType.END}))
COLO_DEVICES = Stage("COLO_DEVICES", frozenset({SectionType.FULL}))
COLO_BUFFER = Stage("COLO_BUFFER", frozenset({SectionType.PART, SectionType.END, SectionType.FULL}))


@dataclass(slots=True)
class Loaded:
    """Result of a stage: the number of pages stored, and device states that are not applied."""

    pages: int = 0
    zero_pages: int = 0
    device_states: list[tuple[Device, State]] = field(default_factory=list)
    commands: list[MigrationCommand] = field(default_factory=list)
    ram_ended: bool = False


class _RAMSections:
    """Handler of RAM's sections."""

    kinds = frozenset({SectionType.START, SectionType.PART, SectionType.END})
    version_id = minimum_version_id = RAM_VERSION_ID

    def __init__(
        self, memory: PageMemory, *, multifd: bool, xbzrle: bool, compression: str | None
    ) -> None:
        self._loader = RAMLoader(memory, multifd=multifd, xbzrle=xbzrle, compression=compression)

    def load(self, at: StreamBuffer, kind: int, version_id: int, loaded: Loaded) -> Parser[None]:
        if kind == SectionType.START:
            yield from self._loader.block_list(at)
            return
        pages, zero_pages = yield from self._loader.records(at)
        loaded.pages += pages
        loaded.zero_pages += zero_pages
        loaded.ram_ended |= kind == SectionType.END


class _DeviceSection:
    """Handler of a device's section."""

    kinds = frozenset({SectionType.FULL})

    def __init__(self, device: Device) -> None:
        self._device = device
        self.version_id = device.version_id
        self.minimum_version_id = device.minimum_version_id

    def load(self, at: StreamBuffer, kind: int, version_id: int, loaded: Loaded) -> Parser[None]:
        device, offset = self._device, at.offset
        for other, _ in loaded.device_states:
            if other is device:
                raise UnexpectedSection(
                    section_type_name(kind),
                    expected="each device once",
                    found=f"{_title(device)} again",
                    offset=offset,
                )
        try:
            state = yield from device.parse(version_id)
        except RemoteError as error:
            raise DeviceStateError(
                f"state of {_title(device)}",
                expected=f"one of version {version_id}",
                found=f"({error})",
                offset=offset,
            ) from error
        loaded.device_states.append((device, state))


class Incoming:
    """Loader of one stream, which keeps its state from the first stage to the last.

    Parameters
    ----------
    machine
        Our machine type; a stream of another machine type is refused.
    memory
        Memory into which RAM pages are stored.
    devices
        Devices whose states the stream may contain.
    multifd
        True if RAM pages arrive on multifd channels.
    xbzrle
        True if RAM pages may be encoded with XBZRLE.
    compression
        How page records in the stream are compressed, see `colobench.wire.compression`, or None.
    settings
        Our settings, by name, that both nodes must share; None if the primary sends none.
    """

    def __init__(
        self,
        machine: str,
        memory: PageMemory,
        devices: Sequence[Device],
        *,
        multifd: bool = False,
        xbzrle: bool = False,
        compression: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._machine, self._settings = machine, settings
        self._devices = tuple(devices)
        self._handlers: dict[tuple[str, int], _RAMSections | _DeviceSection] = {
            (device.idstr, device.instance_id): _DeviceSection(device) for device in devices
        }
        self._handlers[RAM_IDSTR, RAM_INSTANCE_ID] = _RAMSections(
            memory, multifd=multifd, xbzrle=xbzrle, compression=compression
        )
        self._started: dict[int, _RAMSections | _DeviceSection] = {}
        #: Results of `_identify`, because all checkpoints have the same headers.
        self._identified: dict[tuple[int, bytes], tuple[_RAMSections | _DeviceSection, int]] = {}

    def stream_header(self, at: StreamBuffer) -> Parser[None]:
        """Parse magic, version and CONFIGURATION.

        Raises
        ------
        HeaderError
            If one of them differs from ours.
        SettingsDiffer
            If a setting differs.
        """
        yield from _expect(at, "magic", BE32.pack(MAGIC))
        yield from _expect(at, "stream version", BE32.pack(VERSION))
        offset = at.offset
        kind, length = SECTION.unpack((yield SECTION.size))
        if kind != SectionType.CONFIGURATION or length > MACHINE_LIMIT:
            raise HeaderError(
                "configuration",
                expected=f"{section_type_name(SectionType.CONFIGURATION)} and a machine type "
                f"of at most {MACHINE_LIMIT} bytes",
                found=f"{section_type_name(kind)} and {length}",
                offset=offset,
            )
        offset = at.offset
        machine = (yield length).decode(errors="backslashreplace")
        if machine != self._machine:
            raise HeaderError(
                "machine type", expected=repr(self._machine), found=repr(machine), offset=offset
            )
        if self._settings is not None:
            yield from parse_agreement(at, self._settings)

    def load_sections(self, at: StreamBuffer, stage: Stage) -> Parser[Loaded]:
        """Parse sections up to EOF.

        Raises
        ------
        UnexpectedSection
            If `stage` does not allow a section, or a section is missing at its EOF.
        UnknownSection, BadFooter, CommandError, RAMError, DeviceStateError
            If the content of a section is wrong.
        """
        loaded = Loaded()
        while True:
            offset = at.offset
            kind = (yield 1)[0]
            if kind == SectionType.EOF:
                self._check_complete(stage, loaded, offset)
                return loaded
            if kind not in stage.allowed:
                raise UnexpectedSection(
                    f"stage {stage.name}",
                    expected=_names(stage.allowed),
                    found=section_type_name(kind),
                    offset=offset,
                )
            if kind == SectionType.COMMAND:
                yield from _command(at, loaded.commands)
            else:
                yield from self._section(at, kind, loaded)

    def _section(self, at: StreamBuffer, kind: int, loaded: Loaded) -> Parser[None]:
        offset = at.offset
        section_id = BE32.unpack((yield 4))[0]
        version_id = 0
        if kind in (SectionType.START, SectionType.FULL):
            handler, version_id = yield from self._header(at, kind, section_id)
        elif section_id in self._started:
            handler = self._started[section_id]
        else:
            raise UnknownSection(
                f"section id of {section_type_name(kind)}",
                expected=f"one that was started, of {list(self._started)}",
                found=section_id,
                offset=offset,
            )
        yield from handler.load(at, kind, version_id, loaded)
        offset = at.offset
        footer = section_footer(section_id)
        found = yield len(footer)
        if found != footer:
            raise BadFooter(
                "section footer", expected=footer.hex(" "), found=found.hex(" "), offset=offset
            )

    def _header(
        self, at: StreamBuffer, kind: int, section_id: int
    ) -> Parser[tuple[_RAMSections | _DeviceSection, int]]:
        offset = at.offset
        length = (yield 1)[0]
        identity = yield length + SECTION_IDENTITY.size
        identified = self._identified.get((kind, identity))
        if identified is None:
            identified = self._identify(kind, identity, offset)
            self._identified[kind, identity] = identified
        handler, version_id = identified
        if section_id in self._started or handler in self._started.values():
            raise UnexpectedSection(
                section_type_name(kind),
                expected="a section and a section id that are not in use",
                found=f"{_printable(identity)} as section {section_id}",
                offset=offset,
            )
        if kind == SectionType.START:
            self._started[section_id] = handler
        return handler, version_id

    def _identify(
        self, kind: int, identity: bytes, offset: int
    ) -> tuple[_RAMSections | _DeviceSection, int]:
        """Find the handler of a section with that idstr, instance id and version id."""
        idstr, instance_id, version_id = _parts(identity)
        handler = self._handlers.get((idstr, instance_id))
        found = _printable(identity)
        if handler is None:
            raise UnknownSection(
                "section",
                expected=f"one of {list(self._handlers)}",
                found=found,
                offset=offset,
            )
        if kind not in handler.kinds:
            raise UnexpectedSection(
                f"section {found}",
                expected=_names(handler.kinds),
                found=section_type_name(kind),
                offset=offset,
            )
        if not handler.minimum_version_id <= version_id <= handler.version_id:
            raise DeviceStateError(
                f"version of section {found}",
                expected=f"{handler.minimum_version_id} to {handler.version_id}",
                found=version_id,
                offset=offset + 1 + len(identity) - BE32.size,
            )
        return handler, version_id

    def _check_complete(self, stage: Stage, loaded: Loaded, offset: int) -> None:
        missing = []
        if SectionType.END in stage.allowed and not loaded.ram_ended:
            missing.append(f"{section_type_name(SectionType.END)} of RAM")
        if SectionType.FULL in stage.allowed:
            there = [device for device, _ in loaded.device_states]
            missing += [_title(device) for device in self._devices if device not in there]
        if missing:
            raise UnexpectedSection(
                f"stage {stage.name}",
                expected=" and ".join(missing),
                found=section_type_name(SectionType.EOF),
                offset=offset,
            )


def _expect(at: StreamBuffer, subject: str, expected: bytes) -> Parser[None]:
    offset = at.offset
    found = yield len(expected)
    if found != expected:
        raise HeaderError(subject, expected=expected.hex(" "), found=found.hex(" "), offset=offset)


def _command(at: StreamBuffer, so_far: list[MigrationCommand]) -> Parser[None]:
    """Parse a command and add it to `so_far`; each command may come once."""
    offset = at.offset
    number, length = COMMAND_HEADER.unpack((yield COMMAND_HEADER.size))
    if number not in _COMMANDS or length:
        raise CommandError(
            "command",
            expected=" or ".join(f"{each.value} ({each.name}), no data" for each in _COMMANDS),
            found=f"{number} with {length} bytes",
            offset=offset,
        )
    command = MigrationCommand(number)
    if command in so_far:
        raise CommandError(
            "command", expected="each once", found=f"{command.name} again", offset=offset
        )
    so_far.append(command)


def vmdescription_section(
    at: StreamBuffer, *, size_limit: int = VMDESCRIPTION_LIMIT
) -> Parser[dict[str, Any]]:
    """Parse the VMDESCRIPTION that follows a migration's EOF.

    Raises
    ------
    UnexpectedSection
        If another section type comes.
    VMDescriptionError
        If it is longer than `size_limit` bytes, or is not a vmdescription.
    """
    offset = at.offset
    kind, length = SECTION.unpack((yield SECTION.size))
    if kind != SectionType.VMDESCRIPTION:
        raise UnexpectedSection(
            "after EOF",
            expected=section_type_name(SectionType.VMDESCRIPTION),
            found=section_type_name(kind),
            offset=offset,
        )
    if length > size_limit:
        raise VMDescriptionError(
            "vmdescription",
            expected=f"at most {size_limit} bytes",
            found=length,
            offset=offset + 1,
        )
    text = yield from sized_bytes(length)
    return vmdescription.decode(bytes(text), offset=offset + SECTION.size)


def _parts(identity: bytes) -> tuple[str, int, int]:
    """Split a section's identity into idstr, instance id and version id."""
    idstr = identity[: -SECTION_IDENTITY.size].decode(errors="backslashreplace")
    instance_id, version_id = SECTION_IDENTITY.unpack(identity[-SECTION_IDENTITY.size :])
    return idstr, instance_id, version_id


def _printable(identity: bytes) -> str:
    idstr, instance_id, _ = _parts(identity)
    return f"{idstr!r} instance {instance_id}"


def _title(device: Device) -> str:
    return f"device {device.idstr!r} instance {device.instance_id}"


def _names(kinds: frozenset[SectionType]) -> str:
    return " or ".join(section_type_name(kind) for kind in sorted(kinds))
